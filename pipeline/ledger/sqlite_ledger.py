"""The ledger in a SQLite file: what must hold before money moves, its second book, and a disk that runs full.

Measured: set-based writes in one thread beat async drivers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from pipeline.errors import LedgerError
from pipeline.files import LEDGER_UMASK
from pipeline.ledger.clock import CLOCK, is_behind, last_history_number, newest_event_at
from pipeline.ledger.database import LedgerOutdatedError, create_or_check, sqlite_engine, write_meta
from pipeline.ledger.file_commits import FileCommits
from pipeline.ledger.file_in_place import lost_file
from pipeline.ledger.file_readers import FileReaders
from pipeline.ledger.gateway_names import map_gateways
from pipeline.ledger.identity import (
    COPY,
    HOLE,
    INODE,
    JOURNAL_PLACE,
    JOURNAL_STALE,
    MACHINE,
    MOVED,
    inode_of,
    is_elsewhere,
    machine_id,
    place_of,
)
from pipeline.ledger.journal import Journal
from pipeline.ledger.journal_again import journal_again
from pipeline.ledger.journal_check import lines_of
from pipeline.ledger.journal_sync import Reconciliation, hole_notice, is_new, origin_of
from pipeline.ledger.migrations import migrate
from pipeline.ledger.side_files import found_journal, keep_spare, spare_path, take_over_old_files, usable_journal
from pipeline.ledger.spending_checks import audited_now, check_not_moved, check_sums
from pipeline.ledger.write_queue import QueuedWrite
from pipeline.ledger.writer import LedgerWriter


class SqliteLedger(LedgerWriter):
    """An open ledger in a file."""

    def __init__(self, path: Path, *, inline: bool = False, may_migrate: bool = False) -> None:
        """Opens or makes the ledger at `path`.

        Args:
            may_migrate: bring an earlier version up to date; only under the lock.
        Raises:
            LedgerError: damaged, newer, or not writable.
            LedgerOutdatedError: of an earlier version, and it may not be brought up to date here.
        """
        super().__init__(inline=inline)
        self.name = str(path)
        self.path = path = path.resolve()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            old_mask = os.umask(LEDGER_UMASK)
            try:
                self.engine = sqlite_engine(path, write=True)
                self.facts = self._facts(may_migrate)
            finally:
                os.umask(old_mask)
        except OSError as error:
            raise LedgerError(f"the ledger {path} can't be written: {error.strerror}") from None
        self.reader = FileReaders(path)
        self.journal = Journal(found_journal(path))
        self.spare = spare_path(path)
        self._start()
        self._commits = FileCommits(
            path,
            self.engine,
            batches=self._batches,
            journal=lambda: self.journal,
            ledger_id=lambda: self.ledger_id,
            spare=self.spare,
            deliver=self._deliver,
        )
        self._take_origin()

    def _take_origin(self) -> None:
        """A database that is made beside a journal is that journal's ledger, or a copy of it."""
        if self.head[0] == 0 and (origin := origin_of(self.journal.path)):

            def work(connection: Connection) -> None:
                if is_new(connection):
                    write_meta(connection, origin)

            self.transact(work)
            self.reload()

    @property
    def name_in_full(self) -> str:
        """The file's path, without symbolic links."""
        return str(self.path)

    def _facts(self, may_migrate: bool) -> dict[str, str]:
        try:
            return create_or_check(self.engine, str(self.path))
        except LedgerOutdatedError:
            if not may_migrate:
                raise
        done = migrate(self.engine, self.path)
        if done is not None:
            self._notices.append(
                f"the ledger was of version {done[0]} and is up to date now; {done[1]} is a copy of before"
            )
        return create_or_check(self.engine, str(self.path))

    @property
    def is_copy(self) -> bool:
        """Whether this file, or the journal it was made from, was copied from the one that was last spent with."""
        known = f"{self.facts.get(MACHINE) or '?'}/{self.facts[INODE]}" if INODE in self.facts else None
        return COPY in self.facts or is_elsewhere(known, place_of(self.path))

    def ready_to_spend(self) -> list[str]:
        """Checks everything that must hold before money moves; returns notices for the operator.

        Raises:
            LedgerError: copied, damaged, or its journal belongs to another ledger or lacks what the file lacks.
        """
        try:
            return self._made_ready()
        except (DatabaseError, UnicodeError) as error:
            cause = getattr(error, "orig", "a text of the file can't be read")
            raise LedgerError(
                f"{self.name} is damaged: {cause}; nothing is bought with it. `dop ledger check` lists everything"
            ) from None

    def _made_ready(self) -> list[str]:
        notices = list(self._notices)
        if self.is_copy:
            raise LedgerError(
                f"{self.name} is a copy or was restored from one, and spending with two copies pays twice. "
                "If this is the only one in use now, say so with `dop ledger adopt`"
            )
        # Before the journal is read: nothing is recorded on top of damaged rows.
        notices += check_sums(self.reader, self.facts, self.name)
        notices += self._meet_journal()
        # After it: its last lines may say that the ledger was moved.
        check_not_moved(self.facts, self.name)
        notices += hole_notice(self.facts)
        with self.reader.connect() as connection:
            self._batches.begin_day_at(newest_event_at(connection, self.facts.get(CLOCK)))
        keep_spare(self.spare)
        self.note_place()
        # Behind all checks: until a clean end takes it back, this mark makes the next start look at what was written.
        self.transact(lambda connection: write_meta(connection, {"clean": "no", **audited_now(connection)}))
        self.facts["clean"] = "no"
        self._commits.begin_spending()
        return notices

    def _meet_journal(self) -> list[str]:
        """Brings file and journal together; returns notices.

        Raises:
            LedgerError: the journal can't be used, belongs to another ledger, or lacks what the file lacks.
        """
        take_over_old_files(self.path)
        if self.journal.path != found_journal(self.path):
            self.journal.close()
            self.journal = Journal(found_journal(self.path))
        with usable_journal(self.journal.path):
            notices = Reconciliation(ledger=self, journal=self.journal.path, write_again=self.write_journal_again).run()
            # After the reconciliation: events that only the journal has still name requests by their old ids.
            if renamed := self.transact(map_gateways):
                notices += renamed
                self.reload()
            if JOURNAL_STALE in self.facts:
                self._replace_stale_journal()
            self.journal.create()
        return notices

    def _replace_stale_journal(self) -> None:
        """Requests got other ids with their gateway's name: the journal is written again, and the old one is kept."""
        self.journal.close()
        if self.journal.path.exists():
            self.journal.path.rename(self.journal.path.with_name(f"{self.journal.path.name}.old-names"))
        self.write_journal_again()
        # Behind the new journal: after a crash in between, it is written once more.
        self.transact(lambda connection: write_meta(connection, {JOURNAL_STALE: None}))
        self.reload()

    def note_place(self) -> None:
        """Writes down where the file and its journal are, when that is new. The journal is there already."""
        here = {INODE: inode_of(self.path), MACHINE: machine_id(), JOURNAL_PLACE: place_of(self.journal.path)}
        if any(self.facts.get(name) != value for name, value in here.items()):
            self.mark(here)

    def journal_lines(self) -> Iterator[str]:
        """The lines of the journal beside the file."""
        return lines_of(self.journal.path)

    def adopt(self, now: float, *, keep_hole: bool = False) -> list[str]:
        """Takes this file for the one ledger that spends, and what it knows for all there is: the operator said so.

        Args:
            keep_hole: what it lacks is not settled: only that it is a copy, or was moved, is taken back.
        Returns:
            Notices.
        Raises:
            LedgerError: its journal belongs to another ledger, or lacks what the file lacks.
        """
        notices = self._meet_journal()
        with self.reader.connect() as connection:
            newest_at, number = newest_event_at(connection, self.facts.get(CLOCK)), last_history_number(connection)
        self.mark(
            {
                CLOCK: str(number) if is_behind(now, newest_at) else self.facts.get(CLOCK),
                COPY: None,
                MOVED: None,
                HOLE: self.facts.get(HOLE) if keep_hole else None,
                INODE: inode_of(self.path),
                MACHINE: machine_id(),
                JOURNAL_PLACE: place_of(self.journal.path),
            }
        )
        return notices

    # -- the writer

    def _alone(self, job: QueuedWrite) -> None:
        self._commits.alone(job)

    def _commit(self, batch: Sequence[QueuedWrite]) -> None:
        self._commits.commit(batch)

    def _keep_beside(self, entries: list[dict[str, object]]) -> None:
        try:
            self.journal.append(entries, sync=True)
        except OSError as error:
            raise LedgerError(f"the journal {self.journal.path} can't be written ({error.strerror})") from None

    def write_journal_again(self) -> None:
        """The journal lags behind (lost, or cut by a power failure): the rows as they are now are written to it."""
        seq, chain = self.head
        with self.reader.connect() as connection:
            self.journal.append(journal_again(connection, self.facts, seq=seq, chain=chain), sync=True)

    def close(self, *, clean: bool = True) -> None:
        """Writes what waits, marks a clean end, and lets go of the file.

        Raises:
            LedgerError: the file was removed or replaced while it was spent with; the message names its copy.
        """
        lost = lost_file(self.path, self.transact) if self._commits.is_file_gone() else None
        # A clean end vouches for every row, so it is written only where money moved and nothing failed.
        if clean and self.facts.get("clean") == "no" and self._commits.failure is None and lost is None:
            self._close_sums()
        self._writes.end()
        with suppress(OSError):  # a full disk: what the journal lacks is written to it at the next start
            self.journal.close()
        self.engine.dispose()
        self.reader.dispose()
        if lost is not None:
            raise lost
