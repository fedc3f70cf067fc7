"""Removes what killed processes left below the outputs folder: drafts, half downloads, a rebuild that did not end.

Only files whose owner is dead: an owner locks its draft or its half download, and a rebuild holds the ledger's lock.
Needs that lock, so that no other run of this ledger works meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.files import remove_abandoned

HALF_DOWNLOAD = re.compile(r".+\.mp4\.part")
"""The name of a video that is being fetched. Its process locks it."""

LINK_DRAFT = re.compile(r"\.latest-[0-9a-f]{8}")
"""The name of the link `latest` before it takes its place. A process whose link is gone makes it again."""

REBUILDING = ".rebuilding"
"""Ends the name of a ledger that is being made from its journal."""


def remove_leftovers(outputs: Path, ledger: Path | None, run_ids: Iterable[str]) -> None:
    """Remove what has no living owner in `outputs`, beside `ledger`, and in the folders of these runs."""
    remove_abandoned(outputs)
    for run_id in run_ids:
        remove_abandoned(outputs / run_id)
        remove_abandoned(outputs / run_id / "videos", also=HALF_DOWNLOAD)
    with suppress(OSError):
        for path in outputs.glob(".latest-*"):
            if LINK_DRAFT.fullmatch(path.name) and path.is_symlink():
                path.unlink()
    if ledger is None:
        return
    remove_abandoned(ledger.parent)
    for folder in (ledger.parent / "callbacks").glob("*"):
        remove_abandoned(folder)
    for side in ("", "-wal", "-shm", "-journal"):
        with suppress(OSError):
            ledger.with_name(f"{ledger.name}{REBUILDING}{side}").unlink()
