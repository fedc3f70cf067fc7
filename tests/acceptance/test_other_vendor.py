"""The command at another gateway that speaks the vendor's API, with other shapes and faults than the sandbox's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.runner import key_trust, replays
from tests.support.cli_driver import Dop, Here, table
from tests.support.other_vendor import OtherVendor, other_vendor

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

Made = tuple[Dop, OtherVendor]
PROMPTS = {5: "a lake FAIL", 7: "a lake NSFW"}


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Callable[..., Made]]:
    """Makes a user's folder pointed at such a gateway."""
    with ExitStack() as stack:

        def make(**choices: Any) -> Made:
            gateway = stack.enter_context(other_vendor(**choices))
            dop = Here(folder=tmp_path, environ={**gateway.environment, "DOP_ON_UNKNOWN__MAX": "100"})
            stack.callback(dop.end_all)
            return dop, gateway

        yield make


def rows(dop: Dop, count: int, image: str = "https://x.example/a.jpg") -> Path:
    """A sheet in which row 5 fails and row 7 is refused."""
    lines = [
        {"id": f"row-{seed}", "image": image, "prompt": PROMPTS.get(seed, f"a lake {seed}"), "seed": seed}
        for seed in range(1, count + 1)
    ]
    return dop.csv(table(lines))


@pytest.mark.parametrize(
    "choices",
    [
        {"lost": 0.3, "lost_before": 0.1, "waits_s": 0.5, "trouble": 0.1},
        {"lost": 0.3, "plain_errors": True, "busy_s": 2.0, "replay_then": True, "other_host": True},
    ],
)
def test_lost_answers_are_found_out(
    vendor: Callable[..., Made], monkeypatch: pytest.MonkeyPatch, choices: dict[str, Any]
) -> None:
    monkeypatch.setattr(replays, "MAX_PAUSE_S", 1.0)
    dop, gateway = vendor(**choices)
    end = dop.buy(rows(dop, 24), "--no-preflight")
    assert gateway.paid_twice() == []
    assert end.counts == {"done": 22, "failed": 1, "refused": 1}, end.err
    assert dop.ledger_mills() == 22 * 125
    assert gateway.counts["key leaked"] == 0
    # Few keys are asked about with other bytes, and none of them is that of an unclear submit.
    assert sum(len(bodies) > 1 for bodies in gateway.bytes_of.values()) <= 4


def test_keys_that_end_in_mid_run_pay_nothing_twice(
    vendor: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_trust, "NOT_SHOWN_PAUSE_S", 0.5)
    monkeypatch.setattr(replays, "MAX_PAUSE_S", 1.0)
    dop, gateway = vendor(lost=0.3, keys_end_after=12, waits_s=5.0)
    end = dop.buy(rows(dop, 24), "--no-preflight")
    assert gateway.paid_twice() == []
    assert end.code == 3
    assert end.counts["unknown"] > 0


def test_local_pictures_are_uploaded_with_the_type_that_was_asked_for(vendor: Callable[..., Made]) -> None:
    dop, gateway = vendor(upload_headers=False, estimate="numbers")
    Image.new("RGB", (320, 240), "teal").save(dop.folder / "mill.jpg")
    end = dop.buy(rows(dop, 3, "mill.jpg"), "--no-preflight")
    assert end.counts == {"done": 3}, end.err
    assert gateway.counts["PUT store"] == 1
    assert gateway.counts["key leaked"] == 0


def test_jobs_are_canceled_although_calls_fail(vendor: Callable[..., Made]) -> None:
    dop, gateway = vendor(waits_s=120.0, trouble=0.4)
    assert dop.call("submit", rows(dop, 6), "--yes", "--no-preflight").code == 0
    end = dop.call("cancel", "latest")
    assert "canceled: 6 jobs; too late, made and charged: 0; no answer: 0" in end.out
    assert sum(gateway.charged().values()) == 0
    assert dop.ledger("select state, sum(price_microusd) from attempts group by state") == [("canceled", 0)]


def test_prices_models_and_usage_are_read_in_other_shapes(vendor: Callable[..., Made]) -> None:
    dop, gateway = vendor(usd_factor=2.0, unlisted=True)
    sheet = rows(dop, 2)
    assert dop.call("run", sheet, "--yes", "--no-preflight").code == 2
    assert not gateway.jobs
    assert "sold, though its list lacks it" in dop.call("doctor", "--live").out
    assert dop.buy(sheet, "--no-preflight", "--set", "prices.dop-lite=0.25").counts == {"done": 2}
    assert dop.call("reconcile").code == 0


@pytest.mark.parametrize("old", [False, True])
def test_callbacks_of_both_forms_end_jobs(vendor: Callable[..., Made], old: bool) -> None:
    dop, gateway = vendor(runs_s=1.0, old_callbacks=old)
    end = dop.buy(rows(dop, 3), "--webhook", "--no-preflight")
    assert end.counts == {"done": 3}, end.err
    assert gateway.counts["callback 204"] == 6
