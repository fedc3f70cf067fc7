"""What must hold between a ledger's file and the journal beside it before money moves.

MONEY: the journal follows the file. Where it is ahead, the file lost events, which are recorded again; where it lacks
some of those events, one of them may be a purchase that nothing here names, so nothing is bought.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, func, select

from pipeline.errors import LedgerError
from pipeline.ledger.database import read_meta
from pipeline.ledger.identity import COPY, HOLE, LEDGER_ID, is_elsewhere, place_of
from pipeline.ledger.journal import SNAPSHOT, read_tail
from pipeline.ledger.journal_check import ForeignJournalError, ForkedJournalError, Gap, JournalWalk, lines_of
from pipeline.ledger.replay import ReplayResult, replay
from pipeline.ledger.schema import history, runs
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import counted

SETTLE = (
    "`dop ledger rebuild` makes the ledger from what is left. The next `dop run MANIFEST` then lists the rows that it "
    "does not know as unknown instead of buying them, and `dop resolve ROW --charged`, `--adopt JOB` or `--resend` "
    "settles each; the gateway's own list of jobs says which were bought"
)
"""How the operator closes a hole. It never leads to a second purchase on its own."""


def hole_text(name: str, gaps: list[Gap]) -> str:
    """What a hole means, for the operator."""
    missing = sum(gap.last - gap.first + 1 for gap in gaps)
    events = "; ".join(str(gap) for gap in gaps[:5]) + ("; .." if len(gaps) > 5 else "")
    return (
        f"the journal {name} lacks {missing} event{'s' if missing > 1 else ''} that the ledger does not hold either: "
        f"{events}. Rows that the ledger does not know may be bought already"
    )


def mark_of(gaps: list[Gap]) -> str:
    """The mark of a ledger with a hole: the numbers of the missing events."""
    return ", ".join(f"{gap.first}-{gap.last}" for gap in gaps)


def origin_of(journal: Path) -> dict[str, str | None]:
    """What a database that has just been made takes from the journal beside it: the id, and whether it is a copy."""
    walk = JournalWalk(str(journal))
    try:
        for _ in walk.entries(lines_of(journal)):
            pass
    except ForeignJournalError:
        return {COPY: "its journal holds lines of several ledgers"}
    if walk.seq == 0 and not walk.damaged:
        return {}
    found: dict[str, str | None] = {}
    if LEDGER_ID in walk.facts:
        found[LEDGER_ID] = walk.facts[LEDGER_ID]
    if walk.place is None or is_elsewhere(walk.place, place_of(journal)):
        found[COPY] = "it was made from a journal that was copied here"
    return found


def is_new(connection: Connection) -> bool:
    """Whether nothing was ever written to the ledger."""
    has_runs = connection.execute(select(func.count()).select_from(runs)).scalar_one()
    return read_meta(connection)["seq"] == "0" and not has_runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """Brings a ledger in a file and its journal together. `write_again` writes the journal again from the file."""

    ledger: LedgerWriter
    journal: Path
    write_again: Callable[[], None]

    def run(self) -> list[str]:
        """Returns notices for the operator.

        Raises:
            ForeignJournalError: the journal belongs to another ledger, or tells another history of this one.
            LedgerError: events are lost that may have been purchases.
        """
        seq, chain = self.ledger.head
        last, damaged = read_tail(self.journal)
        if last is None:
            is_unread = self.journal.is_file() and self.journal.stat().st_size > 0
            if damaged or (is_unread and not seq):
                raise LedgerError(f"{hole_text(str(self.journal), [Gap(1, 1, 'no line can be read')])}. {SETTLE}")
            if seq:
                self.write_again()
            return []
        self._check_owner(last)
        last_seq = int(str(last["seq"]))
        if last_seq > seq:
            return self._catch_up(last_seq)
        if last_seq + damaged > seq and "change" not in last:
            # MONEY: each damaged line was an event, so the file may be a backup from before the last of them.
            gap = Gap(seq + 1, last_seq + damaged, "their lines are damaged")
            raise LedgerError(f"{hole_text(str(self.journal), [gap])}; nothing is bought. {SETTLE}")
        if last_seq < seq or last.get("event") == SNAPSHOT:
            self._check_is_ours(last)
            self.write_again()
        # The same number and another chain: file and journal have gone different ways since a common past.
        elif "chain" in last and last["chain"] != chain:
            raise ForkedJournalError(self._other_history())
        return []

    def _check_owner(self, last: dict[str, object]) -> None:
        owner = last.get("ledger", self.ledger.ledger_id)
        if owner != self.ledger.ledger_id:
            raise ForeignJournalError(
                f"the journal {self.journal} belongs to another ledger ({owner}, and {self.ledger.name} is "
                f"{self.ledger.ledger_id}); nothing is bought. Put the ledger's own journal there; `dop ledger check` "
                "says more"
            )

    def _other_history(self) -> str:
        return (
            f"the journal {self.journal} and {self.ledger.name} tell different events: one of them is a copy's, which "
            "was spent with; nothing is bought. Put the two that belong together there; `dop ledger check` says more"
        )

    def _check_is_ours(self, last: dict[str, object]) -> None:
        """A journal that is behind must end with an event that the ledger knows; otherwise a copy wrote it."""
        if "request_id" not in last or last.get("event") == SNAPSHOT:
            return
        same = (
            (history.c.request_id == last["request_id"])
            & (history.c.event == str(last["event"]))
            & (history.c.at == last["at"])
        )
        if not self.ledger.ask(select(history.c.seq).where(same).limit(1)):
            raise ForkedJournalError(self._other_history())

    def _catch_up(self, last_seq: int) -> list[str]:
        seq, chain = self.ledger.head
        name = str(self.journal)
        walk = JournalWalk(name, ledger_id=self.ledger.ledger_id, at=(seq, chain), after=seq)

        def work(connection: Connection) -> ReplayResult:
            result = replay(connection, walk.entries(lines_of(self.journal)))
            gaps = walk.lacks(seq) + [Gap(one.seq, one.seq, str(one)) for one in result.unnamed]
            # Within the transaction, so that nothing of the journal is recorded unless all that is missing can be.
            if gaps:
                raise LedgerError(f"{hole_text(name, gaps)}; nothing is bought. {SETTLE}")
            return result

        result = self.ledger.transact(work)
        self.ledger.reload()
        notices = [f"the ledger was {counted(last_seq - seq, 'event')} behind its journal, and is level with it now"]
        return notices + [f"warning: {one}" for one in result.passed_over]


def hole_notice(facts: dict[str, str]) -> list[str]:
    """What the operator hears at each start while a hole is open."""
    if HOLE not in facts:
        return []
    return [
        f"the ledger lacks events {facts[HOLE]}: rows that it does not know are listed as unknown, not bought; "
        "when all are settled, `dop ledger adopt` closes the hole"
    ]
