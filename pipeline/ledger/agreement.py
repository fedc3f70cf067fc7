"""What the user agreed to buy: exact request ids, the most that they may cost, and how many.

A request id is a hash of everything that is paid for, the content of local pictures included. So a set of ids says what
was agreed down to the picture: a changed picture has another id, and is not in the set.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

_ID_BYTES = 16
"""Bytes of a request id: 32 hex digits (records.REQUEST_KEY_HEX)."""


class RequestIds:
    """A set of request ids in 16 bytes each, so that a million of them take 16 MB instead of more than 100."""

    def __init__(self, request_ids: Iterable[str] = ()) -> None:
        self._sorted = b"".join(sorted({bytes.fromhex(request_id) for request_id in request_ids}))

    def __len__(self) -> int:
        return len(self._sorted) // _ID_BYTES

    def __contains__(self, request_id: object) -> bool:
        if not isinstance(request_id, str):
            return False
        wanted = bytes.fromhex(request_id)
        # `bisect` looks at log2(n) places of the byte string, which is never split into a list.
        at = bisect_left(range(len(self)), wanted, key=self._at)
        return at < len(self) and self._at(at) == wanted

    def __iter__(self) -> Iterator[str]:
        return (self._at(index).hex() for index in range(len(self)))

    def without(self, request_ids: Collection[str]) -> RequestIds:
        """The ids but for some."""
        return RequestIds(request_id for request_id in self if request_id not in request_ids)

    def _at(self, index: int) -> bytes:
        return self._sorted[index * _ID_BYTES : (index + 1) * _ID_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Everything that one command may buy: made under the ledger's lock, shown, and checked at each reservation.

    A shot that lacks keepers is agreed to with all its candidates: which of them are bought follows from their checks.

    Attributes:
        new: requests that have not been bought.
        resends: requests of unknown outcome that may be sent again; each may have been paid already.
        price_microusd: the most that may be reserved, micro-dollars: the price of all of them, or of the
            `max_purchases` dearest.
        max_purchases: how many of them may be bought; None for all.
    """

    new: RequestIds = field(default_factory=RequestIds)
    resends: frozenset[str] = frozenset()
    price_microusd: int = 0
    max_purchases: int | None = None

    def __contains__(self, request_id: object) -> bool:
        return request_id in self.resends or request_id in self.new

    def __len__(self) -> int:
        count = len(self.new) + len(self.resends)
        return count if self.max_purchases is None else min(count, self.max_purchases)


NOTHING = Agreement()
"""The agreement of a command that never buys."""
