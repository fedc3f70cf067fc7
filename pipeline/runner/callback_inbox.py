"""Where callbacks come in: a run's own receiver, or the spool that `dop webhook serve` fills for the next run.

The seed of all tokens is beside the ledger, private. The spool holds hints and nothing else: losing it costs polls.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from pipeline.config.gateway_address import is_loopback
from pipeline.config.loader import gateway_id
from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.files import SECRET, draft_beside, whole_text
from pipeline.gateway.webhook_tokens import (
    MAX_IDS,
    SEED_BYTES,
    SELF_TEST,
    CallbackDelivery,
    WebhookTokens,
    callback_url,
)
from pipeline.records import State
from pipeline.runner.webhook_server import WebhookServer

INBOX_POLL_INTERVAL_S = 1.0
"""Seconds between two checks of the inbox for deliveries that another process took."""
ANY_PORT = "127.0.0.1:0"
SELF_TEST_TIMEOUT_S = 3.0
"""Seconds for the call to our own public address; a slower one would lose callbacks."""
MAX_KEPT = 16
"""Deliveries that are kept for one attempt: several may name several jobs, and a caller may repeat any number."""
_SPOOLED = re.compile(r"([0-9a-f]{32})-([0-9]{1,6})\.json")


def keys_for(settings: Settings) -> WebhookTokens:
    """The tokens of this ledger at this gateway; the seed is made at the first call.

    Raises:
        UsageError: the seed can't be read, written, or is damaged.
    """
    path = settings.ledger_path.parent / "callback-seed"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The second process reads the seed of the first: two seeds would make each refuse the other's callbacks.
        with suppress(FileExistsError):
            _write_new(path, secrets.token_hex(SEED_BYTES))
        seed = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be used ({error}); remove it, and a new one is made") from None
    if len(seed) != SEED_BYTES:
        raise UsageError(f"{path} is damaged; remove it, and a new one is made")
    return WebhookTokens(seed, gateway_id(settings))


def _write_new(path: Path, text: str) -> None:
    """A private file that appears whole: two processes may start at the same time."""
    with draft_beside(path) as draft:
        draft.write_text(text + "\n", encoding="ascii")
        # A link fails where the name exists; a rename would replace the seed that another process uses already.
        os.link(draft, path)


class CallbackInbox:
    """Deliveries on disk, one file an attempt with the newest MAX_KEPT of them. Only those that proved themselves come
    here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, delivery: CallbackDelivery) -> None:
        """Write one beside what is kept for the attempt.

        Raises:
            OSError: the disk does not take it; the receiver must answer with an error, so that it is delivered again.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{delivery.request_id}-{delivery.attempt}.json"
        # A repeated delivery moves to the end: it must not push other ids out of the MAX_KEPT.
        kept = [*(ids for ids in _kept(path) if ids != delivery.job_set_ids), delivery.job_set_ids]
        with whole_text(path, mode=SECRET) as stream:
            stream.write(json.dumps(kept[-MAX_KEPT:]))

    def has_deliveries(self) -> bool:
        """Whether something is kept that no run has read."""
        return next(self.waiting(), None) is not None

    def waiting(self) -> Iterator[tuple[Path, list[CallbackDelivery]]]:
        """What is kept now, attempt by attempt."""
        with suppress(OSError):
            for path in sorted(self.folder.iterdir()):
                match = _SPOOLED.fullmatch(path.name)
                if match is not None:
                    request_id, attempt = match[1], int(match[2])
                    yield (
                        path,
                        [
                            CallbackDelivery(request_id=request_id, attempt=attempt, job_set_ids=ids)
                            for ids in _kept(path) or [()]
                        ],
                    )


def _kept(path: Path) -> list[tuple[str, ...]]:
    """The ids of each delivery in a file; none when it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return []
    if not isinstance(found, list):
        return []
    return [tuple(one for one in ids if isinstance(one, str))[:MAX_IDS] for ids in found if isinstance(ids, list)]


def inbox_of(settings: Settings) -> CallbackInbox:
    """The spool of this ledger and gateway."""
    slug = re.sub(r"[^a-z0-9]+", "-", gateway_id(settings).lower()).strip("-")
    return CallbackInbox(settings.ledger_path.parent / "callbacks" / slug)


