"""Frames: a URL or a store's object as written, a sample picture `sandbox:NAME`, or a picture file, which is read.

An address is judged by its shape alone, never rewritten or opened; a file must begin and end as a picture does.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from pipeline.manifest import address_advice, picture_end
from pipeline.manifest.field_types import no_template, plain, text

_SAMPLE = re.compile(r"sandbox:[A-Za-z0-9][A-Za-z0-9._-]*")
_OBJECT = re.compile(r"(?:s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]*/(?!/)[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f/]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?://)?")
_SPACE = re.compile(r"[\s\x00-\x20\x7f<>\"\\^`{|}]")
_ORDINARY = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?:/[\w/.,~%+&=?;:()'-]*)?", re.ASCII)
"""A URL about which there is nothing to ask: a million of them are not taken apart one by one."""
MAGIC_BYTES = 12
"""Bytes from the beginning of a file that tell JPEG, PNG and WebP apart; WebP needs twelve."""


def image(value: object, folder: Path, allowed: Iterable[Path] = ()) -> str:
    """The frame as `Params` wants it: addresses and `sandbox:NAME` as written, a file as its absolute path.

    Args:
        folder: what a relative path is relative to: the folder of the file it is written in.
        allowed: the other folders that pictures may come from.

    Raises:
        ValueError: it is none of them, with what is wrong.
        OSError: never; a file that cannot be read is a ValueError.
    """
    # A second "://" is another address in the same cell, which the slow way below names.
    if isinstance(value, str) and _ORDINARY.fullmatch(value) and "://" not in value[8:]:
        return _of_a_picture(value)
    written = no_template(text(value))
    if (advice := address_advice.advice(written)) is not None:
        raise ValueError(f"{plain(written)} {advice}")
    if written != written.strip():
        raise ValueError(f"{plain(written)} has spaces around it")
    if written.startswith("sandbox:"):
        if not _SAMPLE.fullmatch(written):
            raise ValueError(f"{plain(written)} is not sandbox:NAME")
        return written
    scheme = _SCHEME.match(written)
    if scheme and scheme[1].lower() in {"http", "https"}:
        return _url(written)
    if scheme and scheme[1] in {"s3", "gs", "az"}:
        return _object(written, scheme[1])
    if scheme and ("://" in written or scheme[1].lower() in {"data", "file"}):
        hint = ": write the path alone" if scheme[1].lower() == "file" else ""
        raise ValueError(f"{plain(scheme[0])} addresses are not http or https{hint}")
    return _file(written, folder, allowed)


def _object(written: str, scheme: str) -> str:
    parts = written.split("/")
    if not _OBJECT.fullmatch(written) or any(part in ("", ".", "..") for part in parts[3:]):
        place = "container" if scheme == "az" else "bucket"
        raise ValueError(f"{plain(written)} is not an object's address: write {scheme}://{place}/key")
    return written


def _url(written: str) -> str:
    if (unseen := address_advice.invisible(written)) is not None:
        raise ValueError(f"the URL {unseen}")
    bad = _SPACE.search(written)
    if bad:
        raise ValueError(f"the URL has {plain(bad[0])} at place {bad.start() + 1}: percent-encode it")
    try:
        parts = urlsplit(written)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host = None
    if not host or not written.lower().startswith(("http://", "https://")):
        raise ValueError(f"{plain(written)} is not a URL with a host")
    return _of_a_picture(written)


def _of_a_picture(url: str) -> str:
    why = address_advice.not_a_picture(url)
    if why is not None:
        raise ValueError(f"{plain(url)} {why}")
    return url


def has_credentials(url: str) -> bool:
    """Whether the URL contains a user name or password, which the gateway and the report would then see."""
    return "@" in url and "://" in url and "@" in urlsplit(url).netloc


def _file(written: str, folder: Path, allowed: Iterable[Path]) -> str:
    path = os.path.abspath(folder / written)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError(f"{plain(written)} is not a file (looked for {path})")
        if not _is_inside(path, (folder, *allowed)):
            raise ValueError(
                f"{plain(written)} is outside the folder of its manifest: a picture there is uploaded only if "
                f"images.allow names its folder, e.g. --set images.allow={plain(os.path.dirname(path))}"
            )
        with open(path, "rb") as picture:
            start = picture.read(MAGIC_BYTES)
            whole = not start or _is_whole(picture)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise ValueError(
                f"{plain(written)} cannot be read: {error.strerror or 'not a path'} (looked for {path})"
            ) from error
        raise
    if not is_picture(start):
        raise ValueError(f"{plain(written)} is not a JPEG, PNG or WebP by its content")
    if not whole:
        raise ValueError(f"{plain(written)} is cut off: the picture's file has no end; copy it again")
    return path


def _is_inside(path: str, folders: Iterable[Path]) -> bool:
    """Whether a file, wherever its links lead, is in one of the folders: a manifest may be another person's."""
    real = os.path.join(os.path.realpath(path), "")
    return any(real.startswith(os.path.join(os.path.realpath(folder), "")) for folder in folders)


def _is_whole(picture: BinaryIO) -> bool:
    with mmap.mmap(picture.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return picture_end.is_whole(content)


def is_picture(start: bytes) -> bool:
    """Whether a file's first bytes are a JPEG's, a PNG's or a WebP's. Source: API document, input_images."""
    return (
        start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))
        or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
    )  # fmt: skip
