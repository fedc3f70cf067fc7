"""Where rows come from and where results go: workbooks, stdin, folders of pictures, the user's own sheet."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import sys
import zipfile
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock
from xml.sax.saxutils import escape

import pytest
from PIL import Image

from pipeline.cli.main import main
from tests.acceptance.conftest import Opened
from tests.support.cli_driver import Dop, Ended
from tests.support.user_sheets import HEAD, mistake_of, planned, refused, sheet, written

Against = Callable[..., Opened]


def picture(colour: str = "navy") -> bytes:
    """A small whole JPEG."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(file, "JPEG")
    return file.getvalue()


# .xlsx ---------------------------------------------------------------------------------------------------------------

_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"


class Formula(str):
    """A formula cell; its text is the value that the spreadsheet computed last."""

    __slots__ = ()


class Wrong(str):
    """An error cell, `#REF!` and the like."""

    __slots__ = ()


def _cell(place: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f'<c r="{place}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, (int, float)):
        return f'<c r="{place}"><v>{value!r}</v></c>'
    if isinstance(value, Formula):
        return f'<c r="{place}" t="str"><f>A1&amp;"x"</f><v>{escape(value)}</v></c>'
    if isinstance(value, Wrong):
        return f'<c r="{place}" t="e"><v>{escape(value)}</v></c>'
    return f'<c r="{place}" t="inlineStr"><is><t xml:space="preserve">{escape(str(value))}</t></is></c>'


def _worksheet(rows: list[list[object]]) -> str:
    lines = "".join(
        f'<row r="{line}">{"".join(_cell(f"{chr(65 + at)}{line}", value) for at, value in enumerate(row))}</row>'
        for line, row in enumerate(rows, start=1)
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><worksheet xmlns="{_SHEET}"><sheetData>{lines}</sheetData></worksheet>'
    )


def workbook(**sheets: list[list[object]]) -> bytes:
    """The bytes of an .xlsx file with these worksheets, written from the published format."""
    file = io.BytesIO()
    numbers = range(1, len(sheets) + 1)
    parts = "".join(
        f'<Override PartName="/xl/worksheets/sheet{n}.xml" ContentType="{_TYPE}.worksheet+xml"/>' for n in numbers
    )
    tabs = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="rId{n}"/>' for n, name in enumerate(sheets, start=1))
    links = "".join(
        f'<Relationship Id="rId{n}" Type="{_REL}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n in numbers
    )
    with zipfile.ZipFile(file, "w") as box:
        box.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" ContentType="application/vnd.'
            f'openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>{parts}</Types>',
        )
        box.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
            f'Type="{_REL}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        box.writestr(
            "xl/workbook.xml", f'<workbook xmlns="{_SHEET}" xmlns:r="{_REL}"><sheets>{tabs}</sheets></workbook>'
        )
        box.writestr(
            "xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{_PACKAGE}/relationships">{links}</Relationships>'
        )
        for number, rows in enumerate(sheets.values(), start=1):
            box.writestr(f"xl/worksheets/sheet{number}.xml", _worksheet(rows))
    return file.getvalue()


SHOTS: list[list[object]] = [
    ["id", "image", "prompt", "seeds", "strength", "skip", "model"],
    ["a", "sandbox:cat", "A cat", 1200, 0.6, None, "dop-lite"],
    ["b", "sandbox:cat", Formula("A dog"), "7, 77", 1, False, None],
    ["c", "sandbox:cat", "A hen", 884211.0, 0.55, True, None],
]


def test_a_workbook_is_read_as_it_shows(against: Against) -> None:
    dop, double = against()
    assert dop.buy(written(dop, "shots.xlsx", workbook(Shots=SHOTS, Notes=[["anything"]]))).code == 0
    sent = {(line["body"]["prompt"], line["body"]["seed"], line["body"]["motions_strength"]) for line in double.submits}
    assert sent == {("A cat", 1200, 0.6), ("A dog", 7, 1), ("A dog", 77, 1)}


def test_a_workbook_as_the_rows_of_a_yaml_file(rehearsal: Dop) -> None:
    written(rehearsal, "shots.xlsx", workbook(Shots=SHOTS))
    manifest = written(rehearsal, "m.yaml", "rows: {file: shots.xlsx}\ndefaults: {motion: Dolly In}\n")
    assert planned(rehearsal, manifest)["requests"] == 3


