"""What the gateway is told an image is: the URL that goes into a submit for an image as the manifest wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from pipeline.assets.addresses import SAMPLE_PREFIX, file_sha256, is_local, is_object, object_place
from pipeline.records import Params

SANDBOX_IMAGE_PREFIX = "sandbox:sha256-"
SANDBOX_PHOTOS = "/_sandbox/photos/"
REHEARSED_OBJECT = "https://object.invalid/"
"""Stands for a store's object in a rehearsal, which asks no store: the sandbox draws a picture for it."""


class ImageUrlResolver:
    """Images as they are sent. The embedded sandbox takes its own names; elsewhere pictures need URLs."""

    def __init__(self, *, embedded: bool, base_url: str, sha256_of: Mapping[str, str]) -> None:
        self.hosted: Callable[[str], str] | None = None
        """sha256 of a local picture, or a store's object -> the address it is handed over by; None in a rehearsal"""
        self._embedded = embedded
        self._base_url = base_url
        self._sha256_of = dict(sha256_of)

    def urls(self, params: Params) -> dict[str, str]:
        """Image as written -> URL to send, for those that differ."""
        images = (*params.input_images, *params.input_images_end)
        return {image: sent for image in images if (sent := self._sent(image)) != image}

    def local(self, params: Params) -> dict[Path, str]:
        """The local files of a request with the sha256 of their content."""
        images = (*params.input_images, *params.input_images_end)
        return {Path(image): self._sha256(image) for image in images if is_local(image)}

    def objects(self, params: Params) -> list[str]:
        """The images of a request that lie in an object store."""
        return [image for image in (*params.input_images, *params.input_images_end) if is_object(image)]

    def _sha256(self, image: str) -> str:
        if image not in self._sha256_of:
            self._sha256_of[image] = file_sha256(Path(image))
        return self._sha256_of[image]

    def _sent(self, image: str) -> str:
        if is_local(image) and self.hosted is not None:
            return self.hosted(self._sha256(image))
        if is_local(image):
            return f"{SANDBOX_IMAGE_PREFIX}{self._sha256(image)}"
        if is_object(image):
            return self.hosted(image) if self.hosted is not None else _rehearsed(image)
        if image.startswith(SAMPLE_PREFIX) and not self._embedded:
            return f"{self._base_url}{SANDBOX_PHOTOS}{quote(image.removeprefix(SAMPLE_PREFIX))}"
        return image


def _rehearsed(address: str) -> str:
    bucket, key = object_place(address)
    return f"{REHEARSED_OBJECT}{bucket.replace('://', '/')}/{quote(key)}"
