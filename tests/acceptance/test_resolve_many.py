"""Many unknown outcomes at once: all, or by the gateway's own list; shown first, and nothing unproved is sent again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop, shots

Against = Callable[..., Opened]
ORDER = ("--set", "pace.submit_concurrency=1")


def doubtful(against: Against, *lost: int, book: bool, rows: int = 4) -> Opened:
    """A run of which the submits `lost` ended with an unknown outcome, perhaps recorded by the gateway."""
    fault = {"status": 502, "body": "<html>Bad Gateway</html>", "book": book}
    dop, double = against(submits={str(number): fault for number in lost})
    end = dop.buy(dop.csv(shots(rows)), *ORDER)
    assert (end.code, end.counts) == (3, {"done": rows - len(lost), "unknown": len(lost)})
    return dop, double


def usage(dop: Dop, *more: str, without: str = "") -> Path:
    """The gateway's list: the jobs that the ledger knows, but for one, and some more."""
    known = [str(job) for (job,) in dop.ledger("select job_set_id from attempts where job_set_id is not null")]
    lines = [f"{job},0.135" for job in (*known, *more) if job != without]
    path = dop.folder / "usage.csv"
    path.write_text("\n".join(["job_set_id,amount_usd", *lines, ""]), encoding="utf-8")
    return path


def states(dop: Dop) -> dict[str, str]:
    found = dop.ledger("select row_id, state from attempts order by row_id")
    return {str(row): str(state) for row, state in found}


def test_all_are_written_off_or_planned_again(against: Against) -> None:
    dop, double = doubtful(against, 2, 3, book=True)
    refused = dop.call("resolve", "--all", "--charged")
    assert (refused.code, "give --yes" in refused.err) == (2, True)
    assert states(dop)["row-2"] == "unknown"
    assert dop.call("resolve", "--all", "--charged", "--yes").code == 0
    assert [states(dop)[row] for row in ("row-2", "row-3")] == ["written_off"] * 2
    assert dop.ledger_mills() == double.charged_mills


def test_a_list_that_covers_the_time_and_lacks_the_submit_lets_it_be_bought(against: Against) -> None:
    dop, double = doubtful(against, 2, book=False)
    end = dop.call("resolve", "--from-usage", usage(dop), "--yes")
    assert end.code == 0, end.err
    assert states(dop)["row-2"] == "planned"
    assert dop.buy(dop.folder / "shots.csv").code == 0
    assert double.charged == 4


def test_a_job_that_the_ledger_does_not_know_is_adopted_where_one_outcome_is_unknown(against: Against) -> None:
    dop, double = doubtful(against, 2, book=True)
    known = {str(job) for (job,) in dop.ledger("select job_set_id from attempts where job_set_id is not null")}
    (stranger,) = {str(job) for job in double.jobs} - known
    end = dop.call("resolve", "--from-usage", usage(dop, stranger), "--yes")
    assert end.code == 0, end.err
    assert states(dop)["row-2"] == "accepted"
    assert dop.call("collect").code == 0
    assert (states(dop)["row-2"], double.charged) == ("done", 4)


@pytest.mark.parametrize("lost", [(2, 3), (4,), (1,)])
def test_what_the_list_does_not_prove_stays_unknown(against: Against, lost: tuple[int, ...]) -> None:
    """Two jobs for two rows could be either's; a submit before or after all known jobs may be missing from the list."""
    dop, double = doubtful(against, *lost, book=True)
    strangers = ("stranger-1", "stranger-2") if len(lost) == 2 else ()
    end = dop.call("resolve", "--from-usage", usage(dop, *strangers), "--yes")
    assert end.code == 2
    assert "leave unknown" in end.err
    assert [states(dop)[f"row-{number}"] for number in lost] == ["unknown"] * len(lost)
    assert dop.buy(dop.folder / "shots.csv").code == 3
    assert len(double.submits) == 4


def test_a_job_at_another_price_is_not_adopted(against: Against) -> None:
    dop, _ = doubtful(against, 2, book=True)
    path = usage(dop)
    path.write_text(path.read_text(encoding="utf-8") + "stranger-1,0.573\n", encoding="utf-8")
    assert dop.call("resolve", "--from-usage", path, "--yes").code == 2
    assert states(dop)["row-2"] == "unknown"


@pytest.mark.parametrize(
    "words", [(), ("--all",), ("row-1", "--all", "--charged"), ("--from-usage", "x.csv", "--charged"), ("row-1",)]
)
def test_a_resolve_that_says_too_little_or_too_much_is_refused(against: Against, words: tuple[str, ...]) -> None:
    dop, _ = doubtful(against, 2, book=True)
    assert dop.call("resolve", *words).code == 2
    assert states(dop)["row-2"] == "unknown"
    status = json.loads(dop.call("status", "--json").out)
    assert status["unknown"] == 1


def test_status_prints_the_commands_that_resolve_each(against: Against) -> None:
    dop, _ = doubtful(against, 2, book=True)
    text = dop.call("status").out
    for way in ("--charged", "--resend", "--adopt JOB_ID"):
        assert f" {way}\n" in text
    command = next(line for line in text.splitlines() if line.endswith(" --charged"))
    assert dop.call(*command.split()[1:]).code == 0
