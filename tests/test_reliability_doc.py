"""docs/reliability.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]


def test_every_test_that_the_promises_name_exists() -> None:
    text = (REPO / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:unit|integration|acceptance)/[\w/]+\.py)`", text))
    assert len(named) > 15
    assert [name for name in sorted(named) if not (REPO / "tests" / name).is_file()] == []
