"""The command at a pseudo-terminal, for questions that only a terminal is asked."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from tests.support.cli_driver import Dop


class Terminal:
    """The command at a terminal, in a process of its own: what it says can be awaited, answers can be typed."""

    MAX_WAIT_S = 30.0

    def __init__(self, dop: Dop, verb: str, *words: object) -> None:
        self._master, slave = pty.openpty()
        self.said = ""
        self.process = subprocess.Popen(
            dop.words(verb, [*words, "--no-progress"]),
            cwd=dop.folder,
            env=dop.environment(),
            stdin=slave,
            stdout=subprocess.DEVNULL,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self._master)

    def asks(self) -> bool:
        """Reads on until the next question, or the command's end; whether it was a question."""
        begun = len(self.said)
        return self._read(lambda: "[y/N]" in self.said[begun:])

    def type(self, answer: str) -> None:
        """One line."""
        os.write(self._master, f"{answer}\n".encode())

    def ended(self) -> int:
        """Reads on to the end; the exit code."""
        self._read(lambda: False)
        return self.process.wait(timeout=self.MAX_WAIT_S)

    def _read(self, enough: Callable[[], bool]) -> bool:
        until = time.monotonic() + self.MAX_WAIT_S
        while not enough():
            assert time.monotonic() < until, self.said
            ready, _, _ = select.select([self._master], [], [], 0.1)
            if not ready:
                continue
            text = b""
            with suppress(OSError):  # the other end of a terminal that no process holds any more
                text = os.read(self._master, 65536)
            if not text:
                return False
            self.said += text.decode("utf-8", "replace")
        return True
