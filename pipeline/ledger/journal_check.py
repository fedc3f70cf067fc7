"""Reads a journal back, and finds what it lacks: numbers, the hash chain and the counts of snapshots are compared.

MONEY: an event that is missing may be a purchase. The code that replays a journal asks `JournalWalk` afterwards what it
lacked, and records nothing as "never sent" that the missing events may have sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, select

from pipeline.errors import LedgerError
from pipeline.ledger.identity import GENESIS, JOURNAL_PLACE, LEDGER_ID, MARKS
from pipeline.ledger.journal import MARK, SNAPSHOT, SNAPSHOT_END, entry_of, is_interrupted, link_of
from pipeline.ledger.schema import journal


class ForeignJournalError(LedgerError):
    """The journal belongs to another ledger."""


class ForkedJournalError(ForeignJournalError):
    """The journal tells another history of this ledger: a copy was spent with."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Events `first`..`last` that a journal does not tell; `why` says what is wrong with its lines."""

    first: int
    last: int
    why: str

    def __str__(self) -> str:
        events = f"event {self.first}" if self.first == self.last else f"events {self.first} to {self.last}"
        return f"{events} ({self.why})"


@dataclass(slots=True)
class JournalWalk:
    """One reading of a journal, from its first line to its last. `entries` reads; the other fields say what it found.

    Args:
        name: of the journal, for messages.
        ledger_id: of the ledger that it should belong to; None takes the journal's own.
        at: number and chain of the event that the database knows last; the chain at that number must be the same.
        after: entries up to this number are compared and not handed out.
    """

    name: str
    ledger_id: str | None = None
    at: tuple[int, str] | None = None
    after: int = -1
    seq: int = 0
    chain: str = GENESIS
    gaps: list[Gap] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    """marks and places, as the last line that names them has them"""
    _begun: bool = False
    _lines: list[int] = field(default_factory=list)
    _lost: int = 0
    """damaged lines after the last whole one, without an append that was interrupted: each was an event"""
    _snapshots: int = 0
    _block_seq: int = 0
    _broken_block: bool = False
    _last_event: str = ""

    def entries(self, lines: Iterable[str]) -> Iterator[dict[str, object]]:
        """Every whole entry whose number is above `after`, in order.

        Raises:
            ForeignJournalError: a line belongs to another ledger.
            ForkedJournalError: the journal tells another history of this ledger.
        """
        for number, line in enumerate(lines, start=1):
            entry = entry_of(line)
            if entry is None or not isinstance(entry.get("seq"), int):
                self._lines.append(number)
                self._lost += not is_interrupted(line)
                self.damaged.append(number)
                continue
            self._check_owner(entry)
            self._take(entry)
            # A snapshot bears the number before that of its block's end (journal_again), and tells what holds at that
            # end.
            if int(str(entry["seq"])) + (entry.get("event") == SNAPSHOT) > self.after:
                yield entry

    @property
    def is_torn(self) -> bool:
        """Whether damaged lines follow the last whole one: at least one event is lost there.

        Lines of changes that the database could not take never hold an intent, so no purchase is lost with them.
        """
        return bool(self._lines) and self._last_event != "change"

    def lacks(self, known: int) -> list[Gap]:
        """What is missing of the events after number `known`."""
        found = [gap for gap in self.gaps if gap.last > known]
        if self._snapshots and self._block_seq > max(known, self.seq):
            found.append(Gap(self.seq + 1, self._block_seq, "the lines that replaced these events have no end"))
        if self.is_torn and self.seq > known:
            found.append(Gap(self.seq + 1, self.seq + 1, f"line {self._lines[0]} is damaged, and nothing follows"))
        elif self.is_torn and self.seq == 0:
            found.append(Gap(1, 1, "no line can be read"))
        elif self.is_torn and self.seq + self._lost > known:
            found.append(Gap(known + 1, self.seq + self._lost, "their lines are damaged"))
        return found

    def _check_owner(self, entry: Mapping[str, object]) -> None:
        owner = entry.get("ledger")
        if not isinstance(owner, str):
            return
        if self.ledger_id is None:
            self.ledger_id = owner
        if owner != self.ledger_id:
            raise ForeignJournalError(
                f"the journal {self.name} belongs to another ledger ({owner}, and this one is {self.ledger_id})"
            )
        self.facts[LEDGER_ID] = owner

    def _take(self, entry: Mapping[str, object]) -> None:
        event, seq = entry.get("event"), int(str(entry["seq"]))
        if event == SNAPSHOT:
            if entry.get("number") == 1:  # one before it was cut
                self._snapshots, self._broken_block, self._lines, self._lost = 0, False, [], 0
            self._broken_block = self._broken_block or bool(self._lines)
            self._snapshots += 1
            self._block_seq = seq + 1
            return
        if event == SNAPSHOT_END:
            self._end_block(entry, seq)
        else:
            self._follow(entry, seq)
        if event == MARK:
            self._learn(entry.get("set"))
        self._begun = True
        self._lines, self._lost = [], 0
        self._last_event = "change" if "change" in entry else "row"
        if self.at is not None and seq == self.at[0] and "chain" in entry and self.chain != self.at[1]:
            raise ForkedJournalError(
                f"the journal {self.name} and the ledger went different ways before event {seq}: one of them belongs "
                "to a copy that was spent with"
            )

    def _end_block(self, entry: Mapping[str, object], seq: int) -> None:
        is_whole = not self._broken_block and not self._lines and entry.get("count", self._snapshots) == self._snapshots
        if is_whole:
            # The rows of a whole block replace everything before it, and with that whatever was missing there.
            self.gaps.clear()
        elif seq > self.seq:
            self.gaps.append(Gap(self.seq + 1, seq, "the lines that replaced these events are not all there"))
        self._snapshots, self._broken_block = 0, False
        self.seq, self.chain = seq, str(entry.get("chain", self.chain))
        marks = entry.get("marks")
        if isinstance(marks, dict):
            # The end of a block names every mark that the ledger bears. One that it does not name was removed.
            for name in MARKS:
                self.facts.pop(name, None)
            self._learn(marks)

    def _follow(self, entry: Mapping[str, object], seq: int) -> None:
        link, expected = entry.get("chain"), self.seq + 1
        if self._snapshots:  # a block without its end
            self._snapshots, self._broken_block = 0, False
        lines = f"line {', '.join(map(str, self._lines[:3]))} is damaged" if self._lines else "their lines are missing"
        if seq > expected:
            self.gaps.append(Gap(expected, seq - 1, lines))
        elif seq < expected:
            self.gaps.append(Gap(seq, self.seq, "numbers run backwards"))
        elif isinstance(link, str) and link_of(entry, self.chain) != link:
            self.gaps.append(Gap(seq, seq, "it does not follow from the events before it"))
        self.seq, self.chain = seq, str(link) if isinstance(link, str) else self.chain

    def _learn(self, values: object) -> None:
        if isinstance(values, dict):
            for name, value in values.items():
                if value is None:
                    self.facts.pop(name, None)
                else:
                    self.facts[str(name)] = str(value)

    @property
    def place(self) -> str | None:
        """Where the journal was when its ledger last spent."""
        return self.facts.get(JOURNAL_PLACE)


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a journal's file; none when there is no file."""
    if path.is_file():
        with path.open(encoding="ascii", errors="replace", newline="\n") as lines:
            yield from lines


def table_lines(connection: Connection) -> Iterator[str]:
    """The lines of the journal that is kept in a database, in order."""
    statement = select(journal.c.line).order_by(journal.c.number)
    for (line,) in connection.execution_options(yield_per=2_000).execute(statement):
        yield f"{line}\n"
