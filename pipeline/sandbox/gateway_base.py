"""What every kind of gateway in the sandbox has: a limit on submits, and callbacks that it sends."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.sandbox.rate_limiters import Limiter, make_limiter
from pipeline.sandbox.settings import SandboxSettings, parse_rate
from pipeline.sandbox.webhooks import WebhookSender


class SandboxGatewayBase:
    """The limit and the callbacks of one gateway. `now` gives Unix seconds."""

    def __init__(self, settings: SandboxSettings, now: Callable[[], float]) -> None:
        self._settings = settings
        self._now = now
        self._webhooks = WebhookSender(now=now, window_s=settings.webhook_window_s)
        self._limiter: Limiter | None = None
        self.set_rate(settings.rate)

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
