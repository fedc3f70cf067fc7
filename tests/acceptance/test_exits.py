"""Every exit code for real, and which one wins where several apply."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop, shots

Against = Callable[..., Opened]


@pytest.mark.long
@pytest.mark.process
def test_nothing_wrong_and_quiet_says_nothing(against: Against) -> None:
    dop, _ = against()
    manifest = dop.csv(shots(2))
    first = dop.buy(manifest, "-q")
    assert (first.code, first.out, first.err) == (0, "", "")
    nothing = dop.buy(manifest, "--error-on-nothing", "-q")
    assert (nothing.code, nothing.out, nothing.err) == (9, "", "")


def test_mistakes_are_reported_all_at_once_and_nothing_is_sent(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv("id,image,prompt,seed,strenght\na,https://x.example/1.jpg,hi,0,0.7\na,ftp://x,,5,\n")
    end = dop.buy(manifest)
    assert end.code == 2
    assert "strenght" in end.err
    assert "strength" in end.err
    assert "nothing was sent" in end.err
    assert double.submits == []
    assert not (dop.outputs / "latest").exists()


def test_no_terminal_and_no_bound_on_the_spending_is_a_refusal(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(shots(1))
    end = dop.call("run", manifest)
    assert end.code == 2
    assert "--yes" in end.err
    assert double.submits == []
    assert dop.call("run", manifest, "--max-cost", "1").code == 0, "a budget is an agreement made beforehand"


@pytest.mark.long
def test_a_live_gateway_without_a_key_is_fatal(against: Against) -> None:
    dop, double = against()
    dop.environ["PIXAZO_API_KEY"] = ""
    end = dop.buy(dop.csv(shots(1)))
    assert end.code == 7
    assert "PIXAZO_API_KEY" in end.err
    assert double.submits == []


@pytest.mark.long
def test_a_model_without_a_price_is_fatal(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(shots(1, model="dop-next"))
    end = dop.buy(manifest, "--set", "models=dop-lite,dop-next")
    assert end.code == 7
    assert "dop-next" in end.err
    assert double.submits == []


def test_the_budget_ends_the_buying_over_all_restarts(against: Against) -> None:
    dop, double = against()
    manifest = dop.csv(shots(4))
    first = dop.buy(manifest, "--max-cost", "0.30")
    assert first.code == 8, first.err
    assert first.counts == {"done": 2, "planned": 2}
    again = dop.buy(manifest, "--max-cost", "0.30")
    assert again.code == 8, again.err
    assert again.run == first.run
    assert double.charged == 2
    assert dop.buy(manifest, "--max-cost", "0.54").code == 0
    assert double.charged == 4


@pytest.mark.long
def test_a_day_has_one_budget_for_all_runs(against: Against) -> None:
    dop, double = against()
    assert dop.buy(dop.csv(shots(2)), "--set", "budget.per_day=0.40").code == 0
    other = dop.csv(shots(2, prompt="another scene"), "other.csv")
    end = dop.buy(other, "--set", "budget.per_day=0.40")
    assert end.code == 8, end.err
    assert double.charged == 2
    assert "day" in end.err


@pytest.mark.long
def test_a_budget_below_one_video_buys_nothing(against: Against) -> None:
    dop, double = against()
    end = dop.buy(dop.csv(shots(2)), "--max-cost", "0.1349")
    assert end.code == 8, end.err
    assert double.submits == []


UNKNOWN = {"status": 500, "body": {"error": "An unexpected error occurred"}, "book": True}
KEY_GONE = {"status": 401, "body": {"error": "Invalid or missing authentication"}}


@pytest.mark.long
def test_a_key_that_is_refused_comes_before_an_unknown_outcome(against: Against) -> None:
    dop, _ = against(submits={"1": UNKNOWN, "3-": KEY_GONE})
    end = dop.buy(dop.csv(shots(4)), "--set", "pace.submit_concurrency=1")
    assert end.code == 7, end.err
    assert end.counts == {"done": 1, "unknown": 1, "planned": 2}


@pytest.mark.long
def test_an_unknown_outcome_comes_before_the_budget_and_a_failure(against: Against) -> None:
    dop, _ = against(submits={"1": UNKNOWN}, rows={"scene 2 ": {"end": "failed"}})
    end = dop.buy(dop.csv(shots(4)), "--set", "pace.submit_concurrency=1", "--max-cost", "0.30", "--max-unknown", "5")
    assert end.code == 3, end.err
    assert end.counts == {"failed": 1, "unknown": 1, "planned": 2}
    assert "budget" in end.err


@pytest.mark.long
def test_the_budget_comes_before_a_failure(against: Against) -> None:
    dop, _ = against(rows={"scene 1 ": {"end": "failed"}})
    end = dop.buy(dop.csv(shots(4)), "--max-cost", "0.30")
    assert end.code == 8, end.err


def test_a_run_that_has_more_to_do_is_unfinished(against: Against) -> None:
    dop, double = against(generation_s=1.0)
    manifest = dop.csv(shots(2))
    bought = dop.call("submit", manifest, "--yes")
    assert bought.code == 0, bought.err
    assert bought.counts == {"in_flight": 2}
    end = dop.call("collect")
    assert end.code == 0, end.err
    assert end.run == bought.run
    assert end.counts == {"done": 2}
    assert len(double.submits) == 2


@pytest.mark.long
def test_questions_about_a_run_with_unknowns_are_answered_with_0(against: Against) -> None:
    dop, _ = against(submits={"1": UNKNOWN})
    manifest = dop.csv(shots(1))
    assert dop.buy(manifest).code == 3
    for question in (("plan", manifest), ("status",), ("list",), ("report",), ("show", "row-1"), ("doctor",)):
        assert dop.call(*question).code == 0, question
    assert "unknown" in dop.call("status").out
    assert "500" in dop.call("show", "row-1").out


@pytest.mark.long
def test_a_question_leaves_nothing_behind(rehearsal: Dop) -> None:
    for question in (("status",), ("list",), ("report",), ("show", "x"), ("doctor",), ("collect",)):
        assert rehearsal.call(*question).code in (0, 2), question
        assert not rehearsal.outputs.exists() or question == ("collect",), question


SWALLOWED = """
import os, signal, sys

class Loader:
    def find_spec(self, name, path=None, target=None):
        if name == "pydantic_core":
            class Interrupted:
                def __del__(self):
                    os.kill(os.getpid(), signal.SIGINT)  # an exception of a __del__ is printed and forgotten
            Interrupted()

sys.meta_path.insert(0, Loader())
"""


@pytest.mark.long
@pytest.mark.process
def test_ctrl_c_while_modules_are_loaded_ends_the_command(against: Against) -> None:
    dop, double = against()
    hook = dop.folder / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(SWALLOWED)
    dop.environ["PYTHONPATH"] = str(hook)
    end = dop.buy(dop.csv(shots(1)))
    assert (end.code, end.out, end.err) == (130, "", "")
    assert double.submits == []


def test_a_name_that_is_no_text_is_refused_in_words(against: Against) -> None:
    dop, double = against()
    name = os.fsdecode(b"gr\xf6sse.csv")
    (dop.folder / name).write_bytes(dop.csv(shots(1)).read_bytes())
    for words in (("plan", name), ("run", name, "--yes"), ("show", name)):
        end = dop.typed(*words)
        assert (end.code, "rename" in end.err) == (2, True), end.err
    assert double.submits == []
