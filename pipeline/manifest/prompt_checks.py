"""What is text and yet not a prompt: a spreadsheet's debris, broken encodings, what cannot be seen."""

from __future__ import annotations

import re
import unicodedata

_FAILED_FORMULAS = """
English, and spreadsheet services: NAME? REF! VALUE! DIV/0! N/A NULL! NUM! SPILL! CALC! FIELD! BLOCKED! CONNECT!
    UNKNOWN! BUSY! ERROR! GETTING_DATA
German: BEZUG! WERT! NV ZAHL! ÜBERLAUF!
French: NOM? VALEUR! NOMBRE! NUL! PROPAGATION!
Spanish: ¡REF! ¡VALOR! ¿NOMBRE? N/D ¡NUM! ¡NULO! ¡DIV/0! ¡DESBORDAMIENTO!
Italian: RIF! VALORE! NOME? NULLO! ESPANSIONE!
Portuguese: VALOR! NÚM! NULO! DESPEJAR!
Dutch: VERW! WAARDE! NAAM? N/B GETAL! LEEG! DEEL/0! OVERLOOP!
Polish: ADR! ARG! NAZWA? N/D! LICZBA! ZERO! DZIEL/0!
Czech: ODKAZ! HODNOTA! NÁZEV? NENÍ_K_DISPOZICI ČÍSLO! DĚLENÍ_NULOU!
Hungarian: HIV! ÉRTÉK! NÉV? HIÁNYZIK SZÁM! ZÉRÓOSZTÓ!
Turkish: BAŞV! DEĞER! AD? YOK SAYI! SAYI/0!
Russian: ССЫЛКА! ЗНАЧ! ИМЯ? Н/Д ЧИСЛО! ПУСТО! ДЕЛ/0!
Swedish: REFERENS! VÄRDEFEL! NAMN? SAKNAS! OGILTIGT! DIVISION/0!
Danish and Norwegian: REFERENCE! VÆRDI! NAVN? I/T
Finnish: VIITTAUS! ARVO! NIMI? PUUTTUU! LUKU! TYHJÄ! JAKO/0!
"""
"""What spreadsheets show behind a '#' where a formula failed, by their language."""

# Words of the table are in capitals; the languages before the colon are not, but for their first letter.
_ERROR_WORDS = re.findall(r"(?<!\S)[^\Wa-z¡¿][^\sa-z:]*(?!\S)|[¡¿]\S+", _FAILED_FORMULAS)
_MARKED = [word for word in _ERROR_WORDS if word[-1] in "!?" or "/" in word]
_ERRORS = re.compile(f"#(?:{'|'.join(map(re.escape, _MARKED))})(?![\\w!?])")
_ALONE = frozenset(f"#{word}" for word in _ERROR_WORDS)
_WAITING = frozenset(
    ("loading", "wird geladen", "chargement", "cargando", "caricamento", "a carregar", "carregando", "laden")
)
_ALONE_PATTERN = re.compile(r"#{3,}|Err:\d{3}|undefined|\[object Object\]")
_WORD_CHARS = 20
"""Characters: more than any of the words above that are a whole text has."""
_HTML = re.compile(r"&(?:amp|quot|apos|lt|gt|nbsp|#\d{2,5}|#x[0-9a-fA-F]{2,5});")
_ESCAPE = re.compile(r"(?<=[^\s:\\])\\[nr](?=\S)")

_TAIL = "".join(bytes([byte]).decode("cp1252", "ignore") for byte in range(0x80, 0xC0))
"""The characters that Windows-1252 shows for the second and later bytes of UTF-8."""
_QUOTE_LIKE = "\u2013\u2014\u2018\u2019\u201c\u201d\u2026"
_MOJIBAKE = re.compile(
    f"\u00c3(?![{_QUOTE_LIKE}])[{re.escape(_TAIL)}]|(?<![A-Z])\u00c3[{_QUOTE_LIKE}]|\u00c2[\u00a0-\u00bf]"
    f"|\u00e2[\u20ac\u2020\u201a\u201e][{re.escape(_TAIL)}]|\u00f0\u0178|(?:[\u00d0\u00d1][{re.escape(_TAIL)}]){{2}}"
)
"""UTF-8 that was read as Windows-1252. A capital A with tilde before a quote may be Portuguese, and is left alone."""

_PLAIN = re.compile(r"[^=#&\\\[\x00-\x1f\x7f-\U0010ffff][^#&\\\[\x00-\x1f\x7f-\U0010ffff]*")
"""Texts about which there is nothing to ask, unless they are one of a few words."""
_INVISIBLE = re.compile("[\u115f\u1160\u2800\u3164\uffa0]")
"""Letters that show nothing: Hangul fillers and the empty Braille pattern."""
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})

_PAIRS = {
    "'": "'",
    '"': '"',
    "\u201c": "\u201d",
    "\u201e": "\u201c\u201d",
    "\u2018": "\u2019",
    "\u201a": "\u2018\u2019",
    "\u00ab": "\u00bb",
    "\u00bb": "\u00ab",
    "\u300c": "\u300d",
}


def is_plain(text: str) -> bool:
    """Whether a text is printable ASCII in which nothing speaks against a prompt: most prompts, quickly."""
    if not _PLAIN.fullmatch(text):
        return False
    words = text.rstrip(" .")
    return len(words) > _WORD_CHARS or (words.lower() not in _WAITING and not _ALONE_PATTERN.fullmatch(text))


def debris(text: str) -> str | None:
    """Why a text is not what a user wrote as a prompt; None where nothing speaks against it."""
    if is_plain(text):
        return None
    stripped = text.strip()
    if text.startswith("="):
        return "begins with '=': a formula that was not computed"
    if stripped in _ALONE or _ERRORS.search(text):
        return "holds a spreadsheet's error"
    if _ALONE_PATTERN.fullmatch(stripped) or stripped.rstrip(" .\u2026").lower() in _WAITING:
        return "is what a program shows where a value is missing"
    if "\ufffd" in text:
        return "holds U+FFFD, which replaces a character that was lost"
    if broken := _MOJIBAKE.search(text):
        return f"holds {broken[0]!r}: UTF-8 that was read as Windows-1252; save the sheet as 'CSV UTF-8'"
    if html := _HTML.search(text):
        return f"holds {html[0]!r}: write the character itself, not HTML"
    if escape := _ESCAPE.search(text):
        return f"holds the two characters {escape[0]}: write a real line break"
    if is_invisible(text):
        return "shows nothing: all its characters are invisible"
    return None


def is_invisible(text: str) -> bool:
    """Whether a text shows nothing."""
    return all(unicodedata.category(char) in _UNSEEN or _INVISIBLE.match(char) for char in text)


def is_quoted(text: str) -> bool:
    """Whether a whole text is inside quotes, once or several times."""
    inner = text.strip()
    while len(inner) > 2 and inner[-1] in _PAIRS.get(inner[0], ()):
        mark, inner = inner[0], inner[1:-1]
        if mark not in re.sub(r"(?<=\w)'(?=\w)", "", inner):
            return True
    return False


def as_seen(text: str) -> str:
    """What of a text is seen: composed characters, one blank for white space, nothing that is invisible."""
    if text.isascii():
        return " ".join(text.split())
    visible = "".join(char for char in unicodedata.normalize("NFC", text) if unicodedata.category(char) != "Cf")
    return " ".join(visible.split())
