"""YAML without its traps: what cannot be meant is refused before it is loaded, and words mean what they look like."""

from __future__ import annotations

import contextlib
import time
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import strict_yaml
from tests.support.manifests import message_of

BOMB = "a: &a [x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "batch.yaml:1:4: anchors (&a) are not read"),
        ("a: *b\n", "batch.yaml:1:4: aliases (*b) are not read"),
        ("a: !!python/object/apply:os.system [ls]\n", "batch.yaml:1:4: tags (tag:yaml.org,2002:python/object/apply:os"),
        ("a: !mine 1\n", "tags (!mine) are not read"),
        ("a: !!str 1\n", "tags (tag:yaml.org,2002:str) are not read"),
        ("rows: 1\n---\nrows: 2\n", "batch.yaml:2:1: a second document begins here"),
        ("? [a, b]\n: 1\n", "a key must be a word"),
        ("? {a: b}\n: 1\n", "a key must be a word"),
        ("rows: [1\n", "not YAML"),
        ("a:\tb: c\n\t- x", "not YAML"),
        ("a: \x07\n", "not YAML"),
        ("a: \ufffe\n", "not YAML"),
        ("'a\n", "not YAML"),
        ("[" * 33 + "]" * 33, "more than 32 levels deep"),
        ("[" * 200_000, "more than 32 levels deep"),
        ("- " * 200_000, "more than 32 levels deep"),
        ("{a: " * 200_000, "more than 32 levels deep"),
        ("version: 1\nversion: 1\n", "batch.yaml:2:1: version: this key is given twice"),
        ("rows: [{id: a, id: b}]\n", "batch.yaml:1:16: rows[0].id: this key is given twice"),
        ("<<: {a: b}\n", "unknown key"),
        ("1: x\n", "unknown key"),
    ],
    ids=range(21),
)
def test_what_yaml_could_do_beyond_data_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    before = time.process_time()
    assert message in message_of(tmp_path, text)
    assert time.process_time() - before < 2


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("NO", "NO"),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("7", 7),
        ("-7", -7),
        ("0", 0),
        ("010", "010"),
        ("0o10", "0o10"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2026-11-22", "2026-11-22"),
        ("0.70", Decimal("0.70")),
        (".5", Decimal("0.5")),
        ("1.", Decimal("1")),
        ("1e3", Decimal("1000")),
        ("1e999999999", "1e999999999"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("９", "９"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_a_plain_word_is_what_yaml_1_2_says_without_surprises(word: str, value: object) -> None:
    found = strict_yaml.scalar(word)
    assert found == value
    assert type(found) is type(value)


def test_a_quoted_word_is_always_text() -> None:
    assert strict_yaml.read("a: '7'\nb: \"true\"\nc: |\n  7\n").value == {"a": "7", "b": "true", "c": "7\n"}


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        ("name: ä\n", "cp1252", "batch.yaml:1: is not UTF-8 (byte 0xE4"),
        ("rows: []\n", "utf-16", "rows: is empty"),
        ("rows: []\n", "utf-8-sig", "rows: is empty"),
    ],
)
def test_another_encoding_is_named_and_a_mark_is_forgiven(
    tmp_path: Path, text: str, encoding: str, message: str
) -> None:
    assert message in message_of(tmp_path, text.encode(encoding))


def test_a_manifest_larger_than_20_mb_must_become_a_sheet(tmp_path: Path) -> None:
    assert "is larger than 20 MB: put the rows into a CSV file" in message_of(tmp_path, b"#" * 20_000_001)


@given(
    st.recursive(
        st.one_of(st.integers(-99, 99), st.booleans(), st.text("abc xyz", max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
        ),
        max_leaves=12,
    )
)
def test_what_is_written_is_what_is_read(value: object) -> None:
    import yaml

    text = yaml.safe_dump({"value": value}, default_flow_style=None)
    if "&" not in text and "*" not in text:
        assert strict_yaml.read(text).value == {"value": value}


@given(st.binary(max_size=60))
def test_no_bytes_at_all_make_it_stumble(raw: bytes) -> None:
    with contextlib.suppress(strict_yaml.YamlTextError):
        assert isinstance(strict_yaml.read(raw.decode("utf-8", "replace")), strict_yaml.ParsedYaml)


def test_places_are_those_of_the_keys_and_items() -> None:
    text = "version: 1\nrows:\n  - id: a\n    seed: [1,\n      2]\n"
    wanted = {("rows", 0), ("rows", 0, "seed"), ("rows", 0, "seed", 1), ("rows", 7)}
    assert strict_yaml.places(text, wanted) == {
        ("rows", 0): (3, 5),
        ("rows", 0, "seed"): (4, 5),
        ("rows", 0, "seed", 1): (5, 7),
    }
