"""What surrounds the command in the acceptance tests: clocks that jump, other machines, terminals, faulty renames.

Everything here acts from outside the program: a start-up hook of the interpreter (sitecustomize) or a system call.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.cli_driver import Dop, Ended, Here
from tests.support.fake_gateway import GatewayDouble, Json

HOOKS = '''
import os

def _jump_the_clock():
    """The wall clock of this process is ahead of the machine's by so many seconds."""
    ahead = float(os.environ.get("TEST_CLOCK_AHEAD_S", "0"))
    if not ahead:
        return
    import datetime, time

    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + ahead
    time.time_ns = lambda: real_ns() + int(ahead * 1e9)

    class Ahead(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls):
            return cls.now(datetime.timezone.utc).replace(tzinfo=None)

    datetime.datetime = Ahead

def _die_at_a_rename():
    """SIGKILL when a file is about to take the name that the environment gives."""
    name = os.environ.get("TEST_DIE_AT_RENAME_TO")
    if not name:
        return
    replace, rename = os.replace, os.rename

    def dying(real):
        def call(source, target, **more):
            if os.fspath(target).endswith(name):
                os.kill(os.getpid(), 9)
            return real(source, target, **more)
        return call

    os.replace, os.rename = dying(replace), dying(rename)

_jump_the_clock()
_die_at_a_rename()
'''


def hooks(folder: Path) -> str:
    """A folder for PYTHONPATH whose start-up hook obeys `TEST_CLOCK_AHEAD_S` and `TEST_DIE_AT_RENAME_TO`."""
    place = folder / "start-up-hooks"
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(HOOKS)
    return str(place)


def hooked(dop: Dop, **environ: object) -> Dop:
    """The same user, each command a process of its own with these settings of the start-up hook."""
    own = {"PYTHONPATH": hooks(dop.folder), **{name: str(value) for name, value in environ.items()}}
    return Dop(folder=dop.folder, base_url=dop.base_url, environ=dop.environ | own)


def beside(dop: Dop, name: str) -> Here:
    """The same user (home, key, gateway) in another working folder, with an outputs folder of its own."""
    folder = dop.folder / name
    folder.mkdir(exist_ok=True)
    return Here(folder=folder, base_url=dop.base_url, environ=dop.environ | {"HOME": dop.environment()["HOME"]})


def stranger(dop: Dop, name: str) -> Here:
    """Another user of this machine: nothing in their home."""
    folder = dop.folder / name
    folder.mkdir(exist_ok=True)
    return Here(folder=folder, base_url=dop.base_url, environ=dict(dop.environ))


class Keyless(Here):
    """A user whose key is in the file ~/.pixazo/api-key, not in the environment."""

    def environment(self) -> dict[str, str]:
        environ = super().environment()
        return {name: value for name, value in environ.items() if name != "PIXAZO_API_KEY"}

    def keep_key(self, key: str) -> None:
        """Stores the key as the README says."""
        file = Path(self.environment()["HOME"]) / ".pixazo" / "api-key"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(key + "\n")
        file.chmod(0o600)


def ledger_files(dop: Dop) -> list[Path]:
    """The ledger and everything that lies beside it under its name."""
    return sorted(dop.outputs.glob("ledger*"))


def copy_ledger(source: Dop, target: Dop) -> None:
    """Copies the ledger and its side files into another outputs folder."""
    target.outputs.mkdir(parents=True, exist_ok=True)
    for file in ledger_files(source):
        shutil.copy2(file, target.outputs / file.name)


def care(dop: Dop, *words: str) -> Ended:
    """`dop ledger ...` on the user's own ledger."""
    return dop.typed("ledger", *words, "--outputs", str(dop.outputs))


def prompts(double: GatewayDouble) -> list[str]:
    """What the gateway charged for, with repetitions."""
    return sorted(str(job.body["prompt"]) for job in double.jobs.values())


class Capitals(GatewayDouble):
    """A gateway that writes the id of a job in small letters when it accepts it, and in capitals afterwards."""

    def _state(self, job: Any) -> Json:
        found: Json = _in_capitals(super()._state(job), job.job)
        return found


def _in_capitals(value: Any, job: str) -> Any:
    if isinstance(value, dict):
        return {name: _in_capitals(one, job) for name, one in value.items()}
    if isinstance(value, list):
        return [_in_capitals(one, job) for one in value]
    return job.upper() if value == job else value


def at_a_terminal(dop: Dop, words: Iterable[object], answer: str, *, timeout_s: float = 60) -> Ended:
    """The command with a terminal for stdin, stdout and stderr, which gets `answer` once it has asked something."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*map(str, words)],
        cwd=dop.folder,
        env=dop.environment() | {"TERM": "dumb"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    said, answered, until = b"", False, time.monotonic() + timeout_s
    try:
        while time.monotonic() < until:
            if select.select([leader], [], [], 0.1)[0]:
                try:
                    piece = os.read(leader, 65_536)
                except OSError:  # the other end is closed
                    break
                if not piece:
                    break
                said += piece
            if not answered and b"?" in said:
                os.write(leader, f"{answer}\n".encode())
                answered = True
        code = process.wait(timeout=10)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(leader)
    return Ended(code=code, out=said.decode(errors="replace"), err=said.decode(errors="replace"))