def test_a_workbooks_mistakes_have_their_line_and_column(rehearsal: Dop) -> None:
    rows: list[list[object]] = [
        ["id", "image", "prompt", "seed"],
        ["a", "sandbox:cat", Wrong("#REF!"), 1],
        ["b", "sandbox:cat", "A dog", 1.5],
        [None, None, None, None],
        ["c", "sandbox:cat", "A hen", 0],
    ]
    said = refused(rehearsal, written(rehearsal, "shots.xlsx", workbook(Shots=rows)))
    assert mistake_of(said, "shots.xlsx", 2).startswith("column 'prompt': ")
    assert mistake_of(said, "shots.xlsx", 3).startswith("column 'seed': ")
    assert mistake_of(said, "shots.xlsx", 5).startswith("column 'seed': ")


def test_a_workbook_and_its_export_are_the_same_purchase(against: Against) -> None:
    dop, _ = against()
    rows: list[list[object]] = [["id", "image", "prompt", "seed"], ["a", "sandbox:cat", "A cat", 1200.0]]
    assert dop.buy(written(dop, "shots.xlsx", workbook(Shots=rows))).code == 0
    assert planned(dop, sheet(dop, "a,sandbox:cat,A cat,1200"))["new"] == 0


def test_what_is_not_a_workbook_is_refused_with_a_remedy(rehearsal: Dop) -> None:
    said = refused(rehearsal, written(rehearsal, "shots.xlsx", b"id,image\n"))
    assert "not an .xlsx file" in said
    said = refused(rehearsal, written(rehearsal, "shots.xls", b"\xd0\xcf\x11\xe0"))
    assert "CSV UTF-8" in said
    assert "rename" not in said


def test_without_the_extra_the_remedy_is_named(rehearsal: Dop) -> None:
    with mock.patch.dict(sys.modules, {"python_calamine": None, "openpyxl": None}):
        said = refused(rehearsal, written(rehearsal, "shots.xlsx", workbook(Shots=SHOTS)))
    assert "[xlsx]" in said
    assert "CSV UTF-8" in said


# stdin, .csv.gz ------------------------------------------------------------------------------------------------------


def piped(dop: Dop, text: str | bytes, *words: object) -> Ended:
    """The command with a text on its stdin."""
    given = io.TextIOWrapper(io.BytesIO(text if isinstance(text, bytes) else text.encode()), encoding="utf-8")
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, dop.environment(), clear=True),
        chdir(dop.folder),
        mock.patch.object(sys, "stdin", given),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            code = main(dop.words(str(words[0]), words[1:])[1:])
        except SystemExit as ending:
            code = int(str(ending.code))
    return Ended(code=code, out=out.getvalue(), err=err.getvalue())


def test_a_sheet_comes_from_stdin(rehearsal: Dop) -> None:
    written(rehearsal, "a.jpg", picture())
    end = piped(rehearsal, HEAD + "a,a.jpg,A cat,1\nb,sandbox:cat,A dog,2\n", "plan", "-", "--json")
    assert end.code == 0, end.err
    assert json.loads(end.out)["requests"] == 2


def test_a_sheet_from_stdin_is_bought(against: Against) -> None:
    dop, double = against()
    end = piped(dop, HEAD + "a,sandbox:cat,A cat,1\n", "run", "-", "--yes")
    assert end.code == 0, end.err
    assert double.charged == 1
    assert piped(dop, HEAD + "a,sandbox:cat,A cat,1\n", "run", "-", "--yes").code == 0
    assert double.charged == 1


def test_yaml_comes_from_stdin_too(rehearsal: Dop) -> None:
    end = piped(rehearsal, "rows: [{id: a, image: sandbox:cat, prompt: A cat, seed: 1}]\n", "plan", "-", "--json")
    assert end.code == 0, end.err
    assert json.loads(end.out)["requests"] == 1


def test_mistakes_of_stdin_have_their_line(rehearsal: Dop) -> None:
    end = piped(rehearsal, HEAD + "a,sandbox:cat,A cat,0\n", "validate", "-")
    assert end.code == 2
    assert mistake_of(end.err, "stdin.csv", 2).startswith("column 'seed': ")


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_stdin_is_a_mistake(rehearsal: Dop, text: str) -> None:
    end = piped(rehearsal, text, "plan", "-")
    assert end.code == 2
    assert "is empty" in end.err


