"""One pass over a manifest's cells: requests come out in order, and what the pass met is returned at its end.

A pass must be read to its end before anything is done with its rows: mistakes, expired signatures and unchecked
objects are refused there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import ManifestError, UsageError
from pipeline.manifest import Manifest
from pipeline.planning.binding import RequestBinder
from pipeline.planning.folding import Folding
from pipeline.planning.lookalikes import Lookalikes
from pipeline.planning.selection import Selection, chosen
from pipeline.records import Cell, FoldedRow, Request, State, counted

Row = Request | Cell | FoldedRow
"""A request, a placeholder, or a row that asks for the video of an earlier request."""


class KnownRequests(Protocol):
    """What the ledger answers about requests; `LedgerQueries` does."""

    def states(self, request_ids: list[str]) -> Mapping[str, State]:
        """Request id -> its state, of those that the ledger knows."""
        ...

    def row_names(self, request_ids: list[str]) -> Mapping[str, str]:
        """Request id -> the row that it was bought for."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingSummary:
    """What one whole pass met.

    Attributes:
        duplicates: rows that ask for a video that an earlier row asks for.
        images: every distinct image, as the cells name it.
        sha256_of: image -> the hash of its content, for local files and checked objects of a store.
    """

    warnings: tuple[str, ...]
    duplicates: int
    images: tuple[str, ...]
    sha256_of: Mapping[str, str]


class ManifestPass:
    """Binds the cells of a manifest once. Iterate to the end; `summary` then says what was met.

    Args:
        known: the ledger to compare with; None where there is none.
        must_be_checked: refuse objects of a store that were not checked yet: a purchase needs their content.
    """

    def __init__(
        self,
        manifest: Manifest,
        binder: RequestBinder,
        selection: Selection,
        *,
        known: KnownRequests | None,
        must_be_checked: bool,
    ) -> None:
        self._manifest, self._binder, self._selection = manifest, binder, selection
        self._known, self._must_be_checked = known, must_be_checked
        self._folding, self._alike = Folding(), Lookalikes()
        self._summary: BindingSummary | None = None

    def rows(self) -> Iterator[Row]:
        """The rows in the manifest's order.

        Raises:
            ManifestError: mistakes, all of them; signatures that have ended, of rows that are still to be bought.
            FatalError: a model without a price.
            UsageError: a choice that no row meets; an object that must have been checked, and was not.
        """
        picked = chosen(self._binder.bind(self._manifest.cells()), self._selection)
        yield from self._folding.folded(self._alike.watched(picked))
        self._refuse_expired()
        self._summary = BindingSummary(
            warnings=tuple(self._warnings()),
            duplicates=self._folding.duplicates,
            images=tuple(self._binder.images),
            sha256_of=dict(self._binder.sha256_of),
        )

    def summary(self) -> BindingSummary:
        """What the pass met.

        Raises:
            RuntimeError: the rows were not read to their end; nothing may be done with them.
        """
        if self._summary is None:
            raise RuntimeError("the rows of a manifest were used before they were read to their end")
        return self._summary

    def _refuse_expired(self) -> None:
        """What was bought already needs no address: only rows that would be sent are refused."""
        expired = {key: one for key, one in self._binder.expired.items() if self._folding.has(key)}
        states = self._known.states(list(expired)) if self._known is not None and expired else {}
        problems = [one for key, one in expired.items() if states.get(key, State.PLANNED) is State.PLANNED]
        if problems:
            raise ManifestError(problems)

    def _warnings(self) -> Iterator[str]:
        yield from self._manifest.warnings
        yield from self._alike.warnings(self._manifest.cells)
        if self._known is not None:
            yield from self._alike.bought_before(self._known.states, self._known.row_names, self._binder.key)
        if self._folding.duplicates:
            ask = "asks" if self._folding.duplicates == 1 else "ask"
            yield (
                f"{counted(self._folding.duplicates, 'row')} {ask} for a video that another row asks for already; each "
                "is bought once (to buy one again, give it `take: 2` or `repeat: 2`)"
            )
        if self._binder.unseen:
            some, count = min(self._binder.unseen), len(self._binder.unseen)
            were, more = ("was", "") if count == 1 else ("were", ", ..")
            message = f"{counted(count, 'image')} of an object store {were} not checked yet ({some}{more})"
            if self._must_be_checked:
                raise UsageError(f"{message}: `dop plan --look` checks them; nothing was sent")
            yield f"{message}: their rows count as new; `dop plan --look` checks them, for free"
