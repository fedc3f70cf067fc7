"""Pictures for a gateway that wants URLs: local ones are uploaded once, by their content; those of a store are signed.

The file on disk is never changed: what is turned or made smaller is a copy. An address that was signed is a secret for
as long as it is good: the caller passes it to the gateway and to no one else.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.assets.addresses import object_place
from pipeline.assets.image_header import read_image_header
from pipeline.assets.image_urls import InputImages
from pipeline.assets.object_store import ObjectStore, StoreError, open_store
from pipeline.config.gateway_address import is_loopback
from pipeline.config.settings import Settings, UploadSettings
from pipeline.errors import FatalError, UsageError
from pipeline.records import Params

ENDINGS = {"JPEG": "jpg", "PNG": "png", "WebP": "webp"}
KINDS = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
ORIENTATION = 0x0112
"""The EXIF tag that says how a picture must be turned. Source: EXIF 2.32."""
NORMAL_ORIENTATION = (None, 1)
JPEG_QUALITY = 95
"""JPEG quality, in percent, of a picture that is saved again upright: high, because a paid model sees it."""


@dataclass(slots=True, kw_only=True)
class HostedImage:
    """A picture in a store: where, the address it was given, and until when that is good."""

    store: ObjectStore | None
    name: str
    public: str | None = None
    url: str = ""
    good_until: float = float("-inf")


class ImageHost:
    """Uploads pictures and says where they are.

    Args:
        store: where local pictures go; None where nothing is configured.
        upload: takes a picture and its content type to the gateway's own store, and returns its public address; used
            without `store`. None where the gateway has no uploads, and then there are no local pictures.
        base_url: the gateway's, which must be able to read the addresses.
        etag_of: what an object was when the run was planned, "" where it is unknown.
        wall: Unix seconds, for the expiry of addresses: it runs on while the machine sleeps.
    """

    def __init__(
        self,
        uploads: UploadSettings,
        images: InputImages,
        *,
        store: ObjectStore | None,
        upload: Callable[[bytes, str], Awaitable[str]] | None = None,
        base_url: str,
        etag_of: Callable[[str], str],
        wall: Callable[[], float],
    ) -> None:
        self._uploads, self._images, self._store, self._base_url = uploads, images, store, base_url
        self._etag_of, self._wall, self._upload = etag_of, wall, upload
        self._hosted: dict[str, HostedImage] = {}
        self._stores: dict[str, ObjectStore] = {}

    async def ensure_available(self, params: Params) -> None:
        """Gets the images of one request ready: local ones uploaded unless the store has them, objects checked for.

        Raises:
            StoreError: a store can't be used now.
            UsageError: a file can't be read, or is no picture.
            FatalError: a picture changed since the run was planned.
        """
        for path, sha256 in self._images.local(params).items():
            if sha256 not in self._hosted:
                self._hosted[sha256] = await self._uploaded(path, sha256)
            # Signed now, while the request may still be put off: a signature that can't be made must not fail behind
            # the intent.
            self.url(sha256)
        for address in self._images.objects(params):
            if address not in self._hosted:
                self._hosted[address] = await self._found(address)
            self.url(address)

    def url(self, key: str) -> str:
        """The address of a picture, by its hash or its object's; a new one when less than half of its time is left."""
        hosted = self._hosted[key]
        if hosted.public is not None:
            return hosted.public
        now, expiry_s = self._wall(), self._uploads.presign_expiry_s
        if not expiry_s / 2 <= hosted.good_until - now <= expiry_s:  # more is left only where the clock was set back
            assert hosted.store is not None
            hosted.url = hosted.store.sign(hosted.name, expiry_s)
            hosted.good_until = now + expiry_s
        return hosted.url

    def url_for_submit(self, key: str) -> str:
        """The same for a submit that is about to leave: an address that is still good does when none can be signed.

        Raises:
            FatalError: none is good any more.
        """
        try:
            return self.url(key)
        except StoreError as error:
            hosted = self._hosted[key]
            if hosted.good_until > self._wall():
                return hosted.url
            raise FatalError(str(error)) from None

    async def _uploaded(self, path: Path, sha256: str) -> HostedImage:
        if self._store is None and self._upload is None:
            raise UsageError(f"{path} is a file of this machine, and `uploads.url` is not set any more")
        try:
            content = await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise UsageError(f"{path} can't be read any more ({error.strerror})") from None
        # MONEY: the request's id is a hash over the picture as it was when the user agreed.
        if hashlib.sha256(content).hexdigest() != sha256:
            raise FatalError(f"{path} changed since the run was planned: run again")
        content, ending = await asyncio.to_thread(normalize_orientation, path, content, self._uploads.max_px)
        sent_sha256 = hashlib.sha256(content).hexdigest()
        name = f"{sent_sha256}.{ending}"
        if self._store is None:
            assert self._upload is not None
            return HostedImage(store=None, name=name, public=await self._upload(content, KINDS[ending]))
        try:
            there = await self._store.head(name)
            if there is None or there.size_bytes != len(content):
                await self._store.put(name, content, kind=KINDS[ending], sha256=sent_sha256)
        except StoreError as error:
            raise StoreError(f"{path} can't be uploaded: {error}; run again when the store is back") from None
        base = self._uploads.public_base
        return HostedImage(store=self._store, name=name, public=None if base is None else f"{base}/{name}")

    async def _found(self, address: str) -> HostedImage:
        """MONEY: the object as the run was planned with, or nothing is bought: its address shows what is there now."""
        bucket, name = object_place(address)
        if bucket not in self._stores:
            self._stores[bucket] = open_object_store(self._uploads, bucket, self._base_url)
        there = await self._stores[bucket].head(name)
        if there is None:
            raise FatalError(f"{address} is not there any more")
        if self._etag_of(address) not in ("", there.etag):
            raise FatalError(f"{address} changed since the run was planned: run again")
        return HostedImage(store=self._stores[bucket], name=name)


