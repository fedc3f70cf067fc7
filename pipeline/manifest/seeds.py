"""Derived seeds: the same key gives the same seeds for ever, and asking for more keeps the first ones.

The algorithm, which must never change (tests/unit/golden/seeds.json holds it): block b = 0, 1, 2, ... is
sha256("dop-batch seeds v1\\n" + key + "\\n" + decimal b), read as four big-endian 64-bit words; each word w gives the
candidate 1 + w mod 1,000,000; a candidate that came before is passed over.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator

from pipeline.records import SEED_MAX, SEED_MIN

SEEDS = SEED_MAX - SEED_MIN + 1
"""How many different seeds there are. Source: API document, parameter table."""

_WORDS = struct.Struct(">4Q")


def _candidates(key: str) -> Iterator[int]:
    start = hashlib.sha256(f"dop-batch seeds v1\n{key}\n".encode("utf-8", "surrogatepass"))
    block = 0
    while True:
        digest = start.copy()
        digest.update(b"%d" % block)
        for word in _WORDS.unpack(digest.digest()):
            yield SEED_MIN + word % SEEDS
        block += 1


def _first_distinct(count: int, candidates: Iterator[int]) -> tuple[int, ...]:
    if not 0 <= count <= SEEDS:
        raise ValueError(f"{count} seeds: there are {SEEDS:,} different ones")
    chosen: dict[int, None] = {}
    while len(chosen) < count:
        chosen[next(candidates)] = None
    return tuple(chosen)


def derived(key: str, count: int) -> tuple[int, ...]:
    """The first `count` distinct seeds of a key, in 1..1,000,000; more of them begin with the same ones."""
    return _first_distinct(count, _candidates(key))


def drawn(count: int, randbelow: Callable[[int], int]) -> tuple[int, ...]:
    """`count` distinct seeds drawn with `randbelow(n)`, which returns a random integer in 0..n-1."""

    def candidates() -> Iterator[int]:
        while True:
            yield SEED_MIN + randbelow(SEEDS)

    return _first_distinct(count, candidates())
