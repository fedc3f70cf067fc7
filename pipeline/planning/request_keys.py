"""Identities of many requests of one gateway. `records.request_key` says what an identity is."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from pipeline.records import Params, framed_key, key_frame

_MAX_FRAMES = 10_000
"""Texts that are remembered: of a million different ones the memory would be full."""


class RequestKeys:
    """`request_key` for many requests of one gateway: the text that requests have in common is put together once.

    An image must have the same key each time.
    """

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway
        self._frames: dict[Hashable, tuple[str, str]] = {}

    def key(self, params: Params, *, take: int, image_keys: Mapping[str, str] | None = None) -> str:
        """What `request_key` gives."""
        kind = (
            params.model,
            params.motions_id,
            params.strength_hundredths,
            params.input_images,
            params.input_images_end,
            params.enhance_prompt,
            params.check_nsfw,
            take,
        )
        frame = self._frames.get(kind)
        if frame is None:
            if len(self._frames) >= _MAX_FRAMES:
                self._frames.clear()
            frame = self._frames[kind] = key_frame(params, take, self._gateway, image_keys or {})
        return framed_key(frame, params)
