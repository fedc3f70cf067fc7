"""A gateway's address: what may be in `gateway.base_url`, and the one name under which its purchases are kept."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

SANDBOX = "sandbox"
"""`gateway.base_url` that starts the embedded sandbox, and the gateway id of everything rehearsed there."""

LOOPBACK = "127.0.0.1"
"""The name of this machine in a gateway's name, whichever way its address is written."""
VISIBLE = re.compile(r"[!-~]+")
"""What an address may be written with: a blank or a control character would be a part of what follows it."""


def is_loopback(host: str) -> bool:
    """Whether connections to `host` stay on this machine, going by its name alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return without_final_dot(host.lower()) == "localhost"


def without_final_dot(host: str) -> str:
    """`example.com.` is the full name of `example.com`, and the same host."""
    return host.removesuffix(".")


def _origin(text: str) -> SplitResult:
    """The parts of a gateway's address; text that could carry a secret is never repeated in the error."""
    parts = urlsplit(text if VISIBLE.fullmatch(text) else "")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("must be `sandbox` or an address such as https://gateway.example")
    if parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("must be scheme, host and port only: the paths have keys of their own")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https: the key would travel in clear (http is for this machine only)")
    return parts


def base_url(text: str) -> str:
    """`gateway.base_url`: `sandbox`, or an address without path, with the port as written.

    Raises:
        ValueError: it is neither. The message never repeats it.
    """
    if text == SANDBOX:
        return text
    parts = _origin(text)
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{_bracketed(without_final_dot(parts.hostname or ''))}{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def origin_of(address: str) -> str:
    """The one name of a gateway's address: `scheme://host:port`, the port always written out.

    Raises:
        ValueError: it is no address that the key may go to.
    """
    _origin(address)
    return canonical_gateway(address)


def canonical_gateway(name: str) -> str:
    """The one name of a gateway, however its address is written.

    `localhost`, `127.0.0.1` and `[::1]` with one port are one gateway, and so is a host with a final dot. What is no
    address (`sandbox`, a damaged name) stays as it is.
    """
    try:
        parts = urlsplit(name)
        port = parts.port or {"https": 443, "http": 80}[parts.scheme]
    except (KeyError, ValueError):
        return name
    return f"{parts.scheme}://{_bracketed(_canonical_host(without_final_dot(parts.hostname or '')))}:{port}"


def _canonical_host(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return LOOPBACK if host == "localhost" else host
    mapped = getattr(address, "ipv4_mapped", None) or address
    return LOOPBACK if str(mapped) in ("::1", LOOPBACK) else str(mapped)
