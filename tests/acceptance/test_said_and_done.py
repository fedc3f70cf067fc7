"""What the pages and the help say is what the program does: each line here was once found to be otherwise."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop, shots
from tests.support.user_sheets import HEAD, mistake_of, mistakes_of, planned, refused, sheet, written

Against = Callable[..., Opened]
ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


# the pages -----------------------------------------------------------------------------------------------------------


def test_no_page_names_a_package_that_is_not_published() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"(?:pip|pipx|uv tool) install ['\"]?dop-batch", text), page
        assert not re.search(r"image: ['\"]?dop-batch", text), page


def _choices() -> list[tuple[str, str]]:
    """Every manifest of the repository with the tags that a page's command chooses from it."""
    found = []
    for page in PAGES:
        for line in re.findall(r"^dop .*--filter-tag.*$", page.read_text(encoding="utf-8"), flags=re.M):
            words = shlex.split(line, comments=True)
            if (ROOT / words[2]).exists():
                found += [(words[2], words[at + 1]) for at, word in enumerate(words) if word == "--filter-tag"]
    return found


def test_every_tag_that_a_page_chooses_is_there(rehearsal: Dop) -> None:
    for manifest, tag in _choices():
        assert planned(rehearsal, ROOT / manifest, "--filter-tag", tag)["requests"] > 0, (manifest, tag)


def test_the_order_of_the_exit_codes_is_written_somewhere() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    listed = re.search(r"\b7\b[^\n]*\b3\b[^\n]*\b8\b[^\n]*\b130\b[^\n]*\b5\b[^\n]*\b1\b[^\n]*\b9\b[^\n]*\b0\b", pages)
    assert listed, "the first of these that applies: 7, 3, 8, 129, 130 or 143, 5, 1, 9, 0"


# places --------------------------------------------------------------------------------------------------------------


def test_a_picture_that_cannot_be_given_is_named_with_the_sheets_line(against: Against) -> None:
    dop, _ = against()
    dop.base_url = "https://gateway.example.com"
    sheet(dop, "a,https://cdn.example.com/a.jpg,A cat,1", "b,sandbox:cat,A dog,2")
    manifest = written(dop, "m.yaml", "# rows below\nrows: {file: shots.csv}\n")
    said = refused(dop, manifest)
    assert mistakes_of(said, "shots.csv", 3), said
    assert "m.yaml" not in said


def test_a_picture_of_a_yaml_row_is_named_with_its_own_line(against: Against) -> None:
    dop, _ = against()
    dop.base_url = "https://gateway.example.com"
    text = (
        "defaults: {prompt: x, seed: 1}\nrows:\n  - {id: a, image: 'https://cdn.example.com/a.jpg'}\n"
        "  - {id: b, image: sandbox:cat}\n"
    )
    assert mistakes_of(refused(dop, written(dop, "m.yaml", text)), "m.yaml", 4)


# variables -----------------------------------------------------------------------------------------------------------


def test_a_linked_values_variable_beats_the_rows(against: Against) -> None:
    dop, double = against()
    text = (
        "vars: {mood: calm}\ndefaults: {image: sandbox:cat, prompt: 'A {{ mood }} cat'}\n"
        "rows:\n  - {id: a, seed: 1, vars: {mood: wild}}\n  - {id: b, seed: 2}\n"
        "matrix:\n  look:\n    - {label: one, vars: {mood: shy}}\n    - {label: two, strength: 0.5}\n"
    )
    assert dop.buy(written(dop, "m.yaml", text)).code == 0
    prompts = sorted((line["body"]["seed"], line["body"]["prompt"]) for line in double.submits)
    assert prompts == [(1, "A shy cat"), (1, "A wild cat"), (2, "A calm cat"), (2, "A shy cat")]


