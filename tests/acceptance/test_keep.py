"""`keep` as the user types it: every command that buys, collects or retries, with the gateway's books beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop, Ended, candidates
from tests.support.fake_gateway import GatewayDouble

Against = Callable[..., Opened]


def failing(*jobs: int) -> dict[str, object]:
    """These jobs of the gateway fail, counted as they are accepted."""
    return {str(number): {"end": "failed"} for number in jobs}


def paid(double: GatewayDouble) -> list[tuple[str, int]]:
    """Prompt and seed of everything that was charged."""
    return sorted((job.body["prompt"], job.body["seed"]) for job in double.jobs.values())


def reviewed(dop: Dop, **verdicts: str) -> None:
    """The user keeps or rejects clips, by row id without its dashes and signs."""
    by_row = {row["row_id"].replace("-", "").replace("@", "_"): row["request_id"] for row in dop.rows()}
    items = [{"request_id": by_row[row], "verdict": verdict, "who": "ada"} for row, verdict in verdicts.items()]
    path = dop.folder / "reviews.json"
    path.write_text(json.dumps(items))
    done = dop.call("review import", path)
    assert done.code == 0, done.err


ONE = ("--set", "pace.submit_concurrency=1")


def test_a_failed_candidate_is_replaced_and_the_rest_is_not_needed(against: Against) -> None:
    dop, double = against(jobs=failing(1))
    manifest = dop.csv(candidates(2, "1-3"))
    plan = json.loads(dop.call("plan", manifest, "--json").out)["keepers"]
    assert (plan["least"], plan["expected"], plan["most"], plan["most_usd"]) == (2, None, 6, "0.810")
    done = dop.buy(manifest, *ONE)
    assert done.code == 0, done.err
    assert "2 to 6 videos to buy, at most $0.810" in done.err
    assert "keep   2 of 2 shots have their clips" in done.err
    assert paid(double) == [("scene 1 of all", 1), ("scene 1 of all", 2), ("scene 2 of all", 1)]
    found_rows = {row["row_id"]: (row["status"], row["reason"], row["cost_usd"]) for row in dop.rows()}
    assert found_rows["shot-1@3"] == ("planned", "not needed", "0.000")
    assert found_rows["shot-1@1"][0] == "failed"
    again = dop.buy(manifest)
    assert (again.code, double.charged) == (0, 3), again.err
    after = json.loads(dop.call("plan", manifest, "--json").out)
    assert (after["new"], after["keepers"]["most"], after["keepers"]["not_needed"]) == (0, 0, 3)
    assert json.loads(dop.call("status", "--json").out)["not_needed"] == 3


def test_expected_prices_say_on_how_many_clips_they_rest(against: Against) -> None:
    dop, _ = against(jobs=failing(1))
    assert dop.buy(dop.csv(candidates(2, "1-3")), *ONE).code == 0
    plan = dop.call("plan", dop.csv(candidates(4, "1-3"), "more.csv")).out
    # 2 of 3 clips were kept: of three candidates 1 + 1/3 + 1/9 are expected, for each of two new shots.
    assert "least 2 for $0.270, expected 2.9 for $0.390, most 6 for $0.810" in plan
    assert "expected from 3 clips of dop-lite, of which 2 were kept" in plan
    spent = json.loads(dop.call("spend", "--per-keeper", "--json").out)["per_keeper"]
    (costs,) = spent.values()
    assert (costs["bought"], costs["kept"], costs["cost_usd"], costs["per_kept_usd"]) == (3, 2, "0.405000", "0.202500")


def test_with_pick_the_run_ends_with_5_and_names_the_rows_that_wait(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(candidates(2, "1-3", keep_if="pick"))
    done = dop.buy(manifest)
    assert done.code == 5, done.err
    assert "waiting for you: shot-1 (0 of 1 kept), shot-2 (0 of 1 kept)" in done.err
    assert "`dop view` to keep or reject clips" in done.err
    reviewed(dop, shot1_1="keep", shot2_1="reject")
    more = dop.buy(manifest)
    assert (more.code, double.charged) == (5, 3), more.err
    assert "waiting for you: shot-2 (0 of 1 kept)" in more.err
    reviewed(dop, shot2_2="keep")
    last = dop.buy(manifest)
    assert (last.code, double.charged) == (0, 3), last.err


def test_a_rejection_makes_the_next_run_buy_exactly_one_more(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(candidates(3, "1-3"))
    assert dop.buy(manifest).code == 0
    reviewed(dop, shot2_1="reject")
    more = dop.buy(manifest)
    assert (more.code, double.charged) == (0, 4), more.err
    assert ("scene 2 of all", 2) in paid(double)
    assert (dop.buy(manifest).code, double.charged) == (0, 4)


def test_a_saved_plan_is_refused_when_a_clip_was_rejected_since(against: Against) -> None:
    dop, double = against()
    manifest, plan = dop.csv(candidates(2, "1-3")), dop.folder / "plan.json"
    assert dop.buy(manifest).code == 0
    assert dop.call("plan", manifest, "--out", plan).code == 0
    reviewed(dop, shot1_1="reject")
    refused = dop.call("run", "--plan", plan, "--yes")
    assert (refused.code, double.charged) == (2, 2), refused.err


def test_submit_leaves_and_collect_says_what_would_be_bought_next(against: Against) -> None:
    dop, double = against(jobs=failing(1))
    manifest = dop.csv(candidates(2, "1-3"))
    left = dop.call("submit", manifest, "--yes", *ONE)
    assert (left.code, double.charged) == (0, 2), left.err
    found = dop.call("collect")
    assert (found.code, double.charged) == (5, 2), found.err
    assert "next   `dop run` buys 1 candidate for $0.135: shot-1@2" in found.err
    assert (dop.buy(manifest).code, double.charged) == (0, 3)


def test_a_shot_that_is_used_up_is_named_and_retry_buys_only_what_it_lacks(against: Against) -> None:
    dop, double = against(jobs=failing(1, 3, 4))  # shot-1 loses all three, shot-2 keeps its first
    manifest = dop.csv(candidates(2, "1-3"))
    done = dop.buy(manifest, *ONE)
    assert done.code == 1, done.err
    assert "no candidate left: shot-1 (0 of 1 kept)" in done.err
    assert double.charged == 4
    again = dop.call("retry", "--failed", "--yes", *ONE)
    assert (again.code, double.charged) == (0, 5), again.err
    assert [row["attempt"] for row in dop.rows() if row["row_id"] == "shot-1@1"] == ["1", "2"]


def test_retry_leaves_out_candidates_that_others_replaced(against: Against) -> None:
    dop, double = against(jobs=failing(1))
    assert dop.buy(dop.csv(candidates(2, "1-3")), *ONE).code == 0
    again = dop.call("retry", "--failed", "--yes")
    assert (again.code, double.charged) == (0, 3), again.err
    assert "left out: 1 failed candidate of rows that have their clips" in again.err


@pytest.mark.parametrize(
    ("words", "charged"),
    [(("--max-new", "3"), 3), (("--max-cost", "0.41"), 3), (("--pilot", "1"), 6), (("--first", "1"), 3)],
)
def test_every_bound_holds_for_candidates_too(against: Against, words: tuple[str, ...], charged: int) -> None:
    dop, double = against(jobs=failing(1, 2))
    done = dop.buy(dop.csv(candidates(4, "1-4")), *ONE, *words)
    assert double.charged <= charged, done.err
    assert len(set(paid(double))) == double.charged
    last = dop.buy(dop.csv(candidates(4, "1-4")), *ONE, "--max-cost", "9")
    assert last.code in (0, 1)
    assert double.charged == 6, "two of four shots lost their first clip"


@pytest.mark.long
def test_a_callback_brings_the_clip_and_the_next_candidate_is_bought(rehearsal: Dop) -> None:
    done = rehearsal.buy(
        rehearsal.csv(candidates(1, "40404-40406", image="sandbox:coffee")),
        "--webhook",
        *("--set", "checks.enabled=true", "--set", "sandbox.defect_seeds=40404", "--set", "sandbox.size=240p"),
    )
    assert done.code == 0, done.err
    found_rows = {row["row_id"]: (row["status"], row["check"]) for row in rehearsal.rows()}
    assert found_rows["shot-1@40404"] == ("done", "bad")
    assert found_rows["shot-1@40405"][0] == "done"
    assert found_rows["shot-1@40405"][1] in ("ok", "warn")
    assert found_rows["shot-1@40406"] == ("planned", "")


def test_mistakes_are_named(rehearsal: Dop) -> None:
    def said(**same: object) -> Ended:
        return rehearsal.call("validate", rehearsal.csv(candidates(1, "1-3", image="sandbox:coffee", **same)))

    assert "0 is outside 1..1,000" in said(keep=0).err
    assert "'best' is neither check (it passed the checks) nor pick (you kept it)" in said(keep_if="best").err
    assert "add keep: 1" in said(keep="", keep_if="pick").err
    assert "shot-1: keep 4, and it has only 3 candidates" in said(keep=4).err


def test_the_example_meets_a_planted_defect(rehearsal: Dop) -> None:
    """Its plan only: `make batch` itself is tried by hand and by test_make."""
    example = Path(__file__).resolve().parents[2] / "manifests" / "example.yaml"
    plan = json.loads(rehearsal.call("plan", example, "--json").out)["keepers"]
    assert (plan["shots"], plan["wanted"], plan["least"], plan["most"]) == (1, 1, 1, 3)
