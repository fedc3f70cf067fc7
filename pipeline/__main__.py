"""`python -m pipeline` is `dop`."""

from pipeline.cli.main import entry

entry()
