"""The rows that planning writes, as tuples for the driver: a sheet may have a million, and most of each is the same.

`checksum` and `digest` of `schema` say what the two hashes are; here the same texts are put together from parts.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from functools import lru_cache

from pipeline.ledger.schema import COVERED, MUTABLE, attempts, dump_params, hash_of
from pipeline.ledger.text import storable
from pipeline.records import Params, Request, State

PLANNED_COLUMNS = tuple(str(column.name) for column in attempts.columns if not column.nullable)
"""The order of the values of `PlannedRows.values`. The other columns hold nothing before a request is reserved; the
driver takes longer to bind None than to bind a value."""


_quoted = json.JSONEncoder(ensure_ascii=False).encode
_MAX_ENDS = 10_000
"""Texts that are remembered: of a million different ones the memory would be full."""


class PlannedRows:
    """Makes the values of attempts that were never sent, for one run."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._params = ParamsText()
        self._frames: dict[tuple[str, str, int], tuple[tuple[object, ...], str]] = {}

    def values(self, request: Request) -> tuple[object, ...]:
        """The first attempt of a request, in the order of PLANNED_COLUMNS."""
        kind = (request.gateway, request.params.model, request.price_microusd)
        frame = self._frames.get(kind)
        if frame is None:
            frame = self._frames[kind] = self._frame(*kind)
        same, covered = frame
        row_id, motion, take = storable(request.row_id), storable(request.motion), request.take
        params = self._params.dump(request.params)
        digest = hash_of(repr([row_id, params, motion, take]))
        # The text that `checksum` of schema makes with `repr` of the whole list; a test compares the two.
        checksum = hash_of(f"[{request.request_id!r}, {covered}, {digest!r}]")
        return (request.request_id, *same, digest, checksum, row_id, params, motion, take)

    def _frame(self, gateway: str, model: str, price_microusd: int) -> tuple[tuple[object, ...], str]:
        """The values between request id and digest, and the text of the whole row there, as the checksum covers it."""
        row: dict[str, object] = dict.fromkeys(MUTABLE)
        row.update(attempt=1, superseded=0, gateway=gateway, run_id=self._run_id, model=model)
        row.update(price_microusd=price_microusd, state=State.PLANNED.value)
        row.update(submit_attempts=0, throttled=0, polls=0, resends=0)
        covered = COVERED[1:-1]
        same = tuple(row[name] for name in covered if name in PLANNED_COLUMNS)
        return same, repr([row[name] for name in covered])[1:-1]


class ParamsText:
    """`dump_params` for many requests: what follows behind prompt and seed is put together once for equal requests."""

    def __init__(self) -> None:
        self._ends: dict[Hashable, str] = {}

    def dump(self, params: Params) -> str:
        """What `dump_params` gives."""
        kind = (
            params.motions_id,
            params.strength_hundredths,
            params.input_images,
            params.input_images_end,
            params.enhance_prompt,
            params.check_nsfw,
        )
        end = self._ends.get(kind)
        begin = f"[{_quoted(params.model)},{_quoted(params.prompt)},{params.seed}"
        if end is None:
            if len(self._ends) >= _MAX_ENDS:
                self._ends.clear()
            end = self._ends[kind] = dump_params(params).removeprefix(begin)
        return begin + end


@lru_cache(maxsize=4_096)
def dumped(values: tuple[object, ...]) -> str:
    """Tags or axes of a row as the ledger keeps them; most rows of a sheet have the same."""
    return storable(json.dumps(values, ensure_ascii=False))
