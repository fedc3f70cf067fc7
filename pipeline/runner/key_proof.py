"""A free proof that a gateway honours idempotency keys: an invalid call under a key whose job is known.

The call's body is refused as invalid wherever keys are not checked, so it can buy nothing. Where keys are honoured
and checked first, the call is refused for another reason: the key belongs to other bytes. The difference is the
proof. What an invalid call is answered without a known key is learned from a control: the same call under fresh keys.

Only keys of answered calls are used for it, not the key of an unclear submit: under that key the gateway sees the same
bytes every time. The one exception is a call that was repeated without an answer while no job is known at all
(`KeyTrust.may_test_itself`).

A gateway that checks the body first gives no proof this way. That it does so, or that it honours no keys, can not be
distinguished; but once it gave the proof, its absence means that keys are honoured no longer.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

from pipeline.gateway.kinds.interface import Call, KeyShown
from pipeline.gateway.responses import NoResponse, Response
from pipeline.runner.context import RunContext
from pipeline.runner.held_calls import HeldCall, HeldCalls
from pipeline.runner.replay_calls import ReplayCalls

CONTROL_FRESH_S = 600.0
"""Seconds for which a control counts: a gateway's words change with its releases."""

MAX_REFUSED, MAX_UNCLEAR = 3, 5
"""Proofs that failed, and answers in a row that tell nothing: a gateway that never gave a proof then gives none."""

PROVED_S = 30 * 24 * 3600.0
"""Seconds for which a ledger remembers that the gateway gave the proof."""


class KeyProof:
    """The free proofs of one gateway. `gateway` is its id in the ledger."""

    def __init__(self, context: RunContext, gateway: str, calls: ReplayCalls, held: HeldCalls) -> None:
        self._context, self._calls, self._held = context, calls, held
        self._memory = f"key proof {gateway}"
        self._is_possible = context.kind.abilities.key_probe
        self._refused = self._unclear = 0
        self._control: Response | None = None
        self._control_at = float("-inf")
        self.was_given = self._is_possible and self._remembered()
        """whether the gateway gave the proof at least once: then its absence tells, too"""

    async def shown(self, witnesses: Sequence[HeldCall]) -> KeyShown:
        """What the first witness that tells shows. Pays: no."""
        found = KeyShown.UNCLEAR if self._is_possible else KeyShown.NOT_SHOWN
        for witness in witnesses:
            if not self._is_possible:
                break
            found = await self._shown_by(witness.call)
            if found is KeyShown.HONOURED:
                self._held.served(witness)
            if found is not KeyShown.NOT_SHOWN:
                break
        # At a gateway that gave the proof once, its absence is evidence, and `KeyTrust` counts it. At any other it only
        # shows that this gateway gives none.
        if not self.was_given:
            self._refused += found is KeyShown.NOT_SHOWN
            self._unclear = self._unclear + 1 if found is KeyShown.UNCLEAR else 0
            if self._refused >= MAX_REFUSED or self._unclear >= MAX_UNCLEAR:
                self.give_up()
                return KeyShown.NOT_SHOWN
        return found

    def give_up(self) -> None:
        """Ask no more: this gateway gives no such proof."""
        self._is_possible = self.was_given = False

    async def _shown_by(self, call: Call) -> KeyShown:
        kind = self._context.kind
        answer = await self._ask(kind.key_probe_call(call))
        # `_ask` has switched the proof off where the gateway took the invalid call.
        if isinstance(answer, NoResponse) or not self._is_possible:
            return KeyShown.UNCLEAR
        control = await self._control_for(call)
        if control is None:
            return KeyShown.UNCLEAR
        found = kind.classify_key_probe(answer, control)
        if found is KeyShown.HONOURED and not self.was_given:
            self.was_given = True
            # In the ledger, for the next runs: without it they would take a proof that is missing for one that was
            # never given.
            self._context.recorder.ledger.saved_states.save(self._memory, {"at": self._context.unix_time()})
        return found

    async def _control_for(self, call: Call) -> Response | None:
        """The answer that an invalid call gets under a fresh key: twice the same one, or none."""
        now = asyncio.get_running_loop().time()
        if self._control is not None and now - self._control_at < CONTROL_FRESH_S:
            return self._control
        self._control, kind = None, self._context.kind
        # Two fresh keys, since a refusal may hold an id or a time that differs each time. Such an answer differs from
        # itself, and every answer that is compared with it would look like a proof.
        answers = [await self._ask(kind.key_probe_call(call, uuid.uuid4().hex)) for _ in range(2)]
        first, second = answers
        if isinstance(first, NoResponse) or isinstance(second, NoResponse):
            return None
        if {kind.classify_key_probe(*pair) for pair in ((first, second), (second, first))} == {KeyShown.NOT_SHOWN}:
            self._control, self._control_at = first, now
        return self._control

    async def _ask(self, call: Call) -> Response | NoResponse:
        """MONEY: a gateway that takes an invalid call is not asked again, and what it took is canceled."""
        answer, job_set_id = await self._calls.probe(call)
        if job_set_id is not None:
            self.give_up()
            is_canceled = await self._calls.cancel(job_set_id)
            ending = "canceled at once: not charged" if is_canceled else "it could not be canceled"
            self._context.notify(f"the gateway took an invalid call as job {job_set_id}; {ending}")
        return answer

    def _remembered(self) -> bool:
        at = self._context.recorder.ledger.saved_states.load(self._memory).get("at")
        return isinstance(at, int | float) and self._context.unix_time() - at < PROVED_S
