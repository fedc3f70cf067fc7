"""One folder of an object store of the user's own (S3, GCS, Azure), by one interface: put, look, read, sign.

An object is there whole or not at all: the store shows a put when it is complete. The store's credentials come from its
own environment (AWS_ACCESS_KEY_ID and the like), never from the configuration; the gateway's key never comes here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import UsageError

T = TypeVar("T")

TRIES = 3
"""Tries of one call before the store counts as unavailable."""
RETRY_PAUSE_S = 1.0
"""Seconds before the second try; before the third it is twice as long."""
CALL_TIMEOUT_S = 120.0
"""Seconds for one call; an upload gets more by its size, see MIN_BYTES_PER_S."""
MIN_BYTES_PER_S = 250_000
"""Bytes per second (2 Mbit/s) that an upload is trusted to reach before it counts as hung."""
PART_BYTES = 8 * 2**20
"""Bytes of one part of a multipart upload (8 MiB); S3 takes no part below 5 MiB but the last."""
PARTS_CONCURRENCY = 4
"""Parts of one upload that are sent at the same time, which bounds its memory to four parts."""
RETRIES: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
"""Retries of the library within one of our tries. Its default waits minutes for an unavailable store."""

HASH_NAME = "sha256"
"""Under this name an object of ours carries the hash of its content."""


class StoreError(Exception):
    """The store does not do what it was asked, now. Nothing is half done in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """An object that is there. `sha256` is what it was put with, "" where it is unknown or was not asked for."""

    size_bytes: int
    etag: str
    sha256: str = ""


class ObjectStore:
    """A folder of a bucket. `inner` is obstore's; `url` is its name for the user. Safe to use side by side."""

    def __init__(self, inner: Any, url: str) -> None:
        self._inner, self.url = inner, url

    async def put(self, name: str, content: bytes | Path, *, kind: str, sha256: str = "") -> None:
        """Writes one object, over what was there; the parts of a large file are invisible until the last one is there.

        Raises:
            StoreError: the store does not take it (three tries).
            OSError: a file that can't be read.
        """
        import obstore  # noqa: PLC0415 - an extra: only who has a store needs it

        size_bytes = len(content) if isinstance(content, bytes) else (await asyncio.to_thread(content.stat)).st_size
        attributes = {"Content-Type": kind, **({HASH_NAME: sha256} if sha256 else {})}

        async def send() -> None:
            await obstore.put_async(
                self._inner,
                name,
                content,
                attributes=attributes,
                use_multipart=size_bytes > PART_BYTES,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_CONCURRENCY,
            )

        await self._tried(f"does not take {name}", send, CALL_TIMEOUT_S + size_bytes / MIN_BYTES_PER_S)

    async def head(self, name: str) -> ObjectInfo | None:
        """The object of a name; None where there is none.

        Raises:
            StoreError: the store does not say.
        """
        import obstore  # noqa: PLC0415

        async def ask() -> ObjectInfo | None:
            try:
                found = await obstore.get_async(self._inner, name, options={"head": True})
            except FileNotFoundError:
                return None
            said = {str(key): str(value) for key, value in found.attributes.items()}
            return _stored(found.meta, said.get(HASH_NAME, ""))

        return await self._tried(f"does not say whether it has {name}", ask)

    async def read(self, name: str, most_bytes: int) -> tuple[ObjectInfo, bytes] | None:
        """An object with its content; None where it is not there, no content where it is larger than `most_bytes`.

        Raises:
            StoreError: the store does not give it.
        """
        import obstore  # noqa: PLC0415

        async def get() -> tuple[ObjectInfo, bytes] | None:
            try:
                found = await obstore.get_async(self._inner, name)
            except FileNotFoundError:
                return None
            stored = _stored(found.meta)
            return stored, b"" if stored.size_bytes > most_bytes else bytes(await found.bytes_async())

        return await self._tried(f"does not give {name}", get)

    async def sizes(self, folder: str) -> dict[str, int]:
        """Every object below a folder with its size in bytes.

        Raises:
            StoreError: the store does not list them.
        """
        import obstore  # noqa: PLC0415

        async def names() -> dict[str, int]:
            found: dict[str, int] = {}
            async for page in obstore.list(self._inner, folder):
                found |= {str(one["path"]): int(one["size"]) for one in page}
            return found

        return await self._tried(f"does not list {folder}", names)

    def sign(self, name: str, expiry_s: float) -> str:
        """An address at which the object can be read without a key, for so long. Sends no request.

        Raises:
            StoreError: the credentials do not sign.
        """
        import obstore  # noqa: PLC0415

        try:
            return str(obstore.sign(self._inner, "GET", name, timedelta(seconds=expiry_s)))
        except Exception as error:  # noqa: BLE001 - the library has an error of its own for each store
            raise StoreError(f"{self.url} signs no address ({error_summary(error)})") from None

    async def problem(self) -> str:
        """What is wrong with the store, found out by asking for an object that is not there; "" when nothing is."""
        try:
            await self.head("dop-looks-for-nothing")
        except StoreError as error:
            return str(error)
        return ""

    async def _tried(self, failing: str, call: Callable[[], Awaitable[T]], timeout_s: float = CALL_TIMEOUT_S) -> T:
        """Every call is safe to repeat: names are contents' hashes, or what stood there is replaced whole."""
        problem = ""
        for number in range(TRIES):
            if number:
                await asyncio.sleep(RETRY_PAUSE_S * number)
            try:
                async with asyncio.timeout(timeout_s):
                    return await call()
            except TimeoutError:
                problem = f"no answer in {timeout_s:g} s"
            except Exception as error:  # noqa: BLE001 - as above
                problem = error_summary(error)
        raise StoreError(f"{self.url} {failing} ({problem})")


def _stored(meta: Any, sha256: str = "") -> ObjectInfo:
    return ObjectInfo(size_bytes=int(meta["size"]), etag=str(meta.get("e_tag") or ""), sha256=sha256)


def open_store(url: str, *, endpoint: str | None = None, region: str | None = None) -> ObjectStore:
    """The store that a URL names: `s3://bucket/folder`, `gs://bucket/folder`, `az://container/folder`. No request.

    Args:
        endpoint: where the store answers, if it is not its vendor's own address; `region` is S3's.

    Raises:
        UsageError: the extra is not installed, or the store can't be used so.
    """
    try:
        from obstore.store import from_url  # noqa: PLC0415
    except ImportError:
        raise UsageError(f"{url} needs obstore, the extra [s3]: pip install obstore") from None
    location = {"base_url" if url.startswith("gs://") else "endpoint": endpoint}
    location["region"] = region if url.startswith("s3://") else None
    more: dict[str, Any] = {name: value for name, value in location.items() if value}
    options: dict[str, Any] = {"allow_http": (endpoint or "").startswith("http://"), "timeout": "60s"}
    opened: Callable[..., Any] = from_url
    try:
        return ObjectStore(opened(url, client_options=options, retry_config=RETRIES, **more), url)
    except Exception as error:  # noqa: BLE001 - as above
        raise UsageError(f"{url} can't be used ({error_summary(error)})") from None


def error_summary(error: BaseException) -> str:
    """The library's first line; the rest may quote whole requests, and a query may hold a signature."""
    text = str(error).strip().partition("\n")[0]
    return text.partition("?")[0][:200] or type(error).__name__
