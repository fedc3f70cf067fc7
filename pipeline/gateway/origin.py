"""Where the key may go: the gateway's own origin, and what may stand in an address or a header we send.

It judges text before anything is opened; it never resolves a name.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from yarl import URL

from pipeline.errors import UsageError

MAX_KEY_CHARS: Final = 4096
"""Characters of an API key; servers reject longer header lines, so a longer one is a file pasted by mistake."""


@dataclass(frozen=True, slots=True)
class Origin:
    """One gateway's address: scheme, host and port, with the path its calls start from.

    Raises:
        UsageError: no address, one with a name, password, `?` or `#` in it, or plain http off loopback.
    """

    base_url: str

    def __post_init__(self) -> None:
        try:
            url = URL(self.base_url)
            url.origin()
        except ValueError:
            raise UsageError(f"gateway.base_url {self.base_url!r} is not an address; write https://HOST") from None
        if url.user or url.password or url.query_string or url.fragment:
            raise UsageError("gateway.base_url takes scheme, host, port and path only, no name, password, ? or #")
        if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(url.host or "")):
            raise UsageError(f"gateway.base_url {self.base_url!r}: use https (http is for loopback hosts only)")

    def url(self, path: str) -> URL:
        """The address of one of the gateway's calls; `path` starts with a slash."""
        return URL(self.base_url.rstrip("/") + path)

    def owns(self, url: URL) -> bool:
        """Whether `url` has the gateway's scheme, host and port."""
        home = URL(self.base_url)
        return (url.scheme, url.host, url.port) == (home.scheme, home.host, home.port)

    def joined(self, address: str) -> URL | None:
        """An address as a page of the gateway would mean it, absolute; None where it can't be read."""
        if "\\" in address or not _printable(address):
            return None
        try:
            # The address comes from an answer. Joined as a browser would do it: `//other.host/x` looks like a path and
            # is on another host.
            url = URL(self.base_url).join(URL(address)).with_fragment(None)
            return url if url.host else None
        except ValueError:  # a host that can't be decoded is noticed only when it is read
            return None

    def own_url(self, address: str) -> URL | None:
        """An address the gateway gave, absolute or relative, if it is the gateway's own; else None."""
        url = self.joined(address)
        return url if url is not None and self.owns(url) and url.user is None and url.password is None else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _printable(text: str) -> bool:
    return text.isprintable() and " " not in text


def _visible_ascii(text: str) -> bool:
    return text.isascii() and _printable(text)


def checked_path(path: str) -> str:
    """`path` if it can be put behind a host name.

    Raises:
        UsageError: no leading slash, or a character that would change its meaning.
    """
    if not path.startswith("/") or not _printable(path) or "\\" in path or "#" in path:
        raise UsageError(f"gateway path {path!r} must start with / and hold no space, \\ or #")
    return path


def checked_key(key: str) -> str:
    """`key` if it can be sent as a header, whole and unchanged.

    MONEY: one that cannot would fail after the send hook and turn every submit into an unknown.

    Raises:
        UsageError: empty, too long, or not visible ASCII; the message does not hold the key.
    """
    if not key:
        raise UsageError("the gateway key is empty")
    if len(key) > MAX_KEY_CHARS or not _visible_ascii(key):
        raise UsageError("the gateway key holds a space, a line break or another character that no key has")
    return key


def checked_header(name: str, value: str) -> str:
    """`value` if it can be sent as the header called `name`.

    Raises:
        UsageError: empty or not visible ASCII.
    """
    if not value or not _visible_ascii(value):
        raise UsageError(f"the {name} holds characters that cannot be sent")
    return value
