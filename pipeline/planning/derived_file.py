"""Writes the manifest derived from chosen clips: read back and compared before it gets its name; buys nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.config.settings import Settings
from pipeline.errors import ManifestError, UsageError
from pipeline.files import whole_text
from pipeline.gateway.motion_catalog import load_catalog
from pipeline.ledger.reviews import all_reviews, fold
from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import OpenLedger, open_for_reading
from pipeline.planning.derive import DerivedManifest, derive_manifest, differences, suffix_of
from pipeline.planning.requests import bind_manifest
from pipeline.records import Attempt, Cell
from pipeline.reports.picks import Picks, picked
from pipeline.reports.review_file import earlier_picks
from pipeline.reports.run_lookup import find_run


def write_derived(
    settings: Settings, *, run: str | None, given: Picks | None, changes: dict[str, str], output: Path | None
) -> tuple[Path, Run, int]:
    """Write the manifest of the chosen clips; return its file, their run and how many they are.

    Args:
        run: the run's name; None for the one that the picks name, else the newest.
        given: which clips; None for those that reviewers keep.
        changes: field -> value.
        output: the file; None for a free name beside the run's manifest.

    Raises:
        UsageError: no clip is chosen, or the file exists or can't be written.
    """
    with open_for_reading(settings) as workspace:
        source = find_run(workspace, run or (given.run if given is not None else None))
        picks = given or kept_picks(workspace, source)
        if picks.run not in (None, source.run_id):
            raise UsageError(f"the picks are of run {picks.run}, not of {source.run_id}")
        chosen = picked(picks, workspace.queries.report_attempts(source.run_id))
    if not chosen:
        raise UsageError("no clip is picked: keep some on the run's page, or name rows with --row ID")
    target = output or _usual_target(source, changes)
    _write(target, source, chosen, changes, settings)
    return target, source, len(chosen)


def kept_picks(workspace: OpenLedger, run: Run) -> Picks:
    """The clips that reviewers keep, and those of a picks file of an earlier version unless they were reviewed since.

    Raises:
        UsageError: there are none.
    """
    changes = all_reviews(workspace.ledger)
    changes += earlier_picks(workspace, run)
    counting = fold(sorted(changes, key=lambda change: change.at))
    kept = {request_id for request_id, found in counting.items() if found.verdict == "keep"}
    listed = workspace.queries.report_attempts(run.run_id)
    names = tuple((attempt.request_id,) for attempt in listed if attempt.request_id in kept)
    if not names:
        raise UsageError(f"no clip of {run.run_id} is kept: keep some in `dop view`, or give --row ID or --picks FILE")
    return Picks(run=run.run_id, names=names)


def _usual_target(run: Run, changes: dict[str, str]) -> Path:
    """A name that is free, beside the manifest that the run was made from."""
    manifest = Path(run.manifest_path)
    folder = manifest.parent if manifest.parent.is_dir() else Path.cwd()
    stem = f"{manifest.stem}-{suffix_of(changes) or 'picks'}"
    names = (f"{stem}.yaml", *(f"{stem}-{number}.yaml" for number in range(2, 1000)))
    return next(folder / name for name in names if not (folder / name).exists())


def _write(target: Path, run: Run, chosen: list[Attempt], changes: dict[str, str], settings: Settings) -> None:
    """Writes the manifest, read back and compared first.

    Raises:
        UsageError: it exists, can't be written, or does not say what was meant.
    """
    if target.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{target}: a derived manifest is YAML; give it the ending .yaml")
    folder = target.absolute().parent
    made = derive_manifest(
        chosen, changes, run=run.run_id, name=run.name, folder=folder, catalogue=load_catalog(settings)
    )
    try:
        with _draft(target, made) as draft:
            wrong = differences(made, chosen, _read_back(draft, target, settings), changes)
        if wrong:
            raise UsageError(f"{target} was not written: {'; '.join(wrong[:5])}")
        # Never over a file that is there: it may be a manifest that was edited by hand.
        with target.open("x", encoding="utf-8", newline="") as file:
            file.write(made.text)
    except FileExistsError:
        raise UsageError(f"{target} exists already; choose another name with -o") from None
    except OSError as error:
        raise UsageError(f"{target} can't be written ({error.strerror})") from None


@contextmanager
def _draft(target: Path, made: DerivedManifest) -> Iterator[Path]:
    """The text as a file beside its target, so that relative pictures are found; it does not stay."""
    draft = target.with_name(f".{target.stem}-draft{target.suffix}")
    try:
        with whole_text(draft) as stream:
            stream.write(made.text)
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _read_back(draft: Path, target: Path, settings: Settings) -> list[Cell]:
    """What the draft asks for; its mistakes are reported under the name that the user gave."""
    try:
        return list(bind_manifest(draft, settings).manifest.cells())
    except ManifestError as error:
        problems = (replace(one, file=target if one.file == draft else one.file) for one in error.problems)
        raise ManifestError(problems) from None
