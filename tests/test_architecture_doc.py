"""docs/internals/architecture.md names files that exist, and every package."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
TEXT = (REPO / "docs" / "internals" / "architecture.md").read_text(encoding="utf-8")


def test_every_file_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`([\w/.]+\.(?:py|js|yaml|md))`", TEXT))
    files = [path.relative_to(REPO).as_posix() for path in REPO.rglob("*.*") if ".venv" not in path.parts]
    assert len(named) > 40
    assert [name for name in sorted(named) if not any(file.endswith(name) for file in files)] == []


def test_every_package_is_in_the_tree() -> None:
    packages = {path.parent.name for path in (REPO / "pipeline").glob("*/__init__.py")}
    assert [name for name in sorted(packages) if f"  {name}/" not in TEXT] == []
