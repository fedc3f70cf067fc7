"""The pictures a job may start from: shipped photographs, uploaded files, loopback URLs, else a drawn placeholder."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Set
from pathlib import Path
from urllib.parse import unquote, urlsplit

PHOTOS = Path(__file__).with_name("photos")
PHOTO_ROUTE = "/_sandbox/photos/"
UPLOAD_ROUTE = "/_sandbox/images/"
UPLOAD_LIMIT_BYTES = 32 * 1024 * 1024
_MARK = "sandbox:"
_HASH = "sha256-"


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine by its literal address, or `localhost`."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ImageStore:
    """Photographs and uploads of one data folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.photos = {photo.stem: photo for photo in sorted(PHOTOS.glob("*.jpg"))}
        self._uploads = {file.name for file in folder.iterdir() if len(file.name) == 64}

    def known(self) -> Set[str]:
        """What may follow `sandbox:` in an image."""
        return self.photos.keys() | {_HASH + digest for digest in self._uploads}

    def photo(self, name: str) -> Path | None:
        """File of a photograph, by its name with or without `.jpg`."""
        return self.photos.get(name.removesuffix(".jpg"))

    def upload(self, digest: str) -> Path | None:
        """File of an upload, by its sha256."""
        return self._folder / digest if digest in self._uploads else None

    def store(self, digest: str, content: bytes) -> bool:
        """Keep an upload; False when the content is not what its name says."""
        if hashlib.sha256(content).hexdigest() != digest:
            return False
        part = self._folder / f"{digest}.part"
        part.write_bytes(content)
        os.replace(part, self._folder / digest)
        self._uploads.add(digest)
        return True

    def local_file(self, image: str, base_url: str) -> Path | None:
        """The file behind `sandbox:...` or one of our own URLs; None for every other image."""
        if image.startswith(_MARK):
            name = image.removeprefix(_MARK)
            return self.upload(name.removeprefix(_HASH)) if name.startswith(_HASH) else self.photo(name)
        for route, find in ((PHOTO_ROUTE, self.photo), (UPLOAD_ROUTE, self.upload)):
            prefix = base_url + route
            if image.startswith(prefix):
                return find(unquote(image.removeprefix(prefix)))
        return None
