"""Videos that were saved and are not there any more: vanished, emptied, cut or overwritten with something else.

What `dop prune` removed is not missed, nor a whole video that the user edited in its place. Where the outputs are in an
object store, or on the disks of several hosts, this machine's files prove nothing, and nothing is missed either.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.gateway.mp4_check import Mp4BoxScanner
from pipeline.ledger.run_registry import Run
from pipeline.ledger.states import Event
from pipeline.ledger.transitions import LedgerChange
from pipeline.ledger.workspace import OpenLedger

PRUNED = "pruned "
"""Begins the name of the ledger's note that `dop prune` removed the folder of a run."""

_TYPE_BOX = b"ftyp"
_TYPE_BOX_AT = slice(4, 8)
_BLOCK_BYTES = 1 << 20
"""Bytes that are read at a time when the boxes of a video are checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingVideo:
    """One saved video that is not there. `what` says what was found in its place."""

    request_id: str
    row_id: str
    path: Path
    what: str

    def __str__(self) -> str:
        return f"{self.row_id}: the video {self.path} {self.what}"


def missing_videos(workspace: OpenLedger, run: Run) -> list[MissingVideo]:
    """The saved videos of a run whose files are not as they were saved. Reads each file's size and first bytes."""
    settings, found = workspace.settings, []
    if settings.outputs.url is not None or (settings.ledger.url is not None and not settings.cluster.shared_outputs):
        return []
    pruned: dict[str, bool] = {}
    for saved in workspace.queries.saved_files(run.run_id):
        path = workspace.outputs / saved.local_path
        what = _what_is_wrong(path, saved.size_bytes)
        folder = saved.local_path.partition("/")[0]
        if what and folder not in pruned:
            pruned[folder] = bool(workspace.ledger.saved_states.load(PRUNED + folder))
        if what and not pruned[folder]:
            found.append(MissingVideo(request_id=saved.request_id, row_id=saved.row_id, path=path, what=what))
    return found


def mark_missing(workspace: OpenLedger, missing: Sequence[MissingVideo], *, now: float) -> None:
    """Write to the ledger that these videos have no file, so that each run that lists them fetches them again."""
    for video in missing:
        values = {"size_bytes": None, "sha256": None, "reason": f"the video {video.what}"}
        workspace.ledger.apply_now(
            LedgerChange(request_id=video.request_id, event=Event.NOTE, at=now, values=values, detail=str(video))
        )


def mark_pruned(workspace: OpenLedger, run_id: str, *, now: float) -> None:
    """Write to the ledger that the user removed the folder of a run on purpose."""
    workspace.ledger.saved_states.save(PRUNED + run_id, {"at": now})


def _what_is_wrong(path: Path, size_bytes: int | None) -> str:
    """What is wrong with a saved video; empty when nothing is, and when the file can't be read now."""
    try:
        with path.open("rb") as file:
            found_bytes = os.fstat(file.fileno()).st_size
            if found_bytes == 0:
                return "is empty"
            if size_bytes is None or found_bytes == size_bytes:
                return "" if file.read(_TYPE_BOX_AT.stop)[_TYPE_BOX_AT] == _TYPE_BOX else "is no MP4 any more"
            # Another size is no loss as long as it is a whole video: the user may have edited it.
            return f"has {found_bytes} bytes instead of {size_bytes}" if _is_broken(file) else ""
    except (FileNotFoundError, NotADirectoryError):
        return "is gone"
    except OSError:
        return ""


def _is_broken(file: BinaryIO) -> bool:
    walk = Mp4BoxScanner()
    while block := file.read(_BLOCK_BYTES):
        walk.feed(block)
    return walk.verdict(length_proven=False) is not None
