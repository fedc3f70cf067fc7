"""`python -m pipeline` is `dop`."""

from pipeline.cli import entry

entry()