def test_a_compressed_sheet_is_read(rehearsal: Dop) -> None:
    text = HEAD + "a,sandbox:cat,A cat,1\nb,sandbox:cat,A dog,0\n"
    whole = gzip.compress(text.encode())
    said = refused(rehearsal, written(rehearsal, "shots.csv.gz", whole))
    assert mistake_of(said, "shots.csv.gz", 3).startswith("column 'seed': ")
    good = written(rehearsal, "shots.csv.gz", gzip.compress(text.replace(",0\n", ",2\n").encode()))
    assert planned(rehearsal, good)["requests"] == 2
    listed = written(rehearsal, "m.yaml", "rows: {file: shots.csv.gz}\n")
    assert planned(rehearsal, listed)["requests"] == 2


@pytest.mark.parametrize("kept", [20, -6])
def test_a_compressed_sheet_that_is_cut_off_is_refused(rehearsal: Dop, kept: int) -> None:
    whole = gzip.compress(sheet(rehearsal, *(f"r{n},sandbox:cat,A cat {n},{n}" for n in range(1, 50))).read_bytes())
    assert "cut off" in refused(rehearsal, written(rehearsal, "shots.csv.gz", whole[:kept]))
    assert "gzip" in refused(rehearsal, written(rehearsal, "shots.csv.gz", b"id,image,prompt,seed\n"))


# semicolons, tabs, UTF-16 --------------------------------------------------------------------------------------------

LINES = HEAD + 'a,sandbox:cat,"Café, dawn",1\nb,sandbox:cat,A dog,2\n'


def _separated(mark: str, text: str = LINES) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=mark, lineterminator="\n").writerows(csv.reader(io.StringIO(text)))
    return file.getvalue()


