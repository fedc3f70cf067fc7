"""The manifest room: what to buy, read from CSV or YAML, every mistake told at once. It never spends or sends."""

from pipeline.manifest.reader import Manifest, ManifestBudget, SheetAxes, TooManyRowsError, read

__all__ = ["Manifest", "ManifestBudget", "SheetAxes", "TooManyRowsError", "read"]
