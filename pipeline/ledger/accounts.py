"""Which ledger an account has bought with: kept in the user's state folder, so that an account never gets a second
ledger unnoticed (another outputs folder, removed outputs, a restored backup).

An account is a key at a gateway. Only a hash of both is stored. Must never: hold the key, or send anything.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import select

from pipeline.config.gateway_address import canonical_gateway
from pipeline.errors import LedgerError, UsageError
from pipeline.files import SECRET, whole_text
from pipeline.ledger.duplicate_ledger import duplicate_among
from pipeline.ledger.holes import open_hole
from pipeline.ledger.schema import attempts
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.writer import LedgerWriter


def account_name(key: str, gateway: str) -> str:
    """Names an account without telling its key: 32 hex digits."""
    return hashlib.blake2b(f"{gateway}\n{key}".encode(), digest_size=16, person=b"dop account").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownLedger:
    """A ledger that an account has bought with: where it was, and its newest event when it was closed last."""

    place: str
    seq: int


class AccountMemory:
    """The state folder's records of accounts, one private JSON file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "accounts"

    def ledgers(self, account: str) -> dict[str, KnownLedger]:
        """Ledger id -> what is known of it.

        Raises:
            LedgerError: the record is damaged.
        """
        return self._read(self._folder / f"{account}.json")

    def remember(self, account: str, ledger_id: str, known: KnownLedger) -> None:
        """Adds a ledger to an account, or brings what is known of it up to date.

        Raises:
            OSError: the folder can't be written.
        """
        with self._locked():
            path = self._folder / f"{account}.json"
            # Read and written under one lock: two runs with different ledgers would otherwise lose one of the two.
            self._write(path, self._read(path) | {ledger_id: known})

    def accept(self, ledger_id: str, seq: int) -> None:
        """The operator takes a ledger as it is: for every account it may have fewer events than it had."""
        self._change(ledger_id, lambda known: replace(known, seq=seq))

    def move(self, ledger_id: str, place: str) -> None:
        """The operator uses a ledger at another place from now on, for every account that has bought with it."""
        self._change(ledger_id, lambda known: replace(known, place=place))

    def places(self, ledger_id: str) -> set[str]:
        """Where the accounts used a ledger last; an account whose record can't be read is left out."""
        found = set()
        for path in sorted(self._folder.glob("*.json")):
            with suppress(LedgerError):
                found |= {known.place for name, known in self._read(path).items() if name == ledger_id}
        return found

    def _change(self, ledger_id: str, changed: Callable[[KnownLedger], KnownLedger]) -> None:
        with suppress(OSError), self._locked():
            for path in sorted(self._folder.glob("*.json")):
                with suppress(LedgerError):
                    found = self._read(path)
                    if ledger_id in found:
                        self._write(path, found | {ledger_id: changed(found[ledger_id])})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        old_mask = os.umask(0o077)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        finally:
            os.umask(old_mask)

    def _read(self, path: Path) -> dict[str, KnownLedger]:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return {
                str(name): KnownLedger(place=str(known["place"]), seq=int(known["seq"]))
                for name, known in found["ledgers"].items()
            }
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise LedgerError(
                f"{path} can't be read: it says which ledger this account has bought with. Put a backup of it there; "
                "without it, compare the ledger with the gateway's own list of jobs first"
            ) from None

    def _write(self, path: Path, ledgers: Mapping[str, KnownLedger]) -> None:
        kept = {name: {"place": known.place, "seq": known.seq} for name, known in ledgers.items()}
        with whole_text(path, mode=SECRET) as file:
            file.write(json.dumps({"ledgers": kept}, indent=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who buys: the account's name, the memory of its ledgers, and what the operator says about a new ledger.

    `ask` puts a question at a terminal; None where there is none.
    """

    name: str
    memory: AccountMemory
    allow_new_ledger: bool = False
    ask: Callable[[str], bool] | None = None


def check_account(ledger: LedgerWriter, account: Account, *, outputs: Path, gateway: str) -> list[str]:
    """MONEY: refuses to buy with a ledger that the account does not know, while it may have bought with another one.

    Returns:
        Notices.
    Raises:
        UsageError: the account is known to have bought with another ledger, and the operator did not agree.
        LedgerError: the ledger has fewer events than it had; it was put back to an older state. Or a copy of it was
            adopted elsewhere and spends there.
    """
    known = account.memory.ledgers(account.name)
    own = known.get(ledger.ledger_id)
    _refuse_duplicate(ledger, account.memory.places(ledger.ledger_id))
    # MONEY: this very ledger knew more events when it was closed last. It is a backup, and what the lost events bought
    # would be bought again.
    if own is not None and own.seq > ledger.head[0]:
        _refuse_older_state(ledger, account, own)
    if own is None and not account.allow_new_ledger:
        _agree_to_new(ledger, account, known, outputs=outputs, gateway=gateway)
    return remember(ledger, account)


def remember(ledger: LedgerWriter, account: Account) -> list[str]:
    """Keeps the ledger's newest event for the account; a notice when the state folder can't be written."""
    known = KnownLedger(place=ledger.name_in_full, seq=ledger.head[0])
    try:
        account.memory.remember(account.name, ledger.ledger_id, known)
    except OSError as error:
        return [f"warning: which ledger this account uses can't be remembered ({error.strerror})"]
    return []


def _refuse_duplicate(ledger: LedgerWriter, places: Iterable[str]) -> None:
    """MONEY: an adopted copy spends from its adoption on, and the original, which does not know that, must not.

    The places are those of every account: the key of one and the same account may have been renewed since.
    """
    duplicate = duplicate_among(places, ledger) if isinstance(ledger, SqliteLedger) else None
    if duplicate is not None:
        raise LedgerError(
            f"the copy {duplicate.path} took over from {ledger.name}, and spending with both pays twice. Use that one "
            "(--outputs DIR or --set ledger.path=FILE); if it was given up, move it away first"
        )


def _refuse_older_state(ledger: LedgerWriter, account: Account, own: KnownLedger) -> None:
    seq = ledger.head[0]
    events = f"{seq + 1}-{own.seq}"
    # MONEY: before the memory accepts the older state. After a crash in between, the next start refuses once more.
    doubted = open_hole(ledger, events)
    account.memory.accept(ledger.ledger_id, ledger.head[0])
    raise LedgerError(
        f"{ledger.name} ends with event {seq}, and this account's last run left it at event {own.seq}: it was put back "
        f"to an older state, and what events {events} bought may be bought already. Nothing is bought; {doubted} rows "
        "that were planned are unknown now, and `dop run MANIFEST` lists other rows as unknown. `dop resolve ROW "
        "--charged`, `--adopt JOB` or `--resend` settles each; when all are settled, `dop ledger adopt` closes the hole"
    )


def _agree_to_new(
    ledger: LedgerWriter, account: Account, known: Mapping[str, KnownLedger], *, outputs: Path, gateway: str
) -> None:
    if known:
        places = sorted({one.place for one in known.values()})
        why = (
            f"this account has bought with the ledger {', '.join(places)}, and {ledger.name_in_full} knows none of that"
        )
        if places == [ledger.name_in_full]:
            why = f"this account has bought with a ledger that was at {places[0]}, and the one there now is another"
    elif not ledger.ask(select(attempts.c.request_id).where(attempts.c.submit_attempts > 0).limit(1)) and (
        runs := _runs_beside(outputs, gateway)
    ):
        why = f"{ledger.name_in_full} is new, and {runs[0]} tells of an earlier run ({len(runs)} in all)"
    else:
        return
    if account.ask is None:
        raise UsageError(
            f"{why}: what was bought there would be bought again. Use that ledger (put it back, --outputs DIR or --set "
            "ledger.path=FILE), or say --new-ledger; nothing was sent"
        )
    if not account.ask(f"{why}: what was bought there will be bought again. Use this ledger for the account as well?"):
        raise UsageError("not bought: the answer was no")


def _runs_beside(outputs: Path, gateway: str) -> list[Path]:
    """The summaries of runs that bought at a gateway, in the outputs folder."""
    found = []
    for path in sorted(outputs.glob("*/run.json")):
        with suppress(OSError, ValueError, AttributeError):
            named = canonical_gateway(str(json.loads(path.read_text(encoding="utf-8")).get("gateway")))
            if named == gateway and not path.parent.is_symlink():
                found.append(path)
    return found
