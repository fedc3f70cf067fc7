"""The gateway's key, and the `.env` file that may hold it. It never becomes a setting, and no message repeats it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from pipeline.config.yaml_file import file_text
from pipeline.errors import UsageError
from pipeline.files import whole_text

KEY_VARIABLE = "PIXAZO_API_KEY"
SECRET_VARIABLES = (KEY_VARIABLE, "DOP_WEBHOOK__SIGNING_SECRET")
"""Variables whose values are secrets: a `.env` that holds one must not be readable by others."""

KEY_FILE = Path(".pixazo") / "api-key"


def read_key(environ: Mapping[str, str], home: Path) -> str | None:
    """The gateway's key: PIXAZO_API_KEY, else ~/.pixazo/api-key, else None. It is never part of the settings.

    Raises:
        UsageError: the key cannot stand in a header, or others may read its file. The key is not repeated.
    """
    if environ.get(KEY_VARIABLE):
        return checked_key(environ[KEY_VARIABLE], KEY_VARIABLE)
    file = home / KEY_FILE
    if not file.exists():
        return None
    _refuse_readable_by_others(file)
    return checked_key(file_text(file).removesuffix("\n").removesuffix("\r"), str(file))


def store_key(key: str, home: Path) -> Path:
    """Write the key to its file in `home`, mode 0600, whole or not at all; return the file.

    Raises:
        UsageError: the disk does not take it.
    """
    file = home / KEY_FILE
    old_mask = os.umask(0o077)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_text(file) as stream:
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
    return found | dict(environ)
