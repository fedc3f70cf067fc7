"""A program -> cells, streamed: every row with the defaults, axes multiplied, patterns applied, limits checked. Pure.

Nothing is expanded before it is counted. After the first mistake no more cells come out, but the looking goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod

from pipeline.gateway.motions import Preset
from pipeline.manifest import template
from pipeline.manifest.axes import Axis, Draw, Point, Points, bound
from pipeline.manifest.compile import EXTRA_TAGS, ROW_ID
from pipeline.manifest.labels import did_you_mean
from pipeline.manifest.mistakes import Mistake, Mistakes
from pipeline.manifest.program import BAD, VAR, ZIP, Program, Row
from pipeline.manifest.settle import REQUIRED
from pipeline.records import Cell, Params

TAKE = "take"
NEEDED = frozenset(REQUIRED)


@dataclass(slots=True)
class Measure:
    """How much the axes multiply to, counted without expanding. Rows that no axis multiplies are not counted."""

    rows: int = 0
    total: int = 0
    largest: tuple[tuple[str, int], ...] = ()
    largest_total: int = 0
    even: bool = True
    by_model: Counter[str] = field(default_factory=Counter)

    def add(self, axes: Sequence[tuple[str, int]], models: Mapping[str, int]) -> None:
        """Counts one row whose axes multiply to more than one cell."""
        sizes = tuple(axes)
        size = prod(count for _, count in sizes)
        self.even = self.even and (not self.rows or sizes == self.largest)
        self.rows += 1
        self.total += size
        if size > self.largest_total:
            self.largest, self.largest_total = sizes, size
        self.by_model.update(models)

    @property
    def axes(self) -> tuple[tuple[str, int], ...]:
        """The size of each axis, rows first where there are several; the largest row's axes where rows differ."""
        return (("rows", self.rows), *self.largest) if self.rows > 1 else self.largest


@dataclass(frozen=True, slots=True)
class _Block:
    """A row ready to be multiplied."""

    row: Row
    fields: dict[str, object]
    axes: tuple[Axis, ...]
    repeat: int

    @property
    def sizes(self) -> list[tuple[str, int]]:
        sizes = [(axis.name, axis.size) for axis in self.axes]
        return [*sizes, (TAKE, self.repeat)] if self.repeat > 1 else sizes


