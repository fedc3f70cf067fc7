"""`dop init --from photos/`: a sheet with a row for each picture of a folder, its prompt from the text beside it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.manifest.picture_rows import Picture, found

COLUMNS = ("id", "image", "prompt", "seed")
FIRST_SEED = 1
"""Every row needs a seed; the same one for all makes the videos of one prompt comparable."""


def sheet_of(pictures_folder: Path, folder: Path) -> tuple[str, int]:
    """The text of the sheet, and how many of its prompts are empty.

    Args:
        folder: where the sheet will lie: the paths in it are relative to that.

    Raises:
        UsageError: there are no pictures, or a caption cannot be read.
    """
    if not pictures_folder.is_dir():
        raise UsageError(f"{pictures_folder} is not a folder")
    try:
        pictures = found([str(pictures_folder.resolve())], Path())
    except ValueError:
        raise UsageError(f"{pictures_folder}: no pictures in it (.jpg, .jpeg, .png, .webp)") from None
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    empty = 0
    for picture in pictures:
        prompt = _caption(picture)
        empty += not prompt
        writer.writerow((picture.row_id, _relative(picture.path, folder), prompt, FIRST_SEED))
    return text.getvalue(), empty


def _caption(picture: Picture) -> str:
    if picture.caption is None:
        return ""
    try:
        return picture.caption.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError:
        raise UsageError(f"{picture.caption} is not UTF-8: save it as UTF-8") from None


def _relative(picture: Path, folder: Path) -> str:
    try:
        return picture.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return str(picture.resolve())
