"""Probes every image of the rows that are about to be bought, before money moves. Free; asks hosts politely.

It refuses what no video can be made of, and only warns of what can't be seen from here. The results are kept beside
the ledger by URL and ETag, so that a second run hardly asks, and a changed picture is noticed.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.assets.probe_results import ProbeResult, ProbeStatus
from pipeline.config.gateway_address import is_loopback
from pipeline.config.network import network_environment
from pipeline.config.settings import Settings
from pipeline.errors import ManifestError, Problem
from pipeline.files import whole_text
from pipeline.ledger.queries import LedgerQueries
from pipeline.records import Attempt, State

if TYPE_CHECKING:
    from pipeline.assets.image_probe import ImageProbe

CONCURRENCY = 8
"""Images that are checked at the same time; each host has a limit of its own beside it."""
FRESH_S = 600.0
"""A good probe younger than this counts without asking again: a pilot and its run, a run and its restart."""

LARGE_BYTES = 20_000_000
"""From here on a warning: the API document names no limit. Inferred."""

NAMED_ROWS = 3
"""Rows that one warning names; a picture can be used by thousands of them."""
MAX_WARNINGS = MAX_NAMED_IMAGES = 10
"""Warnings, and images in the refusal, that are printed one by one before the rest is only counted."""
CACHE_NAME = "images.json"


def wanted(settings: Settings) -> bool:
    """Whether images are checked: `images.preflight`; `auto` leaves out gateways of this machine.

    A rehearsal's images need not exist, and its gateway draws what it cannot fetch.
    """
    shown = settings.images.preflight
    return shown == "always" or (shown == "auto" and not _at_home(settings))


def _at_home(settings: Settings) -> bool:
    return settings.gateway.is_embedded or is_loopback(urlsplit(settings.gateway.base_url).hostname or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedProbe:
    """A good look that is remembered. Times are Unix seconds; `head_sha256` is of the first 64 kB.

    `sha256` is of the whole content; only objects of a store are read whole.
    """

    probed_at: float
    picture: str
    width: int | None
    height: int | None
    size_bytes: int | None
    head_sha256: str
    etag: str
    changed_at: float | None = None
    sha256: str = ""

    def __str__(self) -> str:
        day = datetime.fromtimestamp(self.probed_at, UTC).strftime("%Y-%m-%d")
        size = f" {self.width}x{self.height}" if self.width else ""
        return f"{self.picture}{size}, {self.head_sha256[:12]}, seen {day}"


@dataclass(slots=True, kw_only=True)
class CheckFindings:
    """What the probes of one run came to; images by URL."""

    bad: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def cache_path(settings: Settings) -> Path:
    """The file that remembers probes."""
    return settings.ledger_path.parent / CACHE_NAME


def load_cache(path: Path) -> dict[str, CachedProbe]:
    """Probes of earlier runs by URL; a damaged file remembers nothing, which costs a probe each."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {url: CachedProbe(**seen) for url, seen in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def updated_cache(path: Path, probes: Mapping[str, CachedProbe]) -> list[str]:
    """Writes what was seen; returns a warning when the disk does not take it.

    Writes: `path`.
    """
    try:
        with whole_text(path) as file:
            json.dump({url: asdict(seen) for url, seen in probes.items()}, file)
    except OSError as error:
        return [f"{path} can't be written ({error.strerror}): images will be checked again"]
    return []


def images_of(attempts: Iterable[Attempt]) -> dict[str, list[str]]:
    """Each distinct http(s) image with the rows that name it, in their order."""
    found: dict[str, list[str]] = {}
    for attempt in attempts:
        for image in dict.fromkeys((*attempt.params.input_images, *attempt.params.input_images_end)):
            if image.lower().startswith(("http://", "https://")):
                found.setdefault(image, []).append(attempt.row_id)
    return found


def cache_text(images: Iterable[str], settings: Settings) -> list[str]:
    """What is remembered of some images, for display. Never asks the network."""
    known = load_cache(cache_path(settings))
    seen = {url: known[url] for url in images if url in known}
    if not seen:
        return []
    shown = [f"  {url}: {one}{_changed(one)}" for url, one in list(seen.items())[:MAX_NAMED_IMAGES]]
    more = [f"  and {len(seen) - MAX_NAMED_IMAGES} more"] if len(seen) > MAX_NAMED_IMAGES else []
    return ["images as they were last seen (sha256, of a URL's the first 64 kB):", *shown, *more]


def _changed(seen: CachedProbe) -> str:
    if seen.changed_at is None:
        return ""
    return f", CHANGED, noticed {datetime.fromtimestamp(seen.changed_at, UTC).strftime('%Y-%m-%d')}"