class Expansion:
    """One pass over a program.

    Args:
        draw: place -> random seeds, see `axes.bound`; None where there is no saved plan.
    """

    def __init__(self, program: Program, mistakes: Mistakes, draw: Draw | None) -> None:
        self.measure = Measure()
        self._program = program
        self._mistakes = mistakes
        self._draw = draw
        self._shared_sets = frozenset(name for axis in program.axes for name in axis.sets)
        self._unmatched = {id(pattern): pattern for pattern in program.excludes}
        self._unmatched.update({id(change.where): change.where for change in program.changes})
        self._row_lines: dict[int, int | None] = {}
        self._cell_ids: set[int] = set()

    def cells(self) -> Iterator[Cell]:
        """The cells in order: rows as written, the first axis slowest; then the included rows."""
        for row in self._program.rows():
            yield from self._clean(self._of(row))
        for row in self._program.includes:
            yield from self._clean(self._of(row))
        if not self.too_many and not self._mistakes:
            self._tell_unmatched()

    @property
    def too_many(self) -> bool:
        """Whether the axes multiply to more than may be."""
        return self.measure.total > self._program.max_rows

    def measured(self) -> Measure:
        """The measure of rows that are at hand, in the time of their number, whatever their axes multiply to."""
        quiet = Expansion(self._program, Mistakes(), None)
        for row in (*self._program.rows(), *self._program.includes):
            quiet._count(quiet._block(row))
        return quiet.measure

    def _clean(self, cells: Iterable[Cell]) -> Iterator[Cell]:
        for cell in cells:
            if not self._mistakes.found and not self.too_many:
                yield cell

    def _of(self, row: Row) -> Iterator[Cell]:
        row_id = self._row_id(row)
        block = self._block(row)
        if not block.axes and block.repeat == 1:
            cell = self._cell(block, block.fields, row_id, (), skip=False, take=None)
            if cell is not None:
                yield cell
            return
        self._count(block)
        if not self.too_many:
            yield from self._multiplied(block, row_id)

    # a row ----------------------------------------------------------------------------------------------------------

    def _row_id(self, row: Row) -> str:
        """The row's id; two rows with one id are a mistake, two equal rows without ids get different ones."""
        first = row.row_id or row.default_id()
        if row.row_id is not None and self._is_taken(first):
            line = self._row_lines.get(hash(first))
            where = f", see line {line}" if line is not None else ""
            self._mistakes.add(row.spot.mistake(f"the id {first!r} is taken{where}", "id"))
        row_id = first
        number = 1
        while self._is_taken(row_id):
            number += 1
            row_id = f"{first}-{number}"
        self._row_lines.setdefault(hash(row_id), row.spot.line)
        return row_id

    def _is_taken(self, row_id: str) -> bool:
        return hash(row_id) in self._row_lines or hash(row_id) in self._cell_ids

    def _block(self, row: Row) -> _Block:
        axes = self._axes(row)
        defaults = self._program.defaults
        if "take" in row.own and "repeat" in defaults.fields:
            fields = {**defaults.fields, **row.own}
            del fields["repeat"]
        else:
            fields = {**defaults.fields, **row.own}
        if row.own and (axes or row.axes):
            self._tell_conflicts(row, axes)
        sets_seed = "seed" in row.own or any("seed" in axis.sets for axis in axes)
        if defaults.seeds is not None and not sets_seed:
            axes = (*axes, defaults.seeds)
        repeat = fields.get("repeat", 1)
        if "repeat" in row.own:
            fields.pop("take", None)
        return _Block(row, fields, axes, repeat if isinstance(repeat, int) else 1)

    def _axes(self, row: Row) -> tuple[Axis, ...]:
        """The shared axes, those of the row's own matrix in their places, new ones behind, seeds last."""
        shared = self._program.axes if row.shared else ()
        if not row.axes and row.zipped is None and row.seeds is None:
            return shared
        own = {axis.name: axis for axis in row.axes}
        if row.zipped is not None:
            own[ZIP] = row.zipped
        axes = [own.pop(axis.name, axis) for axis in shared]
        if ZIP in own:
            axes.insert(0, own.pop(ZIP))
        axes += own.values()
        if row.seeds is not None:
            axes.append(row.seeds)
        return tuple(axes)

    def _tell_conflicts(self, row: Row, axes: Sequence[Axis]) -> None:
        if row.doubtful:
            return
        setters: dict[str, str] = {}
        for axis in axes:
            for name in axis.sets:
                word = name.removeprefix(VAR)
                if name in row.own and (row.seeds is not axis):
                    hint = f": give the row its own matrix, {{{axis.name}: [...]}}, or take it out of the row"
                    self._mistakes.add(
                        row.spot.mistake(f"{word} is set in the row and by the axis {axis.name!r}{hint}", name)
                    )
                elif name in row.own:
                    self._mistakes.add(row.spot.mistake("stands beside 'seed': keep one of them", "seeds"))
                if name in setters:
                    other = "seeds" if axis is row.seeds else repr(axis.name)
                    both = f"{word} is set by the axis {setters[name]!r} and by {other}"
                    self._mistakes.add(row.spot.mistake(both))
                setters[name] = axis.name

    def _count(self, block: _Block) -> None:
        sizes = block.sizes
        size = prod(count for _, count in sizes)
        if size > 1:
            self.measure.add(sizes, _by_model(block, size))

    # cells ----------------------------------------------------------------------------------------------------------

    def _multiplied(self, block: _Block, row_id: str) -> Iterator[Cell]:
        row = block.row
        try:
            axes = [bound(axis, explicit_id=row.row_id, row_id=row_id, draw=self._draw) for axis in block.axes]
        except ValueError as error:
            if not row.doubtful:
                self._mistakes.add(row.spot.mistake(str(error)))
            return
        names = [axis.name for axis in axes]
        pools: list[Sequence[int | Point]] = [axis.values for axis in axes]
        for values in product(*pools):
            fields = dict(block.fields)
            labels: list[str] = []
            parts: list[str] = []
            skip = False
            for value in values:
                if isinstance(value, int):
                    fields["seed"] = value
                    labels.append(str(value))
                    parts.append(labels[-1])
                else:
                    fields.update(value.sets)
                    labels.append(value.label)
                    parts.append(value.part)
                    skip = skip or value.skip
            placed = tuple(zip(names, labels, strict=True))
            if (self._program.excludes or self._program.changes) and row.shared:
                if self._excluded(row_id, fields, placed):
                    continue
                self._changed(row_id, fields, placed)
            cell_id = f"{row_id}@{'-'.join(parts)}" if parts else row_id
            for number in range(1, block.repeat + 1):
                cell = self._cell(block, fields, cell_id, placed, skip=skip, take=number if block.repeat > 1 else None)
                if cell is not None:
                    yield cell

    def _excluded(self, row_id: str, fields: Mapping[str, object], placed: Sequence[tuple[str, str]]) -> bool:
        labels = dict(placed)
        hits = [pattern for pattern in self._program.excludes if pattern.matches(row_id, fields, labels)]
        for pattern in hits:
            self._unmatched.pop(id(pattern), None)
        return bool(hits)

    def _changed(self, row_id: str, fields: dict[str, object], placed: Sequence[tuple[str, str]]) -> None:
        """Overrides look at the cell as the sweep made it; a later one wins."""
        labels = dict(placed)
        hits = [change for change in self._program.changes if change.where.matches(row_id, fields, labels)]
        for change in hits:
            self._unmatched.pop(id(change.where), None)
            fields.update(change.sets)

    def _cell(
        self,
        block: _Block,
        fields: dict[str, object],
        cell_id: str,
        placed: tuple[tuple[str, str], ...],
        *,
        skip: bool,
        take: int | None,
    ) -> Cell | None:
        if take is not None:
            placed = (*placed, (TAKE, str(take)))
            if take > 1:
                cell_id = f"{cell_id}{'-' if '@' in cell_id else '@'}take{take}"
        if placed and "@" in cell_id and not self._is_new(cell_id):
            told = f"two cells would be called {cell_id!r}: give ids or labels that differ"
            self._mistakes.add(block.row.spot.mistake(told))
        params = None if skip or fields.get("skip") is True else self._params(block.row, fields, cell_id)
        motion = fields.get("motion")
        if params is None and not (skip or fields.get("skip") is True):
            return None
        number = take or fields.get("take", 1)
        return Cell(
            row_id=cell_id,
            params=params,
            motion=motion.name if isinstance(motion, Preset) else "",
            take=number if isinstance(number, int) else 1,
            tags=_tags(fields),
            axes=placed,
            line=block.row.spot.line,
        )

    def _is_new(self, cell_id: str) -> bool:
        before = len(self._cell_ids)
        self._cell_ids.add(hash(cell_id))
        return len(self._cell_ids) > before and hash(cell_id) not in self._row_lines

    def _params(self, row: Row, fields: Mapping[str, object], cell_id: str) -> Params | None:
        if not fields.keys() >= NEEDED:
            self._tell_missing(row, fields)
            return None
        prompt = fields["prompt"]
        if isinstance(prompt, str) and "{{" in prompt:
            prompt = self._filled(
                row, prompt, fields, cell_id.split("@", maxsplit=1)[0] if row.row_id is None else row.row_id
            )
        motion = fields["motion"]
        end_image = fields.get("end_image", ())
        if end_image and isinstance(motion, Preset) and motion.start_end_frame is False:
            told = f"the motion {motion.name!r} takes no end frame"
            self._once(row, told, "end_image" if "end_image" in row.own else None)
        if self._mistakes.found and (prompt is BAD or BAD in fields.values()):
            return None
        return Params(
            model=fields["model"],  # type: ignore[arg-type]  # one flat mapping of settled fields, see program.py
            prompt=prompt,  # type: ignore[arg-type]
            seed=fields["seed"],  # type: ignore[arg-type]
            motions_id=motion.motions_id,  # type: ignore[attr-defined]
            strength_hundredths=fields["strength"],  # type: ignore[arg-type]
            input_images=fields["image"],  # type: ignore[arg-type]
            input_images_end=end_image,  # type: ignore[arg-type]
            enhance_prompt=fields["enhance_prompt"],  # type: ignore[arg-type]
            check_nsfw=fields.get("check_nsfw"),  # type: ignore[arg-type]
        )

    def _filled(self, row: Row, prompt: str, fields: Mapping[str, object], row_id: str) -> object:
        values = {name[len(VAR) :]: str(value) for name, value in fields.items() if name.startswith(VAR)}
        values[ROW_ID] = row_id
        try:
            text = template.filled(prompt, values)
        except template.UnknownNamesError as error:
            name = error.names[0]
            hint = did_you_mean(name, values) or (f" Known: {', '.join(sorted(values))}." if len(values) > 1 else "")
            self._once(row, f"{{{{ {name} }}}} is not in vars.{hint}", "prompt" if "prompt" in row.own else None)
            return BAD
        if not text.strip():
            self._once(row, "the prompt is empty when its variables are put in", None)
            return BAD
        return text

    def _tell_missing(self, row: Row, fields: Mapping[str, object]) -> None:
        missing = [name for name in REQUIRED if name not in fields]
        if row.doubtful:
            return
        hint = " (seed, seeds, or an axis seed)" if "seed" in missing else ""
        self._once(row, f"needs {_listed(missing)}{hint}: neither the row, nor an axis, nor the defaults give it", None)

    def _once(self, row: Row, message: str, name: str | None) -> None:
        self._mistakes.add(row.spot.mistake(message, name))

    def _tell_unmatched(self) -> None:
        for pattern in self._unmatched.values():
            self._mistakes.add(
                Mistake(file=self._program.file, path=pattern.path, message="matches no cell: nothing would change")
            )


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _tags(fields: Mapping[str, object]) -> tuple[str, ...]:
    own = fields.get("tags", ())
    found: list[str] = list(own) if isinstance(own, tuple) else []
    for name, value in fields.items():
        if name.startswith(EXTRA_TAGS) and isinstance(value, tuple):
            found += value
    return tuple(dict.fromkeys(found))


def _by_model(block: _Block, size: int) -> Mapping[str, int]:
    """How many of a row's cells each model would have, before exclusions."""
    for axis in block.axes:
        if isinstance(axis, Points) and "model" in axis.sets:
            models: Counter[str] = Counter()
            for point in axis.values:
                models[str(point.sets.get("model", block.fields.get("model", "?")))] += size // axis.size
            return models
    return {str(block.fields.get("model", "?")): size}
