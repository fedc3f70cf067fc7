"""Manifests for tests: written to a folder, read with the shipped catalogue and the configuration's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ManifestError, Problem
from pipeline.gateway import motions
from pipeline.manifest import Manifest, read
from pipeline.records import Cell

REPO = Path(__file__).resolve().parents[2]
CATALOGUE = motions.load(REPO / "configs" / "motions.csv")
MODELS = ("dop-lite", "dop-preview", "dop-turbo")
DEFAULTS: Mapping[str, object] = {
    "model": "dop-lite",
    "motion": "General",
    "strength": 0.7,
    "enhance_prompt": False,
}
ONE = "image: https://cdn.example.com/mill.jpg, prompt: Old mill"
"""A row's fields that no default gives, but for the seed."""


def opened(path: Path, **options: Any) -> Manifest:
    """The manifest in a file."""
    given: dict[str, Any] = {"defaults": DEFAULTS, "models": MODELS, "catalogue": CATALOGUE, **options}
    return read(path, **given)


def written(folder: Path, text: str | bytes, name: str = "batch.yaml") -> Path:
    """A file with that text."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def cells(folder: Path, text: str | bytes, name: str = "batch.yaml", **options: Any) -> list[Cell]:
    """All cells of a manifest."""
    return list(opened(written(folder, text, name), **options).cells())


def problems(folder: Path, text: str | bytes, name: str = "batch.yaml", **options: Any) -> list[Problem]:
    """What is wrong with a manifest; nothing if it is right."""
    try:
        cells(folder, text, name, **options)
    except ManifestError as error:
        return list(error.problems)
    return []


def message_of(folder: Path, text: str | bytes, name: str = "batch.yaml", **options: Any) -> str:
    """The messages of what is wrong, a line each, without the folder."""
    found = problems(folder, text, name, **options)
    return "\n".join(str(problem).replace(f"{folder}/", "") for problem in found)