def open_object_store(uploads: UploadSettings, bucket: str, base_url: str) -> ObjectStore:
    """The bucket that images of a manifest are in, such as `s3://bucket`. Sends no request.

    Raises:
        UsageError: it can't be used, or the gateway could not read from there.
    """
    _check_visible(uploads.endpoint, base_url)
    return open_store(bucket, endpoint=uploads.endpoint, region=uploads.region)


def normalize_orientation(path: Path, content: bytes, max_px: int | None) -> tuple[bytes, str]:
    """The picture as it is to be seen, and its ending: untouched unless EXIF turns it or it is too large.

    A copy that is made keeps its colour profile and loses the rest of its EXIF data (place, camera).

    Raises:
        UsageError: it can't be read as a JPEG, PNG or WebP.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415 - slow to import, and rarely needed

    kind = read_image_header(content)
    if kind is None:
        raise UsageError(f"{path} is not a JPEG, PNG or WebP by its content")
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as picture:
            small = max_px is None or max(picture.size) <= max_px
            if small and picture.getexif().get(ORIENTATION) in NORMAL_ORIENTATION:
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


def open_hosting(
    settings: Settings,
    base_url: str,
    images: InputImages,
    *,
    etag_of: Callable[[str], str],
    wall: Callable[[], float],
    upload: Callable[[bytes, str], Awaitable[str]] | None = None,
) -> ImageHost:
    """Hosting as the configuration says; `upload` where no store is configured. Nothing is asked of any store yet.

    Raises:
        UsageError: the extra is not installed, or the gateway could not read from there.
    """
    uploads = settings.uploads
    store = None
    if uploads.url is not None:
        _check_visible(uploads.public_base or uploads.endpoint, base_url)
        store = open_store(uploads.url, endpoint=uploads.endpoint, region=uploads.region)
    return ImageHost(uploads, images, store=store, upload=upload, base_url=base_url, etag_of=etag_of, wall=wall)


def _check_visible(seen_at: str | None, base_url: str) -> None:
    if seen_at is None or is_loopback(urlsplit(base_url).hostname or ""):
        return
    if is_loopback(urlsplit(seen_at).hostname or ""):
        raise UsageError(f"{seen_at} is this machine: the gateway can't read pictures from there")
