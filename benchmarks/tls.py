"""What TLS adds to a paid call on a connection of its own: with a full handshake, and with a session that is resumed.

    python -m benchmarks.tls [--quick] [--write-docs]

The server is a process of its own on 127.0.0.1, with a chain of certificates as public gateways have one (RSA, 2048
bits, one between the server's and the root); the client is the program's own, and its CPU is measured, user and
system, over many calls one after another.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.figures import Figures, Unrest, middle
from benchmarks.measuring import main
from pipeline.config.network import network_environment
from pipeline.gateway.client import GatewayClient
from pipeline.gateway.kinds.pixazo import Pixazo, submit_body, submit_call
from pipeline.gateway.responses import Response
from tests.support.certificates import chain
from tests.support.factories import make_params
from tests.support.raw_server import Caller, ScriptedGateway, http

CALLS = 300
WAYS = ("no TLS", "full handshake", "session resumed")
BARE = "session resumed, OpenSSL and a blocking socket alone"
REQUEST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"


async def _answer(caller: Caller) -> None:
    await caller.read_request()
    await caller.say(http())


async def serve(pem: str) -> None:
    """Two servers, plain and TLS; prints their addresses, and ends with its input."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    async with ScriptedGateway(_answer) as plain, ScriptedGateway(_answer, tls=context) as safe:
        print(plain.url, safe.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def _cpu_ms(url: str, pem: Path, context: ssl.SSLContext | None) -> float:
    """CPU of one call, milliseconds."""
    call = submit_call(submit_body(make_params()), idempotency_key="k1")
    network = network_environment({"REQUESTS_CA_BUNDLE": str(pem)})
    async with GatewayClient(
        kind=Pixazo(), base_url=url, key="canary-key-0123456789", ssl_context=context, network=network
    ) as client:
        await client.submit(call)
        started = time.process_time()
        for _ in range(CALLS):
            assert isinstance(await client.submit(call), Response)
        return 1000 * (time.process_time() - started) / CALLS


def _bare_cpu_ms(url: str, pem: Path) -> float:
    """CPU of one connection with a resumed session and one exchange on it, without any HTTP client, milliseconds."""
    context = ssl.create_default_context(cafile=str(pem))
    place = urlsplit(url)
    assert place.hostname is not None
    session: ssl.SSLSession | None = None
    started = 0.0
    for number in range(CALLS + 1):
        if number == 1:
            started = time.process_time()
        with (
            socket.create_connection((place.hostname, place.port or 443)) as plain,
            context.wrap_socket(plain, server_hostname=place.hostname, session=session) as safe,
        ):
            assert safe.session_reused is (session is not None)
            safe.sendall(REQUEST)
            assert safe.recv(1 << 16)
            session = safe.session  # a ticket comes behind the handshake, with the answer
    return 1000 * (time.process_time() - started) / CALLS


async def run(rounds: int) -> tuple[Figures, list[Unrest]]:
    """The ways, interleaved; medians."""
    found: dict[str, list[float]] = {way: [] for way in (*WAYS, BARE)}
    with tempfile.TemporaryDirectory() as name:
        server_pem, pem = chain(Path(name))
        server = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs in this loop
            [sys.executable, "-m", "benchmarks.tls", "serve", str(server_pem)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        plain, safe = server.stdout.readline().split()
        for _ in range(rounds):
            usual = ssl.create_default_context(cafile=str(pem))
            for way, url, context in zip(WAYS, (plain, safe, safe), (None, usual, None), strict=True):
                found[way].append(await _cpu_ms(url, pem, context))
                print(f"{way}: {found[way][-1]:.3f} ms of CPU a call", flush=True)
            found[BARE].append(_bare_cpu_ms(safe, pem))
            print(f"{BARE}: {found[BARE][-1]:.3f} ms of CPU", flush=True)
        server.stdin.close()
        server.wait()
    rows = [{"way": way, "cpu_ms": round(middle(each), 3)} for way, each in found.items()]
    return {"rows": rows, "calls": CALLS}, [(os.getloadavg()[0], 0.0)]


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(sys.argv[2]))
    else:
        main("tls", run)
