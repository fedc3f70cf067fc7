"""JUnit XML: what a CI server counts, and that it is XML whatever a prompt or a gateway said."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pipeline.records import State
from pipeline.reports.checks.findings import ClipCheck, Grade, Kind
from pipeline.reports.junit import write_junit
from pipeline.reports.tables import report_row
from tests.support.factories import make_attempt

EVERY_CHARACTER = "".join(map(chr, range(0x100))) + "\ud800\udfff\ufffe\uffff𝄞<&>\"']]>"


def row_of(**only_what_matters: Any) -> dict[str, object]:
    return report_row(make_attempt(**only_what_matters), outputs=Path("/o"), run_folder=Path("/o/r"))


def suite_of(rows: list[dict[str, object]], folder: Path, run: str = "run-1") -> ElementTree.Element:
    assert write_junit(rows, folder / "junit.xml", run=run) == len(rows)
    suite = ElementTree.parse(folder / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    return suite


def test_every_state_is_counted_once_and_only_done_passes(tmp_path: Path) -> None:
    states = [state for state in State if state is not State.SKIPPED]
    suite = suite_of([row_of(seed=seed, state=state) for seed, state in enumerate(states, start=1)], tmp_path)
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "12",
        "5",
        "3",
        "3",
    )
    passed = [case.get("name") for case in suite if len(case) == 0]
    assert passed == [f"lake-{states.index(State.DONE) + 1}"]


def test_reason_and_request_are_in_the_failure(tmp_path: Path) -> None:
    suite = suite_of([row_of(state=State.REFUSED, reason="nsfw", take=2, prompt="a <b> & c")], tmp_path)
    (case,) = suite
    assert case.get("name") == "lake-7 take 2"
    assert case[0].tag == "failure"
    assert case[0].get("message") == "refused: nsfw"
    assert "prompt: a <b> & c" in str(case[0].text)


def test_an_attempt_that_was_bought_again_does_not_fail_the_build(tmp_path: Path) -> None:
    suite = suite_of([row_of(state=State.FAILED, reason="boom"), row_of(state=State.DONE, attempt=2)], tmp_path)
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "1")
    assert suite[0][0].get("message") == "replaced by attempt 2; was failed: boom"
    assert suite[1].get("name") == "lake-7 attempt 2"


def test_any_character_leaves_valid_xml(tmp_path: Path) -> None:
    rows = [row_of(prompt=EVERY_CHARACTER, row_id=EVERY_CHARACTER, reason=EVERY_CHARACTER, state=State.FAILED)]
    suite = suite_of(rows, tmp_path, run=EVERY_CHARACTER)
    assert str(suite[0].get("name")).endswith("𝄞<&>\"']]>")
    assert "\n" in str(suite[0].get("name"))


def test_times_add_up_to_the_suite(tmp_path: Path) -> None:
    rows = [row_of(seed=seed, state=State.DONE, accepted_at=10.0, finished_at=12.5) for seed in (1, 2)]
    suite = suite_of(rows, tmp_path)
    assert suite.get("time") == "5.000"
    assert [case.get("time") for case in suite] == ["2.500", "2.500"]


def test_a_bad_clip_fails_the_build_only_where_its_kind_counts(tmp_path: Path) -> None:
    check = ClipCheck(grade=Grade.BAD, reasons=("cut at 2.5 s",), kinds=(Kind.CUT,))
    row = report_row(make_attempt(state=State.DONE), outputs=Path("/o"), run_folder=Path("/o/r"), check=check)
    for fail_on, failures in (((), "0"), (("frozen",), "0"), (("cut",), "1"), (("all",), "1")):
        write_junit([row], tmp_path / "junit.xml", run="run-1", fail_on=fail_on)
        suite = ElementTree.parse(tmp_path / "junit.xml").getroot().find("testsuite")
        assert suite is not None
        assert suite.get("failures") == failures, fail_on
        if failures == "1":
            assert suite[0][0].get("message") == "check bad: cut at 2.5 s"
