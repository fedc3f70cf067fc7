"""One value of one field: what the API document's table allows, and what to write instead.

A function takes what YAML gives (text, whole number, Decimal, boolean, list, mapping) and returns what the rest of the
program uses, or raises ValueError with a message for the user. CSV cells are text: `FROM_TEXT` is their way in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal

from pipeline.manifest import prompt_checks
from pipeline.manifest.labels import strength_text
from pipeline.records import SEED_MAX, SEED_MIN, STRENGTH_STEPS, KeepIf, microusd

MAX_TAKES = 1_000
"""Takes of one cell: a typing error must not buy more."""

MAX_KEPT = 1_000
"""Keepers of one shot, and candidates bought ahead: as many as it may have takes."""

REWRITTEN = re.compile(
    r"\d[eE][+-]?\d|^\d+\.0+$|^(?:true|false)$|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec", re.IGNORECASE
)
"""Texts that spreadsheets make out of numbers and ranges: 1E+05, 100000.0, TRUE, 7-Oct."""

_WHOLE = re.compile(r"0|[1-9][0-9]*")
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]*)?\.[0-9]+|0|[1-9][0-9]*")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\ud800-\udfff]")
_PLAIN_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,199}")
MAX_DIGITS = 30
"""Digits of a number in a cell; no field takes more, and longer ones would be slow to convert."""


def plain(number: object) -> str:
    """A value for display: numbers without exponent, text in quotes, lists and mappings by their kind."""
    if number is None:
        return "an empty value"
    if isinstance(number, bool):
        return "true" if number else "false"
    if isinstance(number, Decimal):
        return str(number)
    if isinstance(number, str):
        return repr(number if len(number) <= 80 else f"{number[:77]}...")
    if isinstance(number, (list, Mapping)):
        return "a list" if isinstance(number, list) else "a mapping"
    return str(number)


def _no_collection(value: object) -> None:
    if isinstance(value, list):
        raise ValueError("a list is an axis, and axes stand only in matrix")
    if isinstance(value, Mapping):
        raise ValueError("a mapping is an axis, and axes stand only in matrix (or, for seeds, in `seeds`)")


def whole(value: object, *, low: int, high: int) -> int:
    """A whole number in low..high."""
    if isinstance(value, bool) or not isinstance(value, int):
        _no_collection(value)
        raise ValueError(f"{plain(value)} is not a whole number{_whole_hint(value)}")
    if not low <= value <= high:
        raise ValueError(f"{value} is outside {low:,}..{high:,}")
    return value


def _whole_hint(value: object) -> str:
    if isinstance(value, Decimal) and value == value.to_integral_value() and abs(value.adjusted()) < MAX_DIGITS:
        return f": write {int(value)}"
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return ": write it without quotes"
    if isinstance(value, str) and re.match(r"\d+\s*[-,]|[xX]\d+$", value):
        return ": ranges and lists stand in `seeds` or in matrix"
    return ""


def seed(value: object) -> int:
    """Source: API document, seed: integer between 1 and 1,000,000."""
    return whole(value, low=SEED_MIN, high=SEED_MAX)


def strength(value: object) -> int:
    """Strength in hundredths. Source: API document, motions_strength: 0..1 with 0.01 step precision."""
    _no_collection(value)
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        hint = ": write it without quotes" if isinstance(value, str) and _DECIMAL.fullmatch(value) else ""
        raise ValueError(f"{plain(value)} is not a number in 0..1{hint}")
    if not 0 <= value <= 1:
        meant = f": for {plain(value)} percent write {strength_text(int(value))}" if value == int(value) <= 100 else ""
        raise ValueError(f"{plain(value)} is outside 0..1{meant if value > 1 else ''}")
    hundredths = Decimal(value) * STRENGTH_STEPS
    nearest = int(hundredths.to_integral_value(ROUND_HALF_UP))
    if nearest != hundredths:
        raise ValueError(f"{plain(value)} has more than two decimals: the nearest is {strength_text(nearest)}")
    return nearest


def boolean(value: object) -> bool:
    """true or false, nothing that means it."""
    _no_collection(value)
    if not isinstance(value, bool):
        raise ValueError(f"{plain(value)} is not true or false")
    return value


def text(value: object) -> str:
    """A text with something in it and no control characters but tab and newline."""
    if not isinstance(value, str):
        _no_collection(value)
        raise ValueError(f"{plain(value)} is not a text: put it in quotes")
    if not value or value.isspace():
        raise ValueError("is empty")
    bad = _CONTROL.search(value)
    if bad:
        raise ValueError(f"has the control character U+{ord(bad[0]):04X} at place {bad.start() + 1}")
    return value


_UNSEEN = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
"""Characters that are not seen in a word, and no part of it in any script (joiners are, in Persian and in emoji)."""


def word(value: object) -> str:
    """A text of one line without spaces around it: ids, labels, names, keys."""
    if isinstance(value, str) and _PLAIN_WORD.fullmatch(value):
        return value
    value = no_template(text(value))
    if value != value.strip():
        raise ValueError(f"{plain(value)} has spaces around it")
    if len(value.splitlines()) > 1 or "\t" in value:
        raise ValueError(f"{plain(value)} has a line break or a tab in it")
    if unseen := _UNSEEN.search(value):
        raise ValueError(f"{plain(value)} has the invisible character U+{ord(unseen[0]):04X} in it: delete it")
    if len(value) > 200:
        raise ValueError(f"{plain(value)} is longer than 200 characters")
    return value


def no_template(value: str) -> str:
    """A text of a field in which nothing is replaced."""
    if "{{" in value:
        raise ValueError(f"{plain(value)}: {{{{ }}}} is replaced only in `prompt`: write the value itself")
    return value


def words(value: object) -> tuple[str, ...]:
    """One word or a list of them, such as paths."""
    given = value if isinstance(value, list) else [value]
    if not given:
        raise ValueError("is empty")
    return tuple(word(item) for item in given)


def prompt(value: object) -> str:
    """A prompt with its line ends as LF. Source: API document, prompt: a text; sent as written otherwise."""
    if isinstance(value, str) and prompt_checks.is_plain(value) and not value.isspace():
        return value
    if isinstance(value, (list, Mapping)):
        raise ValueError(f"{plain(value)} is not a text: put a text with brackets or braces in quotes")
    return _written_by_a_user(text(value))


def variable(value: object) -> str:
    """What a template variable puts into a prompt."""
    return _written_by_a_user(text(value))


def _written_by_a_user(value: str) -> str:
    value = value.replace("\r\n", "\n").replace("\r", "\n") if "\r" in value else value
    why = prompt_checks.debris(value)
    if why is not None:
        raise ValueError(f"{plain(value)} {why}")
    return value


def tags(value: object) -> tuple[str, ...]:
    """Tags in order, each once; a text is one tag, or several with commas between."""
    given = value if isinstance(value, list) else str(value).split(",") if isinstance(value, str) else None
    if given is None:
        raise ValueError(f"{plain(value)} is not a list of tags")
    found = tuple(dict.fromkeys(word(tag.strip() if isinstance(tag, str) else tag) for tag in given))
    for tag in found:
        if ";" in tag or "," in tag:
            raise ValueError(f"the tag {plain(tag)} must not have a comma or a semicolon")
    return found


def scalar_text(value: object) -> str:
    """What a template variable puts into a prompt."""
    if isinstance(value, (list, Mapping)) or value is None:
        raise ValueError(f"{plain(value)} is not a text or a number")
    return variable(value if isinstance(value, str) else plain(value))


def number_from_text(cell: str) -> int | Decimal:
    """The number in a CSV cell: plain digits, a point, nothing a spreadsheet made of them."""
    if _WHOLE.fullmatch(cell) and len(cell) <= MAX_DIGITS:
        return int(cell)
    if _DECIMAL.fullmatch(cell) and len(cell) <= MAX_DIGITS:
        return Decimal(cell)
    raise ValueError(f"{plain(cell)} is not a plain number{_number_hint(cell)}")


def _number_hint(cell: str) -> str:
    if REWRITTEN.search(cell) or "_" in cell:
        return ": rewritten by a spreadsheet?"
    if re.fullmatch(r"0,\d+", cell):
        return f": write {cell.replace(',', '.')}"
    if re.fullmatch(r"\d{1,3}(?:[ ,.'\u00a0\u202f]\d{3})+", cell):
        return f": write {re.sub('[^0-9]', '', cell)}"
    if re.fullmatch(r"\d+ ?%", cell):
        return ": write a part of 1, as in 0.6"
    if re.fullmatch(r"0\d+", cell):
        return ": write it without leading zeros"
    if re.match(r"\d+\s*[-,]|[xX]\d+$", cell):
        return ": ranges and lists stand in the column 'seeds'"
    if cell != cell.strip():
        return ": there are spaces around it"
    return ""


def readings(text: str) -> str:
    """The whole numbers that a spreadsheet may have made a text of: `1.000` is 1 with a point, or 1000 with a dot."""
    point = re.fullmatch(r"(\d+)\.0+", text)
    grouped = re.fullmatch(r"\d{1,3}(?:\.\d{3})+", text)
    found = ([point[1]] if point else []) + ([text.replace(".", "")] if grouped else [])
    return f" Write {' or '.join(found)}" if found else ""


def whole_from_text(cell: str) -> int:
    """A whole number in a CSV cell."""
    if _WHOLE.fullmatch(cell) and len(cell) <= MAX_DIGITS:
        return int(cell)
    if cell.lower() in {"true", "false"} or REWRITTEN.search(cell):
        raise ValueError(f"{plain(cell)} is not a whole number: rewritten by a spreadsheet?{readings(cell)}")
    number = number_from_text(cell)
    if number != int(number):
        raise ValueError(f"{plain(cell)} is not a whole number{'.' if readings(cell) else ''}{readings(cell)}")
    # Any whole number: the bounds of its field are judged later, with the field's own words.
    return whole(number, low=-SEED_MAX * SEED_MAX, high=10**MAX_DIGITS)


def keep_if(value: object) -> KeepIf:
    """What makes a clip a keeper."""
    name = word(value)
    if name not in list(KeepIf):
        raise ValueError(f"{name!r} is neither check (it passed the checks) nor pick (you kept it)")
    return KeepIf(name)


def boolean_from_text(cell: str) -> bool:
    """true or false in any case, as spreadsheets write TRUE and FALSE."""
    value = {"true": True, "false": False}.get(cell.lower())
    if value is None:
        raise ValueError(f"{plain(cell)} is not true or false")
    return value


FROM_TEXT: Mapping[str, Callable[[str], object]] = {
    "seed": whole_from_text,
    "strength": number_from_text,
    "take": whole_from_text,
    "repeat": whole_from_text,
    "enhance_prompt": boolean_from_text,
    "check_nsfw": boolean_from_text,
    "skip": boolean_from_text,
    "loop": boolean_from_text,
    "keep": whole_from_text,
    "keep_ahead": whole_from_text,
}
"""How a CSV cell becomes what YAML would have given; the other fields are text in both."""


def money(value: object) -> int:
    """A cap in dollars as micro-dollars; 0 buys nothing."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise ValueError(f"{plain(value)} is not an amount in USD such as 7.00")
    try:
        return microusd(value)
    except ValueError:
        raise ValueError(f"{plain(value)} is not an amount in USD such as 7.00") from None


