"""What `dop plan` shows besides counts and prices: budgets with what is used of them, and every expanded prompt."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from pipeline.assets import signed_urls
from pipeline.config.settings import Settings
from pipeline.ledger.workspace import ledger_exists, open_for_reading
from pipeline.planning.against_ledger import Offer
from pipeline.planning.cap_use import CapUse, Fit, cap_rows, caps_in_use, fitting, spent_now
from pipeline.planning.requests import BoundManifest
from pipeline.planning.run_setup import caps_of_run
from pipeline.records import Request, State, usd
from pipeline.reports.progress import strip_control_chars
from pipeline.reports.run_tables import table

CHUNK = 500
"""Requests whose state the ledger is asked for at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """The budgets in force at a moment (Unix seconds), and what of the plan fits into them."""

    uses: Sequence[CapUse]
    fit: Fit
    at: float

    def as_json(self) -> dict[str, object]:
        """`caps`, `fits` and `fits_usd` of `dop plan --json`."""
        return {
            "caps": [use.as_json() for use in self.uses],
            "fits": self.fit.count,
            "fits_usd": usd(self.fit.price_microusd),
        }

    def lines(self, new: int) -> list[str]:
        """The budgets as a table, and what fits; nothing where no budget is set."""
        if not self.uses:
            return []
        lines = table(("BUDGET", "CAP", "USED", "LEFT", "RESETS"), cap_rows(self.uses, self.at))
        if self.fit.stopped_by:
            share = f"{self.fit.count:,} of {new:,} for ${usd(self.fit.price_microusd)}"
            lines.append(f"fits now: {share}; then the {self.fit.stopped_by} budget stops the run with exit 8")
        elif new:
            lines.append(f"fits now: all {new:,}")
        return lines


def budgets_of(
    bound: BoundManifest, offer: Offer, settings: Settings, *, max_cost_microusd: int | None = None
) -> Budgets:
    """The budgets that a run of this manifest would have now."""
    now, allowed = time.time(), bound.caps()
    if not ledger_exists(settings):
        caps = bound.caps(max_cost_microusd)
        spent = spent_now(None, None, now)
    else:
        with open_for_reading(settings) as workspace:
            origin = str(bound.manifest.origin.resolve())
            run = workspace.queries.unfinished_run(origin, workspace.gateway, bound.selection.part)
            caps = caps_of_run(workspace, run, allowed=allowed, max_cost_microusd=max_cost_microusd)
            spent = spent_now(workspace, run, now)
    fit = fitting(offer.prices_microusd, caps, spent)
    return Budgets(uses=caps_in_use(caps, spent, now), fit=fit, at=now)


def shown_rows(bound: BoundManifest, settings: Settings, most: int) -> Iterator[dict[str, object]]:
    """The first `most` requests as they would be sent, each with its state in the ledger."""
    requests, _ = bound.read(lambda rows: [row for row in rows if isinstance(row, Request)][:most])
    states = dict(_states([request.request_id for request in requests], settings))
    for request in requests:
        params = request.params
        yield {
            "row_id": request.row_id,
            "request_id": request.request_id,
            "state": states.get(request.request_id, State.PLANNED).value,
            "model": params.model,
            "prompt": params.prompt,
            "seed": params.seed,
            "motion": request.motion,
            "motions_strength": params.strength_hundredths / 100,
            "enhance_prompt": params.enhance_prompt,
            "images": [signed_urls.shown(image) for image in params.input_images],
            "end_images": [signed_urls.shown(image) for image in params.input_images_end],
            "take": request.take,
            "price_usd": usd(request.price_microusd),
        }


def _states(request_ids: Sequence[str], settings: Settings) -> Iterator[tuple[str, State]]:
    if not ledger_exists(settings):
        return
    stream = iter(request_ids)
    with open_for_reading(settings) as workspace:
        while chunk := list(islice(stream, CHUNK)):
            yield from workspace.queries.states(chunk).items()


def row_lines(rows: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """The rows for the terminal: one line of parameters, one of the prompt, one of the pictures."""
    for row in rows:
        enhanced = ", prompt enhanced by the gateway" if row["enhance_prompt"] else ""
        take = f", take {row['take']}" if row["take"] != 1 else ""
        parameters = f"{row['model']}, seed {row['seed']}, {row['motion']} {row['motions_strength']}{enhanced}{take}"
        state = "new" if row["state"] == State.PLANNED.value else row["state"]
        yield strip_control_chars(f"{row['row_id']}  ${row['price_usd']}  {state}  {parameters}")
        yield f"    {strip_control_chars(str(row['prompt']))}"
        images, ends = row["images"], row["end_images"]
        assert isinstance(images, list)
        assert isinstance(ends, list)
        yield strip_control_chars("    " + ", ".join(map(str, images)) + (f" -> {', '.join(ends)}" if ends else ""))
