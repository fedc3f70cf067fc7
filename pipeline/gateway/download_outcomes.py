"""What one download can end with. Pure records, no I/O: `download` makes them, the caller decides what follows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The whole video has its final name and is durable. `sha256` in hex; `content_type` as the server said."""

    size_bytes: int
    sha256: str
    content_type: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkExpired:
    """The URL does not serve the video: poll for a fresh one."""

    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unacceptable:
    """Trying again gives the same: no MP4, too large, or an address that is not allowed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TransientFailure:
    """Cut, timed out, refused for now: worth another try. `wait_s` is what the server asked for, 1 s to 15 min."""

    reason: str
    wait_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFull:
    """The disk does not take it (full, quota, read only, folder missing): no other download will fare better now.

    `remedy` says what the user can do about it.
    """

    reason: str
    remedy: str = "run again"


DownloadOutcome = Saved | LinkExpired | Unacceptable | TransientFailure | DiskFull
