"""Sockets to the gateway that notice when the peer is gone.

A cable that was pulled, or a router that forgot a connection, says nothing: an answer that takes minutes and one that
never comes look alike. The operating system asks the peer, which costs the gateway nothing.
"""

from __future__ import annotations

import socket
from typing import Any

IDLE_S, GAP_S, TRIES = 15, 5, 3
"""Seconds of silence before the peer is asked, seconds between questions, and how many unanswered ones break it."""
DEAD_PEER_TIMEOUT_S = 30
"""Seconds after which data that was sent and not acknowledged breaks the connection, too."""
_OPTIONS = (
    ("TCP_KEEPIDLE", IDLE_S),
    ("TCP_KEEPALIVE", IDLE_S),  # macOS calls it so
    ("TCP_KEEPINTVL", GAP_S),
    ("TCP_KEEPCNT", TRIES),
    ("TCP_USER_TIMEOUT", 1000 * DEAD_PEER_TIMEOUT_S),
)


def keepalive_socket(address_info: tuple[Any, ...]) -> socket.socket:
    """A socket for aiohttp's `socket_factory`; a peer that is gone breaks it within half a minute."""
    family, kind, protocol, *_ = address_info
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS:
        option = getattr(socket, name, None)  # each system has its own
        if option is not None:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made
