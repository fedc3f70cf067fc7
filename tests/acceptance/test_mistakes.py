"""Common mistakes at the terminal: each message says what is wrong, where, and what to write instead."""

from __future__ import annotations

import pytest

from tests.support.cli_driver import Dop, shots
from tests.support.user_sheets import written

HEAD = "id,image,prompt,seed"


@pytest.mark.parametrize(
    ("sheet", "words"),
    [
        ("id,image,promt,seed\na,sandbox:cat,A,1\n", "column 'promt': unknown column. Did you mean 'prompt'?"),
        (f"{HEAD}\na,sandbox:cofee,A,1\n", "the sandbox has no such picture. Did you mean sandbox:coffee?"),
        (f"{HEAD},strength\na,sandbox:cat,A,1,70\n", "70 is outside 0..1: for 70 percent write 0.7"),
        (f"{HEAD}\na,sandbox:cat,,1\n", "needs prompt"),
    ],
)
def test_a_wrong_sheet_is_one_mistake_with_what_to_write(rehearsal: Dop, sheet: str, words: str) -> None:
    written(rehearsal, "shots.csv", sheet)
    for verb in ("validate", "plan", "run"):
        end = rehearsal.call(verb, "shots.csv")
        assert (end.code, end.out) == (2, "")
        assert words in end.err
        last = "dop: 1 mistake" + ("; nothing was sent" if verb == "run" else "")
        assert end.err.splitlines()[-1] == last, "a misspelt column is not missing as well"
        assert end.err.startswith("shots.csv:"), "an editor finds the place"


def test_a_wrong_path_gets_a_guess(rehearsal: Dop) -> None:
    rehearsal.csv(shots(1))
    end = rehearsal.call("plan", "shot.csv")
    assert (end.code, end.err) == (2, "dop: shot.csv: there is no such file; did you mean shots.csv?\n")
    end = rehearsal.call("run")
    assert (end.code, end.err) == (2, "dop: name a manifest, or a plan with --plan PLAN; here are shots.csv\n")


@pytest.mark.long
def test_a_name_that_is_nothing_gets_the_names_that_are_there(rehearsal: Dop) -> None:
    rehearsal.buy(rehearsal.csv(shots(2)))
    assert "Did you mean row-1" in rehearsal.call("show", "rov-1").err
    assert "rows are row-1, row-2" in rehearsal.call("show", "x").err
    run = rehearsal.latest.name
    assert f"Did you mean {run}" in rehearsal.call("status", "shots").err
    assert rehearsal.call("retry", "latest", "--failed", "-n").code == 0


def test_no_key_names_the_command_that_stores_it(rehearsal: Dop) -> None:
    rehearsal.base_url = "https://gateway.example.com"
    rehearsal.environ["PIXAZO_API_KEY"] = ""
    end = rehearsal.buy(rehearsal.csv(shots(1)))
    assert (end.code, "`dop key set` stores it" in end.err) == (7, True)


@pytest.mark.long
def test_without_a_ledger_the_plan_says_that_everything_counts_as_new(rehearsal: Dop) -> None:
    manifest = rehearsal.csv(shots(1))
    assert "yet: everything counts as new" in rehearsal.call("plan", manifest).out
    rehearsal.buy(manifest)
    assert "everything counts as new" not in rehearsal.call("plan", manifest).out
