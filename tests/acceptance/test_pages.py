"""The pages keep their word: their commands run, their links lead somewhere, and they are plain to read."""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
from pathlib import Path

import pytest

from pipeline.cli.parser import build_parser
from pipeline.reports.sheet.page import HELP_KEYS
from pipeline.reports.tables import REPORT_COLUMNS
from tests.support.cli_driver import Dop
from tests.support.pages import REPO, anchors, blocks, links, mentioned_commands, shell_lines, words
from tests.support.readability import measured, page_words, pages
from tests.support.reference_pages import PAGES as GENERATED

DOCS = REPO / "docs"
ALL = [REPO / "README.md", *sorted(DOCS.rglob("*.md"))]
FOR_USERS = [page for page in pages(REPO) if page.name != "reliability.md"]
"""reliability.md is a table of evidence: it names tests and what they show."""

MAX_MEDIAN_WORDS = 12
MAX_P90_WORDS = 22
MIN_YOU_PER_THOUSAND = 10
"""The style: one idea a sentence, and the reader is addressed."""


def named(page: Path) -> str:
    return page.relative_to(REPO).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


# readability ---------------------------------------------------------------------------------------------------------


def test_the_pages_are_plain_to_read() -> None:
    found = measured([text_of(page) for page in FOR_USERS])
    assert found.median_words <= MAX_MEDIAN_WORDS, found
    assert found.p90_words <= MAX_P90_WORDS, found
    assert found.you_per_thousand >= MIN_YOU_PER_THOUSAND, found


@pytest.mark.parametrize("page", [page for page in FOR_USERS if page.name not in GENERATED], ids=named)
def test_each_page_is_plain_to_read(page: Path) -> None:
    found = measured([text_of(page)])
    assert found.median_words <= MAX_MEDIAN_WORDS + 2, found
    assert found.sentences < 20 or found.p90_words <= MAX_P90_WORDS + 2, found


@pytest.mark.parametrize("page", [page for page in FOR_USERS if page.name not in GENERATED], ids=named)
def test_no_page_for_users_has_a_private_word(page: Path) -> None:
    assert page_words(text_of(page)) == []


def test_the_measure_sees_long_sentences_and_private_words() -> None:
    """A twin of a page as pages once were: each measure must find it."""
    twin = text_of(REPO / "tests" / "fixtures" / "page_that_is_not_plain.md")
    found = measured([twin])
    assert found.sentences == 5
    assert found.median_words > MAX_MEDIAN_WORDS
    assert found.p90_words > MAX_P90_WORDS
    assert found.you_per_thousand < MIN_YOU_PER_THOUSAND
    assert len(page_words(twin)) >= 6 * 5
    assert page_words("You restart it. Use `settled` as a name.") == []


# links ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ALL, ids=named)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in links(text_of(page)):
        path, _, anchor = target.partition("#")
        file = page if not path else page.parent / path
        assert file.exists(), f"{named(page)} points to {target}"
        assert not anchor or anchor in anchors(text_of(file)), f"{named(page)} points to {target}"


