"""The paid call as the ledger keeps it with the intent, for gateways that honour idempotency keys.

MONEY: a key belongs to the bytes that it was first sent with. So an attempt whose call was kept is sent as it was kept,
also after a refusal that used no key up. Only a call whose image addresses have expired is made again, and the ledger
plans an attempt again only where its first call is proved to have created nothing, or the operator says so.
"""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from pipeline.assets import signed_urls
from pipeline.gateway.kinds.interface import Call, Recovery
from pipeline.ledger.held_jobs import HeldJobs
from pipeline.ledger.transitions import KEPT_CALL
from pipeline.records import Attempt
from pipeline.runner.context import RunContext


class KeptCalls:
    """The calls of one run's attempts."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._is_kept = context.kind.abilities.recovery is Recovery.REPLAY
        self._sent: set[str] = set()

    def call(self, attempt: Attempt, path: str) -> Call:
        """The call that was kept for the attempt, or a new one.

        Raises:
            DopError: an image has no address now.
        """
        kept = None
        if self._is_kept:
            kept = self._kept(attempt)
            self._sent.add(attempt.request_id)
        return kept if kept is not None else self._context.calls.build(attempt, path)

    def detail(self, call: Call) -> str:
        """What the ledger keeps of a call with its intent."""
        return f"{KEPT_CALL}{call.sealed()}" if self._is_kept else ""

    def _kept(self, attempt: Attempt) -> Call | None:
        # Never sent, so no call was kept: most rows are spared a look into the history. `attempt` is as old as the feed
        # of the rows; `_sent` knows what this run has sent since.
        if attempt.submit_attempts == 0 and attempt.request_id not in self._sent:
            return None
        text = HeldJobs(self._context.recorder.ledger).kept_call(attempt.request_id, attempt.attempt)
        call = None if text is None else Call.unsealed(text)
        return None if call is None or self._has_expired(call) else call

    def _has_expired(self, call: Call) -> bool:
        """Whether an address in the body has a signature that has ended."""
        body = json.loads(call.body) if call.body else {}
        now = self._context.unix_time()
        ends = (signed_urls.expires_at(value) for value in body.values() if _is_address(value))
        return any(end is not None and end <= now for end in ends)


def _is_address(value: object) -> bool:
    return isinstance(value, str) and urlsplit(value).scheme in ("http", "https") and "?" in value
