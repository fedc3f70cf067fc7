"""A run made for looking at: real little clips, every state, a sweep of two models, and a thousand cells."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.records import Attempt, CostState, State, Totals
from pipeline.reports.sheet.run_view import Line, RunView, SkippedLine
from tests.support.factories import make_attempt

RUN = "2026-11-02_0910-strength-study-ab12"
FRAMES, RATE = 60, 12
HOSTILE = """<script>window.hacked=1</script>"><img src=x onerror="window.hacked=2">"""
MODELS, STRENGTHS, SEEDS = ("dop-lite", "dop-turbo"), (30, 60, 90), (11, 12, 13, 14)
TROUBLES = {
    (30, 14): (State.FAILED, "the render ran out of memory"),
    (60, 13): (State.REFUSED, "nsfw"),
    (90, 12): (State.UNKNOWN, "read time-out after the request was sent"),
    (90, 14): (State.ACCEPTED, None),
}


def make_clip(path: Path, *, hue: int, width: int = 160, height: int = 96) -> None:
    """Five seconds of H.264 in which a bright bar crosses a coloured ground, so that no two frames are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, RATE)
        for number in range(FRAMES):
            picture = np.full((height, width, 3), (hue, 90, 255 - hue), dtype=np.uint8)
            at = number * (width - 12) // FRAMES
            picture[:, at : at + 12] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def make_study(outputs: Path) -> RunView:
    """2 models x 3 strengths x 4 seeds; four of dop-lite's cells are in trouble, one of dop-turbo's is left out."""
    lines: list[Line] = []
    for model in MODELS:
        for strength in STRENGTHS:
            lines += [_cell(outputs, model, strength, seed) for seed in SEEDS]
    return make_view(outputs, lines, x="seed", y="strength", tabs=("model",))


def _cell(outputs: Path, model: str, strength: int, seed: int) -> Line:
    axes = (("model", model), ("strength", str(strength / 100)), ("seed", str(seed)))
    row_id = f"mill@{model}-{strength / 100}-{seed}"
    if model == "dop-turbo":
        if (strength, seed) == (30, 11):
            return SkippedLine(row_id=row_id, axes=axes)
        state, reason = State.DONE, None
    else:
        state, reason = TROUBLES.get((strength, seed), (State.DONE, None))
    number = SEEDS.index(seed) * 40 + strength
    fields: dict[str, Any] = {"submitted_at": 1_762_074_600.0 + number, "accepted_at": 1_762_074_601.0 + number}
    if state is State.DONE:
        path = f"{RUN}/videos/{model}-{strength}-{seed}.mp4"
        make_clip(outputs / path, hue=number)
        fields |= {
            "local_path": path,
            "finished_at": 1_762_074_640.0 + number * 2,
            "job_set_id": f"js-{model}-{number}",
        }
    return make_attempt(
        row_id=row_id, axes=axes, model=model, seed=seed, strength_hundredths=strength, state=state, reason=reason,
        prompt=f"Old mill {HOSTILE}", motion="360 Orbit", tags=("hero",) if strength == 60 else (), **fields,
        price_microusd=135_000 if model == "dop-lite" else 416_000,
    )  # fmt: skip


def make_crowd(outputs: Path, count: int) -> RunView:
    """So many cells over the study's clips, 25 seeds a row."""
    clips = sorted((outputs / RUN / "videos").glob("*.mp4"))
    lines: list[Line] = []
    for number in range(count):
        row, seed = divmod(number, 25)
        is_done = number % 31 != 7
        lines.append(
            make_attempt(
                row_id=f"row{row}@{seed + 1}", seed=seed + 1, prompt=f"row {row}", axes=(("seed", str(seed + 1)),),
                state=State.DONE if is_done else State.FAILED, reason=None if is_done else "the render failed",
                local_path=f"{RUN}/videos/{clips[number % len(clips)].name}" if is_done else None,
            )
        )  # fmt: skip
    return make_view(outputs, lines)


def make_view(outputs: Path, lines: list[Line], **asked: Any) -> RunView:
    """The view of these lines, with the totals that the records themselves give."""
    attempts = [line for line in lines if isinstance(line, Attempt)]
    sums = {kind: sum(one.cost_microusd for one in attempts if one.cost_state is kind) for kind in CostState}
    totals = Totals(
        counts={state: sum(one.state is state for one in attempts) for state in State},
        confirmed_microusd=sums[CostState.CONFIRMED],
        disputed_microusd=sums[CostState.DISPUTED],
        reserved_microusd=sums[CostState.RESERVED],
    )
    return RunView(
        run=RUN, title="strength-study", gateway="sandbox", lines=tuple(lines), totals=totals, outputs=outputs,
        started_at=1_762_074_600.0, ended_at=1_762_075_000.0, **asked,
    )  # fmt: skip
