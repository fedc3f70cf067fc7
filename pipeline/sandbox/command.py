"""`dop sandbox serve`: the sandbox as a process of its own. Only argparse is imported until it runs."""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import fields
from pathlib import Path

from pipeline.sandbox.settings import (
    DEFAULT_SIZE,
    LONG_SIDES_PX,
    SandboxError,
    SandboxSettings,
    parse_duration,
)

DEFAULT_DATA = Path("outputs/sandbox")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `dop sandbox serve`."""
    parser.add_argument("--kind", choices=("pixazo", "higgsfield"), default="pixazo", help="whose API it imitates")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="0 = the folder's last port if free, else any")
    parser.add_argument("--key", help="subscription key to ask for; without it any key is accepted")
    parser.add_argument("--dialect", choices=("job-set", "queue"), default="job-set", help="shape of the submit answer")
    parser.add_argument("--rate", metavar="N/1m", help="limit on submits, e.g. 60/1m; default: none")
    parser.add_argument("--limiter", choices=("bucket", "fixed", "sliding"), default="bucket", help="kind of limit")
    parser.add_argument("--burst", type=int, metavar="N", help="capacity of the bucket; default: the rate's number")
    parser.add_argument("--shared-limit", action="store_true", help="polls draw on the same limit")
    parser.add_argument("--max-concurrent", type=int, metavar="N", help="cap on unfinished jobs")
    parser.add_argument("--concurrent-style", choices=("400", "429"), default="400", help="how the cap refuses")
    parser.add_argument("--retry-after", choices=("yes", "no", "misleading"), default="yes", help="hint of a 429")
    parser.add_argument("--generation", metavar="TIME", default="2s", help="typical time a job takes, e.g. 2s or 500ms")
    parser.add_argument("--size", choices=tuple(LONG_SIDES_PX), default=DEFAULT_SIZE, help="size of the clips")
    parser.add_argument("--one-clip", action="store_true", help="one clip for all jobs of an image (for benchmarks)")
    parser.add_argument(
        "--data", dest="data_dir", type=Path, default=DEFAULT_DATA, metavar="DIR", help="folder of books and clips"
    )
    parser.add_argument("--chaos", metavar="SEED", help="seed of a storm of failures; default: calm")
    parser.add_argument("--chaos-intensity", type=float, default=1.0, metavar="0..1", help="strength of the storm")
    text = "share of the clips that come out broken, or from 2 on a seed that chooses them"
    parser.add_argument("--defects", type=float, default=0.0, metavar="0..1|SEED", help=text)
    text = "kind higgsfield: take a repeated key as a new one"
    parser.add_argument("--ignore-keys", dest="honours_keys", action="store_false", help=text)
    parser.add_argument("--shape", type=int, metavar="N", help="number of the result shape that polls answer with")


def settings_of(args: argparse.Namespace) -> SandboxSettings:
    """The settings that the flags say: each flag is stored under the name of its setting.

    Raises:
        SandboxError: a flag's value is wrong.
    """
    names = {field.name for field in fields(SandboxSettings)}
    given = {name: value for name, value in vars(args).items() if name in names}
    return SandboxSettings(**given, generation_s=parse_duration(args.generation))


def main(args: argparse.Namespace) -> int:
    """Serve until INT, TERM or HUP. Returns the exit code: 0, or 2 when the sandbox cannot use its settings."""
    try:
        import asyncio  # noqa: PLC0415  # 20 ms that `dop --help` does not need

        asyncio.run(serve(settings_of(args)))
    except SandboxError as error:
        sys.stderr.write(f"dop sandbox serve: {error}\n")
        return 2
    return 0


async def serve(settings: SandboxSettings) -> None:
    """Print the base URL as the first line of stdout and serve until a signal comes."""
    import asyncio  # noqa: PLC0415

    from pipeline.sandbox.server import Sandbox  # noqa: PLC0415  # imports aiohttp and av

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` asks for
            loop.add_signal_handler(number, stopped.set)
    async with Sandbox(settings) as base_url:
        sys.stdout.write(f"{base_url}\n")
        sys.stdout.flush()
        await stopped.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m pipeline.sandbox.command", description="Serve the local gateway.")
    add_arguments(parser)
    sys.exit(main(parser.parse_args()))
