"""A program -> cells, streamed: every row with the defaults, axes multiplied, patterns applied, limits checked. Pure.

Nothing is expanded before it is counted. After the first mistake no more cells come out, but the rest is still checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from pipeline.gateway.motions import MotionPreset
from pipeline.manifest import template
from pipeline.manifest.axes import AxisValue, Draw, bound
from pipeline.manifest.compiler import EXTRA_TAGS, ROW_ID
from pipeline.manifest.diagnostics import Diagnostic, Diagnostics
from pipeline.manifest.labels import did_you_mean, short_hash, slug
from pipeline.manifest.resolution import KEEP_FIELDS, REQUIRED
from pipeline.manifest.row_merging import TAKE, ExpansionSize, MergedRow, conflicts, merge_row
from pipeline.manifest.spec import INVALID, VAR, CellFilter, ManifestSpec, SpecRow
from pipeline.records import LOOP, Candidacy, Cell, KeepIf, Params

NEEDED = frozenset(REQUIRED)
AxisLabels = tuple[tuple[str, str], ...]


def measure(program: ManifestSpec) -> ExpansionSize:
    """What the axes of rows at hand multiply to, in the time of their number, whatever that is."""
    measure = ExpansionSize()
    for row in (*program.rows(), *program.includes):
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
        self._unmatched: dict[int, CellFilter] = {id(pattern): pattern for pattern in program.excludes}
        self._unmatched.update({id(change.where): change.where for change in program.changes})
        self._row_lines: dict[int, int | None] = {}
        self._cell_ids: set[int] = set()
        self._used: set[str] = set()

    def cells(self) -> Iterator[Cell]:
        """The cells in order: rows as written, the first axis slowest; then the included rows."""
        for rows in (self._program.rows(), self._program.includes):
            for row in rows:
                for cell in self._of(row):
                    if not self._mistakes.found and not self.too_many:
                        yield cell
        if not self.too_many and not self._mistakes:
            self._tell_unmatched()

    @property
    def too_many(self) -> bool:
        """Whether the axes multiply to more than may be."""
        return self.measure.total > self._program.max_rows

    def _of(self, row: SpecRow) -> Iterable[Cell]:
        row_id = self._row_id(row)
        block = merge_row(row, self._program)
        block.row_id = row_id
        self._tell_idle_keep_fields(block)
        if not block.axes and block.repeat == 1:
            if self._patterns and row.shared:
                return self._swept(block, row_id, dict(block.fields), (), ())
            cell = self._cell(block, block.fields, row_id)
            return (cell,) if cell is not None else ()
        for mistake in conflicts(block, self._program):
            self._mistakes.add(mistake)
        self.measure.add(block)
        return self._multiplied(block, row_id) if not self.too_many else ()

    def _tell_idle_keep_fields(self, block: MergedRow) -> None:
        for name in KEEP_FIELDS:
            if name in block.row.own and "keep" not in block.fields:
                message = "says how to choose, and nothing says how many to keep: add keep: 1"
                self._mistakes.add(block.row.location.diagnostic(message, name))

    # ids ------------------------------------------------------------------------------------------------------------

    def _row_id(self, row: SpecRow) -> str:
        """The row's id; two rows with one id are a mistake, two equal rows without ids get different ones."""
        first = row.row_id or row.default_id()
        if row.row_id is not None and self._is_taken(first):
            line = self._row_lines.get(hash(first))
            where = f", see line {line}" if line is not None else ""
            self._mistakes.add(row.location.diagnostic(f"the id {first!r} is taken{where}", "id"))
        row_id = first
        number = 1
        while self._is_taken(row_id):
            number += 1
            row_id = f"{first}-{number}"
        self._row_lines[hash(row_id)] = row.location.line
        return row_id

    def _is_taken(self, any_id: str) -> bool:
        """Ids are kept as hashes of 64 bits: two of a million collide once in tens of millions of manifests."""
        return hash(any_id) in self._row_lines or hash(any_id) in self._cell_ids

    def _claim(self, row: SpecRow, cell_id: str) -> None:
        if self._is_taken(cell_id):
            message = f"two cells would be called {cell_id!r}: give ids or labels that differ"
            self._mistakes.add(row.location.diagnostic(message))
        self._cell_ids.add(hash(cell_id))

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
        if block.axes or take > 1:
            self._claim(block.row, cell_id)
        cell = self._cell(block, fields, cell_id, placed)
        if cell is not None:
            yield cell

    def _stays(self, row_id: str, fields: dict[str, object], labels: Mapping[str, str]) -> bool:
        """Whether a cell is not excluded; overrides then look at it as the sweep made it, and the last one wins."""
        hits = [pattern for pattern in self._program.excludes if pattern.matches(row_id, fields, labels)]
        for pattern in hits:
            self._unmatched.pop(id(pattern), None)
        if hits:
            return False
        changes = [change for change in self._program.changes if change.where.matches(row_id, fields, labels)]
        for change in changes:
            self._unmatched.pop(id(change.where), None)
            fields.update(change.sets)
        return True

    def _tell_unmatched(self) -> None:
        for pattern in self._unmatched.values():
            message = "matches no cell: nothing would change"
            self._mistakes.add(Diagnostic(file=self._program.file, path=pattern.path, message=message))

    # cells ----------------------------------------------------------------------------------------------------------

    def _cell(self, block: MergedRow, fields: Mapping[str, Any], cell_id: str, placed: AxisLabels = ()) -> Cell | None:
        """The finished cell; None if something is wrong with it, which is then reported."""
        row = block.row
        skip = fields.get("skip") is True
        if skip and isinstance(prompt := fields.get("prompt"), str):
            self._used.update(template.names(prompt))
        params = None if skip else self._params(row, fields, cell_id)
        if params is None and not skip:
            return None
        motion = fields.get("motion")
        return Cell(
            row_id=cell_id,
            params=params,
            motion=motion.name if isinstance(motion, MotionPreset) else "",
            take=fields.get(TAKE, 1) if not skip else 1,
            tags=_tags(fields, swept=bool(placed) or self._patterns),
            axes=placed,
            line=row.location.line,
            file=row.location.file,
            row=block.row_id,
            candidacy=_candidacy(block.row_id, fields, placed) if params is not None and "keep" in fields else None,
        )

    def _params(self, row: SpecRow, fields: Mapping[str, Any], cell_id: str) -> Params | None:
        if not fields.keys() >= NEEDED:
            self._tell_missing(row, fields)
            return None
        prompt, motion, end_image = fields["prompt"], fields["motion"], fields.get("end_image", ())
        if prompt is not INVALID:
            self._refuse_other_brackets(row, prompt, fields)
        if prompt is not INVALID and template.has_placeholders(prompt):
            prompt = self._filled(row, prompt, fields, row.row_id or cell_id.split("@", maxsplit=1)[0])
        if end_image and isinstance(motion, MotionPreset) and motion.start_end_frame is False:
            name = "end_image" if "end_image" in row.own else None
            self._mistakes.add(row.location.diagnostic(f"the motion {motion.name!r} takes no end frame", name))
        if self._mistakes.found:
            return None
        return Params(
            model=fields["model"],
            prompt=prompt,
            seed=fields["seed"],
            motions_id=motion.motions_id,
            strength_hundredths=fields["strength"],
            input_images=fields["image"],
            input_images_end=end_image,
            enhance_prompt=fields["enhance_prompt"],
            check_nsfw=fields.get("check_nsfw"),
        )

    def _refuse_other_brackets(self, row: SpecRow, prompt: str, fields: Mapping[str, object]) -> None:
        """A variable's name in other brackets was meant as the variable: as text it would be paid for."""
        if not any(mark in prompt for mark in "{[<%"):
            return
        meant = template.other_brackets(prompt, [name[len(VAR) :] for name in fields if name.startswith(VAR)])
        if meant is not None:
            message = f"{meant[0]} is text, and there is a variable {meant[1]!r}: write {{{{ {meant[1]} }}}}"
            self._mistakes.add(row.location.diagnostic(message, "prompt"))

    def unused_variables(self, defined: Iterable[str]) -> list[str]:
        """Those of the variables that no prompt of this pass asked for."""
        return sorted({name[len(VAR) :] for name in defined if name.startswith(VAR)} - self._used)

    def _filled(self, row: SpecRow, prompt: str, fields: Mapping[str, object], row_id: str) -> object:
        values = {name[len(VAR) :]: str(value) for name, value in fields.items() if name.startswith(VAR)}
        values[ROW_ID] = row_id
        self._used.update(template.names(prompt))
        try:
            text = template.filled(prompt, values)
        except template.UnknownNamesError as error:
            hint = did_you_mean(error.names[0], values) or f" Known: {', '.join(sorted(values))}."
            named = ", ".join(f"{{{{ {name} }}}}" for name in error.names)
            self._mistakes.add(row.location.diagnostic(f"{named} is not in vars.{hint}", "prompt"))
            return INVALID
        if not text.strip():
            self._mistakes.add(row.location.diagnostic("the prompt is empty when its variables are put in", "prompt"))
        return text

    def _tell_missing(self, row: SpecRow, fields: Mapping[str, object]) -> None:
        if row.has_errors:
            return
        missing = [name for name in REQUIRED if name not in fields]
        hint = " (seed, seeds, or an axis seed)" if "seed" in missing else ""
        message = f"needs {_listed(missing)}{hint}: neither the row, nor an axis, nor the defaults give it"
        self._mistakes.add(row.location.diagnostic(message))


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _candidacy(row_id: str, fields: Mapping[str, Any], placed: AxisLabels) -> Candidacy | None:
    """Which shot the cell is a candidate of: its row at the same place of all axes but seeds and takes."""
    if fields["keep"] is INVALID:
        return None
    place = "-".join(slug(label) or short_hash(label, 6) for name, label in placed if name not in ("seed", TAKE))
    return Candidacy(
        shot=f"{row_id}@{place}" if place else row_id,
        keep=fields["keep"],
        keep_if=fields.get("keep_if", KeepIf.CHECK),
        ahead=fields.get("keep_ahead", 0),
    )


def _tags(fields: Mapping[str, Any], *, swept: bool) -> tuple[str, ...]:
    """The row's tags, then LOOP for `loop: true`, then those that axes and overrides add."""
    own = fields.get("tags", ())
    if not isinstance(own, tuple):
        return ()
    if fields.get("loop") is True:
        own = tuple(dict.fromkeys((*own, LOOP)))
    if not swept:
        return own
    more = [tag for name, tags in fields.items() if name.startswith(EXTRA_TAGS) for tag in tags]
    return tuple(dict.fromkeys((*own, *more))) if more else own
