"""The kinds of gateway that this program knows, by their name in the configuration (`gateway.kind`).

One module a kind, made of pure functions; a new one is entered in KINDS and nowhere else (docs/internals/gateways.md).
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.gateway.kinds.higgsfield import Higgsfield
from pipeline.gateway.kinds.interface import GatewayKind, Recovery
from pipeline.gateway.kinds.pixazo import Pixazo


def _pixazo(settings: Settings) -> GatewayKind:
    gateway = settings.gateway
    return Pixazo(submit_path=gateway.submit_path, poll_path=gateway.poll_path, motions_path=gateway.motions_path)


def _higgsfield(settings: Settings) -> GatewayKind:
    return Higgsfield(settings.model_ids)


KINDS: dict[str, Callable[[Settings], GatewayKind]] = {"pixazo": _pixazo, "higgsfield": _higgsfield}
"""`gateway.kind` -> what makes it from the settings."""


def kind_of(settings: Settings) -> GatewayKind:
    """The kind of the configured gateway.

    Raises:
        UsageError: this program knows no such kind.
    """
    make = KINDS.get(settings.kind)
    if make is None:
        raise UsageError(f"gateway.kind {settings.kind!r} is not known; known: {', '.join(sorted(KINDS))}")
    return make(settings)


def can_recover(settings: Settings) -> bool:
    """Whether the configured gateway can say what became of an unclear submit."""
    return kind_of(settings).abilities.recovery is not Recovery.NONE
