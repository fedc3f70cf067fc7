"""The parts of one manifest, gathered from its files into a program, with everything that is wrong with them.

It reads the manifest and looks at the sheet that it names; it expands nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipeline.config import strict_yaml
from pipeline.errors import ManifestError, Problem
from pipeline.gateway.motions import MotionCatalog, normalize_name
from pipeline.manifest import labels, row_sources, source_files, yaml_model
from pipeline.manifest.axes import Axis, Draw, RandomSeedAxis, ValueAxis
from pipeline.manifest.compiler import Compiler
from pipeline.manifest.csv_reader import CsvRows
from pipeline.manifest.diagnostics import Diagnostic, Diagnostics
from pipeline.manifest.document import Manifest, ManifestBudget, SheetAxes, TooManyRowsError
from pipeline.manifest.expansion import measure
from pipeline.manifest.field_types import plain
from pipeline.manifest.labels import did_you_mean, slug
from pipeline.manifest.resolution import REQUEST_FIELDS, ValidationContext
from pipeline.manifest.spec import Defaults, ManifestSpec, SourceLocation, SpecRow
from pipeline.manifest.validation import SchemaValidator


class ManifestLoader:
    """One reading of one manifest: gathers the parts of a program and what is wrong with them."""

    def __init__(
        self,
        path: Path,
        *,
        models: Collection[str],
        catalogue: MotionCatalog,
        draw: Draw | None,
        origin: Path | None = None,
        picture_folders: tuple[Path, ...] = (),
    ) -> None:
        self._path = path
        self._origin = origin if origin is not None else path
        self._folder = self._origin.absolute().parent if origin is not None else path.parent
        folder = self._origin.absolute().parent
        self._surroundings = ValidationContext(
            models=models, catalogue=catalogue, folder=folder, picture_folders=(folder, *picture_folders)
        )
        self._sheet_rows: CsvRows | None = None
        self._sheet_defaults: dict[str, str] = {}
        self._mistakes = Diagnostics()
        self._current = [self._mistakes]
        self._texts: dict[Path, str] = {}
        self._files = [path]
        self._draw = draw

    def sheet(self, defaults: Mapping[str, object], max_rows: int) -> Manifest:
        """The manifest of a CSV file given alone."""
        base = self._configured(defaults)
        rows = self._rows_of_sheet(self._path, base, ())
        return self._made(ManifestSpec(file=self._path, rows=rows, defaults=base, max_rows=max_rows), None)

    def document(self, defaults: Mapping[str, object], max_rows: int) -> Manifest:
        """The manifest of a YAML file."""
        read = self._yaml()
        written = read.value
        shaper = SchemaValidator(self._path, self._surroundings, self._mistakes)
        self._own_motions(written)
        document = shaper.shaped(yaml_model.DocumentModel, written)
        self._resolved_nulls(read, shaper)
        compiler = Compiler(SourceLocation(file=self._path, path=()), self._surroundings, self._mistakes, shaper.poison)
        program = self._program(document, written, compiler, read.row_lines, self._configured(defaults))
        program.max_rows = document.max_rows or max_rows
        return self._made(program, document)

    def _yaml(self) -> strict_yaml.ParsedYaml:
        if source_files.size_bytes(self._path) > strict_yaml.MAX_BYTES:
            most = strict_yaml.MAX_BYTES // 1_000_000
            self._refuse(f"is larger than {most} MB: put the rows into a CSV file")
        try:
            text = source_files.text(self._path)
            self._texts[self._path] = text
            read = strict_yaml.read(text)
        except UnicodeDecodeError:
            raise ManifestError(_problems([source_files.undecodable(self._path)])) from None
        except strict_yaml.YamlTextError as error:
            self._refuse(str(error), error.line, error.column)
        if not isinstance(read.value, dict):
            self._refuse("is empty" if read.value is None else "must be a mapping of keys: rows, defaults, matrix, ...")
        for path, line, column in read.repeated:
            self._mistakes.add(
                Diagnostic(file=self._path, path=path, line=line, column=column, message="this key is given twice")
            )
        for cut in read.cut:
            if not _takes_comment(cut):
                message = (
                    f"what follows '#' is a comment, and the text ends at {plain(cut.text[-20:])}: put it all in quotes"
                )
                self._mistakes.add(
                    Diagnostic(file=self._path, path=cut.path, line=cut.line, column=cut.column, message=message)
                )
        return read

    def _refuse(self, message: str, line: int | None = None, column: int | None = None) -> Any:
        raise ManifestError([Problem(file=self._path, message=message, line=line, column=column)])

    def _resolved_nulls(self, read: strict_yaml.ParsedYaml, shaper: SchemaValidator) -> None:
        for path in read.nulls:
            self._mistakes.add(
                Diagnostic(
                    file=self._path,
                    path=path,
                    message="has no value: give one or take the key out (a text with a comma in it needs quotes)",
                )
            )
            if isinstance(path[-1], str):
                shaper.poison.setdefault(path[:-1], set()).add(path[-1])

    def _own_motions(self, written: Mapping[str, Any]) -> None:
        given = written.get("motions")
        for name, value in given.items() if isinstance(given, dict) else ():
            try:
                self._surroundings.own_motions[normalize_name(name)] = self._surroundings.own_motion(name, value)
            except ValueError as error:
                self._mistakes.add(Diagnostic(file=self._path, path=("motions", name), message=str(error)))

    def _configured(self, defaults: Mapping[str, object]) -> Defaults:
        """The configuration's defaults; their mistakes are reported as the configuration's."""
        written = {name: Decimal(str(value)) if isinstance(value, float) else value for name, value in defaults.items()}
        shaper = SchemaValidator(None, self._surroundings, self._mistakes, prefix=("configuration", "defaults"))
        shape = shaper.shaped(yaml_model.DefaultsModel, written)
        compiler = Compiler(SourceLocation(file=None), self._surroundings, self._mistakes, shaper.poison)
        return compiler.defaults(shape, ("configuration", "defaults"))

    def _program(
        self,
        document: yaml_model.DocumentModel,
        written: Mapping[str, Any],
        compiler: Compiler,
        row_lines: Sequence[int],
        base: Defaults,
    ) -> ManifestSpec:
        defaults = compiler.defaults(document.defaults, ("defaults",)).over(base)
        defaults.fields.update(compiler.variables(document.vars, ("vars",)))
        matrix = document.matrix
        axes = compiler.axes(matrix, written.get("matrix", {}), ("matrix",))
        zipped = compiler.zipped(document.zip, written.get("zip"), ("zip",))
        if zipped is not None:
            axes = (zipped, *axes)
            compiler.apart(axes, ("matrix",))
        rows = self._rows(document, written, compiler, row_lines, defaults=defaults, axes=axes)
        program = ManifestSpec(file=self._path, rows=rows, defaults=defaults, axes=axes)
        program.measured = not isinstance(document.rows, yaml_model.RowsFileModel)
        if matrix is not None:
            self._patterns(program, matrix, written["matrix"], compiler)
        return program

    def _patterns(
        self, program: ManifestSpec, matrix: yaml_model.MatrixModel, written: Mapping[str, Any], compiler: Compiler
    ) -> None:
        given = program.rows() if program.measured else ()
        axes = [*program.axes, *(axis for row in given for axis in row.axes)]
        linked = {
            axis.name for axis in axes if isinstance(axis, ValueAxis) and axis.name not in (*REQUEST_FIELDS, "take")
        }
        patterns = (
            compiler.pattern(pattern, linked, ("matrix", "exclude", place))
            for place, pattern in enumerate(matrix.exclude or ())
        )
        program.excludes = tuple(pattern for pattern in patterns if pattern is not None)
        changes = (
            compiler.change(change, linked, ("matrix", "override", place))
            for place, change in enumerate(matrix.override or ())
        )
        program.changes = tuple(change for change in changes if change is not None)
        included = written.get("include", ())
        program.includes = tuple(
            compiler.row(row, included[place], ("matrix", "include", place), None, shared=False)
            for place, row in enumerate(matrix.include or ())
        )

    def _rows(
        self,
        document: yaml_model.DocumentModel,
        written: Mapping[str, Any],
        compiler: Compiler,
        row_lines: Sequence[int],
        *,
        defaults: Defaults,
        axes: tuple[Axis, ...],
    ) -> Callable[[], Iterable[SpecRow]]:
        """The rows of a list, of a sheet, or the one row that a manifest of axes alone has."""
        if isinstance(document.rows, yaml_model.RowsFileModel):
            sheet = self._folder / document.rows.file
            fill_down = row_sources.columns_to_fill(document.rows, compiler)
            why = row_sources.why_not_a_sheet(sheet)
            if why is not None:
                compiler.report(f"{document.rows.file!r} {why}", ("rows", "file"))
                return lambda: ()
            self._files.append(sheet)
            return self._rows_of_sheet(sheet, defaults, axes, fill_down)
        if isinstance(document.rows, yaml_model.RowsImages):
            spot = SourceLocation(file=self._path, path=("rows", "images"))
            pictures = row_sources.PictureRows(self._folder, self._surroundings, compiler, spot)
            given = {*defaults.fields, *(name for axis in axes for name in axis.sets)}
            picture_rows = pictures.rows(document.rows, given)
            self._files += pictures.files
            return lambda: picture_rows
        if document.rows is not None:
            rows = [
                compiler.row(row, written["rows"][place], ("rows", place), row_lines[place], shared=True)
                for place, row in enumerate(document.rows)
            ]
            return lambda: rows
        if axes:
            spot = SourceLocation(file=self._path, path=())
            only = SpecRow(location=spot, own={}, default_id=lambda: slug(document.name or self._origin.stem) or "row")
            return lambda: (only,)
        if not self._mistakes and not (document.matrix is not None and document.matrix.include):
            compiler.report("has nothing to buy: give it rows, zip or matrix", ())
        return lambda: ()

    def _rows_of_sheet(
        self, path: Path, defaults: Defaults, axes: Sequence[Axis], fill_down: Sequence[str] = ()
    ) -> row_sources.Rows:
        folder = (self._origin if path == self._path else path).absolute().parent
        self._sheet_rows = row_sources.sheet(
            path, self._surroundings, defaults, axes, folder=folder, fill_down=fill_down
        )
        self._sheet_defaults = {
            name: labels.label(name, value)
            for name, value in defaults.fields.items()
            if not any(name in axis.sets for axis in axes)
        }
        return row_sources.rows_of(self._sheet_rows, lambda: self._current[0])

    def _made(self, program: ManifestSpec, document: yaml_model.DocumentModel | None) -> Manifest:
        stamps = tuple(source_files.stamp(path) for path in self._files)
        size = None
        if program.measured:
            measured = measure(program)
            size = measured.total
            if size > program.max_rows:
                problems = self._mistakes.problems(self._texts)
                raise TooManyRowsError(problems, measured, program.max_rows, self._path)
        budget = document.budget if document is not None else None
        given = program.rows() if program.measured else ()
        every = [*program.axes, program.defaults.seeds, *(axis for row in given for axis in (*row.axes, row.seeds))]
        every += [axis for row in program.includes for axis in (*row.axes, row.seeds)]
        return Manifest(
            path=self._path,
            origin=self._origin,
            name=(document.name if document is not None else None) or self._origin.name.partition(".")[0] or "row",
            sha256=source_files.sha256(tuple(self._files)),
            files=tuple(self._files),
            budget=_budget(budget),
            sheet=self._sheet(document, [axis for axis in every if axis is not None]),
            axes=tuple((axis.name, axis.size) for axis in program.axes),
            size=size,
            max_rows=program.max_rows,
            uses_random_seeds=any(isinstance(axis, RandomSeedAxis) for axis in every),
            _program=program,
            _surroundings=self._surroundings,
            _mistakes=self._mistakes,
            _current=self._current,
            _texts=self._texts,
            _draw=self._draw,
            _stamps=stamps,
            _sheet_rows=self._sheet_rows,
            _sheet_defaults=self._sheet_defaults,
        )

    def _sheet(self, document: yaml_model.DocumentModel | None, axes: Sequence[Axis]) -> SheetAxes | None:
        if document is None or document.sheet is None:
            return None
        shape = document.sheet
        known = {*(axis.name for axis in axes), *REQUEST_FIELDS, "take", "row"}
        for key in ("x", "y", "tabs"):
            name = getattr(shape, key)
            if name is not None and name not in known:
                message = f"{name!r} is not an axis or a field.{did_you_mean(name, known)}"
                self._mistakes.add(Diagnostic(file=self._path, path=("sheet", key), message=message))
        return SheetAxes(x=shape.x, y=shape.y, tabs=shape.tabs)


COMMENTED_FIELDS = frozenset(
    {"model", "motion", "motions_id", "seed", "seeds", "strength", "motions_strength", "take", "x", "y", "tabs"}
)
"""Fields whose values never hold a '#', so that a comment behind them cuts nothing."""


def _takes_comment(cut: strict_yaml.CutText) -> bool:
    """Whether what follows a plain text can only be a comment."""
    names = {part for part in cut.path if isinstance(part, str)}
    is_address = "://" in cut.text or cut.text.startswith("sandbox:")
    return ("vars" not in names and bool(names & COMMENTED_FIELDS)) or (is_address and " " not in cut.text)


def _budget(shape: yaml_model.BudgetModel | None) -> ManifestBudget:
    if shape is None:
        return ManifestBudget()
    return ManifestBudget(
        max_cost_microusd=shape.max_cost, per_day_microusd=shape.per_day, per_month_microusd=shape.per_month
    )


def _problems(mistakes: Iterable[Diagnostic]) -> list[Problem]:
    return [Problem(file=mistake.file, message=mistake.message, line=mistake.line) for mistake in mistakes]
