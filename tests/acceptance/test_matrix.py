"""Every dialect with every result shape of the sandbox, end to end: each job of a run has a wording of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.sandbox import responses
from pipeline.sandbox.job_views import Form, JobViews
from pipeline.sandbox.rendering import renderer
from pipeline.sandbox.rendering.clip import ClipPlan, render
from pipeline.sandbox.response_variants import SHAPES, accepted_as
from pipeline.sandbox.responses import JobView, SandboxResponse
from tests.support.cli_driver import Dop, table

FORMS = 6
"""Wordings of the answer to a submit."""

NO_OTHER_WORD_THAN_FAILED = (1, 2, 9)
"""The queue's two shapes know FAILED alone; in a set of several jobs another one failed, too."""

ENDINGS = {"": "done", "[sandbox:fail] ": "failed", "[sandbox:nsfw] ": "refused", "[sandbox:cancel] ": "canceled"}


def worded_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox chooses a job's wording by its seed, so that one run meets all of them; all have the same clip."""
    drawn: list[bytes] = []

    def same(plan: ClipPlan, target: Path) -> None:
        if not drawn:
            render(plan, target)
            drawn.append(target.read_bytes())
        target.write_bytes(drawn[0])

    monkeypatch.setattr(renderer, "render", same)

    def shaped(views: JobViews, outcome: JobView, form: Form) -> SandboxResponse:
        return SandboxResponse(status=200, value=SHAPES[_seed(outcome) % len(SHAPES)](outcome))

    monkeypatch.setattr(JobViews, "shaped", shaped)


def _seed(outcome: JobView) -> int:
    return int(str(outcome.job.body["seed"]))


def matrix(count: int, prompt: str = "a mill") -> str:
    rows = ({"id": f"s{seed}", "image": "sandbox:cat", "prompt": prompt, "seed": seed} for seed in range(1, count + 1))
    return table(rows)


@pytest.mark.parametrize("dialect", ["job-set", "queue"])
def test_every_shape_of_a_result_is_understood_in_either_dialect(
    rehearsal: Dop, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    worded_by_seed(monkeypatch)
    sets = ("--set", f"sandbox.dialect={dialect}", "--set", "sandbox.size=180p", "--set", "sandbox.generation_s=0.1s")
    end = rehearsal.buy(rehearsal.csv(matrix(len(SHAPES))), *sets)
    assert end.code == 0, end.err
    rows = rehearsal.rows()
    assert {row["seed"]: row["status"] for row in rows} == {str(seed): "done" for seed in range(1, len(SHAPES) + 1)}
    assert all(row["local_path"] and row["sha256"] for row in rows)


@pytest.mark.parametrize("dialect", ["job-set", "queue"])
@pytest.mark.parametrize("mark", [mark for mark in ENDINGS if mark])
def test_every_shape_of_a_bad_end_is_understood_in_either_dialect(
    rehearsal: Dop, monkeypatch: pytest.MonkeyPatch, dialect: str, mark: str
) -> None:
    worded_by_seed(monkeypatch)
    sets = ("--set", f"sandbox.dialect={dialect}", "--set", "sandbox.size=180p", "--set", "sandbox.generation_s=0.1s")
    end = rehearsal.buy(rehearsal.csv(matrix(len(SHAPES), f"{mark}a mill")), *sets)
    assert end.code == 1, end.err
    wrong = {row["seed"] for row in rehearsal.rows() if row["status"] != ENDINGS[mark]}
    assert wrong <= {str(number) for number in NO_OTHER_WORD_THAN_FAILED}
    assert {row["status"] for row in rehearsal.rows() if row["seed"] in wrong} <= {"failed"}
    assert all(row["reason"] for row in rehearsal.rows())


@pytest.mark.parametrize("form", range(FORMS))
def test_every_shape_of_an_accepted_submit_goes_with_every_shape_of_a_result(
    rehearsal: Dop, monkeypatch: pytest.MonkeyPatch, form: int
) -> None:
    worded_by_seed(monkeypatch)
    monkeypatch.setattr(JobViews, "accepted", lambda views, job: accepted_as(job, form, views._address()))
    sets = ("--no-download", "--set", "sandbox.size=180p", "--set", "sandbox.generation_s=0.1s")
    # Ends that need no clip: what is tested here is whether the job is found again.
    end = rehearsal.buy(rehearsal.csv(matrix(len(SHAPES), "[sandbox:fail] a mill")), *sets)
    assert end.code == 1, end.err
    assert end.counts == {"failed": len(SHAPES)}


def test_the_matrix_knows_all_that_the_sandbox_can_say() -> None:
    assert len(SHAPES) == 18
    assert SHAPES[:2] == (responses.job_set, responses.queue_status)
