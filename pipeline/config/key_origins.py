"""Where the key may go: to the shipped gateway, to an address the user named, and to origins the user trusts.

A folder's files (`.env`, `configs/default.yaml`, the file of `--config`) may be another person's: an address in one of
them gets the stored key only after `dop key trust ORIGIN`, or a yes at a terminal. Never holds the key itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.config.api_key import PIXAZO_CREDENTIAL, Credential
from pipeline.config.gateway_address import is_loopback, origin_of
from pipeline.config.settings import Settings
from pipeline.errors import FatalError, UsageError
from pipeline.files import SECRET, whole_text

STATE_FOLDER = "dop-batch"
FILE = "trusted-origins.json"


def state_folder(environ: Mapping[str, str], home: Path) -> Path:
    """Where this program keeps what it remembers for a user: in $XDG_STATE_HOME, else in ~/.local/state."""
    given = environ.get("XDG_STATE_HOME", "")
    # A relative path counts for nothing. Source: XDG base directory specification.
    base = Path(given) if given.startswith("/") else home / ".local" / "state"
    return base / STATE_FOLDER


@dataclass(frozen=True, slots=True)
class KeyOrigins:
    """The origins that one user trusts with the key, in a private file of `folder`."""

    folder: Path

    def trusted(self) -> frozenset[str]:
        """The origins, as `scheme://host:port`.

        Raises:
            UsageError: the file is damaged, or another user may write it.
        """
        path = self.folder / FILE
        try:
            # A line of this file sends the key to an address: another user who may write it could add one of his own.
            if path.stat().st_mode & 0o022:
                raise UsageError(f"{path}: others may write it. Run: chmod 600 {path}")
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} can't be read ({type(error).__name__}); remove it to trust no origin") from None
        return frozenset(one for one in found if isinstance(one, str)) if isinstance(found, list) else frozenset()

    def trust(self, origin: str) -> None:
        """Remember an origin, mode 0600.

        Raises:
            UsageError: the file can't be written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            old_mask = os.umask(0o077)
            try:
                with whole_text(self.folder / FILE, mode=SECRET) as stream:
                    json.dump(sorted(self.trusted() | {origin}), stream, indent=1)
            finally:
                os.umask(old_mask)
        except OSError as error:
            raise UsageError(f"{self.folder / FILE} can't be written ({error.strerror})") from None


def origin(address: str) -> str:
    """`scheme://host:port` of an address.

    Raises:
        UsageError: it is none that a key may go to.
    """
    try:
        return origin_of(address)
    except ValueError as error:
        raise UsageError(f"the origin {error}") from None


def may_receive_key(
    settings: Settings, environ: Mapping[str, str], origins: KeyOrigins, credential: Credential = PIXAZO_CREDENTIAL
) -> bool:
    """Whether the key may go to the configured gateway without asking.

    Trusted are the gateway of that kind of key; an address that the user gave with this command or in this process's
    environment; a gateway of this machine for a key of this environment (tests, CI); and what `origins` holds.
    """
    address = settings.gateway.base_url
    target = origin_of(address)
    if target in credential.origins or _was_given_by_the_user(settings, environ):
        return True
    # A stored key is not sent to whatever program happens to listen on this machine.
    if credential.is_in(environ) and is_loopback(urlsplit(address).hostname or ""):
        return True
    return f"{credential.prefix}{target}" in origins.trusted()


def refusal(settings: Settings) -> FatalError:
    """Why the key stays here, and what lets it go."""
    address, source = settings.gateway.base_url, settings.sources.get("gateway.base_url", "default")
    return FatalError(
        f"the key was never sent to {address} before, and this address comes from {source}: if you trust it, run "
        f"`dop key trust {address}`; nothing was sent"
    )


def _was_given_by_the_user(settings: Settings, environ: Mapping[str, str]) -> bool:
    """A flag, or a variable of the real environment; one of a `.env` file belongs to the folder."""
    source = settings.sources.get("gateway.base_url", "default")
    variable = source.removeprefix("environment ")
    return source == "flag" or (variable != source and variable in environ)
