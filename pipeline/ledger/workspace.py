"""Opens the ledger: for questions, for spending under its lock, or beside the other workers of a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.key_origins import state_folder
from pipeline.config.loader import Settings, gateway_id
from pipeline.errors import UsageError
from pipeline.ledger import postgres_session
from pipeline.ledger.accounts import Account, AccountMemory, account_name, check_account, remember
from pipeline.ledger.clock import check_clock
from pipeline.ledger.file_lock import locked
from pipeline.ledger.leftovers import remove_leftovers
from pipeline.ledger.postgres_ledger import PostgresLedger
from pipeline.ledger.postgres_session import LockMode
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import LedgerChange
from pipeline.ledger.writer import LedgerWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLedger:
    """An opened ledger with what it belongs to. `notices` are printed for the user."""

    settings: Settings
    gateway: str
    ledger: LedgerWriter
    queries: LedgerQueries
    notices: tuple[str, ...] = ()

    @property
    def outputs(self) -> Path:
        """The outputs folder."""
        return self.settings.outputs.dir


def account_of(
    settings: Settings, key: str, *, allow_new_ledger: bool = False, ask: Callable[[str], bool] | None = None
) -> Account | None:
    """The account of a key at the gateway, with what this user's state folder knows of it; None for the sandbox.

    Args:
        allow_new_ledger: the operator said that the account may buy with a ledger that it has not used before.
        ask: puts that question at a terminal; None where there is none.
    """
    if settings.gateway.is_embedded:
        return None
    memory = account_memory()
    name = account_name(key, gateway_id(settings))
    return Account(name=name, memory=memory, allow_new_ledger=allow_new_ledger, ask=ask)


def account_memory() -> AccountMemory:
    """What this user's state folder knows of accounts and their ledgers."""
    return AccountMemory(state_folder(os.environ, Path.home()))


def ledger_name(settings: Settings) -> str:
    """Where the ledger is, for messages: a file, or a database without its password."""
    return (
        postgres_session.address(settings.ledger.url) if settings.ledger.url is not None else str(settings.ledger_path)
    )


def ledger_exists(settings: Settings) -> bool:
    """Whether there is a ledger; the question makes none.

    Raises:
        LedgerUnavailableError: its server can't be reached.
    """
    return postgres_session.has_ledger(settings.ledger.url) if settings.ledger.url else settings.ledger_path.exists()


def opened(settings: Settings, *, may_migrate: bool = False) -> LedgerWriter:
    """The ledger, for questions; nothing is locked.

    Args:
        may_migrate: bring an earlier version up to date; only while it is held.

    Raises:
        LedgerError: it can't be read.
    """
    if settings.ledger.url is not None:
        return PostgresLedger(settings.ledger.url, may_migrate=may_migrate)
    return SqliteLedger(settings.ledger_path, may_migrate=may_migrate)


@contextmanager
def open_for_reading(settings: Settings) -> Iterator[OpenLedger]:
    """The ledger for questions: no lock, and it does not have to be fit for spending.

    Raises:
        UsageError: there is none; a question never makes one.
    """
    if not ledger_exists(settings):
        raise UsageError(f"no run yet in {ledger_name(settings)}")
    ledger = opened(settings)
    try:
        yield OpenLedger(settings=settings, gateway=gateway_id(settings), ledger=ledger, queries=LedgerQueries(ledger))
    finally:
        # A reader has checked nothing, so it must not write down that all was well at its end.
        ledger.close(clean=False)


@contextmanager
def hold_lock(settings: Settings, *, wait_s: float, now: float) -> Iterator[None]:
    """Keeps every run away while the ledger is cared for.

    Raises:
        LockedError: a run works on it.
    """
    if settings.ledger.url is not None:
        with postgres_session.locked(settings.ledger.url, wait_s=wait_s):
            yield
    else:
        with locked(settings.ledger_path, wait_s=wait_s, now=now):
            yield


