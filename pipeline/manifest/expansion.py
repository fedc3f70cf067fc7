"""A program -> cells, streamed: every row with the defaults, axes multiplied, patterns applied, limits checked.

Nothing is expanded before it is counted. After the first mistake no more cells come out, but the rest is still checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from pipeline.manifest.axes import AxisValue, Draw, bound
from pipeline.manifest.cell_builder import AxisLabels, CellBuilder
from pipeline.manifest.cell_ids import CellIds
from pipeline.manifest.diagnostics import Diagnostic, Diagnostics
from pipeline.manifest.resolution import KEEP_FIELDS
from pipeline.manifest.row_merging import TAKE, ExpansionSize, MergedRow, conflicts, merge_row
from pipeline.manifest.spec import CellFilter, ManifestSpec, SpecRow
from pipeline.records import Cell


def measure(program: ManifestSpec) -> ExpansionSize:
    """What the axes of rows at hand multiply to, in the time of their number, whatever that is."""
    measure = ExpansionSize()
    for row in (*program.rows(Diagnostics()), *program.includes):
        measure.add(merge_row(row, program))
    return measure


class Expander:
    """One pass over a program.

    Args:
        draw: place -> random seeds, see `axes.bound`; None where there is no saved plan.
    """

    def __init__(self, program: ManifestSpec, mistakes: Diagnostics, draw: Draw | None) -> None:
        self.measure = ExpansionSize()
        self._program = program
        self._mistakes = mistakes
        self._draw = draw
        self._patterns = bool(program.excludes or program.changes)
        # By identity: of two equal filters each is reported where it is written.
        self._unmatched: dict[int, CellFilter] = {id(pattern): pattern for pattern in program.excludes}
        self._unmatched.update({id(change.where): change.where for change in program.changes})
        self._ids = CellIds(mistakes)
        self._builder = CellBuilder(mistakes, is_swept=self._patterns)

    def cells(self) -> Iterator[Cell]:
        """The cells in order: rows as written, the first axis slowest; then the included rows."""
        mistakes, measure, max_rows = self._mistakes, self.measure, self._program.max_rows
        for rows in (self._program.rows(mistakes), self._program.includes):
            for row in rows:
                for cell in self._of(row):
                    if not mistakes.found and measure.total <= max_rows:  # not `too_many`: this runs for every row
                        yield cell
        if not self.too_many and not self._mistakes:
            self._report_unmatched()

    @property
    def too_many(self) -> bool:
        """Whether the axes multiply to more than may be."""
        return self.measure.total > self._program.max_rows

    def unused_variables(self, defined: Iterable[str]) -> list[str]:
        """Those of the variables that no prompt of this pass asked for."""
        return self._builder.unused_variables(defined)

    def _of(self, row: SpecRow) -> Iterable[Cell]:
        row_id = self._ids.row_id(row)
        # The quick way of a large sheet: most rows differ from one before them in prompt and seed alone.
        alike = self._builder.like_an_earlier(row, row_id)
        if alike is not None:
            return (alike,)
        block = merge_row(row, self._program)
        block.row_id = row_id
        self._report_idle_keep_fields(block)
        # Nothing multiplies this row, so it needs neither a product of axes nor an id with labels.
        if not block.axes and block.repeat == 1:
            if self._patterns and row.shared:
                return self._swept(block, row_id, dict(block.fields), (), ())
            cell = self._builder.cell(block, block.fields, row_id)
            if cell is None:
                return ()
            self._builder.remember(row, cell)
            return (cell,)
        for mistake in conflicts(block, self._program):
            self._mistakes.add(mistake)
        self.measure.add(block)
        # Counted above, before anything is made of it: axes that multiply to billions cost no time.
        return self._multiplied(block, row_id) if not self.too_many else ()

    def _report_idle_keep_fields(self, block: MergedRow) -> None:
        for name in KEEP_FIELDS:
            if name in block.row.own and "keep" not in block.fields:
                message = "says how to choose, and nothing says how many to keep: add keep: 1"
                self._mistakes.add(block.row.location.diagnostic(message, name))

    # axes -----------------------------------------------------------------------------------------------------------

    def _multiplied(self, block: MergedRow, row_id: str) -> Iterator[Cell]:
        row = block.row
        try:
            axes = [bound(axis, explicit_id=row.row_id, row_id=row_id, draw=self._draw) for axis in block.axes]
        except ValueError as error:
            if not row.has_errors:
                self._mistakes.add(row.location.diagnostic(str(error)))
            return
        names = [axis.name for axis in axes]
        pools: list[Sequence[int | AxisValue]] = [axis.values for axis in axes]
        for values in product(*pools):
            yield from self._swept(block, row_id, dict(block.fields), names, values)

    def _swept(
        self,
        block: MergedRow,
        row_id: str,
        fields: dict[str, object],
        names: Sequence[str],
        values: Sequence[int | AxisValue],
    ) -> Iterator[Cell]:
        """The cells of one point of the sweep: none if it is excluded, one for each take."""
        labels: list[str] = []
        parts: list[str] = []
        for value in values:
            if isinstance(value, int):
                fields["seed"] = value
                text = part = str(value)
            else:
                fields.update(value.sets)
                text, part = value.label, value.part
                if value.skip:
                    fields["skip"] = True
            labels.append(text)
            parts.append(part)
        placed = tuple(zip(names, labels, strict=True))
        if self._patterns and block.row.shared and not self._stays(row_id, fields, dict(placed)):
            return
        cell_id = f"{row_id}@{'-'.join(parts)}" if parts else row_id
        for take in range(1, block.repeat + 1):
            yield from self._taken(block, fields, cell_id, placed, take)

    def _taken(
        self, block: MergedRow, fields: dict[str, object], cell_id: str, placed: AxisLabels, take: int
    ) -> Iterator[Cell]:
        """The cell of one take; with `repeat` the takes are an axis of their own."""
        if block.repeat > 1:
            placed = (*placed, (TAKE, str(take)))
            fields = {**fields, TAKE: take}
            if take > 1:
                cell_id = f"{cell_id}{'-' if block.axes else '@'}take{take}"
        # The row's own id is claimed already.
        if block.axes or take > 1:
            self._ids.claim(block.row, cell_id)
        cell = self._builder.cell(block, fields, cell_id, placed)
        if cell is not None:
            yield cell

    def _stays(self, row_id: str, fields: dict[str, object], labels: Mapping[str, str]) -> bool:
        """Whether a cell is not excluded; overrides then match it as the sweep made it, and the last one wins."""
        hits = [pattern for pattern in self._program.excludes if pattern.matches(row_id, fields, labels)]
        for pattern in hits:
            self._unmatched.pop(id(pattern), None)
        # Exclusions first: an override can't bring back a cell that is excluded.
        if hits:
            return False
        changes = [change for change in self._program.changes if change.where.matches(row_id, fields, labels)]
        for change in changes:
            self._unmatched.pop(id(change.where), None)
            fields.update(change.sets)
        return True

    def _report_unmatched(self) -> None:
        for pattern in self._unmatched.values():
            message = "matches no cell: nothing would change"
            self._mistakes.add(Diagnostic(file=self._program.file, path=pattern.path, message=message))
