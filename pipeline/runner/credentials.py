"""The API key that a run sends: the gateway's own, or the embedded sandbox's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pipeline.config.key_origins import KeyOrigins, may_receive_key, refusal, state_folder
from pipeline.config.loader import gateway_id, read_key
from pipeline.config.settings import Settings
from pipeline.errors import FatalError
from pipeline.gateway.kinds import kind_of


def resolve_api_key(settings: Settings, *, ask: Callable[[Settings], bool] = lambda settings: False) -> str:
    """The gateway's key, if it may go to the configured address; the sandbox has a key of its own.

    Args:
        ask: whether the user lets the key go to an address that never received it; a yes is remembered.

    Raises:
        FatalError: a live gateway and no key, or an address that is not trusted with it.
        UsageError: the record of trusted origins can't be used.
    """
    if settings.gateway.is_embedded:
        return settings.sandbox.key
    credential = kind_of(settings).credential
    key = read_key(os.environ, Path.home(), credential)
    if key is None:
        raise FatalError(f"no key: `dop key set` stores it, or put it into {credential.in_words}; nothing was sent")
    origins = KeyOrigins(state_folder(os.environ, Path.home()))
    if not may_receive_key(settings, os.environ, origins, credential):
        if not ask(settings):
            raise refusal(settings)
        origins.trust(f"{credential.prefix}{gateway_id(settings)}")
    return key
