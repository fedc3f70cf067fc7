"""`ledger check|rebuild|copy|adopt` and `prune`: care of the ledger and of old runs' folders. Spends nothing.

Nothing here removes a line of the ledger; `prune` removes files, and says which before it does.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.cli.arguments import confirm, has_terminal, lock_wait_s, print_notice, settings_of
from pipeline.config.setting_types import ledger_url
from pipeline.config.settings import Settings
from pipeline.config.units import duration_s
from pipeline.errors import ExitCode, LedgerError, LedgerUnavailableError, UsageError
from pipeline.ledger import recovery
from pipeline.ledger.clock import CLOCK, is_behind, newest_event_at
from pipeline.ledger.duplicate_ledger import DuplicateLedger, held_duplicate
from pipeline.ledger.file_lock import locked
from pipeline.ledger.holes import is_hole_listed
from pipeline.ledger.identity import HOLE, MOVED
from pipeline.ledger.journal_audit import examine
from pipeline.ledger.journal_check import lines_of
from pipeline.ledger.journal_sync import SETTLE, hole_text
from pipeline.ledger.migrations import copy_file
from pipeline.ledger.postgres_ledger import PostgresLedger
from pipeline.ledger.postgres_session import LockMode
from pipeline.ledger.queries import LedgerQueries
from pipeline.ledger.review_store import copy_problems
from pipeline.ledger.run_registry import Run
from pipeline.ledger.side_files import USABLE_JOURNAL, found_journal, reviews_path, unusable
from pipeline.ledger.sqlite_ledger import SqliteLedger
from pipeline.ledger.transfer import move
from pipeline.ledger.workspace import (
    OpenLedger,
    account_memory,
    hold_lock,
    ledger_exists,
    ledger_name,
    open_for_reading,
    opened,
)
from pipeline.ledger.writer import LedgerWriter
from pipeline.records import counted, usd
from pipeline.reports.missing_videos import mark_pruned


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerProblem:
    """One thing that is wrong with the ledger, and what to do about it."""

    text: str
    remedy: str


REBUILD = "`dop ledger rebuild` makes the ledger from its journal; the old file is kept"
ADOPT = "use the original, or say `dop ledger adopt` when this is the only one in use now"
THERE = "use it there with ledger.url, or say `dop ledger adopt` when that one was given up"
JOURNAL = "`dop ledger rebuild` writes the journal again from the ledger, which is what counts; the old one is kept"
REVIEWS = "`dop ledger rebuild` makes both hold everything that either holds"
HOLE_IS_OPEN = (
    "`dop run MANIFEST` lists them as unknown and buys none of them; `dop resolve ROW --charged`, `--adopt JOB` or "
    "`--resend` settles each, and `dop ledger adopt` closes the hole when all are settled"
)
OPEN_HOLE = "settle unknown rows with `dop resolve`; when all are settled, `dop ledger adopt` closes the hole"
CLOCK_REMEDY = "set the clock right; if that event's time is the wrong one, `dop ledger adopt` takes the clock of now"
BACKUP = "the tables are whole; a backup of the database may have the journal whole"


def check(args: argparse.Namespace) -> int:
    """Everything that is wrong with the ledger, each with what to do; exit 7 when anything is."""
    settings = settings_of(args)
    name = ledger_name(settings)
    is_there, lost_journal = ledger_exists(settings), _journal_of_a_lost_ledger(settings)
    if not is_there and lost_journal is None:
        if settings.ledger.url is None and (why := unusable(journal := found_journal(settings.ledger_path.resolve()))):
            print(f"WRONG  {name} does not exist, and its journal {journal} {why}\n       {USABLE_JOURNAL}")
            return ExitCode.FATAL
        print(f"{name} does not exist yet: the first run makes it")
        return 0
    found = list(_troubles(settings) if lost_journal is None else _troubles_of_a_lost_ledger(name, lost_journal))
    for trouble in found:
        print(f"WRONG  {trouble.text}\n       {trouble.remedy}")
    if not found:
        print(f"ok     {name} is whole")
    return ExitCode.FATAL if found else ExitCode.DONE


def _journal_of_a_lost_ledger(settings: Settings) -> Path | None:
    """The journal that is left where the ledger's file is gone; an empty file was only made to be locked."""
    path = settings.ledger_path
    if settings.ledger.url is not None or (path.is_file() and path.stat().st_size):
        return None
    journal = found_journal(path.resolve())
    return journal if journal.is_file() and journal.stat().st_size else None


