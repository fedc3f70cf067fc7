"""The commands print and write what they printed and wrote before: a net under changes of structure.

Thirty commands run in one folder against the embedded sandbox. Whatever differs between two runs of the same code
(times, ids, ports, folders) is replaced by a word; the rest is compared to the byte with tests/fixtures/golden.
`UPDATE_GOLDEN=1 pytest tests/acceptance/test_golden_output.py` writes the files again, for a change that is meant.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.support.cli_driver import Dop, Ended, shots

GOLDEN = Path(__file__).resolve().parents[1] / "fixtures" / "golden"
REPO = Path(__file__).resolve().parents[2]

_VERBS = """
init completion validate plan run submit collect retry resolve status list show report view derive spend doctor
worker motions webhook webhook|serve review review|import review|export
ledger ledger|check ledger|rebuild ledger|copy ledger|adopt prune sandbox
sandbox|serve"""
VERBS = _VERBS.split()

REPLACED = (
    (r"\d{4}-\d\d-\d\d_\d{4}-([a-z0-9-]+?)-[0-9a-f]{4}", r"RUN-\1"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?", "TIME"),
    (r"\b20\d\d-\d\d(-\d\d)?\b", "DATE"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"(127\.0\.0\.1|localhost):\d+", "HOST"),
    (r"\b\d+(\.\d+)? s\b", "N s"),
    (r"\d+\.\d+ GB free", "N GB free"),
)
"""What differs between two runs of the same code, and the word that replaces it."""

_VOLATILE = """
submitted_at finished_at duration_s polls throttled sha256 size_bytes started ended elapsed_s version python
started_by rate_per_s"""
VOLATILE = frozenset(_VOLATILE.split())
"""Columns and keys whose values are times or counts of the clock."""


def plain(text: str, dop: Dop) -> str:
    """The text without what differs from run to run."""
    for folder, word in ((dop.folder, "FOLDER"), (REPO, "REPO")):
        text = text.replace(str(folder), word)
    for pattern, word in REPLACED:
        text = re.sub(pattern, word, text)
    return "\n".join(line for line in text.splitlines() if "ETA" not in line) + "\n"


def plain_json(value: object) -> object:
    """The value with a word for each volatile key."""
    if isinstance(value, dict):
        return {key: "VOLATILE" if key in VOLATILE and one else plain_json(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain_json(one) for one in value]
    return value


def same(name: str, text: str) -> None:
    """Compares with the golden file, or writes it."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_help_of_every_verb(rehearsal: Dop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    rehearsal.environ["COLUMNS"] = "100"
    texts = [rehearsal.typed("--help").out]
    texts += [f"== {verb}\n{rehearsal.typed(*verb.split('|'), '--help').out}" for verb in VERBS]
    same("help.txt", "".join(texts))


def test_thirty_commands(rehearsal: Dop) -> None:
    dop = rehearsal
    dop.csv(shots(3, model="dop-lite"))
    dop.csv("id,image,prompt\nbad,,\n", "bad.csv")
    log: list[str] = []

    def do(verb: str, *words: str) -> Ended:
        ended = dop.call(verb, *words)
        out = ended.out
        if "--json" in words and out.startswith("{"):
            out = json.dumps(plain_json(json.loads(out)), indent=1) + "\n"
        log.append(f"$ dop {verb} {' '.join(words)}\n{out}{ended.err}= {ended.code}\n")
        return ended

    do("validate", "shots.csv")
    do("validate", "bad.csv")
    do("validate", "missing.csv")
    do("plan", "shots.csv")
    do("plan", "shots.csv", "--json")
    do("plan", "shots.csv", "--out", "saved.plan")
    do("status")
    do("list")
    do("run", "shots.csv", "--yes", "-q", "--max-new", "1")
    do("run", "shots.csv", "--yes", "--max-cost", "0.2")
    do("run", "shots.csv", "--max-cost", "0")
    do("submit", "shots.csv", "--yes", "--no-progress", "--max-cost", "1")
    first = do("run", "shots.csv")
    do("run", "shots.csv", "--yes", "--no-progress")
    do("run", "shots.csv", "--yes", "--error-on-nothing")
    do("run", "--plan", "saved.plan", "--yes")
    do("run", "shots.csv", "--bogus")
    do("status", "--json")
    do("status", "nothing")
    do("list", "--json")
    do("show", "row-1")
    do("show", "nothing")
    do("collect")
    do("retry", "latest", "--failed", "--yes")
    do("resolve", "row-1", "--charged")
    do("spend")
    do("spend", "--json")
    do("report", "latest", "-o", "run.jsonl", "run.junit.xml")
    do("motions", "--search", "dolly in")
    do("ledger", "check")
    do("ledger", "copy", "copy.db")
    do("ledger", "rebuild")
    do("prune", "--keep", "30d", "--dry-run")
    assert first.code == 0
    same("commands.txt", plain("".join(log), dop))

    runs = sorted(path for path in dop.outputs.iterdir() if (path / "report.csv").is_file() and not path.is_symlink())
    with_time = [(path.stat().st_mtime_ns, path) for path in runs]
    newest = max(with_time)[1]
    rows = [{key: "VOLATILE" if key in VOLATILE and one else one for key, one in row.items()} for row in dop.rows()]
    same("report.json", plain(json.dumps(rows, indent=1), dop))
    summary = json.loads((newest / "run.json").read_text(encoding="utf-8"))
    same("run.json", plain(json.dumps(plain_json(summary), indent=1), dop))