class CallbackEndpoint:
    """An open endpoint for callbacks. What the run does not take, or what comes before it, the inbox keeps.

    Args:
        watches_inbox: another process receives, and fills the inbox meanwhile.
    """

    def __init__(self, keys: WebhookTokens, inbox: CallbackInbox, *, public_url: str, watches_inbox: bool) -> None:
        self.keys = keys
        self.public_url = public_url
        self._inbox = inbox
        self._watches_inbox = watches_inbox
        self._deliver: Callable[[CallbackDelivery], bool] = lambda delivery: False
        self._is_busy: Callable[[str], bool] = lambda request_id: False
        self._handed_over: dict[Path, list[CallbackDelivery]] = {}

    def deliver_to(
        self, handler: Callable[[CallbackDelivery], bool], *, is_busy: Callable[[str], bool] = lambda request_id: False
    ) -> None:
        """Hand each delivery to `handler`, which says whether the run had a use for it.

        Args:
            is_busy: whether what was handed over about a request is not recorded yet.
        """
        self._deliver, self._is_busy = handler, is_busy

    def taken(self, delivery: CallbackDelivery) -> None:
        """One delivery from the receiver.

        Raises:
            OSError: the run has no use for it now, and the disk does not keep it.
        """
        if not delivery.is_self_test and not self._deliver(delivery):
            self._inbox.keep(delivery)

    def drain(self, state_of: Callable[[str], State | None]) -> None:
        """Hand over what the inbox holds; what may still matter to another run stays.

        MONEY: a file is removed only when what it proves is recorded.
        """
        for path, deliveries in self._inbox.waiting():
            request_id = deliveries[0].request_id
            # Once, and once more when another delivery has been added to the file.
            if self._handed_over.get(path) != deliveries:
                taken = [self._deliver(delivery) for delivery in deliveries]
                self._handed_over |= {path: deliveries} if all(taken) else {}
            if self._is_busy(request_id):
                continue
            is_mine = self._handed_over.pop(path, None) is not None
            if is_mine or state_of(request_id) not in (State.PLANNED, State.SUBMITTING, State.UNKNOWN):
                with suppress(OSError):
                    path.unlink()

    async def watch(self, state_of: Callable[[str], State | None]) -> None:
        """Drains the spool until cancelled: once, or again and again when another process fills it."""
        while True:
            self.drain(state_of)
            if not self._watches_inbox:
                return
            await asyncio.sleep(INBOX_POLL_INTERVAL_S)


def listen_address(settings: Settings) -> tuple[str, int]:
    """Host and port of `webhook.listen`; any free port of this machine where it is not configured."""
    host, _, port = (settings.webhook.listen or ANY_PORT).rpartition(":")
    return host.strip("[]"), int(port)


def check_reachable(settings: Settings, base_url: str) -> None:
    """Refuses callbacks that cannot work as configured.

    Raises:
        UsageError: the gateway is elsewhere and no public address is configured, or no port for it.
    """
    webhook = settings.webhook
    if webhook.public_url is None and not is_loopback(urlsplit(base_url).hostname or ""):
        raise UsageError("--webhook: set webhook.public_url, the https address under which the gateway can call")
    if webhook.public_url is not None and webhook.listen is None:
        raise UsageError("--webhook: set webhook.listen, the HOST:PORT that webhook.public_url leads to")


@asynccontextmanager
async def open_callback_endpoint(
    settings: Settings, base_url: str, warn: Callable[[str], None] = lambda text: None
) -> AsyncIterator[CallbackEndpoint]:
    """A receiver on `webhook.listen`, or the spool where `dop webhook serve` of the same ledger listens there already.

    Raises:
        UsageError: it is not configured, or another program has the port.
    """
    check_reachable(settings, base_url)
    keys = keys_for(settings)
    host, port = listen_address(settings)
    inbox = inbox_of(settings)
    endpoint: CallbackEndpoint | None = None

    def taken(delivery: CallbackDelivery) -> None:
        if endpoint is not None:
            endpoint.taken(delivery)
        # The server listens before the endpoint below exists; a delivery in between is kept for it.
        elif not delivery.is_self_test:
            inbox.keep(delivery)

    receiver = WebhookServer(keys, taken, warn=warn, signing_secret=settings.webhook.signing_secret)
    try:
        bound, watches = await receiver.start(host, port), False
    except OSError as error:
        is_ours = error.errno == errno.EADDRINUSE and await answers_as_ours(f"http://{netloc(host, port)}", keys)
        if not is_ours:
            raise UsageError(f"webhook.listen {host}:{port} can't be had ({error.strerror})") from None
        bound, watches = port, True
    public_url = settings.webhook.public_url or f"http://{netloc(host, bound)}"
    endpoint = CallbackEndpoint(keys, inbox, public_url=public_url, watches_inbox=watches)
    try:
        yield endpoint
    finally:
        await receiver.close()


def netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def answers_as_ours(url: str, keys: WebhookTokens) -> bool:
    """Whether a receiver of this very ledger answers at `url`: only that knows the self-test's token. Free."""
    timeout = aiohttp.ClientTimeout(total=SELF_TEST_TIMEOUT_S)
    address = callback_url(url, keys.token(SELF_TEST, 0))
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(address, data=b"{}", allow_redirects=False) as answer,
        ):
            return answer.status == 204
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
