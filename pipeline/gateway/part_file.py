"""The file that a download grows in: `<name>.part` beside its target, until it is whole, durable and renamed.

It must never touch the final name before that, and never let two owners write the same part. Every method blocks:
call them from a thread, or from several. A method that comes after `discard` does nothing.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path

from pipeline.files import FILE_MODE

CLAIM_TRIES = 8
"""Names that are tried for a part file while other processes hold the ones before."""


class PartFile:
    """One download on its way to `target`. Owner from `claim` to `keep` or `discard`; another owner is kept out.

    The part is locked, not only created: what a killed run left has no lock any more and is taken over from its start.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = self._path()
        self._hash = hashlib.sha256()
        self._fd: int | None = None
        self._over = False
        self._mutex = threading.Lock()

    def _path(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    def claim(self) -> None:
        """Become the owner of an empty part.

        Raises:
            BlockingIOError: another download is writing it.
            OSError: the folder is missing, full or not writable.
        """
        with self._mutex:
            if not self._over:
                self._fd = _own(self.path)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append all of `data`; OSError when the disk does not take it."""
        with self._mutex:
            if self._fd is None:
                return
            self._hash.update(data)
            rest = memoryview(data)
            while rest:
                # os.write may take a part only, on a disk that is nearly full.
                rest = rest[os.write(self._fd, rest) :]

    def keep(self) -> str:
        """Make the part durable under its final name, replacing what stood there; returns its sha256 in hex.

        Raises:
            OSError: it could not be made durable, or nothing was claimed.
        """
        with self._mutex:
            if self._fd is None:
                raise OSError(errno.EBADF, "the download was given up")
            # In this order: data, name, folder. A rename that is durable before the data would show an empty video
            # after a power cut.
            os.fsync(self._fd)
            os.replace(self.path, self.target)
            self._close()
            _sync_folder(self.target.parent)
            return self._hash.hexdigest()

    def discard(self) -> None:
        """Give up: close and remove the part, if it is ours. Harmless after `keep` and when repeated."""
        with self._mutex:
            self._over = True
            if self._fd is None:
                return
            try:
                self.path.unlink(missing_ok=True)  # before the lock goes: afterwards the name may be another owner's
            finally:
                self._close()

    def _close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)


def _own(path: Path) -> int:
    """A descriptor of the empty file at `path`, with its lock."""
    for _ in range(CLAIM_TRIES):
        # O_NOFOLLOW: a link of that name, set by another user of a shared folder, would have its target overwritten.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        try:
            if _is_ours(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise BlockingIOError(errno.EWOULDBLOCK, "another download is writing it")


def _is_ours(fd: int, path: Path) -> bool:
    """Lock `fd`; empty it only if `path` still names it.

    Between open and lock the owner before us may have renamed it: then it is a finished video.
    """
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        named = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    # The name points to another file by now: the next round opens that one.
    if not os.path.samestat(os.fstat(fd), named):
        return False
    with suppress(PermissionError):  # another operator's part, which the group may write
        os.fchmod(fd, FILE_MODE)
    # Only under the lock: before it, the bytes could be those of a download that is running.
    os.ftruncate(fd, 0)
    return True


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(fd)
