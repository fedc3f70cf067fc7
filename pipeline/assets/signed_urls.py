"""Signed addresses: the picture that they lead to, when they expire, and how they are shown.

A store signs an address again each time it is asked; what it leads to stays the same. Known are Amazon S3 (versions 4
and 2), Google Cloud Storage, Azure, CloudFront, and services that sign with `ts` and `cs`.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Mapping
from urllib.parse import unquote

HIDDEN = "***"

_AMAZON = re.compile(r"x-(?:amz|goog)-[a-z0-9-]+")
_SAS = frozenset(
    [
        "sv",
        "st",
        "se",
        "sr",
        "sp",
        "sip",
        "spr",
        "sig",
        "sdd",
        "ses",
        "sce",
        "skoid",
        "sktid",
        "skt",
        "ske",
        "sks",
        "skv",
    ]
)
"""Parameters of an Azure shared access signature. Source: Azure Storage, "Create a service SAS"."""
_SETS: tuple[frozenset[str], ...] = (
    frozenset(("awsaccesskeyid", "expires", "signature")),
    frozenset(("googleaccessid", "expires", "signature")),
    frozenset(("expires", "signature", "key-pair-id")),
    frozenset(("policy", "signature", "key-pair-id")),
    frozenset(("ts", "cs", "userid")),
)
"""Parameters that sign together: one alone may mean something else."""
_MORE = frozenset(("x-amz-security-token", "hash-algorithm"))
_SECRETS = frozenset(("signature", "sig", "cs", "policy", "key-pair-id", "awsaccesskeyid", "googleaccessid"))


def unsigned(url: str) -> str:
    """The address without its signature: the same for every signature of the same picture."""
    base, mark, query = url.partition("?")
    if not mark:
        return url
    query, hash_mark, fragment = query.partition("#")
    signing = _signing(query)
    if not signing:
        return url
    kept = "&".join(part for part in query.split("&") if _name(part) not in signing)
    return f"{base}{'?' if kept else ''}{kept}{hash_mark}{fragment}"


def shown(url: str) -> str:
    """The address as reports show it: what opens something is replaced by ***."""
    base, mark, query = url.partition("?")
    signing = _signing(query.partition("#")[0]) if mark else frozenset()
    if not signing:
        return url
    parts = [
        f"{part.partition('=')[0]}={HIDDEN}" if _name(part) in signing and _is_secret(_name(part)) else part
        for part in query.split("&")
    ]
    return f"{base}?{'&'.join(parts)}"


def expires_at(url: str) -> float | None:
    """When the signature ends, in Unix seconds; None where the address does not say."""
    query = url.partition("?")[2].partition("#")[0]
    signing = _signing(query)
    values = {_name(part): unquote(part.partition("=")[2]) for part in query.split("&") if _name(part) in signing}
    for reader in (_amazon_end, _plain_end, _azure_end):
        end = reader(values)
        if end is not None:
            return end
    return None


def _signing(query: str) -> frozenset[str]:
    """The names of the parameters that sign, in lower case; empty where nothing does."""
    names = frozenset(_name(part) for part in query.split("&"))
    if {"x-amz-signature", "x-goog-signature"} & names:
        return frozenset(name for name in names if _AMAZON.fullmatch(name))
    if {"sig", "sv"} <= names:
        return names & _SAS
    for signing in _SETS:
        if signing <= names:
            return signing | (names & _MORE)
    return frozenset()


def _name(part: str) -> str:
    return part.partition("=")[0].lower()


def _is_secret(name: str) -> bool:
    return name in _SECRETS or name.endswith(("-signature", "-credential", "-security-token"))


def _amazon_end(values: Mapping[str, str]) -> float | None:
    for maker in ("x-amz-", "x-goog-"):
        begun, lasts = values.get(f"{maker}date"), values.get(f"{maker}expires", "")
        if begun and lasts.isdecimal():
            start = _moment(begun, "%Y%m%dT%H%M%SZ")
            return None if start is None else start + int(lasts)
    return None


def _plain_end(values: Mapping[str, str]) -> float | None:
    written = values.get("expires", "")
    return float(written) if written.isdecimal() else None


def _azure_end(values: Mapping[str, str]) -> float | None:
    written = values.get("se", "")
    formats = ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d")
    return next((end for pattern in formats if (end := _moment(written, pattern)) is not None), None)


def _moment(written: str, pattern: str) -> float | None:
    try:
        return float(calendar.timegm(time.strptime(written, pattern)))
    except ValueError:
        return None
