"""The folder of one run below the outputs folder: its name, its videos, and the link latest."""

from __future__ import annotations

import re
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import UsageError

_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")


NAME_CHARS = 40
"""Characters of the manifest's name in the name of a run, which is a folder and is typed by hand."""


def run_name(manifest_name: str, at: float) -> str:
    """The name of a new run and its folder: `YYYY-MM-DD_HHMM-name-xxxx`, UTC, with four random digits."""
    slug = _NOT_IN_NAMES.sub("-", manifest_name.lower()).strip("-")[:NAME_CHARS].strip("-") or "run"
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d_%H%M}-{slug}-{secrets.token_hex(2)}"


class RunFolder:
    """One run's folder under the outputs folder; with room for videos; the umask decides who else may look."""

    def __init__(self, outputs: Path, run_id: str) -> None:
        self.outputs = outputs
        self.path = outputs / run_id

    @property
    def videos(self) -> Path:
        """Where the run's videos go."""
        return self.path / "videos"

    def make(self, manifest: Path | None) -> None:
        """Makes the folder, keeps the manifest as read, and points `latest` at it.

        Raises:
            UsageError: it cannot be written; found before anything is spent.
        """
        try:
            self.videos.mkdir(parents=True, exist_ok=True)
            probe = self.videos / ".probe"
            probe.write_bytes(b"x")
            probe.unlink()
            if manifest is not None:
                shutil.copyfile(manifest, self.path / f"manifest{manifest.suffix}")
            self._point_latest()
        except OSError as error:
            raise UsageError(f"{self.path} can't be written ({error.strerror}); nothing was sent") from None

    def _point_latest(self) -> None:
        """Replaces the link by a rename; again when another run took the draft of it for one that a crash left."""
        link = self.outputs / "latest"
        for tries_left in (2, 1, 0):
            fresh = self.outputs / f".latest-{secrets.token_hex(4)}"
            fresh.symlink_to(self.path.name)
            try:
                fresh.replace(link)
                return
            except FileNotFoundError:
                if not tries_left:
                    raise
            except OSError:
                fresh.unlink()
                raise