def test_a_paid_field_in_a_row_and_in_an_axis_stays_a_mistake(rehearsal: Dop) -> None:
    text = (
        "rows: [{id: a, image: sandbox:cat, prompt: x, seed: 1, strength: 0.2}]\n"
        "matrix: {look: [{label: one, strength: 0.5}, {label: two, strength: 0.6}]}\n"
    )
    assert "strength" in refused(rehearsal, written(rehearsal, "m.yaml", text))


@pytest.mark.parametrize("variables", ["[{animal: cat, n: 1}, {animal: dog, n: 2}]", "{animal: [cat, dog], n: [1, 2]}"])
def test_zip_takes_variables(against: Against, variables: str) -> None:
    dop, double = against()
    text = (
        "defaults: {prompt: 'A {{ animal }}, take {{ n }}', seed: 1}\n"
        f"zip:\n  image: [sandbox:cat, sandbox:raccoon]\n  vars: {variables}\n"
    )
    assert dop.buy(written(dop, "m.yaml", text)).code == 0
    sent = sorted((line["body"]["prompt"], line["body"]["input_images"][0][-7:]) for line in double.submits)
    assert sent == [("A cat, take 1", "tos/cat"), ("A dog, take 2", "raccoon")]


@pytest.mark.parametrize("variables", ["[{animal: cat}]", "{animal: [cat, dog, hen]}", "{animal: cat}", "[cat, dog]"])
def test_zip_refuses_variables_of_another_length_or_shape(rehearsal: Dop, variables: str) -> None:
    text = (
        "defaults: {prompt: 'A {{ animal }}', seed: 1}\n"
        f"zip:\n  image: [sandbox:cat, sandbox:raccoon]\n  vars: {variables}\n"
    )
    assert "zip" in refused(rehearsal, written(rehearsal, "m.yaml", text))


# exit codes ----------------------------------------------------------------------------------------------------------


def test_a_submit_that_was_accepted_whole_succeeded(against: Against) -> None:
    dop, double = against(generation_s=60)
    end = dop.call("submit", dop.csv(shots(2)), "--yes")
    assert double.charged == 2
    assert end.code == 0, end.err


def test_a_submit_that_left_rows_out_did_not(against: Against) -> None:
    dop, double = against(generation_s=60)
    assert dop.call("submit", dop.csv(shots(3)), "--yes", "--max-new", "2").code == 5
    assert double.charged == 2


def test_error_on_nothing_is_nothing_after_an_old_failure(against: Against) -> None:
    dop, double = against(prompts={"scene 1 ": {"status": 422, "body": {"detail": "no"}}})
    manifest = dop.csv(shots(2))
    assert dop.buy(manifest).code == 1
    before = len(double.submits)
    assert dop.buy(manifest, "--error-on-nothing").code == 9
    assert len(double.submits) == before


def test_halt_by_share_says_when_it_begins_to_act(rehearsal: Dop) -> None:
    said = " ".join(rehearsal.typed("run", "--help").out.split())
    assert re.search(r"fail=10%(?!%)", said)
    assert re.search(r"\b(?:10|ten) (?:rows|requests|videos|jobs)? ?have ended", said), said


# rows and videos -----------------------------------------------------------------------------------------------------


def test_first_counts_rows(rehearsal: Dop) -> None:
    manifest = sheet(
        rehearsal, 'a,sandbox:cat,A cat,"1, 2, 3"', "b,sandbox:cat,A dog,x4", head="id,image,prompt,seeds\n"
    )
    assert planned(rehearsal, manifest, "--first", "1")["requests"] == 3
    assert planned(rehearsal, manifest, "--first", "2")["requests"] == 7
    assert planned(rehearsal, manifest, "--first", "9")["requests"] == 7


