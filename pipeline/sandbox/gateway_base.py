"""What every kind of gateway in the sandbox has: a limit on submits, a storm of faults, callbacks that it sends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from pipeline.sandbox.faults import FaultPlan
from pipeline.sandbox.rate_limiters import Limiter, make_limiter
from pipeline.sandbox.rendering.renderer import ClipRenderer
from pipeline.sandbox.responses import SandboxResponse
from pipeline.sandbox.settings import SandboxSettings, parse_rate
from pipeline.sandbox.webhooks import WebhookSender


class SandboxGatewayBase(ABC):
    """The limit, the storm and the callbacks of one gateway.

    Args:
        now: gives Unix seconds; `address` where this gateway listens.
        clip_made: called, in a render thread, when a clip was made.
    """

    def __init__(
        self,
        settings: SandboxSettings,
        *,
        renderer: ClipRenderer,
        now: Callable[[], float],
        address: Callable[[], str],
        clip_made: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._renderer, self._now, self._address, self._clip_made = renderer, now, address, clip_made
        chaos, intensity = settings.chaos, settings.chaos_intensity
        self._storm = None if chaos is None else FaultPlan(seed=chaos, intensity=intensity)
        self._webhooks = WebhookSender(now=now, window_s=settings.webhook_window_s)
        self._limiter: Limiter | None = None
        self.set_rate(settings.rate)

    @abstractmethod
    def _too_many(self, wait_s: float) -> SandboxResponse:
        """The refusal of a call that comes too soon."""

    def _throttle(self) -> SandboxResponse | None:
        """The refusal where the limit is used up."""
        wait_s = self._limiter.admit(self._now()) if self._limiter is not None else 0.0
        return self._too_many(wait_s) if wait_s > 0 else None

    def set_rate(self, rate: str | None) -> None:
        """Change the limit; the new limiter has counted no call yet."""
        chosen = self._settings.limiter
        self._limiter = None if rate is None else make_limiter(chosen, parse_rate(rate), self._settings.burst)

    def callbacks_idle(self) -> bool:
        """Whether no callback is waited for or in flight."""
        return self._webhooks.idle()

    async def callbacks_done(self) -> None:
        """Wait for the callbacks that are waited for or in flight now."""
        await self._webhooks.done()

    async def close(self) -> None:
        """Drop callbacks in flight."""
        await self._webhooks.close()
