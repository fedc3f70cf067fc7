"""The tables: columns, formats, sums, and text that a spreadsheet could mistake for a formula."""

from __future__ import annotations

import csv
import json
import re
import time
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import COST_STATE, Attempt, State
from pipeline.reports import tables as table
from pipeline.reports.checks.findings import ClipCheck, Grade, Kind
from pipeline.reports.tables import (
    METRICS_COLUMN,
    REPORT_COLUMNS,
    csv_cells,
    escape_formula,
    failures,
    report_row,
    write_csv,
    write_failures_csv,
    write_jsonl,
)
from tests.support.factories import make_attempt

OUTPUTS = Path("/data/outputs")
RUN_FOLDER = OUTPUTS / "2026-11-02_0910-spin-ab12"

COLUMNS_OF_THE_DOCUMENTATION = (
    "request_id, row_id, tags, status, model, seed, prompt, image, end_image, motion, motions_id, motions_strength, "
    "enhance_prompt, check_nsfw, take, attempt, job_set_id, video_url, local_path, size_bytes, sha256, price_usd, "
    "cost_usd, cost_state, submit_attempts, throttled, polls, submitted_at, finished_at, duration_s, reason, "
    "check, check_reasons, verdict, stars, note, gateway, "
    "bought_in"
)

DONE: dict[str, Any] = {
    "state": State.DONE,
    "job_set_id": "js-1",
    "video_url": "https://cdn.example.com/a.mp4",
    "local_path": "2026-11-02_0910-spin-ab12/videos/lake-7.mp4",
    "size_bytes": 1234,
    "submitted_at": 1_762_074_600.2,
    "accepted_at": 1_762_074_601.0,
    "finished_at": 1_762_074_646.5,
}


def row_of(**only_what_matters: Any) -> dict[str, object]:
    return report_row(make_attempt(**only_what_matters), outputs=OUTPUTS, run_folder=RUN_FOLDER)


def read_back(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream, strict=True))


def test_columns_are_the_documented_ones_in_their_order() -> None:
    assert ", ".join(REPORT_COLUMNS) == COLUMNS_OF_THE_DOCUMENTATION
    assert tuple(row_of()) == (*REPORT_COLUMNS, METRICS_COLUMN)


def test_cells_have_the_documented_formats(tmp_path: Path) -> None:
    row = row_of(**DONE, tags=("hero", "v2"), check_nsfw=True, input_images_end=("https://a/1", "https://a/2"))
    write_csv([row], tmp_path / "report.csv")
    (cells,) = read_back(tmp_path / "report.csv")
    assert cells["tags"] == "hero;v2"
    assert cells["end_image"] == "https://a/1;https://a/2"
    assert cells["motions_strength"] == "0.7"
    assert (cells["enhance_prompt"], cells["check_nsfw"]) == ("false", "true")
    assert (cells["submitted_at"], cells["finished_at"]) == ("2025-11-02T09:10:00Z", "2025-11-02T09:10:46Z")
    assert cells["duration_s"] == "45.5"
    assert (cells["price_usd"], cells["cost_usd"], cells["cost_state"]) == ("0.135", "0.135", "confirmed")
    assert cells["local_path"] == "videos/lake-7.mp4"
    assert cells["bought_in"] == ""


def test_a_clip_of_another_run_is_reached_over_the_parent_folder_and_costs_nothing() -> None:
    row = row_of(**DONE | {"local_path": "2026-10-01_0000-old-0001/videos/x.mp4"}, bought_in="2026-10-01_0000-old-0001")
    assert row["local_path"] == "../2026-10-01_0000-old-0001/videos/x.mp4"
    assert (row["cost_usd"], row["cost_state"]) == (Decimal(0), "none")


def test_missing_values_are_empty_cells() -> None:
    cells = dict(zip(REPORT_COLUMNS, csv_cells(row_of()), strict=True))
    for column in ("check_nsfw", "job_set_id", "local_path", "size_bytes", "submitted_at", "duration_s", "reason"):
        assert cells[column] == ""