def _troubles_of_a_lost_ledger(name: str, journal: Path) -> Iterator[LedgerProblem]:
    yield LedgerProblem(text=f"{name} is gone, and {journal} is there", remedy=REBUILD)
    findings = examine(lines_of(journal), name=str(journal), ledger=None)
    if findings.lost:
        yield LedgerProblem(text=hole_text(str(journal), list(findings.lost)), remedy=SETTLE)
    if findings.foreign:
        yield LedgerProblem(text=findings.foreign, remedy=BACKUP)


def _troubles(settings: Settings) -> Iterator[LedgerProblem]:
    try:
        ledger = opened(settings)
    except LedgerUnavailableError:
        raise  # a server that is away says nothing about the ledger, and a rebuild would not bring it back
    except LedgerError as error:
        yield LedgerProblem(text=str(error), remedy=REBUILD if "newer" not in str(error) else "update dop")
        return
    try:
        yield from (LedgerProblem(text=problem, remedy=REBUILD) for problem in ledger.problems())
        yield from unfit(ledger, now=time.time())
        if ledger.facts.get("clean", "yes") != "yes":
            print("note   a run is in progress, or the last one did not end cleanly: the next run resolves that")
        yield from _journal_troubles(ledger)
        yield from _review_troubles(ledger)
    finally:
        ledger.close(clean=False)


def unfit(ledger: LedgerWriter, *, now: float) -> Iterator[LedgerProblem]:
    """Why a whole ledger does not spend, or not everything."""
    if ledger.is_copy:
        yield LedgerProblem(text=f"{ledger.name} is a copy or was restored from one", remedy=ADOPT)
    if MOVED in ledger.facts:
        yield LedgerProblem(text=f"{ledger.name} was moved to {ledger.facts[MOVED]} and spends no more", remedy=THERE)
    if HOLE in ledger.facts:
        yield LedgerProblem(text=f"{ledger.name} lacks events {ledger.facts[HOLE]}", remedy=OPEN_HOLE)
    if isinstance(ledger, SqliteLedger) and (why := unusable(ledger.journal.path)):
        yield LedgerProblem(text=f"the journal {ledger.journal.path} {why}", remedy=USABLE_JOURNAL)
    if is_behind(now, _newest_at(ledger)):
        yield LedgerProblem(text=f"the clock is behind the newest event of {ledger.name}", remedy=CLOCK_REMEDY)


def _review_troubles(ledger: LedgerWriter) -> Iterator[LedgerProblem]:
    if isinstance(ledger, SqliteLedger):
        with ledger.reader.connect() as connection:
            problems = copy_problems(connection, reviews_path(ledger.path))
        yield from (LedgerProblem(text=problem, remedy=REVIEWS) for problem in problems)


def _journal_troubles(ledger: LedgerWriter) -> Iterator[LedgerProblem]:
    on_server = not isinstance(ledger, SqliteLedger)
    name = f"in {ledger.name}" if on_server else str(found_journal(Path(ledger.name).resolve()))
    findings = examine(ledger.journal_lines(), name=name, ledger=ledger)
    if findings.foreign:
        yield LedgerProblem(text=findings.foreign, remedy=BACKUP if on_server else USABLE_JOURNAL)
    if findings.lost:
        yield LedgerProblem(text=hole_text(name, list(findings.lost)), remedy=BACKUP if on_server else SETTLE)
    remedy = BACKUP if on_server else JOURNAL
    if findings.gaps:
        events = "; ".join(map(str, findings.gaps[:5]))
        yield LedgerProblem(text=f"the journal {name} lacks {events}; the ledger holds them", remedy=remedy)
    elif findings.damaged and not findings.lost:
        numbers = ", ".join(map(str, findings.damaged[:5]))
        print(f"note   line {numbers} of the journal {name} is torn; the ledger holds what it said")
    for one in findings.passed_over:
        yield LedgerProblem(text=f"the journal {name}: {one}", remedy=remedy)
    for difference in findings.differences:
        yield LedgerProblem(text=difference, remedy=REBUILD)


def rebuild(args: argparse.Namespace) -> int:
    """Rebuilds the ledger from its journal; the old file is kept aside."""
    settings, now = settings_of(args), time.time()
    path, url = settings.ledger_path, settings.ledger.url
    with hold_lock(settings, wait_s=lock_wait_s(args), now=now):
        found = recovery.rebuild(path, now=now) if url is None else recovery.rebuild_on_server(url, now=now)
    name = ledger_name(settings)
    print(
        f"{name} was made from {counted(found.events, 'event')}: "
        f"{counted(found.requests, 'request')}, {counted(found.runs, 'run')}"
    )
    if found.kept is not None:
        print(f"the old file is {found.kept}")
    if found.kept_tables is not None:
        print(f"the old rows are in the tables {found.kept_tables}")
    if found.hole is not None:
        print(f"it lacks events {found.hole}: rows that it does not know may be bought already.\n{HOLE_IS_OPEN}")
    if found.runs == 0:
        print("which run lists which row could not be read; `dop run MANIFEST` lists them again and buys nothing twice")
    return 0