async def check_images(
    settings: Settings, queries: LedgerQueries, run_id: str, *, manifest: Path, only: Container[str] | None, now: float
) -> list[str]:
    """Probe the images of everything the run has planned; returns warnings.

    Raises:
        ManifestError: images that no video can be made of, each with its rows; nothing was sent.
    Writes: `cache_path(settings)`.
    """
    planned = (attempt for page in queries.iter_attempts(run_id, (State.PLANNED,)) for attempt in page)
    images = images_of(one for one in planned if only is None or one.request_id in only)
    path = cache_path(settings)
    cache = load_cache(path)
    # `0 <=`: a probe from the future is of a clock that was wrong, and is made again.
    due = [url for url in images if not (url in cache and 0 <= now - cache[url].probed_at < FRESH_S)]
    from pipeline.assets.image_probe import ImageProbe  # noqa: PLC0415 - brings aiohttp

    network = network_environment(os.environ)
    async with ImageProbe(gateway_is_loopback=_at_home(settings), network=network) as prober:
        probes = await _probe_all(prober, due, cache)
    found = evaluate(probes, cache, now, images)
    found.warnings += updated_cache(path, cache)
    if found.bad:
        raise ManifestError(
            Problem(
                file=manifest, where=rows_text(images[url]), message=f"{url} {why} (--no-preflight skips this check)"
            )
            for url, why in found.bad.items()
        )
    return _few(found.warnings)


async def _probe_all(prober: ImageProbe, urls: list[str], cache: Mapping[str, CachedProbe]) -> dict[str, ProbeResult]:
    probes: dict[str, ProbeResult] = {}
    left = iter(urls)

    async def work() -> None:
        for url in left:  # shared: each worker takes the next one
            probes[url] = await prober.probe(url, etag=cache[url].etag if url in cache else "")

    async with asyncio.TaskGroup() as group:
        for _ in range(min(CONCURRENCY, len(urls))):
            group.create_task(work())
    return {url: probes[url] for url in urls}


def evaluate(
    probes: Mapping[str, ProbeResult], cache: dict[str, CachedProbe], now: float, images: Mapping[str, list[str]]
) -> CheckFindings:
    """What is wrong and what is odd, with the rows of each image; good probes go into `cache`."""
    found = CheckFindings()
    for url, probe in probes.items():
        before = cache.get(url)
        if probe.kind is ProbeStatus.BAD:
            found.bad[url] = probe.reason
        elif probe.kind is ProbeStatus.UNSURE:
            text = f"{url} {probe.reason}; the gateway may still be able to read it"
            found.warnings.append(f"{rows_text(images[url])}: {text}")
        elif probe.unchanged and before is not None:
            cache[url] = replace(before, probed_at=now)
        else:
            cache[url] = _seen(probe, before, now)
            found.warnings += [f"{rows_text(images[url])}: {text}" for text in _oddities(url, probe, before)]
    return found


def _seen(probe: ProbeResult, before: CachedProbe | None, now: float) -> CachedProbe:
    changed = before is not None and before.head_sha256 != probe.head_sha256
    return CachedProbe(
        probed_at=now,
        picture=probe.picture,
        width=probe.width,
        height=probe.height,
        size_bytes=probe.size_bytes,
        head_sha256=probe.head_sha256,
        etag=probe.etag,
        changed_at=now if changed else before.changed_at if before is not None else None,
    )


def changed_text(address: str, before: CachedProbe | None, now: CachedProbe) -> str:
    """A warning about an object that changed, "" when it did not. Its content is its identity."""
    if before is None or before.sha256 == now.sha256:
        return ""
    day = datetime.fromtimestamp(before.probed_at, UTC).strftime("%Y-%m-%d")
    return f"{address} is another picture than on {day}: its rows are new requests"


def _oddities(url: str, probe: ProbeResult, before: CachedProbe | None) -> Iterable[str]:
    if before is not None and before.head_sha256 != probe.head_sha256:
        day = datetime.fromtimestamp(before.probed_at, UTC).strftime("%Y-%m-%d")
        yield f"{url} is another picture than on {day}; what was bought with it stays bought (`take: 2` buys again)"
    if (probe.size_bytes or 0) > LARGE_BYTES:
        yield f"{url} has {probe.size_bytes} bytes: the gateway's limit is not known"


def rows_text(row_ids: list[str]) -> str:
    """Which rows name an image, for display."""
    named = ", ".join(row_ids[:NAMED_ROWS])
    more = len(row_ids) - NAMED_ROWS
    return f"{'row' if len(row_ids) == 1 else 'rows'} {named}{f' and {more} more' if more > 0 else ''}"


def _few(warnings: list[str]) -> list[str]:
    more = len(warnings) - MAX_WARNINGS
    return warnings if more <= 0 else [*warnings[:MAX_WARNINGS], f"and {more} more images with warnings"]
