"""What every check reads: brightness, contrast, change and motion of a clip, frame by frame, computed once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.reports.checks.alignment import IDENTITY, Aligned, Maps, align, composed, reduced, shift_between
from pipeline.reports.checks.frames import Film, Luma

Numbers = NDArray[np.float64]

BLOCK_PX = 10
"""Side of the blocks that a picture is divided into: a face in the middle distance fills some of them."""

LOST = 0.6
"""Below this correlation of details a map says nothing about the camera."""


@dataclass(frozen=True)
class Signals:
    """Series over the n frames of a clip; those between frames have n - 1 values."""

    film: Film

    @cached_property
    def mean(self) -> Numbers:
        """Mean brightness of each frame, 0..255."""
        return np.asarray(self.film.luma.mean(axis=(1, 2), dtype=np.float64))

    @cached_property
    def contrast(self) -> Numbers:
        """Standard deviation of the brightness of each frame."""
        return np.asarray(self.film.luma.std(axis=(1, 2), dtype=np.float64))

    @cached_property
    def change(self) -> Numbers:
        """Mean absolute difference of brightness between neighbours."""
        luma = self.film.luma
        return np.array([np.abs(luma[i + 1] - luma[i]).mean() for i in range(len(luma) - 1)], dtype=np.float64)

    @cached_property
    def half(self) -> Luma:
        """The pictures at half their size."""
        return reduced(self.film.luma, 2)

    @cached_property
    def steps(self) -> Aligned:
        """Each frame lined up with the one before it: from the same place, where that fails, by phase correlation."""
        first, second = self.half[:-1], self.half[1:]
        levels = ((2, 5), (1, 2))
        found = align(first, second, levels=levels)
        # Those just above it as well: a wrong map may resemble a little, and the better of both is kept.
        lost = np.flatnonzero(found.detail < LOST + 0.15)
        if len(lost):
            again = align(first[lost], second[lost], shift_between(first[lost], second[lost]), levels=levels)
            found = _best(found, again, lost)
        return found

    @cached_property
    def way(self) -> Maps:
        """n x 6: the map of each frame back to the first one, the steps chained."""
        maps = [IDENTITY]
        for step, detail in zip(self.steps.maps, self.steps.detail, strict=True):
            # A lost step counts as none: a wild one would throw off every frame behind it.
            maps.append(composed(maps[-1], step if detail > LOST else IDENTITY))
        return np.stack(maps)

    def back_to_start(self, index: int) -> Aligned:
        """One frame lined up with the first: by the chained steps, or at once where that fits better.

        The steps reach far, but their errors add up; lined up at once is exact where the camera came back.
        """
        first, last = self.half[0][None], self.half[index][None]
        chained = align(first, last, starts=self.way[index][None], levels=((2, 5), (1, 3)))
        plain = align(first, last)
        return plain if plain.detail[0] > chained.detail[0] else chained


def _best(one: Aligned, two: Aligned, at: NDArray[np.int64]) -> Aligned:
    """`one` with the pairs `at` replaced by `two` where that fits better."""
    better = two.detail > one.detail[at]
    chosen, source = at[better], np.flatnonzero(better)
    values = {}
    for field in fields(Aligned):
        values[field.name] = getattr(one, field.name).copy()
        values[field.name][chosen] = getattr(two, field.name)[source]
    return Aligned(**values)


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The stretches where the mask holds, as (first, last + 1)."""
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))
