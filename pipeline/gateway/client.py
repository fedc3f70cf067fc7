"""The client of the gateway: each method makes one HTTP call and returns a record of its outcome.

It never retries, never follows a redirect, never keeps a cookie, never sends the key anywhere but to the gateway's own
origin, and never lets an exception of the HTTP library out: those carry the key in their `repr` and `args`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace, TracebackType
from typing import Self

import aiohttp
from yarl import URL

from pipeline.config.network import NetworkEnvironment
from pipeline.gateway.job_status import JobStatusReport
from pipeline.gateway.kinds.interface import Call, GatewayKind
from pipeline.gateway.network_errors import LeaseExpiredError, describe_error, is_permanent
from pipeline.gateway.origin import Origin, checked_key
from pipeline.gateway.response_reader import BODY_CAP_BYTES, PartialResponse, ResponseReader
from pipeline.gateway.responses import NoResponse, Response, SendProof
from pipeline.gateway.tcp_keepalive import keepalive_socket
from pipeline.gateway.tls_sessions import ResumingContext


class GatewayClient:
    """One gateway, one key. Use it as `async with GatewayClient(...) as client`.

    Args:
        kind: what the gateway's calls look like.
        base_url: https, or http on a loopback host.
        key: visible ASCII only.
        connect_timeout_s: name, connection and TLS together; running out is proof that nothing was sent.
        read_timeout_s: longest silence after a submit was sent. MONEY: gateways wait up to 300 s for their backend; a
            shorter patience turns paid jobs into unknown ones.
        poll_read_timeout_s: the same for the free calls.
        answer_timeout_s: end of a submit whose answer drips in for ever; None means three times the silence.
        poll_connections: how many kept-alive connections the free calls share.
        network: the proxies and certificates of the environment.

    Raises:
        UsageError: an address or a key that must not be used; the message does not hold the key.
    """

    def __init__(
        self,
        *,
        kind: GatewayKind,
        base_url: str,
        key: str,
        connect_timeout_s: float = 10.0,
        read_timeout_s: float = 330.0,
        poll_read_timeout_s: float = 60.0,
        answer_timeout_s: float | None = None,
        poll_connections: int = 32,
        body_cap_bytes: int = BODY_CAP_BYTES,
        ssl_context: ssl.SSLContext | None = None,
        network: NetworkEnvironment | None = None,
    ) -> None:
        self._kind = kind
        self._origin = Origin(base_url)
        self._auth = dict(kind.auth_headers(checked_key(key)))
        self._reader = ResponseReader(secrets=kind.secrets_of(key), cap_bytes=body_cap_bytes)
        self._submit_patience = _Timeouts(
            # `connect` bounds the look-up of the name too, which `sock_connect` does not.
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout_s, sock_read=read_timeout_s),
            answer_s=3 * read_timeout_s if answer_timeout_s is None else answer_timeout_s,
        )
        self._poll_patience = _Timeouts(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=poll_read_timeout_s),
            answer_s=3 * poll_read_timeout_s,
        )
        self._poll_connections = poll_connections
        self._network = network if network is not None else NetworkEnvironment()
        self._ssl: ssl.SSLContext | bool = True
        if ssl_context is not None:
            self._ssl = ssl_context
        elif base_url.lower().startswith("https:"):
            self._ssl = context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
            self._network.load_certificates(context)
            # What aiohttp's own context asks for: it speaks nothing newer.
            context.set_alpn_protocols(("http/1.1",))
        self._submits: aiohttp.ClientSession | None = None
        self._polls: aiohttp.ClientSession | None = None
        self.slowest_submit_s = 0.0
        """the longest time, in seconds, that a submit with an answer of 2xx took"""

    # --- opening and closing ---

    async def __aenter__(self) -> Self:
        # MONEY: a kept-alive connection can hand one submit the late or doubled answer to another, so paid calls get a
        # fresh connection each. No limit either: waiting for a free one would eat the connect time-out.
        self._submits = self._session(self._connector(force_close=True, limit=0))
        self._polls = self._session(self._connector(force_close=False, limit=self._poll_connections))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes both pools; calls in flight end as if the connection had broken."""
        for session in (self._submits, self._polls):
            if session is not None:
                await session.close()

    def _connector(self, *, force_close: bool, limit: int) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(
            force_close=force_close, limit=limit, ssl=self._ssl, socket_factory=keepalive_socket
        )

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        sent_hook = aiohttp.TraceConfig()
        sent_hook.on_request_headers_sent.append(_mark_sent)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._kind.headers,
            trace_configs=[sent_hook],
            # The library gives up a whole answer, its status line included, where the encoding is not what it claims.
            auto_decompress=False,
            trust_env=False,  # it would also take passwords from ~/.netrc
        )

    # --- the calls ---

    async def submit(
        self, call: Call, *, proof: SendProof | None = None, timeout_s: float | None = None
    ) -> Response | NoResponse:
        """Send one paid call, once. After a cancellation `proof.sent` still tells whether it may have left.

        Args:
            timeout_s: end of the call, connection included, where that is sooner than the configured one.

        Pays: yes. Whether it may be sent again is for the kind's `classify_submit`.
        """
        patience = self._submit_patience
        if timeout_s is not None:
            patience = replace(patience, answer_s=min(timeout_s, patience.answer_s))
        loop = asyncio.get_running_loop()
        began = loop.time()
        outcome = await self._call(_opened(self._submits), patience, call, proof=proof or SendProof())
        if isinstance(outcome, Response) and outcome.complete and outcome.status < 300:
            self.slowest_submit_s = max(self.slowest_submit_s, loop.time() - began)
        return outcome

    async def poll(
        self, job_set_id: str, polling_url: str | None = None, style: str | None = None
    ) -> Response | NoResponse:
        """Ask once for the state of one job set. Free.

        `polling_url` is used only when its scheme, host and port are the gateway's, else the key would go elsewhere.
        A GET on a connection that the gateway had just closed is repeated once by the HTTP library.
        """
        # The polling address comes from an answer: with another host in it the key would be sent there.
        own = self._origin.own_url(polling_url) if polling_url is not None else None
        own_url = None if own is None else str(own)
        return await self.ask(self._kind.poll_call(job_set_id, own_url, style or self._kind.poll_styles[0]))

    def video_address(self, report: JobStatusReport) -> str | None:
        """The address of a finished job's clip; one without a host is the gateway's own."""
        # A path without a host can only be on the gateway itself; anything else that is no http address is left as it
        # is.
        if report.video_url is not None or not (report.other_address or "").startswith("/"):
            return report.video_url
        joined = self._origin.joined(str(report.other_address))
        return None if joined is None else str(joined)

    async def get_motions(self, *, method: str = "GET") -> Response | NoResponse:
        """Ask once for the catalogue of motion presets. Free. Source: inferred; some gateways want POST."""
        return await self.ask(self._kind.motions_call(method))

    async def ask(self, call: Call) -> Response | NoResponse:
        """Send one free call, once."""
        session, patience = _opened(self._polls), self._poll_patience
        return await self._call(session, patience, call, proof=SendProof())

    def _with_key(self, url: URL, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The key rides only to the gateway's own origin, whatever address a call was given; nothing is redirected."""
        return {**headers, **self._auth} if self._origin.owns(url) else headers

    async def _call(
        self,
        session: aiohttp.ClientSession,
        patience: _Timeouts,
        call: Call,
        *,
        proof: SendProof,
    ) -> Response | NoResponse:
        """One request, at most one answer. Whatever the HTTP library raises ends here as a record."""
        taken = PartialResponse()
        url = self._origin.url(call.target) if call.target.startswith("/") else URL(call.target)
        try:
            # Around everything: aiohttp's own time-outs begin again with each byte, so an answer that drips would never
            # end.
            async with asyncio.timeout(patience.answer_s):
                response = await session.request(
                    call.method,
                    url,
                    data=call.body,
                    headers=self._with_key(url, call.headers),
                    timeout=patience.timeout,
                    allow_redirects=False,
                    proxy=self._network.proxy_for(str(url)),
                    trace_request_ctx=proof,
                )
                await self._reader.read(response, taken)
        # Cancellation is not caught: the caller reads `proof.sent` to see what it may record.
        except Exception as error:  # noqa: BLE001 - MONEY: a paid call must end in a record, and the key stays inside
            taken.what = describe_error(error, url, patience.timeout)
            taken.is_permanent = is_permanent(error)
        # A status line is the server's decision, also where the body behind it was cut or stalled.
        if taken.status is not None:
            return self._reader.response(taken)
        return NoResponse(
            sent=proof.sent,
            what=self._reader.blank_text(taken.what),
            # What left this machine is never permanent: waiting, or a poll, may still tell what became of it.
            is_permanent=taken.is_permanent and not proof.sent,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timeouts:
    """How long one kind of call may take: each step of it, and `answer_s` from first to last."""

    timeout: aiohttp.ClientTimeout
    answer_s: float


async def _mark_sent(
    session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestHeadersSentParams
) -> None:
    """MONEY: the library calls this before it writes the first byte: not called = not sent, called = perhaps sent.

    Raises:
        LeaseExpiredError: the reservation is too old; the library closes the connection and writes nothing.
    """
    proof: SendProof = context.trace_request_ctx
    if not proof.may_send():
        raise LeaseExpiredError
    proof.sent = True


def _opened(session: aiohttp.ClientSession | None) -> aiohttp.ClientSession:
    if session is None or session.closed:
        raise RuntimeError("GatewayClient is used outside of `async with`")
    return session
