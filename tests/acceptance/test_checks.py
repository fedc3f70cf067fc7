"""Broken clips are found, counted and shown, and count as failures only where the user says so."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from tests.support.cli_driver import Dop

MANIFEST = """
version: 1
name: checks
defaults: {model: dop-lite, enhance_prompt: false, strength: 0.7, image: "sandbox:coffee", prompt: a cup}
rows:
  - {id: cup, matrix: {motion: [Dolly In, Arc Left], seed: [1, 2]}}
"""

CHECKED = {"DOP_CHECKS__ENABLED": "true", "DOP_SANDBOX__SIZE": "180p", "DOP_SANDBOX__GENERATION_S": "0"}


@pytest.fixture
def checking(rehearsal: Dop) -> Dop:
    rehearsal.environ |= CHECKED
    (rehearsal.folder / "m.yaml").write_text(MANIFEST, encoding="utf-8")
    return rehearsal


@pytest.mark.long
@pytest.mark.timeout(300)
def test_good_clips_pass_and_the_tables_say_so(checking: Dop) -> None:
    ended = checking.call("run", "m.yaml", "--yes", "--fail-on-check")
    assert ended.code == 0, ended.err
    assert "  checks " not in ended.err, "what is as it should be is not printed"
    assert "checks    4 ok" in checking.call("status").out
    rows = checking.rows()
    assert {row["check"] for row in rows} == {"ok"}
    assert {row["check_reasons"] for row in rows} == {""}


@pytest.mark.long
@pytest.mark.timeout(300)
def test_broken_clips_are_found_counted_and_shown(checking: Dop) -> None:
    checking.environ["DOP_SANDBOX__DEFECTS"] = "1"
    ended = checking.call("run", "m.yaml", "--yes")
    assert ended.code == 0, ended.err
    assert re.search(r"^  checks .*\d (bad|warn)", ended.err, flags=re.M), ended.err
    rows = checking.rows()
    found = [row for row in rows if row["check"] in ("bad", "warn")]
    assert len(found) == len(rows) == 4
    summary = json.loads((checking.latest / "run.json").read_text(encoding="utf-8"))
    assert summary["checks"]["bad"] == sum(row["check"] == "bad" for row in rows)
    assert sum(summary["checks"]["kinds"].values()) >= 4
    assert json.loads(checking.call("status", "--json").out)["checks"] == summary["checks"]
    page = (checking.latest / "report.html").read_text(encoding="utf-8")
    assert page.count('<span class="check ') == 4

    assert checking.call("check").code == 0
    named = checking.call("check", "--json", "--again", "--set", "checks.fail_on=all")
    assert named.code == 1
    assert json.loads(named.out)["checks"] == summary["checks"]
    assert checking.call("run", "m.yaml", "--yes", "--fail-on-check").code == 1
    absent = next(kind for kind in ("small", "wrong_end", "loop_seam") if kind not in summary["checks"]["kinds"])
    assert checking.call("run", "m.yaml", "--yes", "--fail-on-check", absent).code == 0

    checking.call("report", "-o", "r.jsonl", "r.junit.xml", "--set", "checks.fail_on=all")
    lines = [json.loads(line) for line in (checking.folder / "r.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(isinstance(line["check_metrics"], dict) for line in lines)
    suite = ElementTree.parse(checking.folder / "r.junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert suite.get("failures") == str(summary["checks"]["bad"])


def test_checks_can_be_switched_off(checking: Dop) -> None:
    ended = checking.call("run", "m.yaml", "--yes", "--set", "checks.enabled=false", "--set", "checks.fail_on=all")
    assert ended.code == 0, ended.err
    assert {row["check"] for row in checking.rows()} == {""}
    assert not list(checking.latest.glob("videos/*.check.json"))


def test_a_wrong_kind_is_named_with_those_that_are_known(checking: Dop) -> None:
    ended = checking.call("run", "m.yaml", "--yes", "--set", "checks.fail_on=frost")
    assert ended.code == 2
    assert "'frost' is no kind of defect" in ended.err
