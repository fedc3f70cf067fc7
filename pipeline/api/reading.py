"""The calls that send nothing: `plan`, `report`, `picks`, `derive`, `spend` and `check`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.api.arguments import SEPARATOR, selection, setting_text, settings_from
from pipeline.api.manifests import ManifestFile, manifest_file
from pipeline.api.results import ManifestPlan, RunReport, RunResult, load_report, manifest_plan
from pipeline.cli.arguments import print_notice, print_warnings
from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.ledger.workspace import ledger_exists, ledger_name, open_for_reading
from pipeline.manifest.reader import TooManyRowsError
from pipeline.planning.against_ledger import plan_against_ledger
from pipeline.planning.derive import field_of
from pipeline.planning.derived_file import kept_picks, write_derived
from pipeline.planning.requests import BoundManifest, bind_manifest, with_price
from pipeline.planning.selection import Selection
from pipeline.records import MICROUSD
from pipeline.reports.picks import Picks, picked
from pipeline.reports.review_file import read_picks
from pipeline.reports.run_folder import RunFolder
from pipeline.reports.run_lookup import find_run
from pipeline.reports.writer import checks_of, write_page, write_reports

if TYPE_CHECKING:
    import pandas as pd


def plan(
    manifest: object,
    config: Path | str | None = None,
    *,
    name: str | None = None,
    tags: Iterable[str] | str = (),
    first: int | None = None,
    sample: int | None = None,
    **settings: object,
) -> ManifestPlan:
    """Say what a manifest would buy and for how much, compared with the ledger. Sends nothing.

    Args:
        manifest: a file, a DataFrame, a list of dictionaries (one for each row), or a whole YAML manifest as a
            dictionary.
        config: a configuration file; without it ./configs/default.yaml, else the sandbox's.
        name: of the run, where the manifest is no file; `notebook` unless given.
        tags: only rows with one of these tags. `first`: the first N rows. `sample`: N videos, the same ones each time.
        settings: `section__key=value`, e.g. `outputs__dir="films"`.

    Raises:
        ManifestError, UsageError: all mistakes.
    """
    found = settings_from(config, settings)
    bound = bound_manifest(manifest_file(manifest, name), found, selection(tags, first, sample))
    offer = plan_against_ledger(bound, found)
    print_warnings(offer.summary.warnings)
    return manifest_plan(offer.plan, bound)


def bound_manifest(file: ManifestFile, settings: Settings, chosen: Selection) -> BoundManifest:
    """The manifest bound to the gateway of the settings.

    Raises:
        ManifestError: mistakes; a sweep that is too large is refused with its price.
    """
    try:
        return bind_manifest(file.path, settings, origin=file.origin, selection=chosen)
    except TooManyRowsError as error:
        raise with_price(error, settings) from None


def report(run: RunResult | str | None = None, config: Path | str | None = None, **settings: object) -> RunReport:
    """Read a run's lines, counts and money; its `frame` is a DataFrame. Sends nothing.

    Args:
        run: a result, a run's name or its beginning, or its folder; without it the newest run.
        config: a configuration file, as in `plan`. `settings`: as in `plan`.

    Raises:
        UsageError: there is no such run.
    """
    found, name = _run_of(run, config, settings)
    return load_report(found, name)


def picks(run: RunResult | str | None = None, config: Path | str | None = None, **settings: object) -> list[str]:
    """The rows that are picked on the run's page in `dop view`; an empty list when none is. Sends nothing.

    Args:
        run: as in `report`. `config` and `settings`: as in `plan`.
    """
    found, name = _run_of(run, config, settings)
    with open_for_reading(found) as workspace:
        chosen = find_run(workspace, name)
        try:
            kept = kept_picks(workspace, chosen)
        except UsageError:
            return []
        return [attempt.row_id for attempt in picked(kept, workspace.queries.report_attempts(chosen.run_id))]


def derive(
    run: RunResult | str | None = None,
    config: Path | str | None = None,
    *,
    rows: Iterable[str] | None = None,
    picks_file: Path | str | None = None,
    output: Path | str | None = None,
    **changes: object,
) -> Path:
    """Write a manifest of chosen clips with some fields changed, and return its file. Buys nothing.

    Args:
        run: as in `report`. `config`: as in `plan`.
        rows: names of rows; without it what was picked in `dop view`, or what `picks_file` holds.
        output: the manifest's file; without it a free name beside the run's own manifest.
        changes: fields and their new values, e.g. `model="dop-preview"`; also settings as in `plan`.

    Raises:
        UsageError: nothing is chosen, a field is unknown, or the file exists.
    """
    fields = {key: value for key, value in changes.items() if SEPARATOR not in key}
    others = {key: value for key, value in changes.items() if SEPARATOR in key}
    found, name = _run_of(run, config, others)
    given = None if picks_file is None else read_picks(Path(picks_file))
    if rows is not None:
        named = [rows] if isinstance(rows, str) else rows
        given = Picks(run=None, names=tuple((row,) for row in named))
    target, _, _ = write_derived(
        found,
        run=name,
        given=given,
        changes={field_of(key): setting_text(value) for key, value in fields.items()},
        output=None if output is None else Path(output),
    )
    return target


def spend(
    day: str | None = None, month: str | None = None, config: Path | str | None = None, **settings: object
) -> pd.DataFrame:
    """What was spent, in US dollars: a line for each gateway, day, run and model. Sends nothing.

    Args:
        day: only this day, `2026-11-30`. `month`: only this month, `2026-11`. Both are UTC.
        config: a configuration file, as in `plan`. `settings`: as in `plan`.
    """
    import pandas as pd  # noqa: PLC0415 - takes half a second

    columns = ["gateway", "day", "run", "model", "confirmed_usd", "disputed_usd", "reserved_usd"]
    found = settings_from(config, settings)
    if not ledger_exists(found):
        return pd.DataFrame(columns=columns)
    with open_for_reading(found) as workspace:
        rows = [
            [line.gateway, line.day, line.run_id, line.model, *(line.confirmed, line.disputed, line.reserved)]
            for line in workspace.queries.spend_lines(day or month or "")
        ]
    frame = pd.DataFrame(rows, columns=columns)
    frame[columns[4:]] /= MICROUSD
    return frame


def check(
    run: RunResult | str | None = None,
    config: Path | str | None = None,
    *,
    again: bool = False,
    progress: bool = True,
    **settings: object,
) -> pd.DataFrame:
    """Look for defects in a run's clips: a line for each, with `check` (ok, warn, bad) and `reasons`. Sends nothing.

    Args:
        run: as in `report`. `config` and `settings`: as in `plan`.
        again: also check clips that were checked before.
        progress: show progress on stderr.
    """
    import pandas as pd  # noqa: PLC0415 - takes half a second

    from pipeline.reports.checks.check_run import check_rows, check_run  # noqa: PLC0415 - brings the decoder

    found, name = _run_of(run, config, settings)
    with open_for_reading(found) as workspace:
        chosen = find_run(workspace, name)
        check_run(workspace, chosen, again=again, show_bar=progress)
        folder = RunFolder(workspace.outputs, chosen.run_id)
        if folder.path.is_dir():
            write_reports(workspace, chosen, folder)
            print_notice(note.text for note in write_page(workspace, chosen, folder) if note.is_wrong)
        rows = check_rows(workspace, chosen, checks_of(workspace, chosen))
    columns = ["row_id", "check", "reasons", "local_path", "metrics", "request_id"]
    return pd.DataFrame(rows, columns=columns)


def _run_of(
    run: RunResult | str | None, config: Path | str | None, given: dict[str, object]
) -> tuple[Settings, str | None]:
    """The settings and the run's name that a call means."""
    if isinstance(run, RunResult):
        return run.settings, run.run_id
    found = settings_from(config, given)
    if not ledger_exists(found):
        raise UsageError(f"no run yet in {ledger_name(found)}")
    return found, run
