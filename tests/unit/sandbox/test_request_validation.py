"""The sandbox's parameter table, its limiters and its job states: the pure rooms behind the local gateway."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sandbox import SandboxError, SandboxSettings
from pipeline.sandbox.jobs import Job, JobOutcome, SandboxJobState, generation_time, state_of
from pipeline.sandbox.rate_limiters import FixedWindow, SlidingWindow, TokenBucket, make_limiter
from pipeline.sandbox.request_validation import fingerprint
from pipeline.sandbox.settings import Rate, parse_duration, parse_rate


def make_job(**only_what_matters: object) -> Job:
    fields: dict[str, object] = {
        "job_set_id": "s", "job_id": "j", "fingerprint": "f", "visit": 1, "body": {}, "price_microusd": 135_000,
        "accepted_at": 1000.0, "generation_s": 10.0, "fate": JobOutcome.COMPLETED, "clip_key": "c",
    }  # fmt: skip
    return Job(**{**fields, **only_what_matters})  # type: ignore[arg-type]


def test_a_job_is_queued_then_in_progress_then_completed() -> None:
    states = [state_of(make_job(), 1000.0 + age, clip_ready=True) for age in (0, 1.4, 1.6, 9.9, 10.0, 1e9)]
    assert states == [SandboxJobState.QUEUED] * 2 + [SandboxJobState.IN_PROGRESS] * 2 + [SandboxJobState.COMPLETED] * 2


def test_a_job_without_its_clip_is_never_completed() -> None:
    assert state_of(make_job(), 9e9, clip_ready=False) is SandboxJobState.IN_PROGRESS
    assert state_of(make_job(), 9e9, clip_ready=False, spoiled=True) is SandboxJobState.FAILED


@pytest.mark.parametrize(
    ("fate", "state"),
    [
        (JobOutcome.FAILED, SandboxJobState.FAILED),
        (JobOutcome.NSFW, SandboxJobState.NSFW),
        (JobOutcome.CANCELED, SandboxJobState.CANCELED),
        (JobOutcome.ENDLESS, SandboxJobState.IN_PROGRESS),
    ],
)
def test_a_fate_is_met_when_the_generation_time_is_over(fate: JobOutcome, state: SandboxJobState) -> None:
    assert state_of(make_job(fate=fate), 1009.0, clip_ready=True) is SandboxJobState.IN_PROGRESS
    assert state_of(make_job(fate=fate), 1010.0, clip_ready=True) is state


def test_lite_takes_longer_than_turbo_for_the_same_request(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = SandboxSettings(data_dir=tmp_path_factory.getbasetemp(), generation_s=10, generation_spread=(0.5, 2.0))
    lite, preview, turbo = (generation_time(m, "f", 1, settings) for m in ("dop-lite", "dop-preview", "dop-turbo"))
    assert lite > preview > turbo
    assert 5.0 <= preview <= 20.0
    assert generation_time("dop-preview", "g", 1, settings) != preview


def test_the_fingerprint_leaves_out_the_webhook_and_the_order_of_keys() -> None:
    plain = {"b": 1, "a": [0.7, True]}
    hooked = {"webhook_secret": "s", "a": [0.70, True], "b": 1, "webhook_url": "http://x/"}
    assert fingerprint(json.dumps(plain).encode()) == fingerprint(json.dumps(hooked, indent=2).encode())
    assert fingerprint(b'{ "b": 1, "a": [0.7, true] }') == hashlib.sha256(b'{"a":[0.7,true],"b":1}').hexdigest()


@pytest.mark.parametrize(
    ("text", "rate"),
    [("60/1m", Rate(limit=60, period_s=60)), ("5/s", Rate(limit=5, period_s=1)), ("7/30s", Rate(limit=7, period_s=30))],
)
def test_rates_are_read(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "60", "0/1m", "5/0s", "-1/1m", "60/1d"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SandboxError):
        parse_rate(text)


@pytest.mark.parametrize(("text", "seconds"), [("2s", 2), ("500ms", 0.5), ("1.5m", 90), ("3", 3)])
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_the_bucket_starts_full_and_refills_evenly() -> None:
    bucket = TokenBucket(Rate(limit=2, period_s=1))
    assert [bucket.admit(10.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert bucket.admit(10.5) == 0.0
    assert bucket.admit(10.5) == 0.5


def test_the_fixed_window_empties_at_its_edge() -> None:
    window = FixedWindow(Rate(limit=1, period_s=10))
    assert [window.admit(19.0), window.admit(19.5), window.admit(20.0)] == [0.0, 0.5, 0.0]


def test_the_sliding_window_looks_back_one_period() -> None:
    window = SlidingWindow(Rate(limit=1, period_s=10))
    assert [window.admit(19.0), window.admit(28.0), window.admit(29.0)] == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("kind", ["bucket", "fixed", "sliding"])
@given(gaps=st.lists(st.floats(min_value=0, max_value=2), min_size=1, max_size=60), limit=st.integers(1, 5))
def test_no_limiter_admits_more_than_its_definition_allows(kind: str, gaps: list[float], limit: int) -> None:
    limiter = make_limiter(kind, Rate(limit=limit, period_s=3.0))  # type: ignore[arg-type]
    now, admitted = 100.0, []
    for gap in gaps:
        now += gap
        wait_s = limiter.admit(now)
        if wait_s == 0.0:
            admitted.append(now)
        else:
            assert wait_s > 0
            now += wait_s + 1e-6
            assert limiter.admit(now) == 0.0
            admitted.append(now)
    most = limit if kind == "sliding" else 2 * limit
    for start in admitted:
        assert sum(start <= moment < start + 3.0 - 1e-3 for moment in admitted) <= most


def test_a_refused_call_costs_no_allowance() -> None:
    bucket = TokenBucket(Rate(limit=1, period_s=1), burst=1)
    bucket.admit(5.0)
    for _ in range(50):
        assert bucket.admit(5.5) > 0
    assert bucket.admit(6.0) == 0.0
