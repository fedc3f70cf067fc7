"""Callback addresses and what is delivered there: a token and a secret for each attempt, the ids in a body.

Tokens and secrets are derived from one seed beside the ledger, so that nothing about them has to be stored: a
receiver that was restarted, or runs as another process, knows its own. A delivery is only ever a hint.
Source: API document (`webhook_url`, `webhook_secret`); official (Standard Webhooks, the queue's X-Webhook-URL).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass

from pipeline.gateway.json_fields import ID_KEYS, as_id, places, read_json, single

PATH = "/dop/"
SECRET_PREFIX = "whsec_"  # noqa: S105 - the scheme's public prefix
SELF_TEST = "0" * 32
"""Used in place of a request in the question whether a receiver belongs to this ledger."""

MAX_IDS = 4
"""Job ids that one delivery may name; each of them costs a poll."""
SEED_BYTES = 32
"""Random bytes (256 bits) from which the tokens of callbacks are derived."""

_TOKEN = re.compile(r"([0-9a-f]{32})-([0-9]{1,6})-([0-9a-f]{40})")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackDelivery:
    """A callback that proved itself: whose it is, and the ids that its body names, best evidence first."""

    request_id: str
    attempt: int
    job_set_ids: tuple[str, ...] = ()

    @property
    def is_self_test(self) -> bool:
        """Whether it names no request."""
        return self.request_id == SELF_TEST


class WebhookTokens:
    """Tokens and secrets of one ledger at one gateway.

    Args:
        seed: SEED_BYTES random bytes, kept private beside the ledger.
        gateway: its id; the tokens of two gateways differ.
    """

    def __init__(self, seed: bytes, gateway: str) -> None:
        self._seed = seed
        self._gateway = gateway

    def token(self, request_id: str, attempt: int) -> str:
        """The last part of the callback's path; it cannot be made up without the seed."""
        return f"{request_id}-{attempt}-{self._mac('path', request_id, attempt).hex()[:40]}"

    def secret(self, request_id: str, attempt: int) -> str:
        """`webhook_secret` of the attempt, in the form that Standard Webhooks wants."""
        return SECRET_PREFIX + base64.b64encode(self._mac("secret", request_id, attempt)).decode()

    def read(self, token: str) -> CallbackDelivery | None:
        """Whose token it is; None when it is none of ours. Compares in constant time."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        request_id, attempt = match[1], int(match[2])
        if not hmac.compare_digest(self.token(request_id, attempt).encode(), token.encode()):
            return None
        return CallbackDelivery(request_id=request_id, attempt=attempt)

    def _mac(self, purpose: str, request_id: str, attempt: int) -> bytes:
        # `purpose` separates the two uses: a secret that a gateway gives away must not reveal the token in its path.
        text = f"dop callback\n{purpose}\n{self._gateway}\n{request_id}\n{attempt}"
        return hmac.new(self._seed, text.encode(), hashlib.sha256).digest()


def callback_url(public_url: str, token: str) -> str:
    """The callback address that the submit sends to the gateway."""
    return public_url.rstrip("/") + PATH + token


def same_secret(given: str, ours: str) -> bool:
    """Whether a secret that came back in clear is ours; in constant time, whatever its characters are."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), ours.encode())


def ids_in(body: bytes) -> tuple[str, ...]:
    """The job ids that a delivery names, `job_set_id` before `request_id`, also inside `data`.

    A bare `id` counts only where no id is named more clearly: it may be the delivery's own.
    """
    named = [
        (name, value)
        for top in single(read_json(body))
        for name, spellings in ID_KEYS
        for place in places(top)
        for spelling in spellings
        if (value := as_id(place.get(spelling))) is not None
    ]
    clear = [value for name, value in named if name != "id"]
    return tuple(dict.fromkeys(clear or [value for _, value in named]))[:MAX_IDS]
