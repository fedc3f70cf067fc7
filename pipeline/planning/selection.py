"""Which of a manifest's requests a command works on. Pure: the same rows give the same choice, whatever their order."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.records import Cell, Request

MAX_TAGS_SHOWN = 20
"""Known tags that a message lists when a filter selects nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A choice of rows: by any of `tags`, the `shard` (i of n, from 1), a `sample`, the `first` rows; in that order.

    A row that axes multiply counts once for `first`, with all its videos.
    """

    tags: tuple[str, ...] = ()
    shard: tuple[int, int] | None = None
    sample: int | None = None
    first: int | None = None

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return self == ALL

    @property
    def part(self) -> str:
        """The choice in words, e.g. `tag hero, first 2`; empty when nothing is left out."""
        words = [f"tag {tag}" for tag in self.tags]
        if self.shard is not None:
            words.append(f"shard {self.shard[0]} of {self.shard[1]}")
        words += [f"sample {self.sample}"] if self.sample is not None else []
        words += [f"first {self.first}"] if self.first is not None else []
        return ", ".join(words)


ALL = Selection()


def parse_shard(text: str) -> tuple[int, int]:
    """(2, 5) of `2/5`.

    Raises:
        UsageError: it is no i/n with 1 <= i <= n.
    """
    part, _, whole = text.partition("/")
    if part.isdigit() and whole.isdigit() and 1 <= int(part) <= int(whole):
        return int(part), int(whole)
    raise UsageError(f"--shard {text!r}: write i/n with i from 1 to n, e.g. 2/5")


def chosen(rows: Iterable[Request | Cell], selection: Selection) -> Iterator[Request | Cell]:
    """The chosen rows, in the manifest's order. The stream is read to its end, so that every mistake is reported.

    Shards and samples go by the request's identity: adding or sorting rows moves no other row to another shard.
    Placeholders stay only when nothing is left out.
    """
    if selection.is_all:
        yield from rows
        return
    tags: set[str] = set()
    found: Iterator[Request] = (row for row in _noting_tags(rows, tags) if isinstance(row, Request))
    if selection.tags:
        wanted = set(selection.tags)
        found = (row for row in found if wanted.intersection(row.tags))
    if selection.shard is not None:
        part, whole = selection.shard
        found = (row for row in found if int(row.request_id, 16) % whole == part - 1)
    if selection.sample is not None:
        found = _sampled(found, selection.sample)
    if selection.first is not None:
        found = _of_first_rows(found, selection.first)
    yield from found
    for tag in selection.tags:
        if tag not in tags:
            raise UsageError(f"--filter-tag {tag!r}: {_other_tags(tags)}; nothing was sent")


def _noting_tags(rows: Iterable[Request | Cell], tags: set[str]) -> Iterator[Request | Cell]:
    for row in rows:
        tags.update(row.tags)
        yield row


def _other_tags(tags: set[str]) -> str:
    if not tags:
        return "no row has a tag"
    shown = ", ".join(repr(other) for other in sorted(tags)[:MAX_TAGS_SHOWN])
    more = f" and {len(tags) - MAX_TAGS_SHOWN} more" if len(tags) > MAX_TAGS_SHOWN else ""
    return f"no row has this tag; the tags are {shown}{more}"


def _of_first_rows(requests: Iterable[Request], count: int) -> Iterator[Request]:
    """The requests of the first rows, however many videos each row makes; the stream is read to its end."""
    rows: set[str] = set()
    for request in requests:
        name = request.row or request.row_id
        if name in rows or len(rows) < count:
            rows.add(name)
            yield request


def _sampled(rows: Iterable[Request], count: int) -> Iterator[Request]:
    """The `count` requests with the smallest identity: as good as random, and the same each time."""
    ranked = enumerate(rows)
    kept = heapq.nsmallest(count, ranked, key=lambda pair: pair[1].request_id)
    return iter(row for _, row in sorted(kept, key=lambda pair: pair[0]))