def copy(args: argparse.Namespace) -> int:
    """A consistent copy of the ledger, for a backup; it spends nothing until it is adopted. Or the move to a server."""
    settings = settings_of(args)
    path = settings.ledger_path
    if args.to is not None or args.file.startswith(("postgresql:", "postgres:")):
        return _move(args.to or args.file, args, settings)
    if settings.ledger.url is not None:
        raise UsageError(f"{ledger_name(settings)} is a database: pg_dump makes a backup of it")
    if not path.exists():
        raise UsageError(f"{path} does not exist yet: there is nothing to copy")
    copy_file(path, Path(args.file))
    print(f"{args.file} is a copy of {path}; it can be read, and spends nothing before `dop ledger adopt`")
    return 0


def _move(target_url: str, args: argparse.Namespace, settings: Settings) -> int:
    path, now = settings.ledger_path, time.time()
    try:
        url = ledger_url(target_url)
    except ValueError as error:
        raise UsageError(f"the database {error}") from None
    if not path.exists():
        raise UsageError(f"{path} does not exist: there is nothing to move")
    with (
        locked(path, wait_s=lock_wait_s(args), now=now),
        closing(SqliteLedger(path, may_migrate=True)) as source,
        closing(PostgresLedger(url, hold=LockMode.EXCLUSIVE)) as target,
    ):
        print_notice(source.ready_to_spend())
        found = move(source, target)
    nouns = {"attempts": "request", "runs": "run", "history": "event"}
    rows = ", ".join(counted(found.rows[table], noun) for table, noun in nouns.items())
    print(f"{target.name} holds what {path} held: {rows}, ${usd(sum(found.money))}; every row was compared")
    for state, (count, price) in sorted(found.states.items()):
        print(f"  {state:<12} {count:>8}  ${usd(price)}")
    print(f"{path} spends no more; from now on every command needs ledger.url (the environment: DOP_LEDGER__URL)")
    return 0


UNLISTED = (
    "and no row was listed for that yet: `dop run MANIFEST` lists the rows that it does not know as unknown, and buys "
    "none of them. When all are settled with `dop resolve`, `dop ledger adopt` closes the hole. `--close-hole` closes "
    "it at once, and what the lost events bought is bought again"
)
"""Why a hole stays, and what closes it."""


def adopt(args: argparse.Namespace) -> int:
    """Lets a copied, restored or moved ledger spend: the operator says that it is the only one in use."""
    settings, now = settings_of(args), time.time()
    name = ledger_name(settings)
    if not ledger_exists(settings) and _journal_of_a_lost_ledger(settings) is None:
        raise UsageError(f"{name} does not exist: there is nothing to adopt")
    with hold_lock(settings, wait_s=lock_wait_s(args), now=now):
        ledger = opened(settings, may_migrate=True)
        try:
            with _duplicate_of(ledger, wait_s=lock_wait_s(args), now=now) as duplicate:
                if not _adopt(ledger, args, now=now, has_duplicate=duplicate is not None):
                    return 0
        finally:
            ledger.close(clean=False)
    print(f"{name} is in use from now on; what was bought with another copy since is not in it")
    return 0


@contextmanager
def _duplicate_of(ledger: LedgerWriter, *, wait_s: float, now: float) -> Iterator[DuplicateLedger | None]:
    """Holds the file that spends with the same ledger, if there is one; afterwards the account uses this one."""
    if not isinstance(ledger, SqliteLedger):
        yield None
        return
    memory = account_memory()
    with held_duplicate(ledger, memory.places(ledger.ledger_id), wait_s=wait_s, now=now) as duplicate:
        yield duplicate
        if not ledger.is_copy:
            memory.move(ledger.ledger_id, ledger.name_in_full)


