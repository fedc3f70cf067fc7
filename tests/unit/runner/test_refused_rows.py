"""Which rows are refused for themselves, and when the key is meant."""

from __future__ import annotations

from pipeline.runner.refused_rows import RefusedRow, RefusedRows


def row(name: str) -> RefusedRow:
    return RefusedRow(request_id=name, row_id=name, token=f"token of {name}", reason="403 Access denied")


def test_a_row_is_refused_for_itself_when_another_one_is_accepted() -> None:
    rows = RefusedRows()
    assert not rows.refuse(row("a"))
    assert rows.accept() == [row("a")]
    assert rows.accept() == []
    assert rows.end() == ([], [])


def test_a_second_row_means_the_key_while_none_was_accepted() -> None:
    rows = RefusedRows()
    assert not rows.refuse(row("a"))
    assert not rows.refuse(row("a")), "the same row tells nothing new"
    assert rows.refuse(row("b"))


def test_three_rows_in_a_row_mean_a_key_that_was_good_before() -> None:
    rows = RefusedRows()
    rows.accept()
    for _ in range(2):
        assert not rows.refuse(row("a"))
        assert not rows.refuse(row("b"))
        assert rows.accept() == [row("a"), row("b")]
    assert not rows.refuse(row("a"))
    assert not rows.refuse(row("b"))
    assert rows.refuse(row("c"))


def test_at_the_end_a_good_key_rejects_and_an_unproven_one_does_not() -> None:
    unproven, proven = RefusedRows(), RefusedRows()
    unproven.refuse(row("a"))
    assert unproven.end() == ([], [row("a")])
    proven.accept()
    proven.refuse(row("a"))
    assert proven.end() == ([row("a")], [])


def test_rows_refused_because_the_address_is_gone_stay_planned() -> None:
    """The same command buys them when the gateway is back; a late acceptance of a call sent before changes nothing."""
    rows = RefusedRows()
    rows.accept()
    lost = [RefusedRow(request_id=name, row_id=name, token=name, reason="404", by_address=True) for name in "abcd"]
    assert [rows.refuse(row) for row in lost] == [False, False, True, True]
    assert rows.accept() == []
    assert rows.refuse(row("e")) is False
    assert rows.end() == ([row("e")], [])
