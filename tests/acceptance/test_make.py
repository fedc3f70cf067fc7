"""The targets of make, and what setting up says on a machine that lacks something. Nothing is downloaded here."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
TARGETS = """
help setup batch plan collect status report view sandbox test test-long check lint types bench chaos clean"""


def make(*args: str) -> str:
    done = subprocess.run(["make", *args], cwd=REPO, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_alone_lists_every_target_with_what_it_does() -> None:
    listed = dict(re.findall(r"^  ([a-z-]+) +(\S.*)$", make(), flags=re.M))
    assert sorted(listed) == sorted(TARGETS.split())


def test_batch_runs_the_manifest_and_configuration_it_is_given() -> None:
    recipe = make("-n", "batch", "MANIFEST=my shots.csv", "CONFIG=configs/live.yaml", "ARGS=--max-new 3")
    assert ".venv/bin/dop run 'my shots.csv' --config 'configs/live.yaml' --max-new 3" in recipe


def test_check_is_lint_types_and_all_tests_and_ci_runs_it() -> None:
    recipe = make("-n", "check")
    commands = ("ruff check", "ruff format --check", "mypy", "pytest -q ", "pytest -q -m long")
    places = [recipe.index(command) for command in commands]
    assert places == sorted(places)
    assert "make check" in (REPO / ".ci" / "run").read_text(encoding="utf-8")


def test_clean_never_touches_outputs() -> None:
    recipe = make("-n", "clean")
    assert ".venv" in recipe
    removed = re.findall(r"rm -rf ([^;]*?)(?:$| \{\})", recipe, flags=re.M)
    assert removed
    assert not any("outputs" in names for names in removed)
    assert "-not -path './outputs/*'" in recipe


def test_the_pinned_versions_name_no_address_and_cover_what_is_declared() -> None:
    pinned = (REPO / "constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"://|find-links|index-url| @ |/home|/opt|/root", pinned)
    names = set(re.findall(r"^([a-z0-9-]+)==", pinned, flags=re.M))
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    assert {re.split(r"[^a-z0-9-]", one)[0] for one in declared} - names == set()


def machine(tmp_path: Path, **pythons: str) -> dict[str, str]:
    """A PATH that has a shell's tools and these interpreters, each a shell script."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "env", "dirname", "rm"):
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    for name, body in pythons.items():
        file = folder / name.replace("_", ".")
        file.write_text(f"#!/usr/bin/env bash\n{body}\n", encoding="utf-8")
        file.chmod(0o755)
    return {"PATH": str(folder), "HOME": str(tmp_path)}


def set_up(tmp_path: Path, environ: dict[str, str]) -> str:
    """What .ci/setup says when it gives up."""
    command = [str(REPO / ".ci" / "setup"), str(tmp_path / "venv")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert not (tmp_path / "venv").exists()
    return done.stderr


OLD = "exit 1"
NEW_WITHOUT_VENV = """
case "$1 $2" in "-m venv") exit 1;; "-c import sys; print"*) echo 3.12;; "--version "*) echo Python 3.12.0;; esac
"""


def test_setup_without_a_python_says_what_is_needed(tmp_path: Path) -> None:
    assert "Python 3.11 or newer is needed" in set_up(tmp_path, machine(tmp_path))


def test_setup_with_an_old_python_alone_says_what_is_needed(tmp_path: Path) -> None:
    assert "Python 3.11 or newer is needed" in set_up(tmp_path, machine(tmp_path, python3=OLD))


def test_setup_looks_for_a_newer_python_beside_an_old_one_and_says_so(tmp_path: Path) -> None:
    said = set_up(tmp_path, machine(tmp_path, python3=OLD, python3_12=NEW_WITHOUT_VENV))
    assert "python3 is missing or older than 3.11, using python3.12" in said
    assert "apt install python3.12-venv" in said


def test_setup_refuses_the_configured_interpreter_when_that_is_old(tmp_path: Path) -> None:
    environ = machine(tmp_path, python3=NEW_WITHOUT_VENV, mine=OLD) | {"PYTHON": "mine"}
    assert "mine is not Python 3.11 or newer" in set_up(tmp_path, environ)
