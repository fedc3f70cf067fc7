"""Sheets: what spreadsheets, editors and hasty hands make of them must never buy the wrong thing."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from tests.support.manifests import cells, message_of, problems

HEAD = "id,image,prompt,seed\n"
URL = "https://cdn.example.com/mill.jpg"


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        ("1E+05", "rewritten by a spreadsheet?"),
        ("100000.0", "rewritten by a spreadsheet? Write 100000"),
        ("4_2", "rewritten by a spreadsheet?"),
        ("True", "rewritten by a spreadsheet?"),
        ("7-Oct", "rewritten by a spreadsheet?"),
        ("1,000", "write 1000"),
        ("1.000", "rewritten by a spreadsheet? Write 1 or 1000"),
        ("1.234", "is not a whole number. Write 1234"),
        ("007", "without leading zeros"),
        (" 7", "there are spaces around it"),
        ("７", "is not a plain number"),
        ("٧", "is not a plain number"),
        ("+7", "is not a plain number"),
        ("1000-1003", "stand in the column 'seeds'"),
        ("x3", "stand in the column 'seeds'"),
        ("0", "0 is outside 1..1,000,000"),
        ("1000001", "1000001 is outside"),
        ("9" * 5000, "is not a plain number"),
    ],
)
def test_a_seed_that_is_not_plain_digits_is_refused(tmp_path: Path, seed: str, message: str) -> None:
    found = problems(tmp_path, f'{HEAD}a,{URL},p,"{seed}"\n', "a.csv")
    assert [(problem.line, problem.where) for problem in found] == [(2, "column 'seed'")]
    assert message in found[0].message


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        ("0,6", "write 0.6"),
        ("60%", "0.6"),
        ("6E-01", "spreadsheet"),
        ("0.755", "nearest is 0.76"),
        ("1.5", "outside 0..1"),
    ],
)
def test_a_strength_in_another_notation_is_refused(tmp_path: Path, strength: str, message: str) -> None:
    found = problems(tmp_path, f'id,image,prompt,seed,strength\na,{URL},p,1,"{strength}"\n', "a.csv")
    assert len(found) == 1
    assert message in found[0].message


@pytest.mark.parametrize("unseen", ["\u200b", "\u00ad", "\u202e", "\ufeff"])
@pytest.mark.parametrize("column", ["id", "tags"])
def test_an_id_or_a_tag_with_a_character_that_is_not_seen_is_refused(tmp_path: Path, column: str, unseen: str) -> None:
    """It would look like another one, and no filter would find it."""
    found = problems(tmp_path, f"image,prompt,seed,{column}\n{URL},p,1,he{unseen}ro\n", "a.csv")
    assert [problem.where for problem in found] == [f"column '{column}'"]
    assert f"U+{ord(unseen):04X}" in found[0].message


def test_joiners_are_part_of_a_tag(tmp_path: Path) -> None:
    tag = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # a Persian word is written with U+200C
    (cell,) = cells(tmp_path, f"image,prompt,seed,tags\n{URL},p,1,{tag}\n", "a.csv")
    assert cell.tags == (tag,)


@pytest.mark.parametrize(("cell", "meant"), [("true", True), ("TRUE", True), ("False", False)])
def test_booleans_are_read_as_spreadsheets_write_them(tmp_path: Path, cell: str, meant: bool) -> None:
    found = cells(tmp_path, f"id,image,prompt,seed,enhance_prompt\na,{URL},p,1,{cell}\n", "a.csv")
    assert found[0].params
    assert found[0].params.enhance_prompt is meant


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id,image,promt,seed", "column 'promt': unknown column. Did you mean 'prompt'?"),
        ("id,image,prompt,seed,seed", "column 'seed': is there twice"),
        ("id,image, prompt,seed", "column ' prompt': has spaces around it: write 'prompt'"),
        ("id,Image,prompt,seed", "column 'Image': unknown column. Did you mean 'image'?"),
        ("id,image,prompt,seed,motion,motions_id", "is the same field as 'motion'"),
        ("id,image,prompt,seed,seeds", "is given beside 'seed'"),
        ("id,image,prompt,seed,take,repeat", "is given beside 'take'"),
        ("id,image,prompt,seed,webhook_url", "callbacks are the run's business"),
        ("id,image,seed", "column 'prompt': is missing, and no default gives it"),
        ("id,image,prompt", "column 'seed' or 'seeds': is missing"),
        ("id;picture;text", "separated by semicolons"),
        ("Id;Image;prompt;seed", "column 'Image': unknown column. Did you mean 'image'?"),
        ("id|image|prompt|seed", "separated by bars"),
        ("id,image,prompt,seed,var:", "column 'var:': unknown column"),
    ],
)
def test_a_wrong_header_is_reported_once_and_not_on_every_line(tmp_path: Path, header: str, message: str) -> None:
    lines = "\n".join(",".join(["a"] * len(header.split(","))) for _ in range(3))
    found = message_of(tmp_path, f"{header}\n{lines}\n", "a.csv")
    assert found.count(message) == 1, found
    assert "a.csv:1" in found.splitlines()[0]


def test_an_unquoted_comma_never_shifts_a_column(tmp_path: Path) -> None:
    found = problems(tmp_path, f"{HEAD}a,{URL},Still lake, mist,1\nb,{URL}\n", "a.csv")
    assert [(problem.line, problem.message) for problem in found] == [
        (2, "has 5 cells, the header has 4: put cells with commas in quotes"),
        (3, "has 2 cells, the header has 4: a comma is missing, or a quote is open"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f'a,{URL}, "Lake, mist",1', "there is a space before an opening quote"),
        (f"a,{URL},\u201cLake, mist\u201d,1", "curly quotes hold no cell together"),
        (f'a,{URL},"Lake "mist"",1', "text follows a closing quote"),
        (f'a,{URL},"Lake,1', "a quote that opens in this row is never closed"),
    ],
)
def test_quotes_gone_wrong_are_reported_with_the_line(tmp_path: Path, line: str, message: str) -> None:
    found = problems(tmp_path, f"{HEAD}ok,{URL},p,1\n{line}\n", "a.csv")
    assert found[0].line == 3
    assert message in found[0].message


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_utf8_with_any_line_end_and_with_or_without_mark_is_read(tmp_path: Path, mark: bytes, end: str) -> None:
    text = f'{HEAD}ä,{URL},"first\nsecond",1\n\nb,{URL},None,2\n'.replace("\n", end)
    found = cells(tmp_path, mark + text.encode(), "a.csv")
    assert [cell.row_id for cell in found] == ["ä", "b"]
    assert found[0].params
    assert found[0].params.prompt == "first\nsecond"
    assert found[1].params
    assert found[1].params.prompt == "None"
    assert found[1].line == 5


@pytest.mark.parametrize(
    ("encoding", "message"),
    [("cp1252", "a.csv:3: is not UTF-8 (byte 0xE4; Windows-1252?)")],
)
def test_another_encoding_is_named(tmp_path: Path, encoding: str, message: str) -> None:
    text = f"{HEAD}a,{URL},p,1\nä,{URL},p,1\n"
    assert message in message_of(tmp_path, text.encode(encoding), "a.csv")


def test_a_null_byte_is_refused(tmp_path: Path) -> None:
    assert "control character U+0000" in message_of(tmp_path, f"{HEAD}a,{URL},p\0q,1\n", "a.csv")


def test_an_empty_cell_takes_the_default_and_a_variable_column_fills_the_prompt(tmp_path: Path) -> None:
    sheet = f"id,image,prompt,seed,strength,var:item,var:light\na,{URL},,1,,lamp,\nb,{URL},,1,0.2,vase,hard\n"
    (tmp_path / "rows.csv").write_text(sheet)
    text = 'rows: {file: rows.csv}\nvars: {light: soft}\ndefaults: {prompt: "{{item}}, {{ light }}"}\n'
    found = cells(tmp_path, text)
    assert [cell.params and (cell.params.prompt, cell.params.strength_hundredths) for cell in found] == [
        ("lamp, soft", 70),
        ("vase, hard", 20),
    ]


def test_a_sheet_of_a_manifest_finds_its_pictures_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\0IEND....")
    (tmp_path / "sheets" / "rows.csv").write_text("id,image,prompt,seed\na,a.png,p,1\n")
    found = cells(tmp_path, "rows: {file: sheets/rows.csv}\n")
    assert found[0].params
    assert found[0].params.input_images == (str(tmp_path / "sheets" / "a.png"),)


def test_an_empty_sheet_and_one_with_only_a_header_are_reported(tmp_path: Path) -> None:
    assert "is empty: the first line names the columns" in message_of(tmp_path, "", "a.csv")
    assert "has no rows" in message_of(tmp_path, HEAD, "a.csv")


def test_lines_written_one_by_one_are_not_counted_but_what_they_multiply_to_is(tmp_path: Path) -> None:
    lines = "".join(f"r{number},{URL},p,{number + 1}\n" for number in range(400))
    assert len(cells(tmp_path, HEAD + lines, "a.csv")) == 400
    many = "id,image,prompt,seeds\n" + "".join(f"r{number},{URL},p,x3\n" for number in range(100))
    assert "rows 100 x seed 3 = 300 videos, more than max_rows 256" in message_of(tmp_path, many, "b.csv")


def test_a_row_without_id_gets_one_that_does_not_depend_on_its_place(tmp_path: Path) -> None:
    sheet = ["image,prompt,seed", f"{URL},Old mill at dawn,1", f"{URL},Old mill at dawn,2", f"{URL},Old mill at dawn,1"]
    first = [cell.row_id for cell in cells(tmp_path, "\n".join(sheet), "a.csv")]
    turned = [cell.row_id for cell in cells(tmp_path, "\n".join([sheet[0], *sheet[:0:-1]]), "a.csv")]
    assert sorted(first) == sorted(turned)
    assert len(set(first)) == 3
    assert first[2] == f"{first[0]}-2"
    assert all(row_id.startswith("old-mill-at-dawn-") for row_id in first)


def test_an_image_in_a_pattern_is_relative_to_the_manifest_and_not_to_its_sheet(tmp_path: Path) -> None:
    shots, here = tmp_path / "shots", tmp_path
    picture = b"\xff\xd8\xff\xe0\0\2\xff\xd9 and so on"
    shots.mkdir()
    for folder in (shots, here):
        (folder / "mill.jpg").write_bytes(picture)
        (folder / "lake.jpg").write_bytes(picture)
    (shots / "rows.csv").write_text("id,image,prompt,seed\nmill,mill.jpg,Mill,1\nlake,lake.jpg,Lake,2\n")
    text = (
        "rows: {file: shots/rows.csv}\nmatrix:\n"
        "  exclude: [{image: shots/mill.jpg}, {image: lake.jpg}]\n"
        "  override: [{where: {image: shots/lake.jpg}, set: {prompt: Still lake, end_image: mill.jpg}}]\n"
    )
    assert message_of(tmp_path, text) == "batch.yaml:3:38: matrix.exclude[1]: matches no cell: nothing would change"
    (kept,) = cells(tmp_path, text.replace(", {image: lake.jpg}", ""))
    assert kept.params is not None
    assert (kept.row_id, kept.params.prompt) == ("lake", "Still lake")
    assert kept.params.input_images == (str(shots / "lake.jpg"),)
    assert kept.params.input_images_end == (str(here / "mill.jpg"),)
