"""What to buy, read from CSV or YAML, with every mistake reported at once. It never spends or sends."""

from pipeline.manifest.reader import Manifest, ManifestBudget, SheetAxes, TooManyRowsError, read

__all__ = ["Manifest", "ManifestBudget", "SheetAxes", "TooManyRowsError", "read"]
