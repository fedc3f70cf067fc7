"""What a failed call means, in words for the user: the cause and the address. Pure; never the library's own text."""

from __future__ import annotations

import errno
import os
import socket
import ssl

import aiohttp
from yarl import URL

PERMANENT_LOOKUPS = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
"""Results of a name's look-up that waiting does not change: there is no such name, or it has no address."""

PROXY_LOGIN = 407
"""HTTP status of a proxy that wants a login."""


class LeaseExpiredError(Exception):
    """The call became due to leave only after its reservation had expired: the process was frozen."""


def describe_error(error: Exception, url: URL, timeout: aiohttp.ClientTimeout) -> str:
    """A failure in our words. MONEY: for display only: no class of exception says whether a request was sent.

    Never `str(error)`: it may quote headers, and with them the key.
    """
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError):
        return _connection_words(error, url)
    where, connect_s = f"{url.host}:{url.port}", timeout.connect or timeout.sock_connect or 0
    # In this order: several of these classes are subclasses of a later one (a connection's time-out is a TimeoutError).
    words: tuple[tuple[type[Exception], str], ...] = (
        (LeaseExpiredError, "the process was frozen after its reservation; nothing was sent"),
        (aiohttp.ClientSSLError, f"the secure connection to {where} could not be made"),
        (aiohttp.ConnectionTimeoutError, f"no connection to {where} in {connect_s:g} s"),
        (aiohttp.ServerTimeoutError, f"silence for {timeout.sock_read:g} s"),
        (TimeoutError, "the answer did not end in time"),
        (aiohttp.ClientPayloadError, "the answer was cut"),
        (aiohttp.ServerDisconnectedError, "the connection was closed without an answer"),
        (aiohttp.ClientResponseError, "what came back is not HTTP"),
    )
    for kind, text in words:
        if isinstance(error, kind):
            return text
    if isinstance(error, OSError):
        return f"the connection broke: {_words(error)}"
    return f"the call failed ({type(error).__name__})"


def _connection_words(error: aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError, url: URL) -> str:
    where = f"{url.host}:{url.port}"
    match error:
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answers {error.status} to a call to {where}"
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate of {where} is not valid{_certificate_words(error.certificate_error)}"
        case aiohttp.ClientProxyConnectionError():
            return f"no connection to the proxy {error.host}:{error.port}: {_words(error.os_error)}"
        case aiohttp.ClientConnectorDNSError():
            if is_permanent(error):
                return f"there is no host {url.host}: its name was not found"
            return f"the name {url.host} can't be looked up now"
        case aiohttp.ClientSSLError():
            return f"the secure connection to {where} could not be made"
    return f"no connection to {where}: {_words(error.os_error)}"


def is_permanent(error: Exception) -> bool:
    """Whether waiting does not help: an unknown host, a certificate that is not valid, a proxy that wants a login."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return True
        case aiohttp.ClientConnectorDNSError():
            return error.os_error.errno in PERMANENT_LOOKUPS
        case aiohttp.ClientHttpProxyError():
            return error.status == PROXY_LOGIN
    return False


def _certificate_words(error: Exception) -> str:
    text = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else ""
    return f": {text}" if text else ""


def _words(error: OSError) -> str:
    """The cause as the system names it; the library puts the address in its place."""
    if error.errno in errno.errorcode:
        return os.strerror(error.errno or 0)
    return type(error).__name__
