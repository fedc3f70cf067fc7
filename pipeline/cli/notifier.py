"""Notifications of one command: the end of each run, and whatever needs the operator meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.cli.arguments import print_warnings
from pipeline.config.settings import Settings
from pipeline.errors import DopError, LockedError, UsageError
from pipeline.ledger.run_registry import Run
from pipeline.reports.notifications import notify
from pipeline.reports.run_ending import RunSummary, money_words

NEEDS_USER = frozenset({2, 3, 7, 8})
"""Exit codes after which the same command again does not help: the operator has to decide or to put something right."""


class Notifier:
    """Sends the notifications of one command, each in a thread of its own, so that none holds up a record.

    `close` waits for those in flight, at most `notify.timeout_s` each way.
    """

    def __init__(self, settings: Settings, verb: str) -> None:
        self._settings, self._verb = settings.notify, verb
        self._gateway = settings.gateway.base_url
        self._threads: list[threading.Thread] = []
        self._sent: set[str] = set()

    @property
    def is_on(self) -> bool:
        """Whether anything is to be notified."""
        return self._settings.command is not None or self._settings.url is not None

    def ended(self, summary: RunSummary) -> None:
        """A run of the command ended."""
        lines = summary.lines()
        needs_you = summary.exit_code in NEEDS_USER or bool(summary.keepers.waiting)
        self._send("run_ended", "\n".join(lines), needs_you=needs_you, summary=summary.as_json())

    def needs_user(self, run: Run, text: str) -> None:
        """Something of a run that continues needs the operator; the same words are sent once."""
        self._send("needs_you", f"{run.run_id}: {text}", needs_you=True, summary={"run": run.run_id, "reason": text})

    def failed(self, error: DopError) -> None:
        """The command ended before a run began."""
        self._send("failed", str(error), needs_you=True, summary={"exit_code": error.exit_code, "reason": str(error)})

    def _send(self, event: str, text: str, *, needs_you: bool, summary: dict[str, object]) -> None:
        if not self.is_on or f"{event} {text}" in self._sent:
            return
        self._sent.add(f"{event} {text}")
        where = money_words(self._gateway)
        said = {"event": event, "command": self._verb, "needs_you": needs_you}
        sent = {**said, "text": f"dop {self._verb} ({where})\n{text}", **summary}
        thread = threading.Thread(target=self._deliver, args=(sent,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _deliver(self, event: dict[str, object]) -> None:
        print_warnings(notify(self._settings, event, os.environ))

    def close(self) -> None:
        """Wait for what is being sent."""
        for thread in self._threads:
            # The program and the address are served one after the other, each within its own time limit.
            thread.join(2 * self._settings.timeout_s + 1.0)


@contextmanager
def notifying(settings: Settings, verb: str) -> Iterator[Notifier]:
    """The notifier of a command. An error that ends it before a run began is notified too, a wrong manifest is not."""
    notifier = Notifier(settings, verb)
    try:
        yield notifier
    except DopError as error:
        if not isinstance(error, UsageError | LockedError):
            notifier.failed(error)
        raise
    finally:
        notifier.close()
