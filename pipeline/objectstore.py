"""Local pictures for a gateway that wants URLs: each is uploaded once, by its content, to a store of the user's own.

The store's credentials come from its own environment (AWS_ACCESS_KEY_ID and the like), never from the configuration;
the gateway's key never comes here. The file on disk is never changed: what is turned or made smaller is a copy.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import FatalError, UsageError
from pipeline.gateway.picture import read_picture
from pipeline.records import Params
from pipeline.settings import Settings, Uploads, is_loopback
from pipeline.wireimages import WireImages

ENDINGS = {"JPEG": "jpg", "PNG": "png", "WebP": "webp"}
ORIENTATION = 0x0112
"""The EXIF tag that says how a picture must be turned. Source: EXIF 2.32."""
UPRIGHT = (None, 1)
JPEG_QUALITY = 95
PUT_TIMEOUT_S = 120.0
TRIES = 3
TRY_AGAIN_S = 1.0


class StoreError(Exception):
    """The store does not take a picture now; nothing was sent for it."""


@dataclass(slots=True)
class _Hosted:
    """One uploaded picture: its name in the store, the address it was given, and until when that is good."""

    name: str
    url: str
    good_until: float


class Hosting:
    """Uploads pictures and says where they are.

    Args:
        store: of obstore; only `put_async`, `head_async` and `sign` of that library are used with it.
        clock: seconds that only go forward, for the expiry of addresses.
    """

    def __init__(self, store: Any, told: Uploads, images: WireImages, clock: Callable[[], float]) -> None:
        self._store, self._told, self._images, self._clock = store, told, images, clock
        self._hosted: dict[str, _Hosted] = {}

    async def hand_over(self, params: Params) -> None:
        """Uploads the local images of one request, unless the store has them.

        Raises:
            StoreError: the store can't be used now.
            UsageError: a file can't be read, or is no picture.
            FatalError: a file changed since the run was planned.
        """
        for path, sha256 in self._images.local(params).items():
            if sha256 not in self._hosted:
                name = await self._uploaded(path, sha256)
                self._hosted[sha256] = _Hosted(name=name, url="", good_until=float("-inf"))
            self.url(sha256)

    def url(self, sha256: str) -> str:
        """The address of an uploaded picture; a new one when less than half of the old one's time is left."""
        hosted = self._hosted[sha256]
        if self._told.public_base is not None:
            return f"{self._told.public_base}/{hosted.name}"
        if hosted.good_until - self._clock() < self._told.presign_expiry_s / 2:
            hosted.url = self._signed(hosted.name)
            hosted.good_until = self._clock() + self._told.presign_expiry_s
        return hosted.url

    def address(self, sha256: str) -> str:
        """The same for a submit that is about to leave: an address that is still good does when none can be signed.

        Raises:
            FatalError: none is good any more.
        """
        try:
            return self.url(sha256)
        except StoreError as error:
            hosted = self._hosted[sha256]
            if hosted.good_until > self._clock():
                return hosted.url
            raise FatalError(str(error)) from None

    def _signed(self, name: str) -> str:
        import obstore  # noqa: PLC0415 - an extra: only who uploads needs it

        expiry = timedelta(seconds=self._told.presign_expiry_s)
        try:
            return str(obstore.sign(self._store, "GET", name, expiry))
        except Exception as error:  # noqa: BLE001 - the library has an error of its own for each store
            raise StoreError(f"{self._told.url} signs no address ({_said(error)})") from None

    async def _uploaded(self, path: Path, sha256: str) -> str:
        try:
            content = await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise UsageError(f"{path} can't be read any more ({error.strerror})") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise FatalError(f"{path} changed since the run was planned: run again")
        content, ending = await asyncio.to_thread(upright, path, content, self._told.max_px)
        name = f"{hashlib.sha256(content).hexdigest()}.{ending}"
        await self._put(path, name, content)
        return name

    async def _put(self, path: Path, name: str, content: bytes) -> None:
        """Safe to repeat: the name is the content's hash, and a store shows an object whole or not at all."""
        problem = ""
        for number in range(TRIES):
            if number:
                await asyncio.sleep(TRY_AGAIN_S * number)
            try:
                async with asyncio.timeout(PUT_TIMEOUT_S):
                    if not await self._has(name, len(content)):
                        await self._send(name, content)
                    return
            except Exception as error:  # noqa: BLE001 - the library has an error of its own for each store
                problem = _said(error)
        raise StoreError(f"{path} can't be uploaded to {self._told.url} ({problem}); run again when the store is back")

    async def _has(self, name: str, size_bytes: int) -> bool:
        import obstore  # noqa: PLC0415

        try:
            found = await obstore.head_async(self._store, name)
        except FileNotFoundError:
            return False
        return bool(found["size"] == size_bytes)

    async def problem(self) -> str:
        """What is wrong with the store, asked by looking for an object that nobody has; "" when nothing is."""
        try:
            async with asyncio.timeout(PUT_TIMEOUT_S):
                await self._has("dop-doctor-looks-for-nothing.jpg", 0)
        except Exception as error:  # noqa: BLE001 - the library has an error of its own for each store
            return _said(error)
        return ""

    async def _send(self, name: str, content: bytes) -> None:
        import obstore  # noqa: PLC0415

        kind = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}[name.rpartition(".")[2]]
        await obstore.put_async(self._store, name, content, attributes={"Content-Type": kind}, use_multipart=False)


