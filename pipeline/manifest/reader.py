"""What to buy, read from a CSV or YAML file: the entry of this package.

It reads the manifest, the sheet it names and the beginnings of local pictures. It never touches the network and writes
nothing. What it hands out may be acted on only when everything was read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from pipeline.errors import ManifestError, Problem
from pipeline.gateway.motions import MotionCatalog
from pipeline.manifest import source_files
from pipeline.manifest.axes import Draw
from pipeline.manifest.document import DEFAULT_MAX_ROWS, Manifest, ManifestBudget, SheetAxes, TooManyRowsError
from pipeline.manifest.loader import ManifestLoader

__all__ = ["DEFAULT_MAX_ROWS", "Manifest", "ManifestBudget", "SheetAxes", "TooManyRowsError", "read"]


def read(
    path: Path,
    *,
    defaults: Mapping[str, object],
    models: Collection[str],
    catalogue: MotionCatalog,
    max_rows: int = DEFAULT_MAX_ROWS,
    frozen_seeds: Mapping[str, tuple[int, ...]] | None = None,
    draw: Draw | None = None,
    origin: Path | None = None,
    picture_folders: tuple[Path, ...] = (),
) -> Manifest:
    """Reads a manifest and checks its shape; a manifest of a wrong shape is read whole before it is refused.

    Args:
        defaults: fields of every row, from the configuration; the manifest's own defaults beat them.
        models: the models that may be named.
        max_rows: what the axes may multiply to where the manifest does not say (its `max_rows`).
        frozen_seeds: the random seeds of a saved plan, by place (`Manifest.drawn`).
        origin: where the manifest counts as being, for paths in it and for its name; `path` unless given.
        picture_folders: where local pictures may come from besides the manifest's own folder.
        draw: place, count -> random seeds; for a plan that is being made. Without either, random seeds are a mistake.

    Raises:
        ManifestError: the file is no manifest, or its shape is wrong: with all mistakes, not only those of shape.
        TooManyRows: the axes multiply to more than allowed, where that is known without reading a sheet.
    """
    reading = ManifestLoader(
        path,
        models=models,
        catalogue=catalogue,
        draw=_frozen(frozen_seeds) or draw,
        origin=origin,
        picture_folders=picture_folders,
    )
    why = source_files.why_not_a_file(path)
    if why is not None:
        raise ManifestError([Problem(file=path, message=why)])
    if source_files.is_sheet(path):
        manifest = reading.sheet(defaults, max_rows)
    elif source_files.is_yaml(path):
        manifest = reading.document(defaults, max_rows)
    else:
        raise ManifestError([Problem(file=path, message=source_files.why_not_read(path))])
    if manifest._mistakes:
        for _ in manifest.cells():
            raise AssertionError("a manifest with mistakes gave a cell")
    return manifest


def _frozen(seeds: Mapping[str, tuple[int, ...]] | None) -> Draw | None:
    if seeds is None:
        return None

    def draw(place: str, count: int) -> tuple[int, ...]:
        if len(seeds.get(place, ())) != count:
            raise ValueError(f"the saved plan has no {count} seeds for {place!r}: make a new plan")
        return seeds[place]

    return draw
