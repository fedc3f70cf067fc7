"""`dop key`: storing the key, and trusting an origin with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.cli_driver import DOP, KEY
from tests.support.surroundings import Keyless

pytestmark = pytest.mark.process


def stored(dop: Keyless, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(DOP), "key", "set"],
        input=text,
        env=dop.environment(),
        cwd=dop.folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_key_is_stored_for_its_user_alone_and_never_shown(tmp_path: Path) -> None:
    dop = Keyless(folder=tmp_path)
    end = stored(dop, f"{KEY}\n")
    file = tmp_path / "home" / ".pixazo" / "api-key"
    assert end.returncode == 0, end.stderr
    assert file.read_text(encoding="utf-8") == f"{KEY}\n"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert KEY not in end.stdout + end.stderr


@pytest.mark.parametrize("text", ["", "\n", "two words\n", "schl\u00fcssel\n"])
def test_what_cannot_be_a_key_is_refused_and_leaves_the_old_one(tmp_path: Path, text: str) -> None:
    dop = Keyless(folder=tmp_path)
    assert stored(dop, f"{KEY}\n").returncode == 0
    end = stored(dop, text)
    assert end.returncode == 2
    assert "words" not in end.stderr
    assert (tmp_path / "home" / ".pixazo" / "api-key").read_text(encoding="utf-8") == f"{KEY}\n"
