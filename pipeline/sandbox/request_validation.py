"""The parameter table of the API document, row by row: is this submit body allowed?

Source: API document, "Parameters for /generateImageToVideoRequest". Unknown fields are ignored.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from types import MappingProxyType
from urllib.parse import urlsplit

SEED_MIN, SEED_MAX = 1, 1_000_000
PRICES_MICROUSD: Mapping[str, int] = MappingProxyType(
    {"dop-lite": 135_000, "dop-preview": 573_000, "dop-turbo": 416_000}
)
"""Price of one clip. Source: API document, "Higgsfield DoP API Pricing"."""

WEBHOOK_FIELDS = ("webhook_url", "webhook_secret")
UPLOAD_PREFIX = "sandbox:sha256-"
SAMPLE_PREFIX = "sandbox:"

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class RefusalError(Exception):
    """The body breaks a row of the table; the text names the field."""


def read_body(raw: bytes) -> dict[str, object]:
    """The JSON object in a request body; numbers with a point come back as Decimal, so that steps can be checked.

    Raises:
        RefusalError: not UTF-8, not JSON, not an object, or NaN and its like.
    """
    try:
        body = json.loads(raw.decode("utf-8"), parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RefusalError(f"Invalid request parameters: body is not JSON ({type(error).__name__})") from error
    if not isinstance(body, dict):
        raise RefusalError("Invalid request parameters: body must be a JSON object")
    return body


def fingerprint(raw: bytes) -> str:
    """sha256 of the body as JSON with sorted keys and no spaces (ASCII escapes), without the webhook fields."""
    body = {name: value for name, value in json.loads(raw.decode("utf-8")).items() if name not in WEBHOOK_FIELDS}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def check_submit(body: Mapping[str, object], *, known_images: Collection[str]) -> None:
    """Pass only what the document allows.

    Args:
        known_images: what may follow `sandbox:` in an image, names of photographs and `sha256-...` of uploads.

    Raises:
        RefusalError: the first row that is broken, in the table's order.
    """
    for field, required, check in _TABLE:
        if field in body:
            check(field, body[field])
        elif required:
            raise RefusalError(f"{field} is required")
    if "webhook_url" in body and "webhook_secret" not in body:
        raise RefusalError("webhook_secret is required when webhook_url is given")
    for field in ("input_images", "input_images_end"):
        _check_samples(field, body.get(field, ()), known_images)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise RefusalError(f"{field} must be a string")
    if not value.strip():
        raise RefusalError(f"{field} must not be empty")
    return value


def _check_text(field: str, value: object) -> None:
    _text(field, value)


def _check_model(field: str, value: object) -> None:
    if value not in PRICES_MICROUSD or not isinstance(value, str):
        raise RefusalError(f"{field} must be one of {', '.join(PRICES_MICROUSD)}")


def _check_seed(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RefusalError(f"{field} must be an integer")
    if not SEED_MIN <= value <= SEED_MAX:
        raise RefusalError(f"{field} must be between {SEED_MIN} and {SEED_MAX}")


def _check_uuid(field: str, value: object) -> None:
    if not isinstance(value, str) or _UUID.fullmatch(value) is None:
        raise RefusalError(f"{field} must be a UUID")


def _check_strength(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise RefusalError(f"{field} must be a number")
    if not 0 <= value <= 1:
        raise RefusalError(f"{field} must be between 0 and 1")
    hundredths = Decimal(value).scaleb(2)
    if hundredths != hundredths.to_integral_value():
        raise RefusalError(f"{field} must be a multiple of 0.01")


def _check_flag(field: str, value: object) -> None:
    if not isinstance(value, bool):
        raise RefusalError(f"{field} must be true or false")


def _check_url(field: str, value: object) -> None:
    text = _text(field, value)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(character.isspace() or not character.isprintable() for character in text):
        raise RefusalError(f"{field} must be an http or https URL")


def _images(field: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise RefusalError(f"{field} must be an array of strings")
    for image in value:
        if not isinstance(image, str) or not image.startswith(SAMPLE_PREFIX):
            _check_url(field, image)
    return value


def _check_one_image(field: str, value: object) -> None:
    if len(_images(field, value)) != 1:
        raise RefusalError(f"{field} must contain exactly 1 element")


def _check_some_images(field: str, value: object) -> None:
    if not _images(field, value):
        raise RefusalError(f"{field} must contain at least 1 element")


def _check_samples(field: str, images: object, known: Collection[str]) -> None:
    for image in images if isinstance(images, list) else ():
        name = image.removeprefix(SAMPLE_PREFIX)
        if name == image or name in known:
            continue
        if image.startswith(UPLOAD_PREFIX):
            digest = image.removeprefix(UPLOAD_PREFIX)
            fault = "was not uploaded" if _SHA256.fullmatch(digest) else "is not 64 hex digits after sha256-"
            raise RefusalError(f"{field}: {image[:100]} {fault}")
        samples = ", ".join(sorted(entry for entry in known if not entry.startswith("sha256-")))
        raise RefusalError(f"{field}: no photograph {name[:60]!r}; known: {samples}")


_TABLE: tuple[tuple[str, bool, Callable[[str, object], None]], ...] = (
    ("webhook_url", False, _check_url),
    ("webhook_secret", False, _check_text),
    ("model", True, _check_model),
    ("prompt", True, _check_text),
    ("seed", True, _check_seed),
    ("motions_id", True, _check_uuid),
    ("motions_strength", True, _check_strength),
    ("input_images", True, _check_one_image),
    ("input_images_end", False, _check_some_images),
    ("enhance_prompt", True, _check_flag),
    ("check_nsfw", False, _check_flag),
)