@pytest.mark.parametrize("mark", [";", "\t"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom", "utf-16-le", "utf-16-be"]
)
def test_unmistakable_separators_and_encodings_are_read(rehearsal: Dop, mark: str, encoding: str) -> None:
    text = _separated(mark)
    name, bom, _ = encoding.partition("-bom")
    given = ("\ufeff" + text if bom else text).encode(name)
    assert planned(rehearsal, written(rehearsal, "shots.csv", given))["requests"] == 2


def test_utf_16_with_commas_is_read_and_is_the_same_purchase(against: Against) -> None:
    dop, double = against()
    assert dop.buy(written(dop, "shots.csv", LINES.encode("utf-16"))).code == 0
    assert {line["body"]["prompt"] for line in double.submits} == {"Café, dawn", "A dog"}
    assert planned(dop, written(dop, "shots.csv", LINES))["new"] == 0


def test_a_strength_with_a_decimal_comma_is_read_between_semicolons_only(rehearsal: Dop) -> None:
    text = "id;image;prompt;seed;strength\na;sandbox:cat;A cat;1;0,7\n"
    assert planned(rehearsal, written(rehearsal, "s.csv", text))["requests"] == 1
    with_commas = 'id,image,prompt,seed,strength\na,sandbox:cat,A cat,1,"0,7"\n'
    assert "write 0.7" in mistake_of(refused(rehearsal, written(rehearsal, "s.csv", with_commas)), "s.csv", 2)


def test_a_broken_workbook_is_refused(rehearsal: Dop) -> None:
    whole = workbook(Shots=SHOTS)
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as box, zipfile.ZipFile(file, "w") as broken:
        for name in box.namelist():
            content = box.read(name)
            broken.writestr(name, content[: len(content) // 2] if "sheet1" in name else content)
    for content in (file.getvalue(), whole[: len(whole) // 2]):
        assert "not an .xlsx file" in refused(rehearsal, written(rehearsal, "shots.xlsx", content))


def test_a_formula_that_was_never_computed_is_refused(rehearsal: Dop) -> None:
    rows: list[list[object]] = [["id", "image", "prompt", "seed"], ["a", "sandbox:cat", Formula(""), 1]]
    content = workbook(Shots=rows)
    said = refused(rehearsal, written(rehearsal, "shots.xlsx", content))
    assert "has no value yet" in mistake_of(said, "shots.xlsx", 2)


def test_places_are_right_in_a_sheet_with_semicolons(rehearsal: Dop) -> None:
    text = _separated(";").replace("A dog;2", "A dog;0")
    assert mistake_of(refused(rehearsal, written(rehearsal, "s.csv", text)), "s.csv", 3).startswith("column 'seed': ")


@pytest.mark.parametrize(
    "text",
    [
        "id;image,prompt;seed\na;sandbox:cat,A cat;1\n",
        "id|image|prompt|seed\na|sandbox:cat|A cat|1\n",
        "id;picture;text\na;b;c\n",
    ],
)
def test_doubtful_separators_are_refused(rehearsal: Dop, text: str) -> None:
    assert refused(rehearsal, written(rehearsal, "s.csv", text))


def test_a_tsv_has_tabs_whatever_its_names_are(rehearsal: Dop) -> None:
    written(rehearsal, "prompts.tsv", "prompt\nA cat, dawn\nA dog\n")
    found = written(rehearsal, "m.yaml", "rows: {file: prompts.tsv}\ndefaults: {image: 'sandbox:cat', seed: 3}\n")
    assert planned(rehearsal, found)["requests"] == 2
    assert planned(rehearsal, written(rehearsal, "shots.tsv", _separated("\t")))["requests"] == 2


def test_a_title_above_the_header_is_one_mistake(rehearsal: Dop) -> None:
    for mark in (",", ";"):
        text = f"Spring campaign{mark * 3}\n{mark * 3}\n{_separated(mark)}"
        said = refused(rehearsal, written(rehearsal, "shots.csv", text))
        assert "line 3" in mistake_of(said, "shots.csv", 1)
        assert said.splitlines()[-1] == "dop: 1 mistake"


@pytest.mark.parametrize(
    "given", [LINES.encode("cp1252"), LINES.encode("utf-16")[:-1], "é".encode("latin-1") + LINES.encode()]
)
def test_doubtful_encodings_are_refused(rehearsal: Dop, given: bytes) -> None:
    assert "CSV UTF-8" in refused(rehearsal, written(rehearsal, "s.csv", given))


def test_a_cell_of_a_megabyte_is_refused_in_words_that_help(rehearsal: Dop) -> None:
    said = refused(rehearsal, written(rehearsal, "s.csv", HEAD + f"a,sandbox:cat,{'x' * 1_000_000},1\n"))
    assert "a cell has more than 131,072 characters" in mistake_of(said, "s.csv", 2)


# pictures as rows ----------------------------------------------------------------------------------------------------


def photos(dop: Dop, *captioned: str, bare: tuple[str, ...] = ()) -> None:
    """A folder of pictures, some with a text beside them."""
    for name in (*captioned, *bare):
        written(dop, f"photos/{name}.jpg", picture())
    for name in captioned:
        written(dop, f"photos/{name}.txt", f"A scene of {name}\n")


def test_a_glob_of_pictures_is_rows(rehearsal: Dop) -> None:
    photos(rehearsal, "boat", "lake 2")
    written(rehearsal, "photos/notes.md", "not a picture")
    manifest = written(rehearsal, "m.yaml", 'rows: {images: "photos/*.jpg"}\ndefaults: {seed: 5}\n')
    assert planned(rehearsal, manifest)["requests"] == 2


def test_captions_are_the_prompts(rehearsal: Dop) -> None:
    photos(rehearsal, "boat", "lake")
    manifest = written(rehearsal, "m.yaml", 'rows: {images: "photos/*.jpg"}\ndefaults: {seed: 5}\n')
    assert rehearsal.buy(manifest, "--set", "sandbox.generation_s=0", "--set", "sandbox.size=180p").code == 0
    assert [(row["row_id"], row["prompt"]) for row in rehearsal.rows()] == [
        ("boat", "A scene of boat"),
        ("lake", "A scene of lake"),
    ]


@pytest.mark.parametrize(
    "images", ["photos", "photos/", "photos/*", "photos/*.JPG", "**/*.jpg", "[photos/boat.jpg, photos/lake.jpg]"]
)
def test_a_folder_or_a_list_of_globs_is_rows(rehearsal: Dop, images: str) -> None:
    photos(rehearsal, "boat", "lake")
    given = images if images.startswith("[") else f'"{images}"'
    text = f"rows: {{images: {given}}}\ndefaults: {{prompt: A slow pan, seed: 5}}\n"
    assert planned(rehearsal, written(rehearsal, "m.yaml", text))["requests"] == 2


def test_pictures_are_multiplied_by_axes(rehearsal: Dop) -> None:
    photos(rehearsal, "boat", "lake")
    text = 'rows: {images: "photos/*.jpg"}\nmatrix: {seed: [1, 2, 3]}\n'
    assert planned(rehearsal, written(rehearsal, "m.yaml", text))["requests"] == 6


def test_a_picture_without_a_caption_or_a_default_prompt_is_named(rehearsal: Dop) -> None:
    photos(rehearsal, "boat", bare=("lake",))
    text = 'rows: {images: "photos/*.jpg"}\ndefaults: {seed: 5}\n'
    said = refused(rehearsal, written(rehearsal, "m.yaml", text))
    assert "lake.jpg" in said
    assert "lake.txt" in said
    assert "boat" not in said


@pytest.mark.parametrize("images", ["none/*.jpg", "photos/*.png", "nowhere"])
def test_a_glob_that_finds_nothing_is_a_mistake(rehearsal: Dop, images: str) -> None:
    photos(rehearsal, "boat")
    said = refused(rehearsal, written(rehearsal, "m.yaml", f'rows: {{images: "{images}"}}\ndefaults: {{seed: 5}}\n'))
    assert mistake_of(said, "m.yaml", 1).startswith("rows.images: ")


def test_init_from_a_folder_writes_a_sheet_that_plans(rehearsal: Dop) -> None:
    photos(rehearsal, "boat", "lake")
    end = rehearsal.typed("init", "--from", "photos/")
    assert end.code == 0, end.err
    made = re.search(r"dop plan (\S+)", end.out)
    assert made, end.out
    assert planned(rehearsal, rehearsal.folder / made[1])["requests"] == 2
    text = (rehearsal.folder / made[1]).read_text()
    assert "A scene of boat" in text


def test_init_from_a_folder_overwrites_nothing(rehearsal: Dop) -> None:
    photos(rehearsal, "boat")
    made = re.search(r"dop plan (\S+)", rehearsal.typed("init", "--from", "photos/").out)
    assert made
    mine = written(rehearsal, made[1], HEAD + "mine,sandbox:cat,Mine,1\n")
    again = rehearsal.typed("init", "--from", "photos/")
    assert mine.read_text() == HEAD + "mine,sandbox:cat,Mine,1\n"
    assert made[1] in again.out + again.err


def test_init_from_a_folder_without_captions_asks_for_prompts(rehearsal: Dop) -> None:
    photos(rehearsal, bare=("boat", "lake"))
    end = rehearsal.typed("init", "--from", "photos/")
    assert end.code == 0, end.err
    made = re.search(r"dop plan (\S+)", end.out)
    assert made
    said = refused(rehearsal, rehearsal.folder / made[1])
    assert "prompt" in said


def test_init_from_a_folder_without_pictures_is_an_error(rehearsal: Dop) -> None:
    written(rehearsal, "photos/readme.md", "nothing")
    end = rehearsal.typed("init", "--from", "photos/")
    assert end.code == 2
    assert "no pictures" in end.err


# names of the videos -------------------------------------------------------------------------------------------------


def test_videos_have_the_names_that_the_user_gave(against: Against) -> None:
    dop, _ = against()
    manifest = sheet(
        dop, "coffee,sandbox:coffee,A cup,7", 'rocket,sandbox:cat,A rocket,"8, 9"', head="id,image,prompt,seeds\n"
    )
    assert dop.buy(manifest, "--set", "download.name={id}-{seed}.mp4").code == 0
    assert [Path(row["local_path"]).name for row in dop.rows()] == ["coffee-7.mp4", "rocket-8.mp4", "rocket-9.mp4"]
    assert all(path.exists() for path in dop.videos())


def test_videos_whose_names_would_be_equal_are_all_kept(against: Against) -> None:
    dop, _ = against()
    manifest = sheet(dop, "a,sandbox:cat,A cat,1", "b,sandbox:cat,A dog,1", "c,sandbox:cat,A hen,1")
    assert dop.buy(manifest, "--set", "download.name={seed}.mp4").code == 0
    assert len(set(dop.videos())) == 3
    assert all(path.exists() for path in dop.videos())


@pytest.mark.parametrize(
    "name", ["{sed}.mp4", "{id.mp4", "../{id}.mp4", "/tmp/{id}.mp4", "{id.__class__}.mp4", ".mp4", "{id}.avi"]
)
def test_a_name_that_cannot_be_is_refused(against: Against, name: str) -> None:
    dop, double = against()
    end = dop.buy(sheet(dop, "a,sandbox:cat,A cat,1"), "--set", f"download.name={name}")
    assert end.code == 2, end.err
    assert "download.name" in end.err
    assert double.submits == []


# results in the user's own sheet -------------------------------------------------------------------------------------


def _made(dop: Dop) -> io.StringIO:
    return io.StringIO((dop.folder / "shots-done.csv").read_bytes().decode("utf-8-sig"), newline="")


def _into(dop: Dop, own: str = "shots.csv", out: str = "shots-done.csv") -> Ended:
    return dop.call("report", "latest", "-o", str(dop.folder / out), "--into", str(dop.folder / own))


def test_results_are_written_into_a_copy_of_the_sheet(against: Against) -> None:
    dop, double = against(prompts={"hen": {"status": 422, "body": {"detail": "no hens"}}})
    text = (
        'prompt,id,image,seed,tags\n"A cat, up",a,sandbox:cat,1,"x,y"\nA dog,,sandbox:cat,2,\nA hen,c,sandbox:cat,3,\n'
    )
    assert dop.buy(written(dop, "shots.csv", text)).code == 1
    end = _into(dop)
    assert end.code == 0, end.err
    assert (dop.folder / "shots.csv").read_text() == text
    made = list(csv.reader(_made(dop)))
    own = list(csv.reader(io.StringIO(text)))
    assert [row[:5] for row in made] == own
    head = made[0]
    found = [dict(zip(head, row, strict=True)) for row in made[1:]]
    assert [row["status"] for row in found] == ["done", "done", "rejected"]
    assert all((dop.folder / row["video"]).exists() for row in found[:2])
    assert [row["cost_usd"] for row in found] == ["0.135", "0.135", "0.000"]
    assert "no hens" in found[2]["reason"]
    assert double.charged == 2


def test_results_keep_formulas_blank_lines_and_separators(against: Against) -> None:
    dop, _ = against()
    text = (
        "id;image;prompt;seed;var:n\r\n\r\na;sandbox:cat;A {{ n }} cat;1;+7\r\n"
        ";;;;\r\nb;sandbox:cat;A {{ n }} dog;2;-3\r\n"
    )
    assert dop.buy(written(dop, "shots.csv", text)).code == 0
    assert _into(dop).code == 0
    made = (dop.folder / "shots-done.csv").read_bytes().decode("utf-8-sig")
    assert [line.split(";")[:5] for line in made.split("\r\n") if line] == [
        line.split(";")[:5] for line in text.split("\r\n") if line
    ]
    assert "done" in made.split("\r\n")[2]


def test_a_row_of_several_videos_is_one_line(against: Against) -> None:
    dop, _ = against()
    text = 'id,image,prompt,seeds\na,sandbox:cat,A cat,"1, 2, 3"\nb,sandbox:cat,A dog,4\n'
    assert dop.buy(written(dop, "shots.csv", text)).code == 0
    assert _into(dop).code == 0
    made = list(csv.DictReader(_made(dop)))
    assert [row["id"] for row in made] == ["a", "b"]
    assert made[0]["cost_usd"] == "0.405"
    assert made[0]["video"].count(".mp4") == 3


def test_folded_rows_have_their_results_too(against: Against) -> None:
    dop, _ = against()
    assert dop.buy(sheet(dop, "a,sandbox:cat,A cat,1", "b,sandbox:cat,A cat,1")).code == 0
    assert _into(dop).code == 0
    made = list(csv.DictReader(_made(dop)))
    assert [row["status"] for row in made] == ["done", "done"]
    assert made[0]["video"] == made[1]["video"]


def test_the_sheet_with_results_can_be_run_again(against: Against) -> None:
    dop, double = against()
    assert dop.buy(sheet(dop, "a,sandbox:cat,A cat,1")).code == 0
    assert _into(dop).code == 0
    done = dop.folder / "shots-done.csv"
    assert planned(dop, done) | {"new": 0} == planned(dop, done)
    assert dop.buy(done).code == 0
    assert double.charged == 1


def test_the_users_own_sheet_is_never_overwritten(against: Against) -> None:
    dop, _ = against()
    assert dop.buy(sheet(dop, "a,sandbox:cat,A cat,1")).code == 0
    end = _into(dop, out="shots.csv")
    assert end.code == 2
    assert (dop.folder / "shots.csv").read_text() == HEAD + "a,sandbox:cat,A cat,1\n"


def test_a_sheet_that_has_nothing_of_the_run_is_refused(against: Against) -> None:
    dop, _ = against()
    assert dop.buy(sheet(dop, "a,sandbox:cat,A cat,1")).code == 0
    sheet(dop, "x,sandbox:cat,A cat,1", name="other.csv")
    end = _into(dop, own="other.csv")
    assert end.code == 2
    assert "other.csv" in end.err
