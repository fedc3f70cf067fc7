"""Results in an object store (`outputs.dir: s3://..`): each video and report is made here, and then lands there whole.

A video counts as saved once the store has it; until then it waits in the staging folder, and the next run takes it from
there. Names in the store are those below the outputs folder, so that a report's links hold in both places.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from pipeline.assets.object_store import ObjectStore, StoreError, open_store
from pipeline.config.settings import Settings
from pipeline.files import whole_path
from pipeline.gateway.download_outcomes import Saved
from pipeline.ledger.queries import LedgerQueries

T = TypeVar("T")

CONCURRENCY = 8
"""Videos that are fetched from the store at the same time."""
DOWN_S = 30.0
"""After a store failed, videos are only staged for so long: each would wait for its own three tries."""

MAX_BYTES = 64 * 2**20
"""Bytes of a video that is fetched back for the page, at the most: it is in memory meanwhile."""

LATEST = "latest"
"""An object that holds the newest run's name: a store has no links."""

LAST = ("report.html", "report.csv", "run.json")
"""Put last, in this order: what they point to is there before them."""

KINDS = {".csv": "text/csv; charset=utf-8", ".log": "application/x-ndjson", ".yaml": "application/yaml"}


class OutputPublisher:
    """The way from the staging folder `outputs` into a store. Safe to use side by side, also from several machines."""

    def __init__(self, store: ObjectStore, outputs: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._outputs, self._clock = store, outputs, clock
        self._problem, self._down_until = "", float("-inf")

    @property
    def url(self) -> str:
        """The store's folder, for display."""
        return self._store.url

    async def problem(self) -> str:
        """What is wrong with the store, asked for free; "" when nothing is."""
        return await self._store.problem()

    async def find_staged(self, target: Path) -> Saved | None:
        """A video that an earlier run fetched and could not land: it has its final name only when it is whole."""
        try:
            size_bytes, sha256 = await asyncio.to_thread(_measured, target)
        except OSError:
            return None
        return Saved(size_bytes=size_bytes, sha256=sha256, content_type=None)

    async def publish_video(self, target: Path, saved: Saved) -> str:
        """Puts a whole video into the store, unless it is there already; returns what was wrong, else "".

        The file stays: page, posters and viewer read it here.
        """
        # A store that was away a moment ago is not asked again for each video of the queue.
        if self._clock() < self._down_until:
            return self._problem
        name = self._name(target)
        try:
            there = await self._store.head(name)
            # After a crash, or on another host, the very same video may be there already.
            if there is None or (there.size_bytes, there.sha256) != (saved.size_bytes, saved.sha256):
                await self._store.put(name, target, kind="video/mp4", sha256=saved.sha256)
        except StoreError as error:
            self._problem, self._down_until = str(error), self._clock() + DOWN_S
            return self._problem
        except OSError as error:
            return f"{target} can't be read ({error.strerror})"
        return ""

    async def check_writable(self, folder: Path) -> str:
        """MONEY: before anything is bought: whether the store takes the run's manifest; returns what is wrong.

        Points `latest` at the run, as the link of the outputs folder does.
        """
        try:
            for path in _manifests(folder):
                await self._put(path)
            await self._store.put(LATEST, f"{folder.name}\n".encode(), kind="text/plain")
        except (StoreError, OSError) as error:
            return str(error)
        return ""

    async def publish_reports(self, folder: Path) -> str:
        """Puts everything else of a run's folder into the store, tables last; returns what was wrong, else "".

        Stills that are there with their size are left alone; each other object takes the place of the older one.
        """
        try:
            there = await self._store.sizes(folder.name)
            await _for_all(
                [path for path in _aside(folder) if there.get(self._name(path)) != _still_size(path)], self._put
            )
            for name in LAST:
                if (folder / name).is_file():
                    await self._put(folder / name)
        except StoreError as error:
            return str(error)
        except OSError as error:
            return f"{folder} can't be read ({error.strerror})"
        return ""

    async def download_missing(self, videos: Mapping[str, str]) -> str:
        """Fetches the videos that this machine lacks, by name and sha256, from the store; returns what was wrong.

        Other hosts put them there; the page, its stills and the viewer look at files here.
        """
        try:
            missing = [name for name in videos if not (self._outputs / name).exists()]
            await _for_all(missing, lambda name: self._fetch(name, videos[name]))
        except StoreError as error:
            return str(error)
        except OSError as error:
            return f"{self._outputs} can't be written ({error.strerror})"
        return ""

    async def _fetch(self, name: str, sha256: str) -> None:
        found = await self._store.read(name, MAX_BYTES)
        if found is None or hashlib.sha256(found[1]).hexdigest() != sha256:
            return  # gone, too large, or not what was saved: the page shows the cell without it
        with whole_path(self._outputs / name) as path:
            await asyncio.to_thread(path.write_bytes, found[1])

    async def _put(self, path: Path) -> None:
        content = await asyncio.to_thread(path.read_bytes)
        await self._store.put(self._name(path), content, kind=_kind(path))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._outputs).as_posix()


async def _for_all(things: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    left = iter(things)

    async def some() -> None:
        for thing in left:  # shared: each takes the next one
            await work(thing)

    await asyncio.gather(*(some() for _ in range(CONCURRENCY)))


def _manifests(folder: Path) -> list[Path]:
    return sorted(folder.glob("manifest.*"))


def _aside(folder: Path) -> list[Path]:
    """What a run's folder holds besides videos, tables and what is not finished; nothing hidden."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return [path for path in found if path.suffix not in (".mp4", ".part") and path.name not in LAST]


def _still_size(path: Path) -> int:
    """The size of a still, which never changes once it is made; -1 for everything else."""
    return path.stat().st_size if path.suffix == ".jpg" else -1


def _kind(path: Path) -> str:
    return KINDS.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _measured(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), sha256


def open_publisher(settings: Settings) -> OutputPublisher | None:
    """The way into the store that `outputs.dir` names; None where the outputs are a folder of this machine.

    Raises:
        UsageError: the extra is not installed, or the store can't be used so. Nothing is asked of it.
    """
    outputs = settings.outputs
    if outputs.url is None:
        return None
    return OutputPublisher(open_store(outputs.url, endpoint=outputs.endpoint, region=outputs.region), outputs.dir)


async def download_missing(settings: Settings, queries: LedgerQueries, run_id: str, *, max_lines: int) -> str:
    """Fetch the videos that other hosts saved, before the run's page is made; returns what was wrong.

    A run of more than `max_lines` lines gets no page, so its videos are left in the store.
    """
    landing = open_publisher(settings)
    if landing is None or settings.ledger.url is None or sum(queries.totals(run_id).counts.values()) > max_lines:
        return ""
    lines = list(queries.report_attempts(run_id))
    return await landing.download_missing(
        {one.local_path: one.sha256 for one in lines if one.local_path and one.sha256}
    )
