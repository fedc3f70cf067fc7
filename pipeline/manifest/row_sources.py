"""Rows that the manifest does not list itself: those of a sheet beside it, or of a folder of pictures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from pipeline.manifest import field_types, picture_rows, source_files, yaml_model
from pipeline.manifest.axes import Axis
from pipeline.manifest.csv_reader import CsvRows
from pipeline.manifest.diagnostics import Diagnostic
from pipeline.manifest.field_compiler import FieldCompiler
from pipeline.manifest.labels import did_you_mean
from pipeline.manifest.resolution import ALIASES, ValidationContext
from pipeline.manifest.sheet_row import COLUMNS, is_column
from pipeline.manifest.spec import INVALID, Defaults, RowReader, SourceLocation, SpecRow

NOT_FILLED = ("id", "skip", "take", "repeat")
"""Columns that mean something where they are empty, or must differ from row to row."""


def sheet(
    path: Path,
    surroundings: ValidationContext,
    defaults: Defaults,
    axes: Sequence[Axis],
    *,
    folder: Path,
    fill_down: Sequence[str] = (),
) -> CsvRows:
    """The sheet at a path, which is read when its rows are asked for; paths in it are relative to `folder`."""
    given = {*defaults.fields, *(name for axis in axes for name in axis.sets)}
    if defaults.seeds is not None:
        given.add("seed")
    return CsvRows(path, surroundings.in_folder(folder), frozenset(given), fill_down)


def rows_of(rows: CsvRows) -> RowReader:
    """The rows of a sheet, which is read again for each pass."""
    return lambda mistakes: rows.rows(source_files.table(rows.path, is_column), mistakes)


def why_not_a_sheet(path: Path) -> str | None:
    """Why a file cannot be read as a sheet; None if it can."""
    why = source_files.why_not_a_file(path)
    if why is None and not source_files.is_sheet(path):
        return f"is not a sheet: {', '.join(source_files.SHEET_NAMES)} are read"
    return why


def columns_to_fill(shape: yaml_model.RowsFileModel, fields: FieldCompiler) -> tuple[str, ...]:
    """The columns of `fill_down`; those that cannot be filled are mistakes."""
    filled = []  # under the names of fields: a column may be written as the API spells it
    for place, name in enumerate(shape.fill_down or ()):
        if name in NOT_FILLED:
            message = f"fill_down: {name!r} is not filled: every row says its own"
        elif not is_column(name):
            message = f"fill_down: {name!r} is not a column.{did_you_mean(name, COLUMNS)}"
        else:
            filled.append(name)
            continue
        fields.report(message, ("rows", "fill_down", place))
    return tuple(ALIASES.get(name, name) for name in filled)


class PictureRows:
    """The rows of a folder of pictures; `files` are the captions that were read."""

    def __init__(self, folder: Path, context: ValidationContext, fields: FieldCompiler, spot: SourceLocation) -> None:
        self.files: list[Path] = []
        self._folder = folder
        self._context = context
        self._fields = fields
        self._spot = spot

    def rows(self, shape: yaml_model.RowsImages, given: Collection[str]) -> list[SpecRow]:
        """A row for each picture.

        Args:
            given: fields that defaults or axes give.
        """
        place = ("rows", "images")
        try:
            pictures = picture_rows.found(shape.images, self._folder)
        except ValueError as error:
            self._fields.report(str(error), place)
            return []
        return [self._row(picture, needs_caption="prompt" not in given) for picture in pictures]

    def _row(self, picture: picture_rows.Picture, *, needs_caption: bool) -> SpecRow:
        own: dict[str, object] = {}
        try:
            own["image"] = self._context.image(str(picture.path.absolute()))
        except ValueError as error:
            own["image"] = INVALID
            self._report(picture.path, str(error))
        if picture.caption is not None:
            self.files.append(picture.caption)
            try:
                own["prompt"] = field_types.prompt(source_files.text(picture.caption).strip())
            except UnicodeDecodeError:
                own["prompt"] = INVALID
                self._fields.add(source_files.undecodable(picture.caption))
            except ValueError as error:
                own["prompt"] = INVALID
                self._report(picture.caption, f"the caption {error}")
        elif needs_caption:
            own["prompt"] = INVALID
            caption = picture.path.with_suffix(picture_rows.CAPTION).name
            self._report(picture.path, f"has no caption: write {caption} beside it, or a prompt in `defaults`")
        return SpecRow(location=self._spot, own=own, row_id=picture.row_id, default_id=lambda: picture.row_id)

    def _report(self, file: Path, message: str) -> None:
        self._fields.add(Diagnostic(file=file, message=message))
