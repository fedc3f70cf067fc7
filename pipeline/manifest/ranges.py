"""Number expressions: `{from, to, step | count}`, "1-10", "1-10 (+3)", "0.2-0.8 [4]", "7, 77", "1, 2, ..., 9".

Everything is counted in whole units (a seed, a hundredth of strength), so nothing is ever rounded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from pipeline.manifest.field_types import REWRITTEN, plain, readings

_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
_RANGE = re.compile(rf"{_NUMBER}\s*-\s*{_NUMBER}(?:\s*\(\+{_NUMBER}\)|\s*\[(\d+)\])?", re.ASCII)
_ONE = re.compile(_NUMBER, re.ASCII)
_ELLIPSIS = ("...", "…")
MAX_NAMED = 8
"""Values of a range that a message spells out; the rest is an ellipsis."""
_BETWEEN_VALUES = re.compile(r"\s*,\s+|\s+,\s*")
"""A comma with a blank beside it, which only a list has."""
_THOUSANDS = r"\d{1,3}(?:,\d{3})+"
_AMBIGUOUS = {
    1: re.compile(rf"{_THOUSANDS}(?:\s*-\s*\d[\d,]*)?|\d[\d,]*\s*-\s*{_THOUSANDS}", re.ASCII),
    100: re.compile(r"[01],\d{1,2}", re.ASCII),
}
"""By units to one: commas without a blank that may just as well be a thousands separator or a decimal comma."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberScale:
    """What an axis counts in: `units` to one, `low` to `high` units. `default_step` is None where one must be said."""

    name: str
    units: int
    low: int
    high: int
    default_step: int | None

    def of(self, number: Decimal) -> int:
        """A number in units.

        Raises:
            ValueError: it is finer than a unit, or out of bounds.
        """
        # Exact: as a float, 0.29 * 100 is 28.999999999999996.
        scaled = Fraction(number) * self.units
        if scaled.denominator != 1:
            raise ValueError(f"{plain(number)} is not {self.grain}")
        if not self.low <= scaled <= self.high:
            raise ValueError(f"{plain(number)} is outside {self.text(self.low)}..{self.text(self.high)}")
        return int(scaled)

    def step_of(self, number: Decimal) -> int:
        """A step in units: more than nothing, not finer than a unit."""
        scaled = Fraction(number) * self.units
        if scaled.denominator != 1 or scaled <= 0:
            raise ValueError(f"step {plain(number)} is not {self.grain} above 0")
        return int(scaled)

    def text(self, units: int | Fraction) -> str:
        """Units as the user writes the number."""
        return number_text(Fraction(units) / self.units)

    @property
    def grain(self) -> str:
        """What its numbers are called."""
        return "a whole number" if self.units == 1 else f"a number with at most {len(str(self.units)) - 1} decimals"


SEED = NumberScale(name="seed", units=1, low=1, high=1_000_000, default_step=1)
STRENGTH = NumberScale(name="strength", units=100, low=0, high=100, default_step=None)
TAKE = NumberScale(name="take", units=1, low=1, high=1_000_000, default_step=1)


def number_text(value: Fraction) -> str:
    """A fraction with at most four decimals, `...` where there are more."""
    shifted = value * 10_000
    text = f"{int(shifted) // 10_000}.{int(shifted) % 10_000:04d}".rstrip("0").rstrip(".")
    return text if shifted.denominator == 1 else f"{text}..."


def spread(scale: NumberScale, first: Decimal, last: Decimal, *, step: Decimal | None, count: int | None) -> range:
    """The values from `first` to `last` in units, both ends included; a step that misses the end stops below it.

    Raises:
        ValueError: it runs backwards, step and count stand together, or the count does not divide it evenly.
    """
    low, high = scale.of(first), scale.of(last)
    if high < low:
        raise ValueError(f"{scale.text(low)} to {scale.text(high)} runs backwards")
    if step is not None and count is not None:
        raise ValueError("step and count say the same thing twice: give one of them")
    if count is not None:
        return _counted(scale, low, high, count)
    every = scale.default_step if step is None else scale.step_of(step)
    if every is None:
        raise ValueError(f"a range of {scale.name} needs a step or a count")
    return range(low, high + 1, every)


def _counted(scale: NumberScale, low: int, high: int, count: int) -> range:
    if count == 1 and low == high:
        return range(low, low + 1)
    if count < 2 or low == high:
        raise ValueError(f"{count} values cannot run from {scale.text(low)} to {scale.text(high)}, both included")
    gap = Fraction(high - low, count - 1)
    if gap.denominator != 1:
        named = ", ".join(scale.text(low + gap * place) for place in range(min(count, MAX_NAMED)))
        more = ", ..." if count > MAX_NAMED else ""
        raise ValueError(f"{count} values do not divide it evenly: {named}{more} are not each {scale.grain}")
    return range(low, high + 1, int(gap))


