"""The command at the vendor's own API: buying, what it can't express, cancel, uploads, prices, usage, secrets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.cli_driver import Dop, Here, shots, table
from tests.support.vendor_sandbox import KEY_ID, KEY_SECRET, VendorSandbox

Made = tuple[Dop, VendorSandbox]


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Callable[..., Made]]:
    """Makes a user's folder pointed at a sandbox of the vendor's kind."""
    with ExitStack() as stack:

        def make(**options: Any) -> Made:
            sandbox = stack.enter_context(VendorSandbox(tmp_path / "vendor", **options))
            dop = Here(folder=tmp_path, environ=sandbox.environment)
            stack.callback(dop.end_all)
            return dop, sandbox

        yield make


def test_a_run_buys_at_the_vendors_api(vendor: Callable[..., Made]) -> None:
    dop, sandbox = vendor()
    end = dop.buy(dop.csv(shots(3)))
    assert end.code == 0, end.err
    assert end.counts == {"done": 3}
    assert {one.model for one in sandbox.books.requests.values()} == {"higgsfield-ai/dop/lite"}
    assert dop.ledger_mills() == 375
    assert len(dop.videos()) == 3
    again = dop.buy(dop.folder / "shots.csv")
    assert len(sandbox.books.requests) == 3, again.err


def test_the_history_has_the_id_by_which_support_finds_a_submit(vendor: Callable[..., Made]) -> None:
    dop, _ = vendor()
    dop.buy(dop.csv(shots(1)))
    (detail,) = dop.ledger("select detail from history where event = 'accept'")[0]
    assert "(X-Correlation-ID " in str(detail)


def test_no_secret_is_left_behind(vendor: Callable[..., Made]) -> None:
    dop, sandbox = vendor()
    end = dop.buy(dop.csv(shots(2)), "--webhook")
    texts = [
        path.read_text(errors="replace") for path in dop.latest.rglob("*") if path.suffix in (".csv", ".log", ".json")
    ]
    shown = dop.call("show", "row-1", "--verbose")
    jsoned = dop.call("show", "row-1", "--json")
    everything = "\n".join([*texts, end.out, end.err, shown.out, jsoned.out])
    assert "the call is kept" in shown.out
    for secret in (KEY_ID, KEY_SECRET, "hf_webhook"):
        assert secret not in everything
    assert all(one.job.callback_url for one in sandbox.books.requests.values())


def test_what_the_api_cannot_express_is_a_mistake_in_the_plan(vendor: Callable[..., Made]) -> None:
    dop, sandbox = vendor()
    rows = [
        {"id": "nsfw", "image": "https://x.example/a.jpg", "prompt": "a lake", "seed": 1, "check_nsfw": "true"},
        {"id": "fine", "image": "https://x.example/a.jpg", "prompt": "a lake", "seed": 2},
    ]
    end = dop.call("plan", dop.csv(table(rows)))
    assert end.code == 2
    assert "nsfw" in end.err
    assert "has no check_nsfw" in end.err
    assert not sandbox.books.requests


def test_the_plan_shows_the_vendors_price_and_warns_where_it_differs(vendor: Callable[..., Made]) -> None:
    dop, _ = vendor()
    sheet = dop.csv(shots(2))
    same = dop.call("plan", sheet)
    assert "the gateway's own price: $0.125 a video" in same.out
    assert "warning" not in same.err
    other = dop.call("plan", sheet, "--set", "prices.dop-lite=0.135")
    assert "the gateway prices dop-lite at $0.125, and prices.dop-lite says $0.135" in other.err
    assert "buys nothing" not in other.err
    dearer = dop.call("plan", sheet, "--set", "prices.dop-lite=0.1")
    assert "`dop run` buys nothing until it is set" in dearer.err


def test_nothing_is_bought_at_a_price_above_the_configured_one(vendor: Callable[..., Made]) -> None:
    """MONEY: neither a yes nor a budget agrees to it: both count with the configured price."""
    dop, sandbox = vendor()
    sheet = dop.csv(shots(2))
    for flags in (["--yes"], ["--max-cost", "5"]):
        end = dop.call("run", sheet, *flags, "--set", "prices.dop-lite=0.1")
        assert end.code == 2
        assert "charges $0.125 for a video of dop-lite" in end.err
        assert "--set prices.dop-lite=0.125" in end.err
        assert "nothing was sent" in end.err
    assert not sandbox.books.requests
    assert dop.buy(sheet, "--set", "prices.dop-lite=0.125").counts == {"done": 2}
    assert dop.call("run", sheet, "--yes", "--set", "prices.dop-lite=0.1").code == 0  # nothing is left to buy


def test_a_gateway_that_names_no_price_is_bought_at(
    vendor: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    dop, sandbox = vendor()
    described = {"type": "description", "pricing_description": "2 credits a second"}
    monkeypatch.setattr("pipeline.sandbox.higgsfield.responses.estimate", lambda model: described)
    assert dop.buy(dop.csv(shots(1)), "--set", "prices.dop-lite=0.1").counts == {"done": 1}
    assert len(sandbox.books.requests) == 1


def test_the_doctor_asks_for_the_models_for_free(vendor: Callable[..., Made]) -> None:
    dop, sandbox = vendor()
    options = (
        "--set",
        "models=dop-lite,my-model",
        "--set",
        "model_ids.my-model=gone/model",
        "--set",
        "prices.my-model=1",
    )
    found = json.loads(dop.call("doctor", "--live", "--json", *options).out)
    checks = {one["name"]: one for one in found["checks"]}
    assert checks["live key"]["ok"] is True
    assert checks["model dop-lite"]["ok"] is True
    assert "$0.125 a video" in checks["model dop-lite"]["text"]
    assert checks["model my-model"]["ok"] is False
    assert not sandbox.books.requests


def test_waiting_jobs_are_canceled_and_running_ones_are_not(vendor: Callable[..., Made]) -> None:
    dop, sandbox = vendor(max_concurrent=1, generation_s=600.0)
    assert dop.call("submit", dop.csv(shots(3)), "--yes").code in (0, 5)
    end = dop.call("cancel", "latest")
    assert end.code == 1
    assert "canceled: 2 jobs; too late, made and charged: 1; no answer: 0" in end.out
    states = dop.ledger("select state, count(*) from attempts group by state order by state")
    assert states == [("accepted", 1), ("canceled", 2)]
    assert sum(one.canceled_at is not None for one in sandbox.books.requests.values()) == 2
    one = dop.call("cancel", "row-1")
    assert one.code in (0, 1)


def test_a_gateway_without_cancel_says_so(rehearsal: Dop) -> None:
    assert "cancels nothing" in rehearsal.call("cancel").err


def test_local_pictures_go_through_the_vendors_uploads(vendor: Callable[..., Made]) -> None:
    dop, sandbox = vendor()
    Image.new("RGB", (320, 240), "teal").save(dop.folder / "mill.jpg")
    rows = [{"id": f"r{seed}", "image": "mill.jpg", "prompt": "a mill", "seed": seed} for seed in (1, 2)]
    end = dop.buy(dop.csv(table(rows)))
    assert end.code == 0, end.err
    sent = {str(one.job.body["input_images"]) for one in sandbox.books.requests.values()}
    assert len(sent) == 1
    assert "/_sandbox/images/" in sent.pop()


def test_reconcile_names_every_difference_and_changes_nothing(vendor: Callable[..., Made]) -> None:
    dop, sandbox = vendor()
    dop.buy(dop.csv(shots(3)))
    before = dop.ledger("select request_id, state, price_microusd from attempts order by request_id")
    assert dop.call("reconcile").code == 0
    jobs = {row["row_id"]: row["job_set_id"] for row in dop.rows()}
    stranger = "11111111-1111-4111-8111-111111111111"
    rows = ("request_id,usd", f"{jobs['row-1']},0.125", f"{jobs['row-2']},0", f"{stranger},0.125", "")
    listed = "\n".join(rows)
    usage = dop.csv(listed, "usage.csv")
    end = dop.call("reconcile", usage)
    assert end.code == 1
    for words in ("refunded", "row-2", "missing", "row-3", "foreign", "11111111"):
        assert words in end.err
    assert dop.ledger("select request_id, state, price_microusd from attempts order by request_id") == before
    (first,) = [one for one in sandbox.books.requests.values() if one.request_id == jobs["row-1"]]
    first.canceled_at = 1.0  # the gateway counts it no longer
    assert "the gateway counts 2, the ledger 3" in dop.call("reconcile").err
