"""Checks a manifest's pictures that are in an object store, before anything is listed: their content is identity.

Each is read once, whole; afterwards one question a run says whether it is still the same (ETag and size). What was seen
is kept with the other probes, beside the ledger, so that a plan can be made without a request. Free.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from pipeline.assets.addresses import object_place
from pipeline.assets.image_checks import CachedProbe, cache_path, changed_text, load_cache, rows_text, updated_cache
from pipeline.assets.image_header import read_image_header
from pipeline.assets.image_hosting import open_object_store
from pipeline.assets.object_store import ObjectInfo, ObjectStore, StoreError
from pipeline.config.settings import Settings
from pipeline.errors import ManifestError, Problem, UsageError

CONCURRENCY = 8
"""Objects that are checked at the same time in one store."""
MAX_BYTES = 64_000_000
"""A larger object is no picture that a video can be made of. Ours: the API document names no limit."""


@dataclass(frozen=True, slots=True)
class Invalid:
    """Why no video can be made of an object."""

    why: str


def known_objects(settings: Settings) -> Callable[[str], str | None] | None:
    """Return an object's sha256 as it was last seen; None in a rehearsal, which asks for none. Never asks the store.

    What is remembered is read when the first object is asked for: most manifests name none.
    """
    if settings.gateway.is_embedded:
        return None
    probes = cache(lambda: load_cache(cache_path(settings)))

    def sha256_of(address: str) -> str | None:
        seen = probes().get(address)
        return seen.sha256 or None if seen is not None else None

    return sha256_of


def check_objects(settings: Settings, rows_of: Mapping[str, list[str]], *, manifest: Path, now: float) -> list[str]:
    """Check every object of `rows_of` (object -> the rows that name it); returns warnings.

    Raises:
        ManifestError: objects that are not there, or are no pictures, with their rows; nothing was sent.
        UsageError: a store does not answer, and what it has was never seen.
    Writes: `cache_path(settings)`.
    """
    if not rows_of or settings.gateway.is_embedded:
        return []
    return asyncio.run(check_objects_async(settings, rows_of, manifest=manifest, now=now))


async def check_objects_async(
    settings: Settings, rows_of: Mapping[str, list[str]], *, manifest: Path, now: float
) -> list[str]:
    """The same in an event loop."""
    if not rows_of or settings.gateway.is_embedded:
        return []
    known = load_cache(cache_path(settings))
    found = await _all(StoreCache(settings), rows_of, known, now)
    wrong = {address: one.why for address, one in found.items() if isinstance(one, Invalid)}
    if wrong:
        raise ManifestError(
            Problem(file=manifest, where=rows_text(rows_of[address]), message=f"{address} {why}")
            for address, why in wrong.items()
        )
    down = {address: str(one) for address, one in found.items() if isinstance(one, StoreError)}
    # An object that was seen before is taken for what it was; one that never was has no identity, and can't be bought.
    never = [why for address, why in down.items() if address not in known]
    if never:
        raise UsageError(f"{never[0]}; nothing was sent")
    seen = {address: one for address, one in found.items() if isinstance(one, CachedProbe)}
    warnings = [f"{why}; {address} is taken for what it was" for address, why in down.items()]
    warnings += [text for address, one in seen.items() if (text := changed_text(address, known.get(address), one))]
    return warnings + updated_cache(cache_path(settings), known | seen)


class StoreCache:
    """The buckets that objects lie in, each opened once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: dict[str, ObjectStore] = {}

    def of(self, address: str) -> tuple[ObjectStore, str]:
        bucket, name = object_place(address)
        if bucket not in self._open:
            self._open[bucket] = open_object_store(self._settings.uploads, bucket, self._settings.gateway.base_url)
        return self._open[bucket], name


async def _all(
    stores: StoreCache, addresses: Iterable[str], known: Mapping[str, CachedProbe], now: float
) -> dict[str, CachedProbe | Invalid | StoreError]:
    found: dict[str, CachedProbe | Invalid | StoreError] = {}
    left = iter(addresses)

    async def work() -> None:
        for address in left:  # shared: each worker takes the next one
            try:
                found[address] = await _one(*stores.of(address), known.get(address), now)
            except StoreError as error:
                found[address] = error

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(work())
    return found


async def _one(store: ObjectStore, name: str, before: CachedProbe | None, now: float) -> CachedProbe | Invalid:
    there = await store.head(name)
    if there is None:
        return Invalid("is not there")
    # The same ETag and size: its content was read once, and is not read again.
    if before is not None and before.etag and (before.etag, before.size_bytes) == (there.etag, there.size_bytes):
        return replace(before, probed_at=now)
    got = await store.read(name, MAX_BYTES)
    if got is None:
        return Invalid("is not there")
    return await asyncio.to_thread(_seen, *got, before, now)


def _seen(stored: ObjectInfo, content: bytes, before: CachedProbe | None, now: float) -> CachedProbe | Invalid:
    if stored.size_bytes > MAX_BYTES:
        return Invalid(f"has {stored.size_bytes} bytes: that is no picture")
    picture = read_image_header(content)
    if picture is None:
        return Invalid("is not a JPEG, PNG or WebP by its content" if content else "is empty")
    sha256 = hashlib.sha256(content).hexdigest()
    changed = before is not None and before.sha256 != sha256
    return CachedProbe(
        probed_at=now,
        picture=picture.kind,
        width=picture.width,
        height=picture.height,
        size_bytes=stored.size_bytes,
        head_sha256=sha256,
        etag=stored.etag,
        changed_at=now if changed else before.changed_at if before is not None else None,
        sha256=sha256,
    )
