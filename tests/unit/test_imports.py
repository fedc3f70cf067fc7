"""The house stands as its rules say; and the rules' own reader notices each way of breaking them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.houserules import FLOORS, READERS, broken_rules

REPO = Path(__file__).resolve().parents[2]


def build(root: Path, **sources: str) -> list[str]:
    """A house of these modules (`gateway__wire="import os"`); what breaks its rules."""
    for name, source in sources.items():
        file = root.joinpath("pipeline", *name.split("__")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
        for folder in file.relative_to(root).parents[:-1]:
            (root / folder / "__init__.py").touch()
    return broken_rules(root)


def test_the_house_breaks_no_rule() -> None:
    assert broken_rules(REPO) == []


def test_every_listed_module_exists() -> None:
    listed = {*FLOORS, *READERS} - {"pipeline.__main__"}
    missing = [
        name
        for name in sorted(listed)
        if not (REPO / name.replace(".", "/")).is_dir() and not (REPO / (name.replace(".", "/") + ".py")).is_file()
    ]
    assert missing == []


def test_a_house_that_keeps_the_rules_is_left_in_peace(tmp_path: Path) -> None:
    found = build(
        tmp_path,
        records="import json\nfrom pathlib import Path",
        gateway__wire="from pipeline.records import Params",
        gateway__client="import asyncio, aiohttp\nfrom pipeline.gateway import wire",
        steps__submit="import asyncio, logging\nfrom pipeline.gateway.client import C",
        run="import time, random\nfrom pipeline.steps import submit\nfrom pipeline import embedded",
        embedded="from pipeline.sandbox import server",
        cli="def main():\n    from pipeline import run",
        sandbox__server="import time, aiohttp\nfrom pipeline.sandbox import books",
        sandbox__books="import sqlite3",
    )
    assert found == []


@pytest.mark.parametrize(
    ("module", "source", "words"),
    [
        ("records", "from pipeline.gateway import wire", "pipeline.records (words) imports pipeline.gateway"),
        ("gateway__wire", "from pipeline.ledger.store import S", "(judgement) imports pipeline.ledger.store (doors)"),
        ("gateway__wire", "def f():\n    from pipeline import run", "(judgement) imports pipeline.run (run)"),
        ("gateway__wire", "def f():\n    import pipeline.run", "(judgement) imports pipeline.run (run)"),
        ("gateway__wire", "from .. import run", "(judgement) imports pipeline.run (run)"),
        ("gateway__wire", "from ..run import go", "(judgement) imports pipeline.run (run)"),
        ("gateway__wire", "import importlib\nimportlib.import_module('pipeline.run')", "imports pipeline.run (run)"),
        ("gateway__wire", "if TYPE_CHECKING:\n    import pipeline.cli", "imports pipeline.cli (command)"),
        ("gateway__client", "import pipeline.ledger.store", "(doors) imports pipeline.ledger.store (doors)"),
        ("gateway__client", "import pipeline.steps.submit", "(doors) imports pipeline.steps.submit (steps)"),
        ("steps__submit", "import pipeline.run", "(steps) imports pipeline.run (run)"),
        ("steps__submit", "import pipeline.plan", "(steps) imports pipeline.plan (steps)"),
        ("run", "import pipeline.cli", "(run) imports pipeline.cli (command)"),
        ("steps__submit", "import pipeline.sandbox.server", "know the sandbox"),
        ("sandbox__server", "from pipeline.records import usd", "the sandbox stands alone"),
        ("sandbox__server", "def f():\n    from ..gateway import wire", "the sandbox stands alone"),
        ("gateway__verdict", "import os", "imports os: it is pure"),
        ("gateway__verdict", "def f():\n    import asyncio", "imports asyncio: it is pure"),
        ("gateway__verdict", "from urllib import request", "imports urllib.request: it is pure"),
        ("gateway__verdict", "from logging import getLogger", "imports logging: it is pure"),
        ("gateway__verdict", "from concurrent.futures import Future", "imports concurrent: it is pure"),
        ("gateway__newcomer", "import socket", "pipeline.gateway.newcomer imports socket: it is pure"),
        ("manifest__sweep", "def f(p):\n    return p.read_text()", "calls read_text(): it is pure"),
        ("manifest__sweep", "def f(p):\n    return open(p)", "calls open(): it is pure"),
        ("ledger__lifecycle", "import datetime\nx = datetime.datetime.now()", "calls now(): only run knows it"),
        ("ledger__lifecycle", "import uuid\nx = uuid.uuid4()", "calls uuid4(): only run knows it"),
        ("steps__poll", "import time", "imports time: only run knows it"),
        ("steps__poll", "from random import random", "imports random: only run knows it"),
    ],
)
def test_a_broken_rule_is_noticed(tmp_path: Path, module: str, source: str, words: str) -> None:
    rooms = dict.fromkeys(("gateway__wire", "ledger__store", "steps__submit", "plan", "run", "cli"), "")
    assert build(tmp_path, **rooms, sandbox__server="") == []
    found = build(tmp_path, **{module: source})
    assert [sentence for sentence in found if words in sentence], found


@pytest.mark.parametrize("lazily", ["", "def f():\n    "])
def test_a_ring_is_noticed_also_when_it_is_closed_lazily(tmp_path: Path, lazily: str) -> None:
    there, back = "from pipeline.ledger import book", lazily + "from pipeline.ledger import store"
    found = build(tmp_path, ledger__store=there, ledger__book=back)
    assert found == ["pipeline.ledger.book, pipeline.ledger.store: import each other in a ring"]
