"""The command line: words and flags become a call of one verb, errors become an exit code. Nothing else lives here.

Only argparse is imported at the top, so that `--help` answers at once; each verb brings what it needs.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pipeline.cli.parser import build_parser
from pipeline.cli.streams import close_stdout, harden_stdio
from pipeline.errors import DopError, ExitCode, FatalError, ManifestError

SENDING = ("run", "submit", "retry")
"""Commands that buy; of any other one it goes without saying that it sent nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    parser = build_parser()
    words = sys.argv[1:] if argv is None else argv
    if (broken := _undecoded(words)) is not None:
        print(f"dop: {broken}", file=sys.stderr)
        return ExitCode.USAGE
    args = parser.parse_args(words)
    if args.verb is None:
        parser.print_help(sys.stderr)
        return ExitCode.USAGE
    try:
        return _call(args)
    except ManifestError as error:
        print(*error.problems, sep="\n", file=sys.stderr)  # each begins with its place, which editors make a link of
        print(f"dop: {error.count}{'; nothing was sent' if args.verb in SENDING else ''}", file=sys.stderr)
        return error.exit_code
    except DopError as error:
        print(f"dop: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # A reader that had enough (`dop ls | head`) is no failure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - exit 1 and a traceback would say that the run finished
        print(f"dop: {_broken(error)}", file=sys.stderr)
        return FatalError.exit_code


def _broken(error: BaseException) -> str:
    """An error that no module expected: what, and where it came from."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-4:]))
    # Libraries quote what they were given: addresses with passwords, headers with the key.
    is_ours = type(error).__module__.partition(".")[0] not in ("psycopg", "psycopg_pool", "sqlalchemy", "aiohttp")
    text = f": {error}" if is_ours else ""
    return f"{type(error).__name__}{text} (at {places}). What was bought is in the ledger: run again"


def _undecoded(words: Sequence[str]) -> str | None:
    """What to do about an argument, or a working folder, whose bytes are no text; None where there is none.

    Python hands such bytes on as half surrogate pairs, which neither a ledger nor a report can hold.
    """
    with suppress(FileNotFoundError):  # the working folder was removed
        words = (*words, os.getcwd())
    broken = next((word for word in words if any("\ud800" <= sign <= "\udfff" for sign in word)), None)
    if broken is None:
        return None
    return (
        f"the name {broken!r} is not text in {sys.getfilesystemencoding()}: rename that file or folder. If other "
        "programs show the name well, set LC_ALL=C.UTF-8"
    )


def _call(args: argparse.Namespace) -> int:
    if args.target == "sandbox":
        from pipeline.sandbox.command import main as command
    else:
        module, _, name = args.target.partition(":")
        command = getattr(importlib.import_module(f"pipeline.cli.commands.{module}"), name)
    if signal.getsignal(signal.SIGINT) is _leave_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = command(args)
    assert isinstance(code, int)
    return code


def _leave_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """Ctrl-C while modules are loaded, before anything was done.

    An exception would be printed by one library and swallowed by another one, and then the command would continue.
    """
    os._exit(ExitCode.INTERRUPTED)


def _main_code() -> int:
    """The exit code of `main`; argparse leaves by an exception."""
    try:
        return main()
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 2


def entry() -> NoReturn:
    """The `dop` command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # ignored under nohup, which stays so
        signal.signal(signal.SIGINT, _leave_at_once)
    harden_stdio()
    gc.set_threshold(10_000)  # by default every 700 objects are looked over: 4 % of a run's work
    code = close_stdout(_main_code())
    gc.freeze()  # what is alive now dies with the process: no last collection has to go through it, which is 60 ms
    sys.exit(code)