def _adopt(ledger: LedgerWriter, args: argparse.Namespace, *, now: float, has_duplicate: bool) -> bool:
    """Takes a ledger for the one that spends; False, with a word, where there is nothing to adopt.

    Raises:
        LedgerError: it is damaged, or what it lacks is not settled.
    """
    is_elsewhere = ledger.is_copy or has_duplicate or MOVED in ledger.facts or is_behind(now, _newest_at(ledger))
    # MONEY: a hole of which nothing was listed holds purchases that the next run would buy again.
    keeps_hole = HOLE in ledger.facts and not args.close_hole and not is_hole_listed(ledger)
    if keeps_hole and not is_elsewhere:
        raise LedgerError(f"{ledger.name} lacks events {ledger.facts[HOLE]}, {UNLISTED}")
    if not is_elsewhere and HOLE not in ledger.facts:
        print(f"{ledger.name} is no copy: there is nothing to adopt")
        return False
    problems = ledger.problems()
    if problems:
        raise LedgerError(f"{ledger.name} is damaged: {problems[0]}; `dop ledger check` lists everything")
    print_notice(ledger.adopt(now, keep_hole=keeps_hole))
    if keeps_hole:
        print_notice([f"it still lacks events {ledger.facts[HOLE]}, {UNLISTED}"])
    return True


def _newest_at(ledger: LedgerWriter) -> float:
    if not isinstance(ledger, SqliteLedger):
        return 0.0  # a server has a clock of its own
    with ledger.reader.connect() as connection:
        return newest_event_at(connection, ledger.facts.get(CLOCK))


# --- old runs


@dataclass(frozen=True, slots=True, kw_only=True)
class OldRun:
    """The folder of an old run, and what it weighs."""

    run: Run
    folder: Path
    files: int
    size_bytes: int


def prune(args: argparse.Namespace) -> int:
    """Removes the folders of runs that ended long ago; what the ledger knows of them stays."""
    settings, now = settings_of(args), time.time()
    try:
        keep_s = duration_s(args.keep)
    except ValueError as error:
        raise UsageError(f"--keep: {error}") from None
    if args.dry_run:
        with open_for_reading(settings) as workspace:
            _show(_old_ones(workspace, now - keep_s), args.keep)
        return 0
    with hold_lock(settings, wait_s=lock_wait_s(args), now=now):
        with open_for_reading(settings) as workspace:
            old = _old_ones(workspace, now - keep_s)
            _show(old, args.keep)
            if not old or not _agreed(args):
                return ExitCode.DONE if not old else ExitCode.USAGE
            for one in old:
                mark_pruned(workspace, one.run.run_id, now=now)
                shutil.rmtree(one.folder)
        newest = settings.outputs.dir / "latest"
        if newest.is_symlink() and not newest.exists():
            newest.unlink()
    print_notice([f"{counted(len(old), 'folder')} removed; `dop show` and `dop spend` still know what was in them"])
    return 0


def _old_ones(workspace: OpenLedger, before: float) -> list[OldRun]:
    """Ended runs from before, whose videos no younger run's report points to."""
    runs = workspace.queries.runs()
    aged = {run.run_id: run for run in runs if run.ended_at is not None and run.ended_at < before}
    needed = {name for run in runs if run.run_id not in aged for name in _folders_named(workspace.queries, run)}
    found = []
    for run_id, run in sorted(aged.items()):
        folder = workspace.outputs / run_id
        is_ours = folder.resolve().parent == workspace.outputs.resolve() and not folder.is_symlink()
        if is_ours and folder.is_dir() and run_id not in needed:
            sizes = [file.lstat().st_size for file in folder.rglob("*") if file.is_file() or file.is_symlink()]
            found.append(OldRun(run=run, folder=folder, files=len(sizes), size_bytes=sum(sizes)))
    return found


def _folders_named(queries: LedgerQueries, run: Run) -> Iterator[str]:
    """The first part of every video's path in a run's report: the folder that holds it."""
    for line in queries.report(run.run_id):
        path = getattr(line, "local_path", None)
        if path is not None:
            yield str(path).partition("/")[0]


def _show(old: list[OldRun], keep: str) -> None:
    for one in old:
        print(f"{one.folder}  {counted(one.files, 'file')}, {one.size_bytes / 1e6:.1f} MB")
    if not old:
        print(f"no run ended more than {keep} ago (or a younger report still points to its videos)")
        return
    total = sum(one.size_bytes for one in old)
    files = sum(one.files for one in old)
    print(f"{counted(len(old), 'folder')}, {counted(files, 'file')}, {total / 1e6:.1f} MB")


def _agreed(args: argparse.Namespace) -> bool:
    if args.yes:
        return True
    if not has_terminal():
        raise UsageError("give --yes to remove them without a terminal, or --dry-run to look; nothing was removed")
    return confirm("remove them?")
