"""Connections to addresses that an untrusted response chose: each address is judged where its socket is made.

A resolver filter would miss IP literals; here every connect passes, with the very address that is connected to next.
"""

from __future__ import annotations

import errno
import socket
import ssl
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from pipeline.gateway.ssrf_rules import refusal


@dataclass(slots=True)
class ConnectAudit:
    """The addresses that were refused and allowed for one request. `by_proxy`: the connection is to a proxy."""

    refused: list[str] = field(default_factory=list)
    allowed: int = 0
    by_proxy: bool = False


_connects: ContextVar[ConnectAudit] = ContextVar("guarded_connects")


def track_connects(proxy: str | None = None) -> ConnectAudit:
    """A fresh record for the request that this task makes next.

    Args:
        proxy: the proxy that the request goes through: its own address is the operator's choice and is not judged.
    """
    connects = ConnectAudit(by_proxy=proxy is not None)
    _connects.set(connects)
    return connects


def guarded_connector(
    *, loopback_allowed: bool, per_host: int = 0, ssl_context: ssl.SSLContext | None = None
) -> aiohttp.TCPConnector:
    """A connector that refuses private addresses, and loopback unless allowed; a connection is used once.

    Each request through it must be preceded by `track_connects()`.

    Args:
        per_host: connections to one host at a time; 0 for any number.
        ssl_context: for tests; the system's trust unless given.
    """

    def make(address_info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = address_info
        # A context variable, since aiohttp gives its socket factory nothing but the address; each request's task has
        # its own.
        connects = _connects.get()
        why_not = None if connects.by_proxy else refusal(str(address[0]), loopback_allowed=loopback_allowed)
        if why_not is not None:
            connects.refused.append(f"{address[0]} {why_not}")
            raise PermissionError(errno.EACCES, "address refused")
        connects.allowed += 1
        return socket.socket(family=family, type=kind, proto=protocol)

    return aiohttp.TCPConnector(
        limit=0,
        limit_per_host=per_host,
        # A kept connection would be used again without passing `make`, and so without its check.
        force_close=True,
        ssl=ssl_context if ssl_context is not None else True,
        socket_factory=make,
    )
