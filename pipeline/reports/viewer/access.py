"""Who may ask: this server's own pages in this person's browser. Values in, a refusal in words or nothing out.

Any web page that is open in the same browser can send requests to 127.0.0.1. The protection: an address that
cannot be guessed, the Host header (a foreign name that resolves to 127.0.0.1), the Origin header, and what
the browser says about who asks (Sec-Fetch-*).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

READING = ("GET", "HEAD")
OWN_SITES = ("same-origin", "none")
"""`none`: typed, bookmarked, or opened by another program."""

SHEET_POLICY = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""Beside the policy in the sheet itself, which names its script by hash: what only a header can say."""

PAGE_POLICY = f"default-src 'none'; style-src 'self'; img-src 'self' data:; {SHEET_POLICY}"
"""Of everything but a contact sheet."""

HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer. No CORS header is ever sent: other sites' scripts can read nothing."""


def access_refusal(method: str, headers: Mapping[str, str], port: int) -> str | None:
    """Why a request is not answered; None where it may be. Keys of `headers` in any case are the caller's business.

    Args:
        port: this server's own, which Host and Origin must name.
    """
    hosts = tuple(f"{name}:{port}" for name in ("127.0.0.1", "localhost"))
    if headers.get("Host", "").lower() not in hosts:
        return "this server is 127.0.0.1 only"
    origin = headers.get("Origin")
    if origin is not None and origin.lower() not in tuple(f"http://{host}" for host in hosts):
        return "another site asks"
    if method not in READING and (method != "POST" or origin is None):
        return "only this server's own pages save reviews"
    return None if _is_own(method, headers) else "another site asks"


def _is_own(method: str, headers: Mapping[str, str]) -> bool:
    """Whether the browser says that one of our pages or the user asks; a link that is followed may be anywhere."""
    if headers.get("Sec-Fetch-Site", "none") in OWN_SITES:
        return True
    followed = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return followed and method in READING


def is_token(given: str, token: str) -> bool:
    """Whether the address begins with the server's secret; takes the same time for every wrong one."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())
