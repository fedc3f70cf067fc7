"""The types of settings: texts of a file, of the environment or of a flag, checked and turned into numbers of one unit.

No message repeats a text that could carry a secret.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.config import video_names
from pipeline.config.gateway_address import VISIBLE, base_url, is_loopback
from pipeline.config.loss_limit import parse_loss_limit
from pipeline.config.units import duration_s, size_bytes
from pipeline.records import MICROUSD, microusd

MAX_COUNT = 10_000_000
"""Largest count that a setting takes: ten times the largest batch tried. A larger one is a slip of the keyboard."""

MAX_WORKERS = 1_024
"""Most calls or downloads at a time: each takes a file handle, and many systems give a process 1,024."""

CHECK_KINDS = (
    "unreadable",
    "format",
    "small",
    "black",
    "flash",
    "cut",
    "strobe",
    "frozen",
    "still",
    "flicker",
    "wrong_start",
    "wrong_end",
    "soft",
    "color_drift",
    "duplicate",
    "loop_seam",
)
"""The defects that a check of a clip can find."""

ALL_KINDS = "all"

_RATE = re.compile(r"[1-9][0-9]*/([1-9][0-9]*)?[smh]")
MAX_PORT = 65535
"""The largest TCP port number, which has 16 bits."""
_PATH = re.compile(r"/[^\s?#]*")
_STORE_FOLDER = re.compile(r"(?:s3|gs|az)://[^\s/?#@]+(?:/[^\s/?#@]+)*/?")


def _duration(value: object) -> object:
    return duration_s(value) if isinstance(value, str) else value


def _size(value: object) -> object:
    return size_bytes(value) if isinstance(value, str) else value


MAX_DOLLARS = 1_000_000_000
"""Dollars of the largest price or budget: the sum of thousands of them still fits a database's integer."""


def _money(value: object) -> object:
    """MONEY: a float never becomes an amount; configuration files hand over the digits as written."""
    if not isinstance(value, str):
        raise ValueError("is not an amount in dollars")
    amount = microusd(value.strip())
    if amount > MAX_DOLLARS * MICROUSD:
        raise ValueError(f"{value!r} is more than ${MAX_DOLLARS:,}")
    return amount


def _prices(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError("must hold a price for each model")
    return {model: _money(price) for model, price in value.items()}


def _seeds(value: object) -> tuple[int, ...]:
    """Seeds of requests in a list, or separated by commas; none is an empty list."""
    parts = value.split(",") if isinstance(value, str) and value else value or []
    if not isinstance(parts, (list, tuple)):
        raise ValueError(f"{value!r} is not a list of seeds")
    try:
        return tuple(int(part) for part in parts)
    except ValueError:
        raise ValueError(f"{value!r} is not a list of seeds") from None


def _listed(value: object) -> object:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts or not all(isinstance(part, str) and part.strip() for part in parts):
        raise ValueError("must name at least one, e.g. [dop-lite, dop-turbo]")
    return [part.strip() for part in parts]


def _folders(value: object) -> object:
    """Folders in a list, or separated by commas; none is an empty list."""
    if value is None or value == "":
        return []
    return [str(Path(part).expanduser()) for part in _listed(value)]  # type: ignore[attr-defined]


def _rate(text: str) -> str:
    if text != "auto" and not _RATE.fullmatch(text):
        raise ValueError(f"{text!r} is not a rate: write auto or e.g. 10/1m, 5/1s, 600/1h")
    return text


def _poll_rate(text: str) -> str:
    return text if text == "shared" else _rate(text)


AUTO_IS_NONE = BeforeValidator(lambda value: None if value == "auto" else value)
"""`auto` says in a file what null says: let the program decide, or no limit."""


def _path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise ValueError("must begin with / and hold no space, ? or #")
    return text


def ledger_url(text: str) -> str:
    """The URL of a PostgreSQL database, as libpq takes it; the password may come from PGPASSWORD or ~/.pgpass.

    Raises:
        ValueError: it is none. The message never repeats it.
    """
    parts = urlsplit(text if VISIBLE.fullmatch(text) else "")
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("must be an address such as postgresql://dop@db.example:5432/dop")
    place = f"{parts.path}{parts.query}{parts.fragment}"
    if "@" in place or ":" in parts.path or parts.fragment or parts.netloc.count("@") > 1:
        raise ValueError("has a password with a special letter: write it as %40 for @, %2F for /, %3A for :, %23 for #")
    if re.search(r"%(?![0-9a-fA-F]{2})|%00", text):
        raise ValueError("has a % that begins no escape: write a % of the password as %25")
    if "pass" in unquote(parts.query).lower():
        raise ValueError("must not have its password among the options: write USER:PASSWORD@HOST, or set PGPASSWORD")
    if not parts.path.strip("/"):
        raise ValueError("must name the database: postgresql://dop@db.example:5432/DATABASE")
    # libpq knows the scheme in small letters only, and repeats what it takes for no address.
    return f"{parts.scheme}{text[len(parts.scheme) :]}"


def _folder(text: str) -> str:
    if re.match(r"[a-z0-9]+:/", text) and not _STORE_FOLDER.fullmatch(text):
        stores = "s3://bucket/folder, gs://bucket/folder, az://container/folder"
        raise ValueError(f"must be a folder of this machine, or {stores}")
    return text.rstrip("/") or text


def _local_folder(path: Path) -> Path:
    if re.match(r"[a-z0-9]+:/", str(path)):
        raise ValueError("must be a folder of this machine")
    return path


def _listen(text: str) -> str:
    match = re.fullmatch(r"(?:\[[0-9a-fA-F:]+\]|[^\s:]+):([0-9]{1,5})", text)
    if match is None or int(match[1]) > MAX_PORT:
        raise ValueError("must be HOST:PORT, e.g. 127.0.0.1:8099")
    return text


def _command_line(text: str) -> str:
    """A program and its arguments, as a shell writes them; no shell runs them."""
    try:
        words = shlex.split(text)
    except ValueError:
        raise ValueError("has a quotation mark that is not closed") from None
    if not words:
        raise ValueError("must name a program")
    return text


def _notify_url(text: str) -> str:
    """An address that takes a POST; its path or query may be a secret and is never repeated."""
    parts = urlsplit(text if VISIBLE.fullmatch(text) else "")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("must be an address such as https://hooks.example.com/services/...")
    if parts.username is not None or parts.fragment:
        raise ValueError("must not have a user name or a fragment")
    return text


def _public_url(text: str) -> str:
    parts = urlsplit(text if VISIBLE.fullmatch(text) else "")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("must be an address such as https://hooks.example.com")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must be scheme, host, port and path only")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https: tokens and secrets would travel in clear (http is for this machine only)")
    return text.rstrip("/")


