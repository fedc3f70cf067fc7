"""The axes of a sweep: their values, what they set, how many there are before anything is expanded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pipeline.manifest import labels, ranges
from pipeline.manifest.seeds import derived


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisValue:
    """One value of an axis: what it sets, the label that names it. `skip` leaves its cells empty."""

    label: str
    sets: Mapping[str, object]
    skip: bool = False
    part: str = field(init=False)
    """the label as a part of a cell id"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "part", labels.slug(self.label) or labels.short_hash(self.label, 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueAxis:
    """An axis of points, in the manifest's order."""

    name: str
    values: Sequence[AxisValue]
    sets: frozenset[str] = field(init=False)
    """every field that any of its points sets"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sets", frozenset(name for point in self.values for name in point.sets))

    @property
    def size(self) -> int:
        return len(self.values)


_SEED = frozenset({"seed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedAxis:
    """An axis of seeds, kept as numbers because there may be a million."""

    values: Sequence[int]
    name: str = "seed"
    sets: frozenset[str] = _SEED

    @property
    def size(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedSeedAxis:
    """An axis of `size` seeds made of `key`, or of the row's id where there is none."""

    size: int
    key: str | None = None
    name: str = "seed"
    sets: frozenset[str] = _SEED


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSeedAxis:
    """An axis of `size` seeds that a saved plan has drawn for each row."""

    size: int
    name: str = "seed"
    sets: frozenset[str] = _SEED


Axis: TypeAlias = ValueAxis | SeedAxis | DerivedSeedAxis | RandomSeedAxis
Draw: TypeAlias = Callable[[str, int], tuple[int, ...]]


def bound(axis: Axis, *, explicit_id: str | None, row_id: str, draw: Draw | None) -> ValueAxis | SeedAxis:
    """The axis with its seeds known.

    Args:
        draw: place (the row's id), count -> that many seeds, always the same for the same place.

    Raises:
        ValueError: derived seeds without an id or a key, random ones without a plan.
    """
    if isinstance(axis, DerivedSeedAxis):
        # Not the default id, which has the prompt's text in it: a word changed there would buy every seed once more.
        key = axis.key if axis.key is not None else explicit_id
        if key is None:
            raise ValueError("derived seeds need a key or the row's id: a re-worded prompt would change them")
        return SeedAxis(values=derived(key, axis.size))
    if isinstance(axis, RandomSeedAxis):
        if draw is None:
            raise ValueError(
                "random seeds are bought through a saved plan: `dop plan MANIFEST --out PLAN` freezes them"
            )
        return SeedAxis(values=draw(row_id, axis.size))
    return axis


def scalars(name: str, values: Sequence[object]) -> ValueAxis:
    """An axis whose values are resolved values of the field of its name."""
    named = labels.distinct([labels.label(name, value) for value in values], values)
    return ValueAxis(
        name=name,
        values=tuple(AxisValue(label=text, sets={name: value}) for text, value in zip(named, values, strict=True)),
    )


def numbers(name: str, values: Sequence[int]) -> Axis:
    """An axis of seeds, strengths (hundredths) or takes."""
    return SeedAxis(values=values) if name == "seed" else scalars(name, values)


SCALES = {"seed": ranges.SEED, "strength": ranges.STRENGTH, "take": ranges.TAKE}
"""The fields whose axes may be number expressions."""


def repeated(values: Sequence[AxisValue]) -> str | None:
    """The first id part that two points share; None if all differ."""
    seen: set[str] = set()
    for point in values:
        if point.part in seen:
            return point.label
        seen.add(point.part)
    return None
