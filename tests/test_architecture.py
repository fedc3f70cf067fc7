"""Imports follow the layers, no object is changed from outside, and the readers of these rules notice each break."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.attribute_rules import foreign_assignments
from tests.support.constant_rules import unexplained_constants
from tests.support.import_rules import CLOCK_READERS, IMPURE, LAYERS, PURE, broken_rules
from tests.support.plain_words import private_words_below
from tests.support.size_rules import LONG_CLASSES, MAX_CLASS_LINES, short_enough, too_long

REPO = Path(__file__).resolve().parents[1]


def build(root: Path, **sources: str) -> list[str]:
    """Write a package of these modules (`gateway__wire="import os"`) and return the rules it breaks."""
    for name, source in sources.items():
        file = root.joinpath("pipeline", *name.split("__")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
        for folder in file.relative_to(root).parents[:-1]:
            (root / folder / "__init__.py").touch()
    return broken_rules(root)


def test_the_program_breaks_no_rule() -> None:
    assert broken_rules(REPO) == []


def test_code_and_pages_use_no_private_word() -> None:
    assert private_words_below(REPO, "pipeline", "benchmarks", "tests") == []


def test_no_module_class_or_function_is_too_long() -> None:
    assert too_long(REPO) == []


def test_the_list_of_long_classes_only_shrinks() -> None:
    assert short_enough(REPO) == [], "take these out of LONG_CLASSES: they are short enough by now"
    assert len(LONG_CLASSES) == 0


def test_what_is_too_long_is_noticed(tmp_path: Path) -> None:
    long_function = 'def f():\n    """Text."""\n' + "    x = 1\n" * 50
    long_class = "class C:\n" + "    x = 1\n" * MAX_CLASS_LINES
    build(tmp_path, records="x = 1\n" * 401, gateway__wire=long_function, cli__parser="x = 1\n" * 401, api=long_class)
    assert too_long(tmp_path) == [
        "pipeline/api.py: C has 221 lines, more than 220",
        "pipeline/gateway/wire.py: f has 51 lines, more than 50",
        "pipeline/records.py: 401 lines, more than 400",
    ]


def test_every_number_constant_has_a_sentence_with_its_reason() -> None:
    assert unexplained_constants(REPO) == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("LIMIT_S = 3", ["LIMIT_S"]),
        ('LIMIT_S = 3\n"""Limit in seconds."""', ["LIMIT_S"]),
        ('LIMIT_S = 3\n"""seconds that a call may take at most"""', ["LIMIT_S"]),
        ("_A, _B = 2 * 3, -1.5", ["_A, _B"]),
        ("LIMIT: Final = 1 << 16\nOTHER = 2\n'Seconds of the second one, and not of the first.'", ["LIMIT"]),
        ("SHARE = Decimal('0.5')", ["SHARE"]),
        ('LIMIT_S = 3\n"""Seconds that a call may take before it counts as hung."""', []),
        ("#: Seconds that a call may take\n#: before it is hung.\nLIMIT_S = 3", []),
        ("NEVER = float('inf')\nNAME = 'x'\nIS_ON = True\nlocal = 3", []),
    ],
)
def test_a_constant_without_a_reason_is_noticed(tmp_path: Path, source: str, names: list[str]) -> None:
    build(tmp_path, gateway__wire=source)
    assert [one.partition(" ")[2] for one in unexplained_constants(tmp_path)] == names


def test_every_listed_module_exists() -> None:
    layered = {f"pipeline.{name}" for packages in LAYERS for name in packages}
    listed = {*layered, *PURE, *IMPURE, *CLOCK_READERS}
    missing = [
        name
        for name in sorted(listed)
        if not (REPO / name.replace(".", "/")).is_dir() and not (REPO / (name.replace(".", "/") + ".py")).is_file()
    ]
    assert missing == []


def test_every_module_has_a_layer() -> None:
    names = {
        path.stem for path in (REPO / "pipeline").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert names - {"sandbox"} == {name for packages in LAYERS for name in packages}


def test_a_program_that_keeps_the_rules_passes(tmp_path: Path) -> None:
    found = build(
        tmp_path,
        records="import json\nfrom pathlib import Path",
        gateway__wire="from pipeline.records import Params",
        gateway__client="import asyncio, aiohttp\nfrom pipeline.gateway import wire",
        runner__submitter="import asyncio, logging\nfrom pipeline.gateway.client import C",
        runner__engine="import time, random\nfrom pipeline.runner import submitter, embedded_sandbox",
        runner__embedded_sandbox="from pipeline.sandbox import server",
        cli__main="def main():\n    from pipeline.runner import engine",
        sandbox__server="import time, aiohttp\nfrom pipeline.sandbox import job_store",
        sandbox__job_store="import sqlite3",
    )
    assert found == []


@pytest.mark.parametrize(
    ("module", "source", "words"),
    [
        ("records", "from pipeline.gateway import wire", "imports pipeline.gateway.wire: that layer is not below"),
        ("gateway__wire", "from pipeline.ledger.sqlite_ledger import S", "imports pipeline.ledger.sqlite_ledger"),
        ("gateway__wire", "def f():\n    from pipeline.runner import engine", "imports pipeline.runner.engine"),
        ("gateway__wire", "def f():\n    import pipeline.runner.engine", "imports pipeline.runner.engine"),
        ("gateway__wire", "from .. import api", "imports pipeline.api: that layer"),
        ("gateway__wire", "from ..api import go", "imports pipeline.api: that layer"),
        ("gateway__wire", "import importlib\nimportlib.import_module('pipeline.api')", "imports pipeline.api"),
        ("gateway__wire", "if TYPE_CHECKING:\n    import pipeline.cli.main", "imports pipeline.cli.main"),
        ("manifest__loader", "import pipeline.assets.addresses", "imports pipeline.assets.addresses"),
        ("runner__engine", "import pipeline.planning.plan", "imports pipeline.planning.plan"),
        ("runner__engine", "import pipeline.cli.main", "imports pipeline.cli.main"),
        ("runner__submitter", "import pipeline.sandbox.server", "only the embedded sandbox"),
        ("sandbox__server", "from pipeline.records import usd", "the sandbox imports no other package"),
        ("sandbox__server", "def f():\n    from ..gateway import wire", "the sandbox imports no other package"),
        ("gateway__classification", "import os", "imports os: it is pure"),
        ("gateway__classification", "def f():\n    import asyncio", "imports asyncio: it is pure"),
        ("gateway__classification", "from urllib import request", "imports urllib.request: it is pure"),
        ("gateway__classification", "from logging import getLogger", "imports logging: it is pure"),
        ("gateway__classification", "from concurrent.futures import Future", "imports concurrent: it is pure"),
        ("gateway__newcomer", "import socket", "pipeline.gateway.newcomer imports socket: it is pure"),
        ("manifest__axes", "def f(p):\n    return p.read_text()", "calls read_text(): it is pure"),
        ("manifest__axes", "def f(p):\n    return open(p)", "calls open(): it is pure"),
        ("ledger__states", "import datetime\nx = datetime.datetime.now()", "calls now(): it is handed a clock"),
        ("ledger__writer", "import uuid\nx = uuid.uuid4()", "calls uuid4(): it is handed a clock"),
        ("ledger__writer", "import time", "imports time: it is handed a clock"),
        ("gateway__client", "from random import random", "imports random: it is handed a clock"),
    ],
)
def test_a_broken_rule_is_noticed(tmp_path: Path, module: str, source: str, words: str) -> None:
    modules = "gateway__wire ledger__sqlite_ledger runner__engine api cli__main planning__plan sandbox__server"
    assert build(tmp_path, **dict.fromkeys((*modules.split(), "assets__addresses"), "")) == []
    found = build(tmp_path, **{module: source})
    assert [sentence for sentence in found if words in sentence], found


@pytest.mark.parametrize("lazily", ["", "def f():\n    "])
def test_a_ring_is_noticed_also_when_it_is_closed_lazily(tmp_path: Path, lazily: str) -> None:
    there, back = "from pipeline.ledger import queries", lazily + "from pipeline.ledger import sqlite_ledger"
    found = build(tmp_path, ledger__sqlite_ledger=there, ledger__queries=back)
    assert found == ["pipeline.ledger.queries, pipeline.ledger.sqlite_ledger: import each other in a ring"]


def public_classes(root: Path) -> dict[str, list[str]]:
    """The modules that define each public top-level class; the sandbox speaks for itself and may reuse names."""
    found: dict[str, list[str]] = {}
    for file in sorted(root.rglob("*.py")):
        if "sandbox" in file.relative_to(root).parts:
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(file.relative_to(root).as_posix())
    return found


def test_no_two_public_classes_share_a_name() -> None:
    assert {name: files for name, files in public_classes(REPO / "pipeline").items() if len(files) > 1} == {}


def test_a_shared_name_is_noticed(tmp_path: Path) -> None:
    build(tmp_path, gateway__wire="class Outcome: ...", ledger__states="class Outcome: ...\nclass _Own: ...")
    assert public_classes(tmp_path / "pipeline") == {"Outcome": ["gateway/wire.py", "ledger/states.py"]}


FOREIGN_OBJECTS = {
    "pipeline.cli.arguments": "args of argparse",
    "pipeline.cli.commands.derive": "args of argparse",
    "pipeline.cli.commands.init": "an action of argparse, which shtab reads",
    "pipeline.cli.streams": "sys.stdout and sys.stderr are replaced for the whole process",
    "pipeline.ledger.database": "a connection of sqlite3",
    "pipeline.ledger.postgres_session": "a connection of psycopg",
    "pipeline.reports.progress": "a bar of tqdm",
    "pipeline.reports.checks.frames": "a codec context of PyAV",
    "pipeline.reports.sheet.clip_reader": "a stream of PyAV",
    "pipeline.reports.sheet.grid_video": "a stream of PyAV",
    "pipeline.reports.sheet.thumbnails": "a stream of PyAV",
    "pipeline.reports.sheet.web_clips": "a stream of PyAV",
    "pipeline.runner.run_log": "a logger of the standard library",
    "pipeline.sandbox.rendering.clip": "a stream of PyAV",
}
"""Modules that set up an object of a library which can be set up in no other way."""


def test_no_module_sets_attributes_of_other_objects() -> None:
    found = [
        f"{one.module}:{one.line} sets {one.target}"
        for one in foreign_assignments(REPO)
        if one.module not in FOREIGN_OBJECTS
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "targets"),
    [
        ("def f(other):\n    other.hook = print", ["other.hook"]),
        ("class A:\n    def f(self):\n        self.part.hook, self.x = 1, 2", ["self.part.hook"]),
        ("def f(other):\n    other.count += 1", ["other.count"]),
        ("def f(other):\n    other.hook: int = 1", ["other.hook"]),
        ("def f(other):\n    setattr(other, 'hook', 1)", ["other.hook"]),
        ("def f(others):\n    for others[0].hook in (1, 2):\n        pass", ["others[0].hook"]),
        ("class A:\n    def f(self):\n        self.hook = 1", []),
        ("from pipeline.records import Plain\ndef f(one: Plain):\n    one.size = 1", []),
        ("from pipeline.records import Frozen\ndef f(one: Frozen):\n    one.size = 1", ["one.size"]),
        ("from pipeline.records import Made\ndef f(one: Made):\n    one.size = 1", ["one.size"]),
        ("from pipeline.records import Active\ndef f(one: Active):\n    one.size = 1", ["one.size"]),
    ],
)
def test_an_attribute_set_from_outside_is_noticed(tmp_path: Path, source: str, targets: list[str]) -> None:
    (tmp_path / "pipeline").mkdir()
    records = (
        "@dataclass\nclass Plain:\n    size: int\n\n    @property\n    def half(self): ...\n"
        "@dataclass(frozen=True)\nclass Frozen:\n    size: int\n"
        "@record\nclass Made:\n    size: int\n"
        "@dataclass\nclass Active:\n    size: int\n\n    def grow(self): ...\n"
    )
    (tmp_path / "pipeline" / "records.py").write_text(records, encoding="utf-8")
    (tmp_path / "pipeline" / "step.py").write_text(source, encoding="utf-8")
    assert [one.target for one in foreign_assignments(tmp_path)] == targets