def test_a_clock_that_went_back_gives_no_duration() -> None:
    assert row_of(accepted_at=100.0, finished_at=90.0)["duration_s"] is None


def test_a_check_is_in_its_columns_and_its_metrics_in_json_only(tmp_path: Path) -> None:
    check = ClipCheck(
        grade=Grade.BAD,
        reasons=("frozen 1.2 s from 3.8 s", "soft 0.31"),
        kinds=(Kind.FROZEN,),
        metrics={"frozen_s": 1.2},
    )
    row = report_row(make_attempt(**DONE), outputs=OUTPUTS, run_folder=RUN_FOLDER, check=check)
    cells = dict(zip(REPORT_COLUMNS, csv_cells(row), strict=True))
    assert (cells["check"], cells["check_reasons"]) == ("bad", "frozen 1.2 s from 3.8 s; soft 0.31")
    assert METRICS_COLUMN not in cells
    write_jsonl([row], tmp_path / "report.jsonl")
    kept = json.loads((tmp_path / "report.jsonl").read_text(encoding="utf-8"))
    assert kept["check_metrics"] == {"frozen_s": 1.2}
    assert kept["check_reasons"] == ["frozen 1.2 s from 3.8 s", "soft 0.31"]


@given(st.lists(st.tuples(st.integers(0, 10**13), st.sampled_from(list(COST_STATE)))))
def test_cost_cells_add_up_to_the_records_micro_dollars(items: list[tuple[int, State]]) -> None:
    attempts = [make_attempt(price_microusd=price, state=state) for price, state in items if state is not State.SKIPPED]
    printed = [csv_cells(report_row(attempt, outputs=OUTPUTS, run_folder=RUN_FOLDER)) for attempt in attempts]
    at = REPORT_COLUMNS.index("cost_usd")
    assert sum((Decimal(cells[at]) for cells in printed), Decimal(0)) * 1_000_000 == sum(
        attempt.cost_microusd for attempt in attempts
    )
    assert all(re.fullmatch(r"\d+\.\d{3,6}", cells[at]) for cells in printed)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "＝1", "＋1", "－1", "＠x", "  =1"])
def test_text_that_looks_like_a_formula_gets_an_apostrophe(text: str) -> None:
    cells = dict(zip(REPORT_COLUMNS, csv_cells(row_of(prompt=text + " a", reason=text)), strict=True))
    assert cells["prompt"] == "'" + text + " a"
    assert cells["reason"] == "'" + text


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a;=HYPERLINK(1)", "a;'=HYPERLINK(1)"),
        ("a; @SUM(1)|-2", "a; '@SUM(1)|'-2"),
        ("a,b\t=1\n+2", "a,b\t'=1\n'+2"),
        ("\t=1", "'\t'=1"),
        ("a; b, c | d=1", "a; b, c | d=1"),
    ],
)
def test_a_formula_behind_a_separator_of_another_country_gets_an_apostrophe(text: str, cell: str) -> None:
    assert escape_formula(text) == cell


@given(st.text(alphabet=st.sampled_from("=+-@\t\r\n＝＠ \x00\x7f\x85a1水\ud800"), max_size=8))
def test_no_text_cell_begins_like_a_formula_or_holds_a_control_character(text: str) -> None:
    cell = escape_formula(text)
    assert not cell.lstrip().startswith(table.FORMULA_STARTS)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", cell)


def test_numbers_stay_numbers_whatever_they_begin_with() -> None:
    cells = csv_cells(row_of() | {"duration_s": -0.5})
    assert cells[REPORT_COLUMNS.index("duration_s")] == "-0.5"


HOSTILE = 'a "quoted", line\r\nnext\x00\x1b[31m ; tab\t 水 \ud800'


def test_any_prompt_survives_the_csv_as_one_cell(tmp_path: Path) -> None:
    write_csv([row_of(prompt=HOSTILE), row_of(seed=8)], tmp_path / "report.csv")
    first, second = read_back(tmp_path / "report.csv")
    assert first["prompt"] == 'a "quoted", line\r\nnext�\ufffd[31m ; tab\t 水 ?'
    assert second["seed"] == "8"


