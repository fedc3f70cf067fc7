"""The gateway's own list of motions: every wrapping and spelling is read, nothing hostile gets through, files agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import FatalError
from pipeline.gateway.motion_response import parse_motions
from pipeline.gateway.motions import SHIPPED_SOURCE, MotionCatalog, MotionPreset, as_csv, parse
from tests.support.manifests import CATALOGUE

ONE = "11111111-aaaa-4bbb-8ccc-000000000001"
TWO = "11111111-aaaa-4bbb-8ccc-000000000002"
ORBIT = "ea035f68-b350-40f1-b7f4-7dff999fdd67"
EMPTY = MotionCatalog([])
LIST = [{"id": ONE, "name": "Push"}, {"motion_id": TWO.upper(), "title": "Pull", "start_end_frame": False}]


@pytest.mark.parametrize(
    "payload",
    [
        LIST,
        {"motions": LIST},
        {"data": LIST},
        {"results": LIST},
        {"items": LIST},
        {"success": True, "data": {"motions": LIST, "total": 2}},
        {ONE: {"name": "Push"}, TWO: {"name": "Pull", "startEndFrame": False}},
    ],
)
def test_a_list_is_read_in_every_wrapping(payload: object) -> None:
    found = parse_motions(payload, EMPTY)
    assert found is not None
    assert [(one.name, one.motions_id, one.start_end_frame) for one in found.presets] == [
        ("Push", ONE, None),
        ("Pull", TWO, False),
    ]
    assert found.left_out == 0


@pytest.mark.parametrize("payload", [None, 7, "no", [], {}, {"error": "no"}, {"data": None}, [{"id": "abc"}], [[LIST]]])
def test_what_lists_no_preset_is_none(payload: object) -> None:
    assert parse_motions(payload, EMPTY) is None


def test_what_the_answer_does_not_say_comes_from_the_list_before() -> None:
    found = parse_motions([{"id": ORBIT}], CATALOGUE)
    assert found is not None
    assert found.presets == (MotionPreset(name="360 Orbit", motions_id=ORBIT, start_end_frame=True),)


def test_two_presets_of_one_name_can_both_be_meant() -> None:
    found = parse_motions([{"id": ONE, "name": "Push"}, {"id": TWO, "name": "push"}, {"id": ONE}], EMPTY)
    assert found is not None
    assert [one.name for one in found.presets] == ["Push", "push (11111111)"]
    assert found.left_out == 1


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("=HYPERLINK(1)", "HYPERLINK(1)"),
        ("a\x1b[2Jb\nc", "a [2Jb c"),
        ("  ", ONE),
        (7, ONE),
        (TWO, ONE),
        ("x" * 500, "x" * 80),
    ],
)
def test_a_name_is_one_harmless_line(said: object, kept: str) -> None:
    found = parse_motions([{"id": ONE, "name": said}], EMPTY)
    assert found is not None
    assert found.presets[0].name == kept


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("https://cdn.example.com/p.webp", "https://cdn.example.com/p.webp"),
        ("javascript:alert(1)", None),
        ("https://x/\x1b", None),
        (["https://x/"], None),
    ],
)
def test_a_preview_is_an_ordinary_address_or_none(said: object, kept: str | None) -> None:
    found = parse_motions([{"id": ONE, "name": "Push", "preview_url": said}], EMPTY)
    assert found is not None
    assert found.presets[0].preview_url == kept


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just(ONE) | st.just(ORBIT),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "name", "motions", "data", "preview_url", ONE]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_whatever_comes_is_read_or_none_and_what_is_kept_reads_back_alike(payload: object) -> None:
    found = parse_motions(payload, CATALOGUE)
    if found is not None:
        kept = MotionCatalog(found.presets, source="https://gateway.example:443, 2026-11-22T00:00:00Z")
        back = parse(as_csv(kept))
        assert (back.presets, back.source, back.digest) == (kept.presets, kept.source, kept.digest)


def test_a_list_says_where_it_is_from() -> None:
    assert CATALOGUE.source == SHIPPED_SOURCE
    assert parse("# somewhere, 2026\nname,id,start_end_frame\n").source == "somewhere, 2026"


def test_a_search_finds_by_every_word_and_by_the_beginning_of_an_id() -> None:
    assert "Crash Zoom In" in [preset.name for preset in CATALOGUE.search("zoom crash")]
    assert [preset.name for preset in CATALOGUE.search("ea035f68")] == ["360 Orbit"]
    assert CATALOGUE.search("qqqq") == []


def test_a_damaged_list_is_refused() -> None:
    with pytest.raises(FatalError, match="header"):
        parse("name,id\n")
