"""What the vendor's API takes as a submit: the fields of a body, the fingerprint of a call, callback addresses.

Source: official where not marked otherwise. Unknown fields are refused here (seen: some models do).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

MODELS: Mapping[str, str] = MappingProxyType(
    {
        "higgsfield-ai/dop/lite": "dop-lite",
        "higgsfield-ai/dop/turbo": "dop-turbo",
        "higgsfield-ai/dop/standard": "dop-preview",
        "higgsfield-ai/dop/preview": "dop-preview",
    }
)
"""Path of a model -> the name under which the renderer knows it."""

CREDITS: Mapping[str, float] = MappingProxyType({"dop-lite": 2.0, "dop-turbo": 6.5, "dop-preview": 9.0})
"""Price of one clip; 16 credits are a dollar. Source: seen."""

CREDIT_MICROUSD = 62_500
SEED_MIN, SEED_MAX = 1, 1_000_000
MAX_KEY_CHARS = 255
MIN_EXPIRY_S, MAX_EXPIRY_S = 3600, 7 * 24 * 3600
GENERAL_MOTION = "31177282-bde3-4870-b283-1135ca0a201a"
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class InvalidCallError(Exception):
    """422: `detail` is the text or the list of the answer."""

    def __init__(self, detail: object) -> None:
        super().__init__(str(detail))
        self.detail = detail


def read_body(raw: bytes) -> dict[str, object]:
    """The JSON object of a body.

    Raises:
        InvalidCallError: it is none.
    """
    try:
        body = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _wrong("json_invalid", [], "JSON decode error") from None
    if not isinstance(body, dict):
        raise _wrong("model_attributes_type", [], "Input should be a valid dictionary")
    return body


def check_body(body: Mapping[str, object]) -> None:
    """Pass only what the model takes.

    Raises:
        InvalidCallError: the first field that is wrong.
    """
    for name in ("prompt", "image_url"):
        if name not in body:
            raise _wrong("missing", [name], "Field required")
    for name, value in body.items():
        check = _FIELDS.get(name)
        if check is None:
            raise _wrong("extra_forbidden", [name], "Extra inputs are not permitted")
        check(name, value)


def _wrong(kind: str, where: list[object], message: str) -> InvalidCallError:
    return InvalidCallError([{"type": kind, "loc": ["body", *where], "msg": message}])


def _text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise _wrong("string_type", [name], "Input should be a valid string")
    if not value.strip():
        raise _wrong("string_too_short", [name], "String should have at least 1 character")


def _address(name: str, value: object) -> None:
    _text(name, value)
    scheme = urlsplit(str(value)).scheme
    if scheme not in ("http", "https", "sandbox"):
        raise _wrong("url_parsing", [name], "Input should be a valid URL")


def _optional_address(name: str, value: object) -> None:
    if value is not None:
        _address(name, value)


def _seed(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong("int_type", [name], "Input should be a valid integer")
    if not SEED_MIN <= value <= SEED_MAX:
        raise _wrong("range", [name], f"Input should be between {SEED_MIN} and {SEED_MAX}")


def _motions(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, list) or len(value) > 2:
        raise _wrong("too_long", [name], "List should have at most 2 items")
    for index, item in enumerate(value):
        if not isinstance(item, dict) or not set(item) <= {"id", "strength"}:
            raise _wrong("dict_type", [name, index], "Input should be a motion")
        if not isinstance(item.get("id"), str) or _UUID.fullmatch(item["id"]) is None:
            raise _wrong("uuid_parsing", [name, index, "id"], "Input should be a valid UUID")
        strength = item.get("strength", 1.0)
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1:
            raise _wrong("range", [name, index, "strength"], "Input should be between 0 and 1")


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise _wrong("bool_type", [name], "Input should be a valid boolean")


_FIELDS: Mapping[str, Callable[[str, object], None]] = MappingProxyType(
    {
        "prompt": _text,
        "image_url": _address,
        "end_image_url": _optional_address,
        "motions": _motions,
        "seed": _seed,
        "enhance_prompt": _flag,
    }
)


def check_key(key: str | None) -> None:
    """1 to 255 visible characters without blanks, if there is a key at all.

    Raises:
        InvalidCallError: it is something else.
    """
    if key is not None and not (0 < len(key) <= MAX_KEY_CHARS and all("!" <= one <= "~" for one in key)):
        raise InvalidCallError("Idempotency-Key must be 1 to 255 visible ASCII characters")


def check_webhook(url: str | None) -> None:
    """An address that may be called: no user and password, https (http for this machine: a rehearsal's receiver).

    Raises:
        InvalidCallError: it is another one.
    """
    if url is None:
        return
    parts = urlsplit(url)
    is_here = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.username is not None or parts.scheme not in ("http", "https") or (parts.scheme == "http" and not is_here):
        raise InvalidCallError("hf_webhook must be a public https URL")


def check_expiry(header: str | None) -> None:
    """`Hf-Expires-After` in seconds, within what the account keeps.

    Raises:
        InvalidCallError: it is not.
    """
    if header is not None and not (header.isdigit() and MIN_EXPIRY_S <= int(header) <= MAX_EXPIRY_S):
        raise InvalidCallError(f"Hf-Expires-After must be between {MIN_EXPIRY_S} and {MAX_EXPIRY_S}")


def fingerprint(model: str, body: Mapping[str, object], webhook: str | None, expiry: str | None) -> str:
    """What must be the same for a repeated key: endpoint, body (order of fields aside), callback, expiry."""
    text = json.dumps([model, body, webhook, expiry], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def drawn_from(model: str, body: Mapping[str, object]) -> dict[str, object]:
    """The body as the renderer reads it."""
    given = body.get("motions")
    motion = given[0] if isinstance(given, list) and given else {"id": GENERAL_MOTION, "strength": 1.0}
    found: dict[str, object] = {
        "model": MODELS[model],
        "prompt": body["prompt"],
        "seed": body.get("seed") or SEED_MIN,
        "motions_id": motion["id"],
        "motions_strength": motion.get("strength", 1.0),
        "input_images": [body["image_url"]],
    }
    if body.get("end_image_url"):
        found["input_images_end"] = [body["end_image_url"]]
    return found
