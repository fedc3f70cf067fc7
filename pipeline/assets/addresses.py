"""Addresses of input images: local files, sandbox samples and objects of a store."""

from __future__ import annotations

import hashlib
from pathlib import Path

SAMPLE_PREFIX = "sandbox:"
OBJECT_PREFIXES = ("s3://", "gs://", "az://")


def is_local(image: str) -> bool:
    """Whether an image of a cell is a file of this machine (`manifest` hands those over as absolute paths)."""
    return not image.startswith(("http://", "https://", SAMPLE_PREFIX, *OBJECT_PREFIXES))


def is_object(image: str) -> bool:
    """Whether an image of a cell is an object of a store: `s3://bucket/key` and the like."""
    return image.startswith(OBJECT_PREFIXES)


def object_place(address: str) -> tuple[str, str]:
    """`s3://bucket/some/key` -> (`s3://bucket`, `some/key`)."""
    scheme, _, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", key


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's content, which is never in memory as a whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
