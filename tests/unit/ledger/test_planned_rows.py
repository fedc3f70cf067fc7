"""Rows of a sheet are written as tuples that are put together from parts: they say what whole rows would."""

from __future__ import annotations

from pathlib import Path

from pipeline.ledger.planned_rows import PLANNED_COLUMNS, ParamsText, PlannedRows
from pipeline.ledger.schema import attempts, checksum, digest, dump_params, load_params
from pipeline.records import State
from tests.support.factories import make_params, make_request
from tests.support.ledgers import opened, requests, start, tamper

PROMPTS = ("A lake", "5 %, 'quoted' \"twice\"\\", "Mühle\t\n\x7f\u2028", "', None, '", "湖")


def test_the_hashes_are_those_of_the_whole_row() -> None:
    planned = PlannedRows("run 'a'")
    for price in (125_000, 406_000):
        for number, prompt in enumerate(PROMPTS, start=1):
            request = make_request(
                prompt=prompt,
                seed=number,
                row_id=f"row's {prompt}",
                motion="Général",
                take=number,
                price_microusd=price,
            )
            row: dict[str, object] = dict.fromkeys(column.name for column in attempts.columns)
            row.update(zip(PLANNED_COLUMNS, planned.values(request), strict=True))
            assert (row["checksum"], row["digest"]) == (checksum(row), digest(row))
            assert row["state"] == State.PLANNED
            assert (row["request_id"], row["take"], row["price_microusd"]) == (request.request_id, number, price)
            assert load_params(str(row["params"])) == request.params


def test_the_text_of_params_is_that_of_each() -> None:
    texts = ParamsText()
    for prompt in PROMPTS:
        for nsfw in (None, True, False):
            for strength in (0, 100):
                params = make_params(prompt=prompt, check_nsfw=nsfw, strength_hundredths=strength, seed=9)
                assert texts.dump(params) == dump_params(params)


def test_what_was_listed_is_whole_and_a_twin_with_another_hash_is_found(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with opened(path) as (ledger, queries):
        start(queries, requests(30))
        assert ledger.problems() == []
    tamper(path, "UPDATE attempts SET checksum = '0123456789abcdef' WHERE take = 1 AND row_id = 'lake-7'")
    with opened(path) as (ledger, _):
        assert [problem for problem in ledger.problems() if "checksum" in problem]
