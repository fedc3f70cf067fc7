"""Rows that look the same to a reader and are different purchases: named before anything is bought."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from pipeline.manifest.prompt_checks import as_seen, is_quoted
from pipeline.records import Cell, Params, Request, State

MAX_SUSPECTS = 10_000
"""So many rows are compared; a sheet in which more prompts have blanks at their ends names enough of them."""
MAX_NAMED = 8
"""Rows that one warning names, so that it stays readable."""
MAX_GROUPS = 10
"""Groups of look-alike rows that are listed before the rest is only counted."""


@dataclass(slots=True)
class Lookalikes:
    """Watches one stream of requests, and compares it with itself and with what was bought before."""

    quoted: dict[str, None] = field(default_factory=dict)
    _suspects: set[Hashable] = field(default_factory=set)
    _harmless: set[str] = field(default_factory=set)
    _requests: list[Request] = field(default_factory=list)

    def watched(self, rows: Iterable[Request | Cell]) -> Iterator[Request | Cell]:
        """The rows as they are."""
        for row in rows:
            if isinstance(row, Request):
                self._watch(row)
            yield row

    def _watch(self, request: Request) -> None:
        if len(self._requests) < MAX_SUSPECTS:
            self._requests.append(request)
        prompt = request.params.prompt
        if prompt in self._harmless:  # a large sheet has most of its prompts many times
            return
        is_suspect = prompt != as_seen(prompt)
        if is_quoted(prompt):
            self.quoted[request.row or request.row_id] = None
        elif not is_suspect and len(self._harmless) < MAX_SUSPECTS:
            self._harmless.add(prompt)
        if is_suspect and len(self._suspects) < MAX_SUSPECTS:
            self._suspects.add(_seen_key(request.params, request.take))

    def warnings(self, cells: Callable[[], Iterable[Cell]]) -> list[str]:
        """What is said about the rows of this stream; `cells` gives the manifest's cells once more."""
        found = [f"{group}: the prompts look the same and are bought separately" for group in self._groups(cells)]
        if self.quoted:
            found.append(f"{named(self.quoted)}: the whole prompt is in quotes, which are sent with it")
        return found

    def _groups(self, cells: Callable[[], Iterable[Cell]]) -> list[str]:
        if not self._suspects:
            return []
        alike: dict[Hashable, dict[str, dict[str, None]]] = {}
        for cell in cells():
            if cell.params is None:
                continue
            key = _seen_key(cell.params, cell.take)
            if key in self._suspects:
                alike.setdefault(key, {}).setdefault(cell.params.prompt, {})[cell.row_id] = None
        groups = [prompts for prompts in alike.values() if len(prompts) > 1]
        warnings = [named(row for rows in prompts.values() for row in rows) for prompts in groups[:MAX_GROUPS]]
        return warnings + ([f"{len(groups) - MAX_GROUPS} more groups of rows"] if len(groups) > MAX_GROUPS else [])

    def bought_before(
        self,
        states_of: Callable[[list[str]], Mapping[str, State]],
        names_of: Callable[[list[str]], Mapping[str, str]],
        key: Callable[[Params, int], str],
    ) -> list[str]:
        """What is said about new rows whose prompt differs from a bought one in white space alone.

        Args:
            key: the identity of a purchase with these parameters and this take.
        """
        known = states_of([request.request_id for request in self._requests])
        new = [request for request in self._requests if known.get(request.request_id, State.PLANNED) is State.PLANNED]
        variants: dict[str, Request] = {}
        for request in new:
            for prompt in _variants(request.params.prompt):
                params = request.params.varied(prompt=prompt, seed=request.params.seed)
                variants.setdefault(key(params, request.take), request)
        states = states_of(list(variants))
        bought = [one for one, state in states.items() if state is not State.PLANNED]
        names = names_of(bought[:MAX_GROUPS])
        return [
            f"row {variants[one].row_id} differs from {names.get(one, one)}, which was bought before, "
            "in white space alone: it would be bought again"
            for one in bought[:MAX_GROUPS]
        ]


def named(rows: Iterable[str]) -> str:
    """`rows a, b and c`, at most so many."""
    names = list(dict.fromkeys(rows))
    shown = ", ".join(names[:MAX_NAMED])
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"row {shown}" if len(names) == 1 else f"rows {shown}{more}"


def _variants(prompt: str) -> list[str]:
    """Other spellings under which the prompt may have been bought: as it is seen, alone or with one blank at an end."""
    seen = as_seen(prompt)
    return [other for other in (seen, f"{seen} ", f"{seen}\n", f" {seen}") if other != prompt]


def _seen_key(params: Params, take: int) -> Hashable:
    return hash((replace(params, prompt=as_seen(params.prompt)), take))
