"""`dop list` and `dop status` as aligned tables for the terminal. Pure; times are UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipeline.config.gateway_address import SANDBOX
from pipeline.ledger.run_registry import Run
from pipeline.records import FAILED_FOR_GOOD, State, Totals, usd
from pipeline.reports.keeper_costs import KeeperCosts, KeeperTable, exact_usd
from pipeline.reports.progress import strip_control_chars
from pipeline.reports.run_ending import RENDERING, checks_words, money_words, near_path, short_gateway

KEEPER_COLUMNS = ("BOUGHT", "OPEN", "DELIVERED", "PASSED", "YOURS", "KEPT", "COST", "PER KEPT", "95 % INTERVAL")
RIGHT = frozenset({"READY", "COST", "VIDEOS", "USD", "CAP", "USED", "LEFT", "PRICE", *KEEPER_COLUMNS})
"""Columns of numbers, whose digits are aligned at the right."""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose columns are as wide as their widest cell."""
    cells = [[strip_control_chars(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in [list(columns), *cells]) for index in range(len(columns))]
    lines = []
    for row in [list(columns), *cells]:
        padded = (
            cell.rjust(width) if name in RIGHT else cell.ljust(width)
            for name, cell, width in zip(columns, row, widths, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return lines


def run_lines(found: Sequence[tuple[Run, Totals, int]], starters: dict[str, str]) -> list[str]:
    """Every run as one line of a table.

    Args:
        found: each run with its totals, and with how many of its finished videos have no file yet.
    """
    rows = [
        [
            run.run_id,
            _when(run.started_at),
            starters.get(run.run_id, "") or "-",
            SANDBOX if run.gateway == SANDBOX else short_gateway(run.gateway),
            f"{totals.count(State.DONE) - not_downloaded}/{sum(totals.counts.values())}",
            f"${usd(totals.worst_microusd)}",
            state_words(run, totals, not_downloaded),
        ]
        for run, totals, not_downloaded in found
    ]
    return table(("RUN", "STARTED (UTC)", "BY", "GATEWAY", "READY", "COST", "STATE"), rows)


def state_words(run: Run, totals: Totals, not_downloaded: int) -> str:
    """What a run needs, in a few words."""
    unknown, failed = totals.count(State.UNKNOWN), totals.count(*FAILED_FOR_GOOD)
    if unknown:
        return f"{unknown} unknown"
    lacking = f"{not_downloaded} not downloaded" if not_downloaded else ""
    if run.ended_at is None:
        rendering = totals.count(*RENDERING)
        is_bought = not totals.count(State.PLANNED, State.SUBMITTING)
        return f"{rendering} rendering" if rendering else (lacking if is_bought else "") or "unfinished"
    return ", ".join(word for word in ("ended", f"{failed} failed" if failed else "", lacking) if word)


def status_lines(
    run: Run, totals: Totals, *, starter: str, sheet: Path | None, checks: Mapping[str, object], not_downloaded: int = 0
) -> list[str]:
    """One run: what it is, its videos by state, its money.

    Args:
        not_downloaded: how many of the finished videos have no file yet; they are not counted as ready.
    """
    ended = f", ended {_when(run.ended_at)}" if run.ended_at is not None else ", not ended"
    facts = {
        "run": run.run_id,
        "gateway": money_words(run.gateway),
        "manifest": near_path(Path(run.manifest_path)),
        "started": f"{_when(run.started_at)} UTC{f' by {starter}' if starter else ''}{ended}",
        "sheet": near_path(sheet) if sheet is not None else "not made yet: `dop report` makes it",
    }
    if words := checks_words(checks):
        facts["checks"] = words
    lines = [f"{name:<9} {strip_control_chars(text)}" for name, text in facts.items()]
    counts = {
        "ready": totals.count(State.DONE) - not_downloaded,
        "not downloaded": not_downloaded,
        "rendering": totals.count(*RENDERING),
        "unknown": totals.count(State.UNKNOWN),
        **{state.value: totals.count(state) for state in sorted(FAILED_FOR_GOOD)},
        "not bought": totals.count(State.PLANNED),
        "not needed": totals.spare,
    }
    rows = [[word, f"{count:,}"] for word, count in counts.items() if count or word == "ready"]
    sums = {
        "confirmed": (totals.confirmed_microusd, "finished videos"),
        "disputed": (totals.disputed_microusd, "failed after they were accepted; a refund is not known"),
        "reserved": (totals.reserved_microusd, "rendering, or of unknown outcome"),
    }
    money = [[word, usd(amount), text] for word, (amount, text) in sums.items() if amount or word == "confirmed"]
    return [*lines, "", *table(("STATE", "VIDEOS"), rows), "", *table(("MONEY", "USD", "OF"), money)]


def _when(at: float | None) -> str:
    return "-" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"


def keeper_lines(costs: KeeperTable) -> list[str]:
    """What a kept clip cost, in all and by group; a group's name begins its lines."""
    rows = [["total", *_keeper_cells(costs.total)]]
    for name, group in costs.groups.items():
        word = name.removeprefix("by_")
        rows += [[f"{word} {key}", *_keeper_cells(group[key])] for key in sorted(group)]
    note = "kept: by you, or passed the checks and not reviewed; open: not come out yet, not counted in PER KEPT"
    return [*table(("", *KEEPER_COLUMNS), rows), note]


def _keeper_cells(costs: KeeperCosts) -> list[str]:
    counts = (costs.bought, costs.open, costs.delivered, costs.passed, costs.picked, costs.kept)
    low, high = costs.interval_microusd
    each = exact_usd(costs.per_kept_microusd)
    upper = exact_usd(high)
    interval = f"{exact_usd(low)} to {upper}" if upper is not None else f"{exact_usd(low)} or more"
    return [
        *(f"{count:,}" for count in counts),
        str(exact_usd(costs.cost_microusd)),
        each if each is not None else "-",
        interval if costs.decided else "-",
    ]