@contextmanager
def _held_ledger(settings: Settings, hold: LockMode, *, wait_s: float, now: float) -> Iterator[LedgerWriter]:
    """The ledger under its lock: a file's is beside it, a server's dies with the very session that writes."""
    if settings.ledger.url is not None:
        spool = settings.ledger_path.parent
        ledger = PostgresLedger(settings.ledger.url, spool=spool, hold=hold, wait_s=wait_s, may_migrate=True)
        try:
            yield ledger
        finally:
            ledger.close()
        return
    with locked(settings.ledger_path, wait_s=wait_s, now=now):
        local = SqliteLedger(settings.ledger_path, may_migrate=True)
        try:
            yield local
        finally:
            local.close()


@contextmanager
def open_for_spending(
    settings: Settings, *, lock_wait_s: float, now: float, account: Account | None = None
) -> Iterator[OpenLedger]:
    """The ledger under its lock, checked, with every submit that a dead run left behind recorded as unknown.

    Args:
        account: who is going to buy with it; None for commands that buy nothing, and for the embedded sandbox.
    Raises:
        LockedError: another run works on this ledger.
        LedgerError: it is not fit for spending.
        UsageError: the account has bought with another ledger, and the operator did not agree to a second one.
    """
    with _held_ledger(settings, LockMode.EXCLUSIVE, wait_s=lock_wait_s, now=now) as ledger:
        notices = ledger.ready_to_spend() + _check_buyer(account, ledger, settings, now)
        queries = LedgerQueries(ledger)
        remove_leftovers(
            settings.outputs.dir,
            None if settings.ledger.url else settings.ledger_path,
            (run.run_id for run in queries.runs()),
        )
        # MONEY: under the lock, so that no living process still waits for one of these submits.
        lost = recover(ledger, queries, now)
        if lost:
            notices.append(f"{lost} submits were in flight when the last run died: their outcome is unknown")
        yield OpenLedger(
            settings=settings, gateway=gateway_id(settings), ledger=ledger, queries=queries, notices=tuple(notices)
        )
        # Once more, with the newest event: a later start must be able to see that this ledger was put back to an older
        # state.
        if account is not None:
            remember(ledger, account)


def _check_buyer(account: Account | None, ledger: LedgerWriter, settings: Settings, now: float) -> list[str]:
    """MONEY: what must hold before this account buys with this ledger; returns notices."""
    if account is None:
        return []
    if settings.ledger.url is None:
        check_clock(ledger.name, now, ledger.newest_at)
    return check_account(ledger, account, outputs=settings.outputs.dir, gateway=gateway_id(settings))


@contextmanager
def open_shared(
    settings: Settings, *, wait_s: float, now: float, account: Account | None = None
) -> Iterator[OpenLedger]:
    """A ledger on a server for one of several workers: beside others like it, never beside a plain run.

    The first one in checks it; submits that dead workers left behind are the caller's to settle, by their leases.

    Raises:
        UsageError: the ledger is a file.
        LockedError: a plain run works on it.
        LedgerError: it is not fit for spending.
    """
    if settings.ledger.url is None:
        raise UsageError("several machines need a ledger that all of them reach: set ledger.url to a PostgreSQL server")
    with _held_ledger(settings, LockMode.SHARED, wait_s=wait_s, now=now) as ledger:
        notices = tuple(ledger.ready_to_spend() + _check_buyer(account, ledger, settings, now))
        yield OpenLedger(
            settings=settings,
            gateway=gateway_id(settings),
            ledger=ledger,
            queries=LedgerQueries(ledger),
            notices=notices,
        )


def recover(ledger: LedgerWriter, queries: LedgerQueries, now: float) -> int:
    """MONEY: a submit that no process waits for any more may have been paid: it is unknown, never planned again."""
    left = queries.abandoned_submits()
    for request_id in left:
        reason = {"reason": "the run ended while this submit was in flight"}
        ledger.apply_now(LedgerChange(request_id=request_id, event=Event.LOSE, at=now, values=reason))
    return len(left)
