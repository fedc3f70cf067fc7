"""The manifest room: what to buy, read from CSV or YAML, every mistake told at once. It never spends or sends."""

from pipeline.manifest.reader import Budget, Manifest, Sheet, TooManyRows, read

__all__ = ["Budget", "Manifest", "Sheet", "TooManyRows", "read"]