def values_of(scale: NumberScale, text: str) -> Sequence[int]:
    """The values of an expression in units, in its order.

    Raises:
        ValueError: it is no expression, or a value is out of bounds or given twice; the message says what to write.
    """
    for written in _BETWEEN_VALUES.split(text.strip()):
        if _AMBIGUOUS[scale.units].fullmatch(written):
            raise ValueError(_either(scale, written))
    tokens = [token.strip() for token in text.split(",")]
    pieces: list[range] = []
    at = 0
    while at < len(tokens):
        if tokens[at] in _ELLIPSIS:
            # The two values before the dots were read as values: they become the beginning of the range.
            pieces[-2:] = [_continued(scale, pieces, tokens[at + 1 :])]
            at += 1
        else:
            pieces.append(_piece(scale, tokens[at], text))
        at += 1
    return joined(scale, pieces)


def joined(scale: NumberScale, pieces: Sequence[range]) -> Sequence[int]:
    """Ranges one after the other; a single one stays a range.

    Raises:
        ValueError: a value is given twice.
    """
    if len(pieces) == 1:
        return pieces[0]
    size = sum(len(piece) for piece in pieces)
    # More values than there are: some are given twice, which is known without making a list of billions.
    if size > scale.high - scale.low + 1:
        raise ValueError(f"{size:,} values of {scale.name}: some stand twice")
    seen: dict[int, None] = {}
    for piece in pieces:
        for value in piece:
            if value in seen:
                raise ValueError(f"{scale.text(value)} is given twice")
            seen[value] = None
    return tuple(seen)


def _either(scale: NumberScale, written: str) -> str:
    one = written.replace(",", "" if scale.units == 1 else ".")
    several = written.replace(",", ", ")
    return f"{written!r} could be {one} or the list {several}: write {one!r} or {several!r}"


def _piece(scale: NumberScale, token: str, text: str) -> range:
    if scale.units == 1 and re.search(r"\d\.0*(?![\d.])", token):
        raise ValueError(
            f"{token!r} has a decimal point, and {scale.name}s are whole: rewritten by a spreadsheet?{readings(token)}"
        )
    if _ONE.fullmatch(token):
        value = scale.of(Decimal(token))
        return range(value, value + 1)
    match = _RANGE.fullmatch(token)
    if match is None:
        raise ValueError(_why_not(token, text))
    first, last, step, count = match.groups()
    return spread(
        scale,
        Decimal(first),
        Decimal(last),
        step=None if step is None else Decimal(step),
        count=None if count is None else int(count),
    )


def _continued(scale: NumberScale, before: Sequence[range], after: Sequence[str]) -> range:
    """`1, 2, ..., 10`: the two values before the dots give the step, the one behind them the end.

    A step that misses the end stops below it, as `{from, to, step}` does.
    """
    singles = [piece[0] for piece in before[-2:] if len(piece) == 1]
    if len(singles) < 2 or not after or not _ONE.fullmatch(after[0]):
        raise ValueError("dots stand between values, as in '1, 2, ..., 10': two before them and one behind")
    last = scale.of(Decimal(after[0]))
    step = singles[1] - singles[0]
    if step <= 0 or last <= singles[1]:
        raise ValueError(f"the dots before {scale.text(last)} run backwards")
    return range(singles[0], last + 1, step)


def _why_not(token: str, text: str) -> str:
    if token.lower().startswith("range(") or text.lower().startswith("range("):
        return f"{text!r}: range() leaves out its end; write '1-10' (both ends included) or '1-10 (+3)'"
    if "–" in token or "—" in token or ".." in token:
        return f"{text!r}: write a range with a hyphen, '1-10'"
    if re.fullmatch(r"[xX]\d+", token):
        return f"{text!r}: xN is written alone"
    if not token:
        return f"{text!r}: a value is missing beside a comma"
    if re.fullmatch(r"\d{1,3}(?:['\u2019\u00a0\u202f ]\d{3})+", token):
        return f"{text!r}: write {re.sub('[^0-9]', '', token)!r}"
    if REWRITTEN.search(token):
        return f"{text!r} is not a number or a range: rewritten by a spreadsheet?"
    return f"{text!r} is not a number or a range such as '7', '7, 77', '1-10', '1-10 (+3)'"
