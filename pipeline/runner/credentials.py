"""The API key that a run sends: the gateway's own, or the embedded sandbox's."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.config.loader import read_key
from pipeline.config.settings import Settings
from pipeline.errors import FatalError


def resolve_api_key(settings: Settings) -> str:
    """The gateway's key; the sandbox has one of its own, and the person's is never sent to it.

    Raises:
        FatalError: a live gateway and no key.
    """
    if settings.gateway.is_embedded:
        return settings.sandbox.key
    key = read_key(os.environ, Path.home())
    if key is None:
        raise FatalError(
            "no key: put it into the environment variable PIXAZO_API_KEY or the file ~/.pixazo/api-key (chmod 600); "
            "nothing was sent"
        )
    return key
