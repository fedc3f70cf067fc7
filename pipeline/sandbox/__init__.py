"""A local gateway that answers like the Higgsfield DoP API, keeps its own books and renders real clips.

It replaces the paid service in rehearsals, is written from the API document alone and imports no other package: a
misreading of the API must not be shared by both sides. It listens on loopback only and never leaves it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.sandbox.settings import DEFAULT_KEY, SandboxError, SandboxSettings

if TYPE_CHECKING:
    from pipeline.sandbox.server import Sandbox

__all__ = ["DEFAULT_KEY", "Sandbox", "SandboxError", "SandboxSettings"]


def __getattr__(name: str) -> Any:
    if name == "Sandbox":
        from pipeline.sandbox.server import Sandbox  # noqa: PLC0415  # keeps aiohttp, av and numpy out of start-up

        return Sandbox
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
