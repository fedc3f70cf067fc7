"""The URL that goes into a submit for an image as the manifest wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from pipeline.assets.addresses import SAMPLE_PREFIX, file_sha256, is_local, is_object, object_place
from pipeline.records import Params

SANDBOX_IMAGE_PREFIX = "sandbox:sha256-"
SANDBOX_PHOTOS = "/_sandbox/photos/"
REHEARSED_OBJECT = "https://object.invalid/"
"""Replaces a store's object in a rehearsal, which asks no store: the sandbox draws a picture for it."""


class InputImages:
    """The images of requests by where they are. `sha256_of`: local path -> hash, as far as it is known already."""

    def __init__(self, sha256_of: Mapping[str, str]) -> None:
        self._sha256_of = dict(sha256_of)

    def local(self, params: Params) -> dict[Path, str]:
        """The local files of a request with the sha256 of their content."""
        images = (*params.input_images, *params.input_images_end)
        return {Path(image): self.sha256(image) for image in images if is_local(image)}

    def objects(self, params: Params) -> list[str]:
        """The images of a request that are in an object store."""
        return [image for image in (*params.input_images, *params.input_images_end) if is_object(image)]

    def sha256(self, image: str) -> str:
        """The hash of a local image's content; the file is read once."""
        if image not in self._sha256_of:
            self._sha256_of[image] = file_sha256(Path(image))
        return self._sha256_of[image]


class ImageUrlResolver:
    """Images as they are sent. The embedded sandbox takes its own names; elsewhere pictures need URLs.

    `hosted` gives the address of a local picture (by its sha256) or of a store's object; None in a rehearsal.
    """

    def __init__(
        self, inputs: InputImages, *, embedded: bool, base_url: str, hosted: Callable[[str], str] | None = None
    ) -> None:
        self._inputs = inputs
        self._embedded = embedded
        self._base_url = base_url
        self._hosted = hosted

    def urls(self, params: Params) -> dict[str, str]:
        """Image as written -> URL to send, for those that differ."""
        images = (*params.input_images, *params.input_images_end)
        return {image: sent for image in images if (sent := self._sent(image)) != image}

    def _sent(self, image: str) -> str:
        if is_local(image) and self._hosted is not None:
            return self._hosted(self._inputs.sha256(image))
        if is_local(image):
            return f"{SANDBOX_IMAGE_PREFIX}{self._inputs.sha256(image)}"
        if is_object(image):
            return self._hosted(image) if self._hosted is not None else _rehearsed(image)
        if image.startswith(SAMPLE_PREFIX) and not self._embedded:
            return f"{self._base_url}{SANDBOX_PHOTOS}{quote(image.removeprefix(SAMPLE_PREFIX))}"
        return image


def _rehearsed(address: str) -> str:
    bucket, key = object_place(address)
    return f"{REHEARSED_OBJECT}{bucket.replace('://', '/')}/{quote(key)}"
