"""The gateway's key, and the `.env` file that may hold it. It never becomes a setting, and no message repeats it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.yaml_file import file_text
from pipeline.errors import UsageError
from pipeline.files import SECRET, whole_text

KEY_VARIABLE = "PIXAZO_API_KEY"
KEY_FILE = Path(".pixazo") / "api-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Where the key of one kind of gateway comes from.

    Attributes:
        variables: environment variables, the usual ones first; the values of one group are joined by a colon.
        file: the key's file below the home folder.
        origins: `scheme://host:port` that the key may go to without asking: the gateway's own.
        prefix: begins the names of other trusted origins, so that trust in one kind's key is not trust in another's.
        parts: how many parts, joined by colons, a whole key has.
    """

    variables: tuple[tuple[str, ...], ...]
    file: Path
    origins: tuple[str, ...]
    prefix: str = ""
    parts: int = 1

    @property
    def places(self) -> str:
        """The usual places, for a sentence to the user."""
        return f"{' and '.join(self.variables[0])} or ~/{self.file}"

    @property
    def in_words(self) -> str:
        """The same at more length."""
        names = " and ".join(self.variables[0])
        plural = "s" if len(self.variables[0]) > 1 else ""
        return f"the environment variable{plural} {names} or the file ~/{self.file} (chmod 600)"

    def is_in(self, environ: Mapping[str, str]) -> bool:
        """Whether the environment holds a whole key."""
        return any(all(environ.get(name) for name in group) for group in self.variables)


PIXAZO_CREDENTIAL = Credential(variables=((KEY_VARIABLE,),), file=KEY_FILE, origins=("https://gateway.pixazo.ai:443",))
"""Source of the origin: API document, "Request Code"."""

HIGGSFIELD_CREDENTIAL = Credential(
    variables=(
        ("HF_API_KEY_ID", "HF_API_KEY_SECRET"),
        ("HF_API_KEY", "HF_API_SECRET"),
        ("HF_KEY",),
        ("HF_CREDENTIALS",),
    ),
    file=Path(".higgsfield") / "api-key",
    origins=("https://api.higgsfield.ai:443", "https://platform.higgsfield.ai:443"),
    prefix="higgsfield ",
    parts=2,
)
"""Source: official (the vendor's pages, then the names that its SDKs read)."""

CREDENTIALS = (PIXAZO_CREDENTIAL, HIGGSFIELD_CREDENTIAL)

SECRET_VARIABLES = (
    *(name for one in CREDENTIALS for group in one.variables for name in group),
    "DOP_WEBHOOK__SIGNING_SECRET",
)
"""Variables whose values are secrets: a `.env` that holds one must not be readable by others."""


def read_key(environ: Mapping[str, str], home: Path, credential: Credential = PIXAZO_CREDENTIAL) -> str | None:
    """The gateway's key: from the environment, else from its file, else None. It is never part of the settings.

    Raises:
        UsageError: the key cannot stand in a header, lacks a part, or others may read its file. It is not repeated.
    """
    for group in credential.variables:
        if all(environ.get(name) for name in group):
            return _whole(
                checked_key(":".join(environ[name] for name in group), " and ".join(group)), credential, group[0]
            )
    file = home / credential.file
    if not file.exists():
        return None
    _refuse_readable_by_others(file)
    # One line end and nothing more: any other white space in a key is a mistake to report, not to repair.
    return _whole(checked_key(file_text(file).removesuffix("\n").removesuffix("\r"), str(file)), credential, str(file))


def _whole(key: str, credential: Credential, place: str) -> str:
    if len([part for part in key.split(":") if part]) < credential.parts:
        raise UsageError(f"{place}: the key has {credential.parts} parts, joined by a colon: ID:SECRET")
    return key


def store_key(key: str, home: Path, credential: Credential = PIXAZO_CREDENTIAL) -> Path:
    """Write the key to its file in `home`, mode 0600, whole or not at all; return the file.

    Raises:
        UsageError: the disk does not take it.
    """
    file = home / credential.file
    old_mask = os.umask(0o077)
    try:
        # Under the mask, so that the folder is private as well.
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_text(file, mode=SECRET) as stream:
            stream.write(f"{key}\n")
    except OSError as error:
        raise UsageError(f"{file} can't be written ({error.strerror})") from None
    finally:
        os.umask(old_mask)
    return file


def checked_key(key: str, place: str) -> str:
    """`key` if it can be a header.

    Raises:
        UsageError: it can't be; the message names `place` and does not repeat the key.
    """
    if not key or not all("!" <= character <= "~" for character in key):
        raise UsageError(f"{place}: the key must be one line of visible ASCII characters without spaces")
    return key


def _refuse_readable_by_others(file: Path) -> None:
    mode = file.stat().st_mode
    if not stat.S_ISREG(mode):
        raise UsageError(f"{file}: is not a regular file")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"{file}: others may read the key in it. Run: chmod 600 {file}")


def environment(environ: Mapping[str, str], folder: Path) -> Mapping[str, str]:
    """`environ` over the settings of `folder`/.env, which is read literally: NAME=VALUE, # begins a comment line.

    Nothing is expanded or unquoted except one pair of quotes around a whole value, so `$` and `#` in a key survive.

    Raises:
        UsageError: a line is not NAME=VALUE, or the file holds the key and others may read it.
    """
    file = folder / ".env"
    if not file.is_file():
        return environ
    found: dict[str, str] = {}
    for number, raw in enumerate(file_text(file).splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.removeprefix("export ").partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name.strip()):
            raise UsageError(f"{file}:{number}: is not NAME=VALUE")
        found[name.strip()] = re.sub(r"""^(["'])(.*)\1$""", r"\2", value.strip())
    if any(name in found for name in SECRET_VARIABLES):
        _refuse_readable_by_others(file)
    # The real environment wins: a folder's file may be another person's, and must not replace what the user has set.
    return found | dict(environ)
