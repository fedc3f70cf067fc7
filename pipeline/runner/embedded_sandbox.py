"""The embedded sandbox of a run: started for it, handed its local images, stopped after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from pipeline.assets.image_urls import InputImages
from pipeline.config.settings import Settings
from pipeline.errors import FatalError, UsageError
from pipeline.records import Params
from pipeline.sandbox.image_store import PHOTOS
from pipeline.sandbox.settings import SandboxError, SandboxSettings


def sample_pictures() -> frozenset[str]:
    """The names of the pictures that the embedded sandbox has: `sandbox:NAME`."""
    return frozenset(path.stem for path in PHOTOS.glob("*.jpg"))


@asynccontextmanager
async def gateway_for(settings: Settings) -> AsyncIterator[str]:
    """The gateway's base URL; the embedded sandbox lives as long as the context does.

    Raises:
        UsageError: the sandbox can't start.
    """
    if not settings.gateway.is_embedded:
        yield settings.gateway.base_url
        return
    from pipeline.sandbox.server import Sandbox  # noqa: PLC0415 - brings the renderer: numpy, av and Pillow

    try:
        sandbox = Sandbox(_sandbox_settings(settings))
        base_url = await sandbox.start()
    except SandboxError as error:
        raise UsageError(f"the sandbox can't start: {error}") from None
    try:
        yield base_url
    finally:
        await sandbox.close()


def sandbox_folder(settings: Settings) -> Path:
    """Where the embedded sandbox keeps its jobs, books and clips: beside the ledger unless configured."""
    return settings.sandbox.data or settings.ledger_path.parent / "sandbox"


def _sandbox_settings(settings: Settings) -> SandboxSettings:
    sandbox = settings.sandbox
    return SandboxSettings(
        data_dir=sandbox_folder(settings),
        kind="higgsfield" if settings.kind == "higgsfield" else "pixazo",
        key=sandbox.key,
        dialect=sandbox.dialect,
        rate=None if sandbox.rate in (None, "auto") else sandbox.rate,
        limiter=sandbox.limiter,
        shared_limit=sandbox.shared_limit,
        max_concurrent=sandbox.max_concurrent,
        retry_after=sandbox.retry_after,
        generation_s=sandbox.generation_s,
        size=sandbox.size,
        chaos=sandbox.chaos,
        chaos_intensity=sandbox.chaos_intensity,
        defects=sandbox.defects,
        defect_seeds=sandbox.defect_seeds,
    )


class SandboxImageUploader:
    """Hands local images to the embedded sandbox, each once a run, before the request that names it is sent."""

    def __init__(self, base_url: str, images: InputImages) -> None:
        self._base_url = base_url
        self._images = images
        self._handed_over: set[str] = set()

    async def ensure_available(self, params: Params) -> None:
        """Uploads the local images of one request.

        Raises:
            FatalError: the sandbox does not take one.
        """
        for path, sha256 in self._images.local(params).items():
            if sha256 not in self._handed_over:
                await self._put(path, sha256)
                self._handed_over.add(sha256)

    async def _put(self, path: Path, sha256: str) -> None:
        try:
            content = await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise UsageError(f"{path} can't be read any more ({error.strerror})") from None
        url = f"{self._base_url}/_sandbox/images/{sha256}"
        async with aiohttp.ClientSession() as session, session.put(url, data=content) as answer:
            if answer.status >= 300:
                raise FatalError(f"{path}: the sandbox does not take it ({answer.status} {await answer.text()})")
