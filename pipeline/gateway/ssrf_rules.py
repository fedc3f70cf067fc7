"""Judges where a video may be fetched from: the form of its URL, and the address behind it.

Pure; it resolves no name and opens no socket. A result URL comes from outside, so it may point into the machine or the
network of this machine. Host names are not judged at all: only the address that is about to be connected to
tells where a request really goes.
"""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import urljoin

from yarl import URL

from pipeline.gateway.download_outcomes import Unacceptable

NAT64 = IPv6Network("64:ff9b::/96")
"""An IPv4 address in the last 32 bits. Source: RFC 6052, section 2.1."""

PUBLIC_V6 = IPv6Network("2000::/3")
"""All global unicast that is handed out. Source: IANA, IPv6 address space."""

# Written out, for the standard library's lists differ between patch releases (`is_global` of 3.11.7 says yes to
# fec0::1, 64:ff9b:1::1 and 5f00::1). Source: IANA special-purpose address registries.
SHUT_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # the host agent of one large cloud, on a public number
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
SHUT_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo (2001::/32) among them: no video host is there
        "2001:db8::/32",
        "3fff::/20",
    )
)


def readable_url(url: str, *, http_allowed: bool, base: str = "") -> URL | Unacceptable:
    """`url` as it will be requested, byte for byte where it is ASCII: re-quoting would break a signature in it.

    Args:
        http_allowed: http as well as https.
        base: the address that a relative `url` (of a redirect) is relative to.
    """
    if re.search(r"[\x00-\x1f\x7f]", url):
        return Unacceptable(reason="not a URL: control characters in it")
    try:
        whole = urljoin(base, url)
        parsed = URL(whole, encoded=whole.isascii() and " " not in whole)
        # Read here: the parser refuses a wrong port, or a host that can't be decoded, only when asked for it.
        named = parsed.raw_host and parsed.host and parsed.port
    except ValueError:
        return Unacceptable(reason="not a URL")
    if parsed.scheme not in (("https", "http") if http_allowed else ("https",)):
        return Unacceptable(reason=f"only https is allowed, not {parsed.scheme[:20] or 'a URL without a scheme'}")
    if not named:
        return Unacceptable(reason="not a URL: no host or no port in it")
    if parsed.user is not None or parsed.password is not None:
        return Unacceptable(reason="a user name or a password in the URL is not allowed")
    return parsed


def refusal(address: str, *, loopback_allowed: bool = False) -> str | None:
    """Why a video must not be fetched from `address`, or None when it may be.

    Args:
        address: an IPv4 or IPv6 address as the system writes it, with or without a zone (`fe80::1%eth0`).
        loopback_allowed: True lets 127.0.0.0/8 and ::1 through as well, and nothing else.
    """
    try:
        number = _as_connected(ipaddress.ip_address(address))
    except ValueError:
        return "is no IP address"
    if number.is_loopback:
        return None if loopback_allowed else "is a loopback address"
    return None if _is_public(number) else "is not a public address"


def refused_host(host: str, *, loopback_allowed: bool = False) -> str | None:
    """Why a host must not be asked for through a proxy, which alone sees the address behind a name; else None.

    A name that is not of this machine is left to the proxy.
    """
    if host.lower().rstrip(".") == "localhost":
        return None if loopback_allowed else "is a loopback address"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return refusal(host, loopback_allowed=loopback_allowed)


def _as_connected(number: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """What the system connects to: for ::ffff:a.b.c.d that is a.b.c.d over IPv4."""
    if isinstance(number, IPv6Address) and number.ipv4_mapped is not None:
        return number.ipv4_mapped
    return number


def _is_public(number: IPv4Address | IPv6Address) -> bool:
    if isinstance(number, IPv4Address):
        return number.is_global and not any(number in network for network in SHUT_V4)
    # A NAT64 or 6to4 gateway would connect to the IPv4 address inside, which may be a private one.
    inner = _carried(number)
    if inner is not None:
        return _is_public(inner)
    return number.is_global and number in PUBLIC_V6 and not any(number in network for network in SHUT_V6)


def _carried(number: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a gateway on the way takes out of this one (NAT64, 6to4), if there is such a gateway."""
    if number in NAT64:
        return IPv4Address(int(number) & 0xFFFF_FFFF)
    return number.sixtofour
