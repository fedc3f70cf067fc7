"""Rows that the gateway refused with 403 or 404: is it this row's content, or the key or the address?

A 403 without words about the key, credit or a quota can mean either (content policy, a web firewall's word list), and
so can a 404 at a path that worked (an image that is not found, or a gateway that sells DoP no more). The next rows
tell: when another row is accepted, key and address are good and the refused row is rejected by name. Until then the
row is planned: nothing was created, and it may be bought later.
"""

from __future__ import annotations

from dataclasses import dataclass

REFUSED = "refused: "
"""Begins the reason of a planned row that was refused; it is bought after the others next time."""

MAX_REFUSED_UNPROVEN = 2
"""Different rows refused before any was accepted in this run: the second one means the key."""

MAX_REFUSED_PROVEN = 3
"""Different rows refused in a row after some were accepted in this run; equal prompts often stand side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRow:
    """One refused submit. `token` names it in the ledger; `by_address`: 404, not 403."""

    request_id: str
    row_id: str
    token: str
    reason: str
    by_address: bool = False


class RefusedRows:
    """The rows refused since the last acceptance, of one run."""

    def __init__(self) -> None:
        self._suspects: dict[str, RefusedRow] = {}
        self._is_proven = False
        self._is_address_gone = False

    def refuse(self, row: RefusedRow) -> bool:
        """Remember a refused row; True when so many are refused that the key is meant."""
        self._suspects[row.request_id] = row
        all_meant = len(self._suspects) >= (MAX_REFUSED_PROVEN if self._is_proven else MAX_REFUSED_UNPROVEN)
        self._is_address_gone |= all_meant and row.by_address
        return all_meant

    def accept(self) -> list[RefusedRow]:
        """A row was accepted: the key is good. The rows that were refused for themselves."""
        self._is_proven = True
        return self._take()

    def end(self) -> tuple[list[RefusedRow], list[RefusedRow]]:
        """The run ends: those refused for themselves, and those of which that can't be said."""
        suspects = self._take()
        return (suspects, []) if self._is_proven else ([], suspects)

    def _take(self) -> list[RefusedRow]:
        """The suspects. Those of an address that is gone are none: they stay planned, for a day when it is back."""
        gone = self._is_address_gone
        suspects = [one for one in self._suspects.values() if not (gone and one.by_address)]
        self._suspects.clear()
        return suspects
