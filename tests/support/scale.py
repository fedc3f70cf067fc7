"""How large the largest tests are: small in CI, and as large as the documents say with `DOP_TEST_SIZE=full`."""

from __future__ import annotations

import os

IS_FULL = os.environ.get("DOP_TEST_SIZE") == "full"


def scaled(full: int, quick: int) -> int:
    """`full` with DOP_TEST_SIZE=full, else `quick`."""
    return full if IS_FULL else quick