def test_first_counts_rows_of_those_that_have_the_tag(rehearsal: Dop) -> None:
    text = (
        "defaults: {image: sandbox:cat}\nrows:\n  - {id: a, prompt: A, tags: [x]}\n  - {id: b, prompt: B, tags: [y]}\n"
        "  - {id: c, prompt: C, tags: [x], skip: true}\n  - {id: d, prompt: D, tags: [x]}\n"
        "  - {id: e, prompt: E, tags: [x]}\n"
        "matrix: {seed: [1, 2]}\n"
    )
    assert planned(rehearsal, written(rehearsal, "m.yaml", text), "--filter-tag", "x", "--first", "2")["requests"] == 4


# number expressions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "count"), [("1, 3, ..., 10", 5), ("10, 20, …, 99", 9), ("8, 1, 4, ..., 12", 5)])
def test_dots_stop_below_as_a_range_does(rehearsal: Dop, text: str, count: int) -> None:
    manifest = sheet(rehearsal, f'a,sandbox:cat,A cat,"{text}"', head="id,image,prompt,seeds\n")
    assert planned(rehearsal, manifest)["requests"] == count


def test_dots_of_strengths_stop_below_too(rehearsal: Dop) -> None:
    text = 'rows: [{id: a, image: sandbox:cat, prompt: x, seed: 1}]\nmatrix: {strength: "0.1, 0.3, ..., 1"}\n'
    assert planned(rehearsal, written(rehearsal, "m.yaml", text))["requests"] == 5


@pytest.mark.parametrize("cell", ["100000.0", "1.000", "7.0", '"7, 8.0"', "1.0-3.0"])
def test_a_decimal_point_in_seeds_is_refused(rehearsal: Dop, cell: str) -> None:
    said = refused(rehearsal, sheet(rehearsal, f"a,sandbox:cat,A cat,{cell}", head="id,image,prompt,seeds\n"))
    assert mistake_of(said, "shots.csv", 2).startswith("column 'seeds': ")


@pytest.mark.parametrize("cell", ["1.000", "1.200", "100000.0"])
def test_a_decimal_point_in_seed_is_refused(rehearsal: Dop, cell: str) -> None:
    mistake = mistake_of(refused(rehearsal, sheet(rehearsal, f"a,sandbox:cat,A cat,{cell}")), "shots.csv", 2)
    assert mistake.startswith("column 'seed': ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("rows: [{id: a, image: sandbox:cat, prompt: x}]\nmatrix: {seeds: 12}\n", 2),
        ("rows:\n  - {id: a, image: sandbox:cat, prompt: x, seeds: 12}\n", 2),
        ("rows: [{id: a, image: sandbox:cat, prompt: x}]\ndefaults:\n  seeds: 12\n", 3),
        ("matrix:\n  seeds: 12\ndefaults: {image: sandbox:cat, prompt: x}\n", 2),
    ],
)
def test_seeds_of_a_number_is_one_mistake_with_both_remedies(rehearsal: Dop, text: str, line: int) -> None:
    said = refused(rehearsal, written(rehearsal, "m.yaml", text))
    mistake = mistake_of(said, "m.yaml", line)
    assert "x12" in mistake
    assert "seed: 12" in mistake
    assert "1 mistake" in said


@pytest.mark.parametrize("seeds", ["x12", '"1-12"', "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]", "{count: 12}"])
def test_seeds_that_say_what_they_mean_are_read(rehearsal: Dop, seeds: str) -> None:
    text = f"rows:\n  - {{id: a, image: sandbox:cat, prompt: x, seeds: {seeds}}}\n"
    assert planned(rehearsal, written(rehearsal, "m.yaml", text))["requests"] == 12


# blank lines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["   ", "\t", " , , , ", ",,,", "\u00a0,,,"])
def test_a_line_of_blanks_is_passed_over(rehearsal: Dop, line: str) -> None:
    manifest = written(rehearsal, "s.csv", f"{HEAD}a,sandbox:cat,A cat,1\n{line}\nb,sandbox:cat,A dog,0\n")
    assert set(mistakes_of(refused(rehearsal, manifest), "s.csv", 4)) != set()
    assert mistakes_of(refused(rehearsal, manifest), "s.csv", 3) == []