def test_every_page_is_reached_from_the_index() -> None:
    reached, waiting = set(), [REPO / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        inner = ((page.parent / target.partition("#")[0]).resolve() for target in links(text_of(page)))
        waiting += [file for file in set(inner) if file.suffix == ".md" and file not in reached]
    assert [named(page) for page in ALL if page not in reached] == []


# commands ------------------------------------------------------------------------------------------------------------


def parsers() -> dict[str, argparse.ArgumentParser]:
    """`run`, `ledger copy`, ... -> its parser."""

    def inner(parser: argparse.ArgumentParser, prefix: str) -> dict[str, argparse.ArgumentParser]:
        found: dict[str, argparse.ArgumentParser] = {}
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, one in action.choices.items():
                    found |= {f"{prefix}{name}": one} | inner(one, f"{prefix}{name} ")
        return found

    return inner(build_parser(), "")


@pytest.mark.parametrize("page", ALL, ids=named)
def test_every_command_and_flag_that_a_page_names_exists(page: Path) -> None:
    known = parsers()
    for command in mentioned_commands(text_of(page)):
        verb, rest = command[1], command[2:]
        if rest and f"{verb} {rest[0]}" in known:
            verb = f"{verb} {rest[0]}"
        assert verb in known, f"{named(page)}: {' '.join(command)}"
        flags = {word.partition("=")[0] for word in rest if re.match(r"--?[a-zA-Z]", word)}
        assert flags - {"--help"} <= set(known[verb]._option_string_actions), f"{named(page)}: {' '.join(command)}"


def test_every_verb_is_on_a_page() -> None:
    text = "".join(text_of(page) for page in FOR_USERS if page.name not in GENERATED)
    assert [verb for verb in parsers() if " " not in verb and f"dop {verb}" not in text] == []


GUIDES = [
    REPO / "README.md",
    *(DOCS / name for name in ("getting-started.md",)),
    *(
        DOCS / "guides" / f"{name}.md"
        for name in (
            "seed-bracketing",
            "contact-sheet",
            "images",
            "studio",
            "callbacks",
            "checks",
            "higgsfield",
            "choosing",
        )
    ),
]
"""Pages whose commands are run. The others' need a server or root, and have tests of their own (cron, clusters)."""

NOT_RUN = {
    "dop view": "opens a browser until Ctrl-C; tests/acceptance/test_view.py",
    "dop key set": "reads the key from the terminal; tests/acceptance/test_key.py",
    "dop check RUN --again": "RUN is a placeholder",
}
"""Commands that cannot be run as they are, with where they are tested."""


def play(dop: Dop, page: Path) -> int:
    """Run the page's commands one after the other in a new folder; return how many."""
    folder, count = dop.folder, 0
    shutil.copytree(REPO / "manifests", folder / "manifests")
    assert dop.typed("init").code == 0
    if page.name in ("contact-sheet.md", "checks.md", "choosing.md"):
        assert dop.typed("run", "shots.csv").code == 0
        assert dop.typed("review", "export", "-o", "reviews.json").code == 0
    (folder / "shots.yaml").write_text((folder / "sweep.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    for block in blocks(text_of(page), "sh", "console", "csv"):
        if block.language == "csv":
            name = re.findall(r"`(\w+\.csv)`", block.before + text_of(page).split(block.text)[1][:200])[0]
            (dop.folder / name).write_text(block.text, encoding="utf-8")
            continue
        for line in shell_lines(block):
            program, *rest = words(line)
            if program == "cd" and (dop.folder / rest[0]).is_dir() and rest[0] != "dop-batch":
                dop.folder = dop.folder / rest[0]
            elif program == "mkdir":
                (dop.folder / rest[-1]).mkdir(exist_ok=True)
            elif program == "dop" and not any(line.startswith(one) for one in NOT_RUN):
                run_line(dop, page, rest)
                count += 1
    dop.folder = folder
    return count


def first_row(folder: Path) -> str:
    """The id of the first row of the newest run's report."""
    with (folder / "outputs" / "latest" / "report.csv").open(encoding="utf-8", newline="") as file:
        return next(csv.DictReader(file))["row_id"]


def run_line(dop: Dop, page: Path, rest: list[str]) -> None:
    """Run a command of a page; what would cost money, without buying."""
    allowed = {0}
    if "configs/live.yaml" in rest:
        allowed |= {7} if rest[0] == "doctor" else set()
        rest = [*rest, *(["--dry-run"] if rest[0] in ("run", "submit", "retry") else [])]
    if "--fail-on-check" in rest:
        allowed |= {1}
    if rest[0] == "derive" and "--row" not in rest:
        rest = [*rest, "--row", first_row(dop.folder)]  # as if it were picked in the browser
    end = dop.typed(*rest)
    assert end.code in allowed, f"{named(page)}: dop {' '.join(rest)}\n{end.err}"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            marks=[pytest.mark.long]
            if page.name in ("seed-bracketing.md", "checks.md", "choosing.md", "studio.md", "contact-sheet.md")
            else [],
        )
        for page in GUIDES
    ],
    ids=named,
)
def test_the_commands_of_the_page_run(rehearsal: Dop, page: Path) -> None:
    quick = {"SANDBOX__GENERATION_S": "0", "SANDBOX__SIZE": "180p", "POLL__FIRST_S": "0.05", "POLL__MIN_S": "0.05"}
    needs_clips = page.name in ("contact-sheet.md", "checks.md", "studio.md", "choosing.md")
    quick["DOWNLOAD__ENABLED"] = str(needs_clips).lower()
    rehearsal.environ |= {f"DOP_{name}": value for name, value in quick.items()}
    assert play(rehearsal, page) >= 1


# the reference -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_the_reference_is_what_the_program_says_now(name: str) -> None:
    page = DOCS / "reference" / name
    if os.environ.get("UPDATE_GOLDEN"):
        page.write_text(GENERATED[name](), encoding="utf-8")
    remedy = "write it again: .venv/bin/python -m tests.support.reference_pages docs/reference"
    assert text_of(page) == GENERATED[name](), remedy


def test_every_column_of_the_report_is_explained() -> None:
    page = text_of(DOCS / "reference" / "report.md").split("## Columns", 1)[1].split("## States", 1)[0]
    named_columns = [
        name for row in re.findall(r"^\| (`.*?) \|", page, flags=re.M) for name in re.findall(r"`(\w+)`", row)
    ]
    assert named_columns == list(REPORT_COLUMNS)


def test_the_keys_of_the_contact_sheet_are_those_of_its_help() -> None:
    page = text_of(DOCS / "guides" / "contact-sheet.md")
    rows = "".join(f"| {' '.join(f'`{key}`' for key in keys.split())} | {what} |\n" for keys, what in HELP_KEYS)
    assert rows in page, rows
