"""The first five minutes: samples that run at once, files of the user that stay, the version, completion in a shell."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.metadata import version

import pytest

from tests.support.cli_driver import Dop, Ended

QUIET = ("--set", "sandbox.generation_s=0", "--set", "sandbox.size=180p", "--set", "poll.first_s=0.05")


def plain(dop: Dop, *words: str, code: int = 0) -> Ended:
    """A command exactly as written, without a test's own settings."""
    end = dop.typed(*words)
    assert end.code == code, end.err
    return end


@pytest.mark.long
def test_the_two_commands_that_init_names_do_what_it_says(rehearsal: Dop) -> None:
    said = plain(rehearsal, "init").out
    commands = re.findall(r"^dop (\w+) (\S+)", said, flags=re.M)
    assert commands == [("plan", "shots.csv"), ("run", "shots.csv")]
    assert "to buy now: 7 for $1.507" in plain(rehearsal, "plan", "shots.csv").out
    assert "Done: 7 videos ready, 7 new for $1.507" in plain(rehearsal, "run", "shots.csv", *QUIET).err
    assert "to buy now: 8 for $1.080" in plain(rehearsal, "plan", "sweep.yaml").out


def test_init_leaves_what_is_there_and_adds_what_is_missing(rehearsal: Dop) -> None:
    folder = rehearsal.folder / "film"
    folder.mkdir()
    (folder / "shots.csv").write_text("mine")
    first = plain(rehearsal, "init", "film")
    assert "shots.csv: already exists, skipped" in first.err
    assert first.out.startswith("cd film && dop plan")
    assert (folder / "shots.csv").read_text() == "mine"
    (folder / "sweep.yaml").unlink()
    plain(rehearsal, "init", "film")
    assert (folder / "sweep.yaml").exists()
    assert sorted(path.name for path in (folder / "configs").iterdir()) == [
        "default.yaml",
        "live.yaml",
        "manifest.schema.json",
    ]


def test_a_file_in_the_way_of_the_folder_is_reported(rehearsal: Dop) -> None:
    (rehearsal.folder / "film").write_text("a file")
    assert "can't be written" in plain(rehearsal, "init", "film", code=2).err


def test_version_is_the_installed_one(rehearsal: Dop) -> None:
    assert plain(rehearsal, "--version").out == f"dop {version('dop-batch')}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_each_shell_gets_its_completion(rehearsal: Dop, shell: str) -> None:
    script = plain(rehearsal, "completion", shell).out
    assert all(word in script for word in ("validate", "derive", "sandbox"))
    if shutil.which(shell) is not None:
        done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


def test_bash_completes_verbs_flags_and_files(rehearsal: Dop) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    (rehearsal.folder / "shots.csv").touch()
    (rehearsal.folder / "complete.bash").write_text(plain(rehearsal, "completion", "bash").out)

    def offered(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in words)
        script = (
            f"source complete.bash; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_dop dop '{words[-1]}' x; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "--norc", "-c", script],
            cwd=rehearsal.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return {word.strip() for word in done.stdout.splitlines()}

    assert {"validate", "view"} <= offered("dop", "v")
    assert "--max-cost" in offered("dop", "run", "--max-c")
    assert "shots.csv" in offered("dop", "plan", "sho")
