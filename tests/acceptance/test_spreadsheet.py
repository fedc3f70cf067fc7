"""report.csv in a real LibreOffice: every cell arrives as it was meant, and none of them is a formula."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline.reports.tables import FORMULA_STARTS, KINDS, REPORT_COLUMNS
from tests.support.cli_driver import Dop

OFFICE = shutil.which("soffice")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not OFFICE, reason="needs LibreOffice: apt-get install libreoffice-calc"),
]
PROMPTS = (
    'Grüße, "Katze" – 猫が歩く 🐈',
    '+HYPERLINK("http://x.example","click")',
    "+1 for the cat",
    "-2+3",
    "@SUM(A1:A9)",
    "  =1+1",
    "two\nlines; with, commas\tand a tab",
    '<script>window.hacked=1</script>"><img src=x onerror=alert(1)>',
    "'quoted' at both ends'",
)
CHARSETS = {"detected": 0, "UTF-8": 76}
_SPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


@pytest.mark.parametrize("charset", CHARSETS.values(), ids=CHARSETS)
def test_a_spreadsheet_shows_what_the_report_says(rehearsal: Dop, tmp_path: Path, charset: int) -> None:
    manifest = rehearsal.csv(_manifest())
    quick = [word for setting in ("sandbox.generation_s=0", "sandbox.size=180p") for word in ("--set", setting)]
    assert rehearsal.buy(manifest, *quick).code == 0
    head, *lines = _opened(rehearsal.latest / "report.csv", tmp_path / "office", charset)
    assert [head[column] for column in range(len(REPORT_COLUMNS))] == list(REPORT_COLUMNS)
    meant = rehearsal.rows()
    assert len(lines) == len(meant) == len(PROMPTS)
    for line, row in zip(lines, meant, strict=True):
        for column, (name, kind) in enumerate(KINDS.items()):
            shown, wanted = line.get(column, ""), row[name]
            if kind in {"int", "float", "money"}:
                assert float(shown or 0) == float(wanted or 0), name
            else:
                assert shown.casefold() == _plain_lines(wanted).casefold(), name
    shown_prompts = [line[list(REPORT_COLUMNS).index("prompt")] for line in lines]
    assert shown_prompts[0] == PROMPTS[0]
    assert not [prompt for prompt in shown_prompts if prompt.lstrip().startswith(FORMULA_STARTS)]


def _manifest() -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("id", "image", "prompt", "seed", "model"))
    writer.writerows(
        (f"zeile-ü{seed}", "sandbox:cat", prompt, seed, "dop-lite") for seed, prompt in enumerate(PROMPTS, 1)
    )
    return text.getvalue()


def _plain_lines(text: str) -> str:
    return text.replace("\r\n", "\n")


def _opened(report: Path, folder: Path, charset: int) -> list[dict[int, str]]:
    """The sheet that LibreOffice makes of a CSV: a mapping of column number to shown text for each row.

    Raises:
        AssertionError: there is a formula in it.
    """
    options = f"Text - txt - csv (StarCalc):44,34,{charset},1,,0,false,false"
    command = [str(OFFICE), "--headless", f"-env:UserInstallation={(folder / 'profile').as_uri()}"]
    command += [f"--infilter={options}", "--convert-to", "xlsx", "--outdir", str(folder), str(report)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with zipfile.ZipFile(folder / "report.xlsx") as book:
        texts = [_text(one) for one in _tree(book, "sharedStrings").findall(f"{_SPACE}si")]
        sheet = _tree(book, "worksheets/sheet1")
    assert not list(sheet.iter(f"{_SPACE}f")), "a formula"
    return [dict(_cell(cell, texts) for cell in row) for row in sheet.iter(f"{_SPACE}row")]


def _tree(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    return ElementTree.fromstring(book.read(f"xl/{name}.xml"))  # LibreOffice's own file


def _text(shared: ElementTree.Element) -> str:
    return "".join(part.text or "" for part in shared.iter(f"{_SPACE}t"))


def _cell(cell: ElementTree.Element, texts: list[str]) -> tuple[int, str]:
    column = 0
    for letter in re.sub(r"\d", "", cell.attrib["r"]):
        column = column * 26 + ord(letter) - ord("A") + 1
    value = cell.findtext(f"{_SPACE}v", "")
    if cell.get("t") == "s":
        value = texts[int(value)]
    elif cell.get("t") == "b":
        value = "true" if value == "1" else "false"
    return column - 1, value
