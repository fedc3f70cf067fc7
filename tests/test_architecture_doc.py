"""docs/architecture.md names files that exist, and every package."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
TEXT = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_file_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`([\w/.]+\.(?:py|js|yaml|md))`", TEXT))
    files = [path.relative_to(REPO).as_posix() for path in REPO.rglob("*.*") if ".venv" not in path.parts]
    assert len(named) > 40
    assert [name for name in sorted(named) if not any(file.endswith(name) for file in files)] == []


QUESTIONS = {
    "the price of a model": "config/settings.py",
    "what an HTTP status means (a 403, a 429)": "pixazo.py",
    "when a job is asked for next": "runner/poll_schedule.py",
    "the order of ledger and POST": "runner/paid_submit.py",
    "a column of report.csv": "reports/tables.py",
    "a manifest field": "manifest/yaml_model.py",
    "the sheet's keyboard": "reports/sheet/templates/keys.js",
}


def test_the_page_says_where_each_thing_is_to_be_changed() -> None:
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", TEXT, flags=re.MULTILINE))
    assert {what for what, file in QUESTIONS.items() if f"`{file}`" not in rows.get(what, "")} == set()


def test_every_package_is_in_the_tree() -> None:
    packages = {path.parent.name for path in (REPO / "pipeline").glob("*/__init__.py")}
    assert [name for name in sorted(packages) if f"  {name}/" not in TEXT] == []
