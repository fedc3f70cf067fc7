"""The list of charged jobs that a gateway exports."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.reports.usage_list import read_usage


def test_a_list_that_is_not_there_is_named_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nope\.csv can't be read: No such file or directory$"):
        read_usage(tmp_path / "nope.csv")


@pytest.mark.parametrize("amount", ["Infinity", "NaN", "a lot"])
def test_an_amount_that_is_none_is_named_with_its_line(tmp_path: Path, amount: str) -> None:
    usage = tmp_path / "usage.csv"
    usage.write_text(f"job_set_id,amount\na1,0.135\nb2,{amount}\n")
    with pytest.raises(UsageError, match=rf"usage\.csv:3: '{amount}' is not an amount"):
        read_usage(usage)
