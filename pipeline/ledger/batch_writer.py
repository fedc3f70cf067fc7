"""One batch of changes, judged against the rows of one transaction and written in it.

MONEY: every change is a compare-and-swap. The rows are read under the write lock, `transitions` judges each change by
the table of states, and rows, money, history and the number of the event are written in the same transaction.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

from pipeline.errors import DopError, LedgerError
from pipeline.ledger.batch_statements import Executor
from pipeline.ledger.journal import row_entry, sealed
from pipeline.ledger.kept_rows import KeptRows
from pipeline.ledger.schema import checksum
from pipeline.ledger.statements import Statements, changed_columns
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import Applied, LedgerChange, Row, SpendAccumulator, apply_change, utc_day
from pipeline.ledger.write_queue import QueuedWrite, WriteResult
from pipeline.records import canonical_job_id, job_id_spellings

Keep = Callable[[Executor, Sequence[Mapping[str, object]]], None]
"""Writes journal lines in the transaction that is open, where the journal is in the database."""


class BatchWriter:
    """Writes batches of changes. It knows the number of the newest event and the hash chain after it.

    Args:
        name: where the ledger is, for messages.
        ledger_id: the ledger's id, which enters the chain.
        keep: writes journal lines in the same transaction.
    """

    def __init__(
        self,
        statements: Statements,
        *,
        name: str,
        ledger_id: Callable[[], str],
        seq: int,
        chain: str,
        newest_at: float,
        keep: Keep,
    ) -> None:
        self.seq, self.chain = seq, chain
        self.newest_at = newest_at
        """Unix seconds of the newest event, by the clock that counts"""
        self._sql = statements
        self._kept = KeptRows()
        self._changed: dict[str, Row] = {}  # by the transaction that is open, or was committed last
        self._name, self._ledger_id, self._keep = name, ledger_id, keep

    def moved_to(self, seq: int, chain: str) -> None:
        """The newest event that is durable, once its transaction was committed."""
        self.seq, self.chain = seq, chain

    def committed(self, entries: Sequence[Mapping[str, object]]) -> None:
        """What `write` wrote is durable, with these journal lines."""
        # `write` counted from what the database said.
        self.moved_to(self.seq + len(entries), str(entries[-1]["chain"]))
        self._kept.keep(self._changed)

    def forget_rows(self) -> None:
        """Something else was written, or a transaction failed: every row is read again before its next change."""
        self._kept.forget()

    def begin_day_at(self, newest_at: float) -> None:
        """No later change is recorded on a day before this time (Unix seconds)."""
        self.newest_at = newest_at

    def write(
        self, hand: Executor, batch: Sequence[QueuedWrite], entries: list[dict[str, object]]
    ) -> list[WriteResult]:
        """Write the changes of `batch` within the transaction that is open; `entries` takes their journal lines.

        The transaction judges the whole batch in its order: each change sees the rows, the money and the owners of job
        ids as the changes before it left them, so that two of one batch cannot both spend the last dollar of a cap. A
        change that is refused writes nothing, and the rest of the batch is committed all the same.
        """
        changes = [job.change for job in batch if job.change is not None]
        # First of all reads: on a server this takes the row of the counter, and until the commit no other host changes
        # what is read below.
        self.seq, chain = self._sql.head(hand)
        rows = self._rows(hand, changes)
        owners = self._sql.owners(hand, {str(row["gateway"]) for row in rows.values()}, _jobs_named(changes))
        money = self._money(hand)

        def owner_of(gateway: str, job_set_id: str) -> str | None:
            return owners.get((gateway, canonical_job_id(job_set_id)))

        results: list[WriteResult] = []
        before: dict[str, Row] = {}
        lines: list[tuple[object, ...]] = []
        for change in changes:
            row = rows.get(change.request_id)
            # The row before the first of its changes here: what differs from it in the end is written.
            first = dict(row) if row is not None and change.request_id not in before else None
            try:
                outcome = apply_change(row, change, money=money, job_owner=owner_of)
            except DopError as error:
                results.append((None, error))
                continue
            if isinstance(outcome, Applied) and row is not None:
                # A later change of this batch must see that the job has an owner now: one job belongs to one request.
                if "job_set_id" in change.values:
                    owners[str(row["gateway"]), canonical_job_id(str(row["job_set_id"]))] = change.request_id
                row["checksum"] = checksum(row)
                if first is not None:
                    before[change.request_id] = first
                # Every event seals all events before it: one that is lost or altered afterwards breaks the chain.
                lines.append(_history_line(row, change))
                entries.append(row_entry(row, change, self.seq + len(entries) + 1))
                chain = sealed(entries[-1], self._ledger_id(), chain)
                # A copy for the caller: the next change of the same request in this batch alters `row`.
                outcome = outcome.copied()
            results.append((outcome, None))
        self._changed = {name: rows[name] for name in before}
        if before:
            # MONEY: all of it in one transaction, or the next start sees a purchase that never was, or misses one.
            changed = [(rows[name], changed_columns(row, rows[name])) for name, row in before.items()]
            self._sql.save(hand, changed, lines)
            self._sql.add_spend(hand, money.deltas)
            self._sql.set_head(hand, self.seq + len(lines), chain)
            self._add_cold(hand, entries)
            self._keep(hand, entries)
        return results

    def _money(self, hand: Executor) -> SpendAccumulator:
        # Asked once a batch, and only where money moves. On a server its clock gives the day, for all hosts alike.
        moment = functools.cache(lambda: self._sql.moment(hand))
        return SpendAccumulator(
            lambda span, gateway, key: self._sql.spent(hand, span, gateway, key),
            day_of=lambda at: self._day_of(moment() or at),
        )

    def _day_of(self, at: float) -> str:
        """MONEY: the day of a budget never runs backwards, so that a clock that is set back opens no cap again."""
        self.newest_at = max(self.newest_at, at)
        return utc_day(self.newest_at)

    def _rows(self, hand: Executor, changes: Sequence[LedgerChange]) -> dict[str, Row]:
        self._kept.begin(self._sql.data_version(hand))
        wanted = {change.request_id for change in changes}
        rows = self._kept.take(wanted)
        if unknown := wanted - rows.keys():
            found = self._sql.rows(hand, unknown)
            for row in found.values():
                # MONEY: before anything is changed. A flipped bit would be covered by the row's next checksum, and pass
                # for right ever after.
                if row["checksum"] != checksum(row):
                    raise _damaged(self._name, row)
            rows |= found
        return rows

    def _add_cold(self, hand: Executor, entries: Sequence[dict[str, object]]) -> None:
        """An intent's journal line holds the whole request, so that the journal alone can rebuild the ledger."""
        reserved = {str(entry["request_id"]): entry for entry in entries if entry["event"] == Event.RESERVE}
        if reserved:
            for request_id, cold in self._sql.cold(hand, reserved).items():
                reserved[request_id]["cold"] = cold


def _history_line(row: Row, change: LedgerChange) -> tuple[object, ...]:
    """The event as `Statements.save` takes it."""
    return change.request_id, row["attempt"], change.at, change.event.value, row["state"], change.detail


def _jobs_named(changes: Iterable[LedgerChange]) -> list[str]:
    """Every spelling under which the ledger may hold the job ids that the changes set."""
    named = (str(change.values["job_set_id"]) for change in changes if change.values.get("job_set_id") is not None)
    return [spelling for job_id in named for spelling in job_id_spellings(job_id)]


def _damaged(name: str, row: Row) -> LedgerError:
    return LedgerError(
        f"{name}: the row of request {row['request_id']} does not match its checksum; nothing is bought with a damaged "
        "ledger. `dop ledger check` lists everything, `dop ledger rebuild` makes it again from its journal"
    )
