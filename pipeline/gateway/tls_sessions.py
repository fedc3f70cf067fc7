"""TLS sessions that are resumed: a connection of its own for each paid call, at half the price of a full handshake.

asyncio has no way to hand a session to a connection. It asks the context for each connection's TLS object, though, so
the context remembers the newest session that each host gave and begins the next connection with it. A session is bound
to the certificate that was verified when it began, and to this context; a host that does not know it any more makes a
full handshake, as if none had been offered. No data of a call is sent before the handshake ends (no early data), so a
resumed connection can be replayed no more than any other.
"""

from __future__ import annotations

import ssl
import sys
from collections import deque

ASKED = 4
"""So many of a host's latest connections are asked for a session: a ticket comes behind the handshake, so the newest
connection may have none yet."""

MAX_HOSTS = 64
"""Hosts whose sessions are remembered; a run calls two or three."""


class ResumingContext(ssl.SSLContext):
    """A client's context that offers each host the newest session that the host gave."""

    def __init__(self, protocol: int) -> None:
        """Certificates and host names are verified, as in every context for clients."""
        self._latest: dict[str, deque[ssl.SSLObject]] = {}
        self._sessions: dict[str, ssl.SSLSession] = {}
        if sys.version_info >= (3, 13):  # what `ssl.create_default_context` sets
            self.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """The TLS object of a new connection, with the host's newest session where there is one."""
        host = server_hostname if isinstance(server_hostname, str) else ""
        if host and session is None:
            session = self._newest(host)
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        if host:
            # A crude bound is enough: what is forgotten costs one full handshake.
            if host not in self._latest and len(self._latest) >= MAX_HOSTS:
                self._latest.clear()
                self._sessions.clear()
            self._latest.setdefault(host, deque(maxlen=ASKED)).append(made)
        return made

    def _newest(self, host: str) -> ssl.SSLSession | None:
        """The session to offer. Reading one costs a quarter of a handshake: one that works is kept.

        A host for which it is too old, or that takes each ticket once, refuses it, and gives a new one in the full
        handshake that follows.
        """
        kept = self._sessions.get(host)
        # The newest first: a ticket is often valid once, and the newest has the longest life left.
        for connection in reversed(self._latest.get(host, ())):
            if connection.version() is None:
                continue  # its handshake has not ended
            if kept is not None and connection.session_reused:
                return kept
            given = connection.session
            if given is not None and _can_resume(connection, given):
                self._sessions[host] = given
                return given
        return kept


def _can_resume(connection: ssl.SSLObject, session: ssl.SSLSession) -> bool:
    """Whether the host gave what it takes: a ticket, or before TLS 1.3 the number of a session that it keeps."""
    return session.has_ticket or (connection.version() not in (None, "TLSv1.3") and bool(session.id))
