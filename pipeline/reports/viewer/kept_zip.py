"""The kept clips of a run as one ZIP, made while it is sent: nothing of it lies in memory or on the disk."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from aiohttp import web

from pipeline.ledger.reviews import latest_verdicts
from pipeline.ledger.run_registry import Run
from pipeline.ledger.workspace import OpenLedger
from pipeline.records import State
from pipeline.reports.viewer.access import HEADERS

PIECE_BYTES = 1_000_000
"""Bytes that are read and sent at a time."""


def kept_clips(workspace: OpenLedger, runs: Sequence[Run]) -> dict[str, Path]:
    """Name in the ZIP -> file of each clip that reviewers kept and that is here, in the order of the runs."""
    verdicts = latest_verdicts(workspace.ledger)
    found: dict[str, Path] = {}
    for run in runs:
        for line in workspace.queries.report_attempts(run.run_id, (State.DONE,), has_file=True):
            if line.local_path is None or verdicts.get(line.request_id) != "keep":
                continue
            path = workspace.outputs / line.local_path
            if path.is_file() and path not in found.values():
                found[path.name if path.name not in found else line.local_path] = path
    return found


class _Outbox(io.RawIOBase):
    """What the ZIP writer has written and is not sent yet; it cannot seek, so sizes follow the content."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        part = memoryview(content).tobytes()  # type: ignore[arg-type]
        self._written += part
        return len(part)

    def taken(self) -> bytes:
        """Everything written since the last call."""
        part = bytes(self._written)
        self._written.clear()
        return part


def zip_pieces(files: Mapping[str, Path]) -> Iterator[bytes]:
    """The ZIP in pieces; clips are stored as they are, for no packing makes a video smaller."""
    outbox = _Outbox()
    with zipfile.ZipFile(outbox, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files.items():
            with path.open("rb") as source, archive.open(zipfile.ZipInfo.from_file(path, name), "w") as target:
                while piece := source.read(PIECE_BYTES):
                    target.write(piece)
                    yield outbox.taken()
    yield outbox.taken()


async def send_zip(request: web.Request, name: str, files: Mapping[str, Path]) -> web.StreamResponse:
    """Answer with a ZIP of the files under its own name; they are read off the event loop."""
    answer = web.StreamResponse(headers={**HEADERS, "Content-Type": "application/zip"})
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    await answer.prepare(request)
    pieces = zip_pieces(files)
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        await answer.write(piece)
    await answer.write_eof()
    return answer