def _signing_secret(text: str) -> str:
    """A secret in the form of Standard Webhooks; the error never repeats it."""
    try:
        base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        raise ValueError("must be a secret of Standard Webhooks: whsec_ and base64") from None
    return text


def _loss_limit(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("is no limit of unknown outcomes: write a number of rows, or dollars, e.g. 0.50")
    parse_loss_limit(str(value))
    return str(value)


def _kinds(value: object) -> object:
    """A list of kinds, `all`, or nothing."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ValueError("must be a list of kinds, or all")
    kinds = tuple(part.strip().strip("[]") for part in parts if part.strip().strip("[]"))
    for kind in kinds:
        if kind not in (*CHECK_KINDS, ALL_KINDS):
            raise ValueError(f"{kind!r} is no kind of defect; known: {', '.join(CHECK_KINDS)}, or all")
    return kinds


def is_store_folder(text: str) -> bool:
    """Whether a folder is one of an object store."""
    return _STORE_FOLDER.fullmatch(text) is not None


Duration = Annotated[float, BeforeValidator(_duration)]
Seconds = Annotated[Duration, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, BeforeValidator(_size), Field(gt=0)]
MicroUsd = Annotated[int, BeforeValidator(_money)]
Prices = Annotated[Mapping[str, int], BeforeValidator(_prices)]
Positive = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Workers = Annotated[int, Field(ge=1, le=MAX_WORKERS)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Seeds = Annotated[tuple[int, ...], BeforeValidator(_seeds)]
CheckKinds = Annotated[tuple[str, ...], BeforeValidator(_kinds)]
LossLimit = Annotated[str, BeforeValidator(_loss_limit)]
RateText = Annotated[str, AfterValidator(_rate)]
PollRateText = Annotated[str, AfterValidator(_poll_rate)]
VideoName = Annotated[str, AfterValidator(video_names.checked)]
UrlPath = Annotated[str, AfterValidator(_path)]
ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$")]
"""A vendor's id of a model, which is a path there."""

KindName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
BaseUrl = Annotated[str, AfterValidator(base_url)]
CommandLine = Annotated[str, AfterValidator(_command_line)]
NotifyUrl = Annotated[str, AfterValidator(_notify_url)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
ListenAddress = Annotated[str, AfterValidator(_listen)]
LedgerUrl = Annotated[str, AfterValidator(ledger_url)]
Region = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
StoreUrl = Annotated[str, Field(pattern=r"^(s3|gs|az)://[^\s/?#@]+(/[^\s?#@]*)?$")]
Folder = Annotated[str, BeforeValidator(str), AfterValidator(_folder)]
LocalFolder = Annotated[Path, AfterValidator(_local_folder)]
PictureFolders = Annotated[tuple[Path, ...], BeforeValidator(_folders)]
SigningSecret = Annotated[str, AfterValidator(_signing_secret)]