def upright(path: Path, content: bytes, max_px: int | None) -> tuple[bytes, str]:
    """The picture as it is to be seen, and its ending: untouched unless EXIF turns it or it is too large.

    A copy that is made keeps its colour profile and loses the rest of its EXIF data (place, camera).

    Raises:
        UsageError: it can't be read as a JPEG, PNG or WebP.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415 - slow to import, and rarely needed

    kind = read_picture(content)
    if kind is None:
        raise UsageError(f"{path} is not a JPEG, PNG or WebP by its content")
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as picture:
            small = max_px is None or max(picture.size) <= max_px
            if small and picture.getexif().get(ORIENTATION) in UPRIGHT:
                return content, ENDINGS[kind.kind]
            turned = ImageOps.exif_transpose(picture)
            if not small and max_px is not None:
                turned.thumbnail((max_px, max_px), Image.Resampling.LANCZOS)
            file = io.BytesIO()
            profile = picture.info.get("icc_profile")
            turned.save(file, picture.format or kind.kind, quality=JPEG_QUALITY, icc_profile=profile, exif=b"")
            return file.getvalue(), ENDINGS[kind.kind]
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path} can't be read as a picture ({error})") from None


def open_hosting(settings: Settings, base_url: str, images: WireImages, clock: Callable[[], float]) -> Hosting | None:
    """The store that the configuration names; None when it names none. Nothing is asked of it yet.

    Raises:
        UsageError: the extra is not installed, or the gateway could not read from there.
    """
    told = settings.uploads
    if told.url is None:
        return None
    _check_visible(told, base_url)
    try:
        from obstore.store import from_url  # noqa: PLC0415
    except ImportError:
        raise UsageError("uploads needs the extra s3: pip install 'dop-batch[s3]'") from None
    more: dict[str, Any] = {}
    if told.url.startswith("s3://"):
        more = {name: value for name, value in (("endpoint", told.endpoint), ("region", told.region)) if value}
    try:
        store = from_url(told.url, client_options={"allow_http": bool(told.endpoint), "timeout": "60s"}, **more)
    except Exception as error:  # noqa: BLE001 - as above
        raise UsageError(f"uploads.url {told.url} can't be used ({_said(error)})") from None
    return Hosting(store, told, images, clock)


def _check_visible(told: Uploads, base_url: str) -> None:
    seen_at = told.public_base or told.endpoint
    if seen_at is None or is_loopback(urlsplit(base_url).hostname or ""):
        return
    if is_loopback(urlsplit(seen_at).hostname or ""):
        raise UsageError(f"{seen_at} is this machine: the gateway can't read pictures from there")


def _said(error: BaseException) -> str:
    """The library's first line; the rest may quote whole requests."""
    text = str(error).strip().partition("\n")[0]
    return text.partition("?")[0][:200] or type(error).__name__
