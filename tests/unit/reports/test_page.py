"""The page as text: what may run in it, what text cannot do to it, and what is on it without scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline.records import Attempt, State, Totals
from pipeline.reports.checks.findings import ClipCheck, Grade, RunChecks
from pipeline.reports.sheet import cell_data
from pipeline.reports.sheet.cells import CellMedia, SheetCell, sheet_cell
from pipeline.reports.sheet.clip_files import start_clips
from pipeline.reports.sheet.page import build_sheet, page_pieces, sections, sheet_html, write_sheet
from pipeline.reports.sheet.run_view import Line, RunView, SkippedLine
from pipeline.reports.sheet.thumbnails import poster_path, start_path
from tests.support.factories import make_attempt

HOSTILE = """</script><script>alert(1)</script>"><img src=x onerror=alert(2)> '"`<!-- \u2028 & {{ 7*7 }}"""


class Page(HTMLParser):
    """Every tag of a page with its attributes, and the text of scripts, styles and cells."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(name))]


def make_view(lines: list[Line], outputs: Path = Path("/nowhere"), **other: Any) -> RunView:
    fields: dict[str, Any] = {"run": "run-1", "title": "study", "gateway": "sandbox", "totals": Totals()}
    return RunView(lines=tuple(lines), outputs=outputs, **fields | other)


def page_of(view: RunView) -> tuple[str, Page]:
    text = sheet_html(view, build_sheet(view, view.outputs))
    return text, Page(text)


def hostile_attempt() -> Attempt:
    return make_attempt(
        row_id=HOSTILE, prompt=HOSTILE, motion=HOSTILE, model=HOSTILE, tags=(HOSTILE,), axes=(("look", HOSTILE),),
        state=State.FAILED, reason=HOSTILE, job_set_id=HOSTILE, video_url="javascript:alert(3)", accepted_at=1.0,
        finished_at=2.0, submitted_at=1.0, input_images=("javascript:alert(4)",),
    )  # fmt: skip


def test_no_text_of_a_manifest_or_a_gateway_becomes_markup() -> None:
    calm, _ = page_of(make_view([make_attempt(state=State.FAILED, reason="x", accepted_at=1.0, finished_at=2.0)]))
    text, page = page_of(make_view([hostile_attempt()], title=HOSTILE, gateway=HOSTILE, run=HOSTILE))
    assert [tag for tag, _ in page.tags if tag in {"script", "img"}] == ["script", "script"]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert text.count("<script") == calm.count("<script") == 2
    assert "49" not in [part.strip() for part in page.texts["h1"]]
    assert HOSTILE in "".join(page.texts["h1"])


def texts_in(cell: SheetCell) -> list[object]:
    """What the scripts are to know of a cell, whose place is that of a page without axes."""
    media = [cell.stills.clip, cell.stills.poster, cell.stills.start]
    lists = [list(cell.tags), [], media, [text for fact in cell.facts for text in fact], list(cell.history)]
    ends = [cell.request_id, cell.attempt, cell.due, cell.check, "; ".join(cell.defects)]
    return [cell.row_id, cell.state, cell.reason, cell.price, cell.model, *lists, *ends]


def texts_of(data: dict[str, Any]) -> list[list[object]]:
    """Every cell of a page's JSON with its texts in place of their numbers."""
    strings, attempt = data["strings"], 11
    return [
        [
            one if at == attempt else [strings[number] for number in one] if isinstance(one, list) else strings[one]
            for at, one in enumerate(cell)
        ]
        for cell in data["cells"]
    ]


def test_the_json_block_gives_back_every_text_exactly() -> None:
    view = make_view([hostile_attempt()])
    text, page = page_of(view)
    block = page.texts["script"][0]
    (shown,) = build_sheet(view, view.outputs).cells
    assert texts_of(json.loads(block)) == [texts_in(shown)]
    assert HOSTILE in json.loads(block)["strings"]
    assert not set("<>&\u2028\u2029") & set(block)
    assert text.count("</script>") == 2


@pytest.mark.parametrize(("known", "spool"), [(2, 10), (50_000, 1 << 20)])
def test_the_data_of_the_cells_is_exact_whatever_is_remembered_and_kept_in_memory(
    monkeypatch: pytest.MonkeyPatch, known: int, spool: int
) -> None:
    monkeypatch.setattr(cell_data, "MAX_KNOWN_TEXTS", known)
    monkeypatch.setattr(cell_data, "SPOOL_BYTES", spool)
    monkeypatch.setattr(cell_data, "CHUNK_CELLS", 3)
    states = (State.DONE, State.FAILED, State.DONE, State.UNKNOWN)
    lines: list[Line] = [
        make_attempt(
            row_id=f"a-{seed}", seed=seed, prompt=f"été {seed % 2} \ud800", state=states[seed % 4], tags=("x",)
        )
        for seed in range(1, 9)
    ]
    cells = build_sheet(make_view([*lines, SkippedLine(row_id="left out")]), Path("/nowhere")).cells
    with cell_data.CellData(cells, ()) as data:
        text = "".join(data.pieces())
    assert texts_of(json.loads(f"{{{text}}}")) == [texts_in(cell) for cell in cells]
    assert data.states == {"done": 4, "failed": 2, "unknown": 2, "skipped": 1}


def test_the_cells_are_written_in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_data, "PIECE_CHARACTERS", 1_000)
    view = make_view([make_attempt(row_id=f"row-{seed}", seed=seed, state=State.DONE) for seed in range(1, 301)])
    sizes = [len(piece) for piece in page_pieces(view, build_sheet(view, view.outputs))]
    assert sizes.count(1_000) > 30


def test_only_the_pages_own_script_and_style_may_run() -> None:
    _, page = page_of(make_view([hostile_attempt()]))
    policy = next(str(attributes["content"]) for tag, attributes in page.tags if "http-equiv" in attributes)
    for directive, text in (("script-src", page.texts["script"][1]), ("style-src", "".join(page.texts["style"]))):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "connect-src" not in policy
    assert not page.values("style")


def test_the_page_asks_the_network_for_nothing() -> None:
    text, page = page_of(make_view([make_attempt(state=State.DONE, video_url="https://cdn.example.com/v.mp4")]))
    loaded = [value for name in ("src", "poster", "srcset") for value in page.values(name)]
    links = [attributes.get("href") for tag, attributes in page.tags if tag == "link"]
    assert loaded == []
    assert links == ["data:,"]
    assert not re.search(r"url\(|@import", text)


def test_a_clip_is_linked_relative_to_the_page_with_its_poster(tmp_path: Path) -> None:
    clip = tmp_path / "run 1" / "videos" / "a#1.mp4"
    clip.parent.mkdir(parents=True)
    for file in (clip, poster_path(clip), start_path(clip)):
        file.write_bytes(b"x")
    view = make_view([make_attempt(state=State.DONE, local_path="run 1/videos/a#1.mp4")], tmp_path)
    (cell,) = build_sheet(view, tmp_path / "run 1").cells
    assert (cell.stills.clip, cell.stills.poster) == ("videos/a%231.mp4", "videos/a%231.jpg")
    assert cell.stills.start == "videos/a%231.start.jpg"
    (cell,) = build_sheet(view, tmp_path / "elsewhere").cells
    assert cell.stills.clip == "../run%201/videos/a%231.mp4"


def test_every_state_is_visible_with_reason_and_price_without_scripts() -> None:
    states = [state for state in State if state is not State.SKIPPED]
    lines: list[Line] = [
        make_attempt(seed=seed, state=state, reason=f"because {state}") for seed, state in enumerate(states, start=1)
    ]
    _, page = page_of(make_view([*lines, SkippedLine(row_id="gap")]))
    cells = [attributes for tag, attributes in page.tags if tag == "article"]
    assert len(cells) == 14  # 13 and the empty template of the scripts
    reasons = page.texts["i"]
    assert [f"because {state}" in reasons for state in states] == [True] * 12
    assert "left out by the manifest" in reasons
    prices = Counter(text for text in page.texts["span"] if text.startswith("$0.135"))
    assert prices == {"$0.135": 3, "$0.135 disputed": 4, "$0.135 reserved": 4, "$0.135 not paid": 1}
    shown = [attributes.get("class") for tag, attributes in page.tags if "data-states" in attributes]
    assert shown == ["failed", "unknown", "stalled"]


def test_a_reason_that_only_repeats_the_state_is_called_none() -> None:
    failed = make_attempt(state=State.FAILED, reason="failed")
    assert sheet_cell(0, failed, (), {}, CellMedia()).reason == "no reason was given"


def test_a_calm_run_says_nothing_of_troubles() -> None:
    _, page = page_of(make_view([make_attempt()]))
    troubles = [attributes for _, attributes in page.tags if "data-states" in attributes]
    assert len(troubles) == 3
    assert all("hidden" in attributes for attributes in troubles)


def test_the_page_says_whether_money_was_spent() -> None:
    rehearsal, _ = page_of(make_view([make_attempt()]))
    live, _ = page_of(make_view([make_attempt()], gateway="gateway.pixazo.ai"))
    assert "no money was spent" in rehearsal
    assert "no money was spent" not in live
    assert "gateway.pixazo.ai" in live


def test_tabs_follow_each_other_as_tables_with_heads() -> None:
    lines: list[Line] = [
        make_attempt(row_id=f"r@{model}-{look}-{seed}", model=model, seed=seed, prompt=look,
                     axes=(("model", model), ("look", look), ("seed", str(seed))))
        for model in ("dop-lite", "dop-turbo") for look in ("calm", "bold") for seed in (1, 2, 3)
    ]  # fmt: skip
    view = make_view(lines, x="seed", y="look", tabs=("model",))
    drawn = sections(build_sheet(view, view.outputs))
    assert [section.title for section in drawn] == ["model dop-lite", "model dop-turbo"]
    assert drawn[0].columns == ("1", "2", "3")
    assert [(name, [len(cells) for cells in row]) for name, row in drawn[0].rows] == [
        ("calm", [1, 1, 1]),
        ("bold", [1, 1, 1]),
    ]


def test_beyond_two_thousand_cells_the_first_are_drawn_and_the_rest_is_named() -> None:
    text, page = page_of(make_view([make_attempt(row_id=f"r{at}", seed=at) for at in range(1, 2101)]))
    assert len([tag for tag, _ in page.tags if tag == "article"]) == 2001
    assert "first 2000 of 2100" in text


def test_earlier_attempts_are_shown_with_what_they_cost() -> None:
    first = make_attempt(state=State.FAILED, reason="boom")
    view = make_view([first, make_attempt(state=State.DONE, attempt=2)])
    (cell,) = build_sheet(view, view.outputs).cells
    assert cell.history == ("attempt 1 failed: boom ($0.135 disputed)",)
    assert cell.attempt == 2


@pytest.mark.long
def test_a_thousand_cells_are_written_in_three_seconds(tmp_path: Path) -> None:
    lines: list[Line] = [
        make_attempt(row_id=f"m@{at}", seed=at, axes=(("seed", str(at)),), state=State.DONE) for at in range(1, 1001)
    ]
    started = time.process_time()
    write_sheet(make_view(lines, tmp_path), tmp_path / "report.html")
    assert time.process_time() - started < 3
    assert (tmp_path / "report.html").stat().st_size < 1_500_000


def test_the_head_says_who_started_the_run() -> None:
    attempt = make_attempt(state=State.DONE)
    assert "by mira &lt;3" in page_of(make_view([attempt], started_at=0.0, started_by="mira <3"))[0]
    assert "<span>by" not in page_of(make_view([attempt], started_at=0.0))[0]


def test_the_start_frame_is_that_of_a_clip_that_is_not_broken(tmp_path: Path) -> None:
    lines = [make_attempt(row_id=f"row@{n}", seed=n, local_path=f"run/{n}.mp4", state=State.DONE) for n in (1, 2)]
    (tmp_path / "run").mkdir()
    for line in lines:
        (tmp_path / str(line.local_path)).touch()
    bad = ClipCheck(grade=Grade.BAD, reasons=("wrong_start 0.30",))
    view = make_view(list(lines), tmp_path, checks=RunChecks(found={(lines[0].request_id, 1): bad}))
    cells = [(line, ()) for line in lines]
    assert list(start_clips(cells, view).values()) == [tmp_path / "run" / "2.mp4"]
    (tmp_path / "run" / "2.mp4").unlink()
    assert list(start_clips(cells, view).values()) == [tmp_path / "run" / "1.mp4"], "better than none"


def test_a_candidate_that_is_not_needed_is_no_clip_that_is_missing() -> None:
    _, page = page_of(make_view([make_attempt(state=State.PLANNED, seed=1, is_spare=True), make_attempt(seed=2)]))
    assert "/1" in page.texts["small"]