@given(st.text(alphabet=st.sampled_from("=+-@;,'\"\t\r\n \x00\x7fa1水\ud800"), max_size=8))
def test_a_cell_is_quoted_as_the_csv_module_does_it(text: str) -> None:
    line = StringIO()
    # A second cell: the csv module writes a lone empty one as quotes.
    csv.writer(line, lineterminator="\r\n").writerow((escape_formula(text), ""))
    cells = csv_cells(row_of() | {"note": text})
    assert cells[REPORT_COLUMNS.index("note")] + ",\r\n" == line.getvalue()


def test_only_text_beyond_ascii_gets_a_byte_order_mark(tmp_path: Path) -> None:
    write_csv([row_of()], tmp_path / "ascii.csv")
    write_csv([row_of(prompt="Café am See")], tmp_path / "more.csv")
    assert (tmp_path / "ascii.csv").read_bytes().startswith(b"request_id,")
    assert (tmp_path / "more.csv").read_bytes().startswith(b"\xef\xbb\xbfrequest_id,")
    assert list(tmp_path.glob(".*")) == []


def test_a_report_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    write_csv([row_of()], path)
    before = path.read_bytes()
    with pytest.raises(KeyError):
        write_csv([row_of(), {"request_id": "x"}], path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.csv"]


def test_an_empty_run_has_the_head_only(tmp_path: Path) -> None:
    assert write_csv([], tmp_path / "report.csv") == 0
    assert (tmp_path / "report.csv").read_text() == ",".join(REPORT_COLUMNS) + "\n"


def test_failures_name_unknown_outcomes_first_and_leave_out_what_was_bought_again(tmp_path: Path) -> None:
    rows = [
        row_of(row_id="a", seed=1, state=State.DONE),
        row_of(row_id="b", seed=2, state=State.FAILED, reason="render error"),
        row_of(row_id="c", seed=3, state=State.UNKNOWN),
        row_of(row_id="d", seed=4, state=State.REFUSED),
        row_of(row_id="d", seed=4, state=State.DONE, attempt=2),
        row_of(row_id="e", seed=5, state=State.STALLED),
        row_of(row_id="f", seed=6, state=State.ACCEPTED),
    ]
    assert [row["row_id"] for row in failures(rows)] == ["c", "b", "e"]
    assert write_failures_csv(rows, tmp_path / "failures.csv") == 3
    assert [cells["row_id"] for cells in read_back(tmp_path / "failures.csv")] == ["c", "b", "e"]


def test_json_lines_carry_raw_values(tmp_path: Path) -> None:
    write_jsonl([row_of(**DONE, prompt="=cmd()\n水", tags=("a",)), row_of(prompt=HOSTILE)], tmp_path / "report.jsonl")
    first, second = map(json.loads, (tmp_path / "report.jsonl").read_text(encoding="utf-8").splitlines())
    assert tuple(first) == (*REPORT_COLUMNS, METRICS_COLUMN)
    assert first["prompt"] == "=cmd()\n水"
    assert first["tags"] == ["a"]
    assert first["cost_usd"] == "0.135"
    assert first["submitted_at"] == "2025-11-02T09:10:00.200000Z"
    assert first["enhance_prompt"] is False
    assert first["check_nsfw"] is None
    assert second["prompt"] == HOSTILE


@pytest.mark.long
def test_a_hundred_thousand_lines_take_seconds(tmp_path: Path) -> None:
    attempt: Attempt = make_attempt(**DONE, tags=("hero", "v2"), prompt="Still lake at dawn, mist drifting")
    started = time.process_time()
    count = write_csv(
        (report_row(attempt, outputs=OUTPUTS, run_folder=RUN_FOLDER) for _ in range(100_000)), tmp_path / "report.csv"
    )
    assert count == 100_000
    assert time.process_time() - started < 15