def version(value: object) -> int:
    """The manifest language's version."""
    if isinstance(value, bool) or value != 1:
        raise ValueError(f"{plain(value)} is not a version of the manifest language that is read here: write 1")
    return 1


def scalar(value: object) -> object:
    """A single value of any kind."""
    if isinstance(value, (list, Mapping)) or value is None:
        raise ValueError(f"{plain(value)} is not a single value")
    return value


def number(value: object) -> Decimal:
    """A number, exactly."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise ValueError(f"{plain(value)} is not a number")
    return Decimal(value)


def seed_count(value: object) -> int:
    """How many values an axis has."""
    return whole(value, low=1, high=SEED_MAX)


def seeds_expression(value: object) -> str:
    """A seed expression as text. A bare number is refused: it may mean one seed or so many of them."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(which_seeds(value))
    return expression(value)


def which_seeds(number: object) -> str:
    """What to write instead of a bare number of seeds."""
    return f"{number} could be {number} seeds or the seed {number}: write seeds: x{number}, or seed: {number}"


def row_cap(value: object) -> int:
    """The most cells that axes may multiply to."""
    return whole(value, low=1, high=10**12)


def expression(value: object) -> str:
    """A number expression as text."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
        raise ValueError(f"{plain(value)} is not a list, a range or an expression such as '1-10'")
    return text(value) if isinstance(value, str) else plain(value)
