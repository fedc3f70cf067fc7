"""The parts of one manifest, gathered from its files into a spec, with everything that is wrong with them.

It reads the manifest and the head of the sheet that it names; it expands nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipeline.gateway.motions import MotionCatalog, normalize_name
from pipeline.manifest import labels, row_sources, source_files, yaml_document, yaml_model
from pipeline.manifest.axes import Axis, Draw, RandomSeedAxis
from pipeline.manifest.compiler import Compiler
from pipeline.manifest.csv_reader import CsvRows
from pipeline.manifest.diagnostics import Diagnostic, Diagnostics
from pipeline.manifest.document import Manifest, ManifestBudget, SheetAxes, TooManyRowsError
from pipeline.manifest.expansion import measure
from pipeline.manifest.labels import did_you_mean, slug
from pipeline.manifest.resolution import REQUEST_FIELDS, ValidationContext
from pipeline.manifest.spec import Defaults, ManifestSpec, RowReader, SourceLocation, SpecRow
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
        # As the user wrote it, because messages name files below it; pictures are sent, so theirs is absolute.
        self._folder = self._origin.absolute().parent if origin is not None else path.parent
        folder = self._origin.absolute().parent
        self._surroundings = ValidationContext(
            models=models, catalogue=catalogue, folder=folder, picture_folders=(folder, *picture_folders)
        )
        self._sheet_rows: CsvRows | None = None
        self._sheet_defaults: dict[str, str] = {}
        self._mistakes = Diagnostics()
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
        text = yaml_document.read(self._path, self._mistakes)
        self._texts[self._path] = text.text
        written = text.parsed.value
        shaper = SchemaValidator(self._path, self._surroundings, self._mistakes)
        self._own_motions(written)
        document = shaper.shaped(yaml_model.DocumentModel, written)
        yaml_document.reject_nulls(text, shaper.invalid_keys, self._mistakes)
        compiler = Compiler(
            SourceLocation(file=self._path, path=()), self._surroundings, self._mistakes, shaper.invalid_keys
        )
        program = self._program(document, written, compiler, text.parsed.row_lines, self._configured(defaults))
        program.max_rows = document.max_rows or max_rows
        return self._made(program, document)

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
        compiler = Compiler(SourceLocation(file=None), self._surroundings, self._mistakes, shaper.invalid_keys)
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
        defaults.fields.update(compiler.fields.variables(document.vars, ("vars",)))
        matrix = document.matrix
        axes = compiler.axes.of_matrix(matrix, written.get("matrix", {}), ("matrix",))
        zipped = compiler.axes.zipped(document.zip, written.get("zip"), ("zip",))
        if zipped is not None:
            axes = (zipped, *axes)
            compiler.axes.check_overlaps(axes, ("matrix",))
        rows = self._rows(document, written, compiler, row_lines, defaults=defaults, axes=axes)
        program = ManifestSpec(file=self._path, rows=rows, defaults=defaults, axes=axes)
        # A sheet is streamed: how many rows it has is known only at its end.
        program.measured = not isinstance(document.rows, yaml_model.RowsFileModel)
        if matrix is not None:
            compiler.patterns(program, matrix, written["matrix"])
        return program

    def _rows(
        self,
        document: yaml_model.DocumentModel,
        written: Mapping[str, Any],
        compiler: Compiler,
        row_lines: Sequence[int],
        *,
        defaults: Defaults,
        axes: tuple[Axis, ...],
    ) -> RowReader:
        """The rows of a list, of a sheet, or the one row that a manifest of axes alone has."""
        if isinstance(document.rows, yaml_model.RowsFileModel):
            sheet = self._folder / document.rows.file
            fill_down = row_sources.columns_to_fill(document.rows, compiler.fields)
            why = row_sources.why_not_a_sheet(sheet)
            if why is not None:
                compiler.fields.report(f"{document.rows.file!r} {why}", ("rows", "file"))
                return lambda _: ()
            self._files.append(sheet)
            return self._rows_of_sheet(sheet, defaults, axes, fill_down)
        if isinstance(document.rows, yaml_model.RowsImages):
            spot = SourceLocation(file=self._path, path=("rows", "images"))
            pictures = row_sources.PictureRows(self._folder, self._surroundings, compiler.fields, spot)
            given = {*defaults.fields, *(name for axis in axes for name in axis.sets)}
            picture_rows = pictures.rows(document.rows, given)
            self._files += pictures.files
            return lambda _: picture_rows
        if document.rows is not None:
            rows = [
                compiler.row(row, written["rows"][place], ("rows", place), row_lines[place], shared=True)
                for place, row in enumerate(document.rows)
            ]
            return lambda _: rows
        if axes:
            spot = SourceLocation(file=self._path, path=())
            only = SpecRow(location=spot, own={}, default_id=lambda: slug(document.name or self._origin.stem) or "row")
            return lambda _: (only,)
        # Axes that were refused leave a manifest empty too, and have a mistake of their own.
        if not self._mistakes and not (document.matrix is not None and document.matrix.include):
            compiler.fields.report("has nothing to buy: give it rows, zip or matrix", ())
        return lambda _: ()

    def _rows_of_sheet(
        self, path: Path, defaults: Defaults, axes: Sequence[Axis], fill_down: Sequence[str] = ()
    ) -> RowReader:
        folder = (self._origin if path == self._path else path).absolute().parent
        self._sheet_rows = row_sources.sheet(
            path, self._surroundings, defaults, axes, folder=folder, fill_down=fill_down
        )
        self._sheet_defaults = {
            name: labels.label(name, value)
            for name, value in defaults.fields.items()
            if not any(name in axis.sets for axis in axes)
        }
        return row_sources.rows_of(self._sheet_rows)

    def _made(self, program: ManifestSpec, document: yaml_model.DocumentModel | None) -> Manifest:
        # Before anything is counted or hashed: a file that changes meanwhile is noticed when the cells were read.
        stamps = tuple(source_files.stamp(path) for path in self._files)
        size = None
        if program.measured:
            measured = measure(program)
            size = measured.total
            # Before anything is expanded: one range mistyped multiplies to billions.
            if size > program.max_rows:
                problems = self._mistakes.problems(self._texts)
                raise TooManyRowsError(problems, measured, program.max_rows, self._path)
        budget = document.budget if document is not None else None
        given = program.rows(self._mistakes) if program.measured else ()
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


def _budget(shape: yaml_model.BudgetModel | None) -> ManifestBudget:
    if shape is None:
        return ManifestBudget()
    return ManifestBudget(
        max_cost_microusd=shape.max_cost, per_day_microusd=shape.per_day, per_month_microusd=shape.per_month
    )
