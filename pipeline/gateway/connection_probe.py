"""One free call without the key, to learn whether a gateway can be reached at all and why not."""

from __future__ import annotations

import aiohttp
from yarl import URL

from pipeline.config.network import NetworkEnvironment
from pipeline.gateway.network_errors import describe_error

PROBE_TIMEOUT_S = 5.0
"""Seconds for name, connection, TLS and the first line of an answer: a user waits for it at the terminal."""


async def connection_problem(base_url: str, network: NetworkEnvironment) -> str:
    """Why no connection to the gateway can be made; "" when it answers, whatever it says. Sends no key. Pays: no."""
    timeout, url = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S, connect=PROBE_TIMEOUT_S), URL(base_url)
    context = network.ssl_context()
    connector = aiohttp.TCPConnector(ssl=context if context is not None else True)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session,
            session.get(url, allow_redirects=False, proxy=network.proxy_for(base_url), timeout=timeout),
        ):
            return ""
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError):
        return ""  # it was reached
    except TimeoutError:
        return f"no answer from {url.host}:{url.port} in {PROBE_TIMEOUT_S:g} s"
    except (aiohttp.ClientError, OSError) as error:
        return describe_error(error, url, timeout)
