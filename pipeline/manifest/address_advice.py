"""What to write where the cell of an image holds what a spreadsheet or a chat made of its address."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import parse_qs, unquote, urlsplit

_URL = r"https?://[^\s\"'<>)\]]+"
_SEVERAL = re.compile(r"[\s,;|]+(?=https?://)")
_FORMULA = re.compile(rf"=\s*\w+\(\s*[\"']({_URL})[\"']", re.IGNORECASE)
_MARKDOWN = re.compile(rf"!?\[[^\]]*\]\(({_URL})\)")
_NAMED = re.compile(rf"[^()]*\(({_URL})\)")
_WRAPPED = re.compile(
    rf"[\s<(\[\"'`\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb]+({_URL}?)[\s>)\]\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb]*"
)
_BROKEN_SCHEME = re.compile(
    r"(?!https?://[^/])(?:h+t+p+s?|ht+s?|htps?|ttps?|//)(?::?/{0,3}|;//)(?=[\w-]+(?:\.[\w-]+)+/)", re.IGNORECASE
)
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})

_OTHER_FILES = {
    **dict.fromkeys(("heic", "heif"), "HEIC"),
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **dict.fromkeys(("htm", "html"), "HTML"),
    **{name: name.upper() for name in ("mp4", "mov", "webm", "avi", "gif", "pdf", "svg", "bmp", "avif", "psd", "zip")},
}
"""Ends of file names that are no JPEG, PNG or WebP."""


def advice(written: str) -> str | None:
    """What is wrong with a text that is not an address as written, and what to write; None where nothing is known."""
    if len(parts := _SEVERAL.split(written.strip())) > 1:
        return f"holds {len(parts)} addresses, and a cell takes one address (several images are an axis, or rows)"
    for pattern, what in ((_FORMULA, "a formula"), (_MARKDOWN, "a Markdown link"), (_NAMED, "a name with an address")):
        if found := pattern.fullmatch(written.strip()) or (pattern is _FORMULA and pattern.match(written)):
            return f"is {what}: write {found[1]!r}"
    if (found := _WRAPPED.fullmatch(written)) and not written.startswith("http"):
        return f"has something round the address: write {found[1]!r}"
    if _WINDOWS.match(written):
        return "is a path of a Windows machine: write the path from the manifest to the picture, with '/'"
    if written.startswith("~"):
        return "begins with '~': the home folder is not filled in; write the whole path"
    if written.startswith("file:"):
        return f"is a file's address: write the path alone, {unquote(urlsplit(written).path)!r}"
    if written.startswith("data:"):
        return "is a picture written as a data: address: save it as a file, and write its path"
    if written.startswith("www."):
        return f"lacks its beginning: write {'https://' + written!r}"
    if broken := _BROKEN_SCHEME.match(written):
        return f"lacks a right beginning: write {'https://' + written[broken.end() :]!r}"
    return None


def invisible(written: str) -> str | None:
    """The first character of an address that shows nothing, with its place; None if there is none."""
    for place, char in enumerate(written, start=1):
        if char != " " and unicodedata.category(char) in _UNSEEN:
            name = unicodedata.name(char, "control character").lower()
            return f"has the invisible character U+{ord(char):04X} ({name}) at place {place}: delete it"
    return None


def not_a_picture(url: str) -> str | None:
    """Why a URL with a host leads to a page or to another kind of file; None where it may be a picture."""
    parts = urlsplit(url)
    host = (parts.hostname or "").removeprefix("www.")
    page = _PAGES.get(host)
    if page is not None:
        return page
    if host == "drive.google.com" and (found := re.match(r"/file/d/([\w-]+)", parts.path)):
        return f"is a page of Google Drive: write 'https://drive.google.com/uc?export=download&id={found[1]}'"
    if host == "dropbox.com" and not {"raw", "dl"} & {
        name for name, value in parse_qs(parts.query).items() if value == ["1"]
    }:
        return f"is a page of Dropbox: write {url.partition('?')[0] + '?raw=1'!r}"
    if host == "github.com" and (found := re.match(r"/([^/]+/[^/]+)/blob/(.+)", parts.path)):
        return f"is a page of GitHub: write 'https://raw.githubusercontent.com/{found[1]}/{found[2]}'"
    if parts.path in ("", "/") and not parts.query:
        return "is the address of a site, and names no picture"
    kind = _OTHER_FILES.get(parts.path.rpartition(".")[2].lower())
    if kind is not None and not parts.query:
        return f"is a {kind} file by its name: JPEG, PNG and WebP are taken"
    return None


_SAVE = "save the picture where it has an address of its own, or as a file, and write that"
_PAGES = {
    **dict.fromkeys(("photos.app.goo.gl", "photos.google.com"), f"is a page of Google Photos: {_SAVE}"),
    **dict.fromkeys(("docs.google.com", "sheets.google.com"), f"is a page of Google Docs: {_SAVE}"),
    **dict.fromkeys(("1drv.ms", "onedrive.live.com"), f"is a page of OneDrive: {_SAVE}"),
    **dict.fromkeys(("icloud.com", "share.icloud.com"), f"is a page of iCloud: {_SAVE}"),
    **dict.fromkeys(("wetransfer.com", "we.tl"), f"is a page of WeTransfer: {_SAVE}"),
}
"""Hosts that answer with a page where a picture is shared."""
