"""The storm's decisions and the shapes of answers: deterministic, complete, and nothing charged before acceptance."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from pipeline.sandbox import SandboxError, SandboxSettings
from pipeline.sandbox.faults import (
    AILMENT_ODDS,
    BEFORE,
    CALLBACK_ODDS,
    FATE_ODDS,
    POLL_ODDS,
    RESULT_ODDS,
    SUBMIT_ODDS,
    FaultPlan,
    PollFault,
    ResultDefect,
    ResultFault,
    SubmitFault,
)
from pipeline.sandbox.jobs import Job, JobOutcome, SandboxJobState
from pipeline.sandbox.response_variants import SHAPES, WORDS, accepted_as, word
from pipeline.sandbox.responses import JobView
from pipeline.sandbox.webhooks import Delivery, headers_of, signature

NAMES = [f"{number:064x}" for number in range(1500)]


def make_job() -> Job:
    body = {
        "prompt": "p", "model": "dop-lite", "seed": 1, "motions_id": "m", "motions_strength": 0.5,
        "input_images": ["https://example.com/input.jpg"], "enhance_prompt": True,
    }  # fmt: skip
    return Job(
        job_set_id="the-set", job_id="the-job", fingerprint="f", visit=1, body=body, price_microusd=1, accepted_at=0.0,
        generation_s=1.0, fate=JobOutcome.COMPLETED, clip_key="c",
    )  # fmt: skip


def test_the_same_seed_gives_the_same_storm_in_any_order() -> None:
    forward = {name: FaultPlan(seed="7").submit_fault(name, 1) for name in NAMES}
    backward = {name: FaultPlan(seed="7").submit_fault(name, 1) for name in reversed(NAMES)}
    assert forward == backward
    assert forward != {name: FaultPlan(seed="8").submit_fault(name, 1) for name in NAMES}


def test_every_fault_comes_and_about_as_often_as_its_odds_say() -> None:
    storm = FaultPlan(seed="odds")
    counts = Counter(storm.submit_fault(name, 1) for name in NAMES)
    assert set(counts) == set(SubmitFault)
    for fault, chance in SUBMIT_ODDS.items():
        assert counts[fault] / len(NAMES) == pytest.approx(chance, abs=0.02)
    assert {storm.poll_fault(name, 1) for name in NAMES} == set(PollFault)
    assert {storm.result_fault(name, 1) for name in NAMES} == set(ResultFault)
    assert {storm.ailment(name, 1) for name in NAMES} == set(ResultDefect)
    assert {storm.fate(name, 1) for name in NAMES} == set(JobOutcome)
    assert {storm.shape(name, 1, len(SHAPES)) for name in NAMES} == {None, *range(len(SHAPES))}


def test_odds_leave_room_for_calm() -> None:
    for odds in (SUBMIT_ODDS, POLL_ODDS, RESULT_ODDS, AILMENT_ODDS, FATE_ODDS, CALLBACK_ODDS):
        assert sum(odds.values()) <= 0.6


def test_no_intensity_is_no_storm() -> None:
    calm = FaultPlan(seed="7", intensity=0.0)
    assert {calm.submit_fault(name, 1) for name in NAMES} == {SubmitFault.NONE}
    assert {calm.fate(name, 1) for name in NAMES} == {JobOutcome.COMPLETED}
    assert {calm.slowness(name, 1) for name in NAMES} == {1.0}


def test_a_burst_of_429_holds_on_for_the_next_visit_and_ends() -> None:
    storm = FaultPlan(seed="7")
    burst = [name for name in NAMES if storm.submit_fault(name, 1) is SubmitFault.THROTTLE]
    assert {storm.submit_fault(name, 2) for name in burst} == {SubmitFault.THROTTLE}
    assert SubmitFault.NONE in {storm.submit_fault(name, 3) for name in burst}


def test_the_404_of_replication_lag_ends_after_the_first_polls() -> None:
    storm = FaultPlan(seed="7")
    assert PollFault.LAG not in {storm.poll_fault(name, visit) for name in NAMES for visit in (3, 4)}


def test_faults_before_acceptance_are_named_so() -> None:
    assert {fault for fault in SubmitFault if "BEFORE" in fault.name} < BEFORE
    assert not {fault for fault in BEFORE if "AFTER" in fault.name}


@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_every_shape_holds_the_url_only_when_completed_and_is_json(number: int) -> None:
    url = "http://127.0.0.1:1/results/the-set.mp4"
    done = SHAPES[number](JobView(job=make_job(), state=SandboxJobState.COMPLETED, url=url, preview_url=url))
    assert url in json.dumps(done)
    for state in (
        SandboxJobState.QUEUED,
        SandboxJobState.IN_PROGRESS,
        SandboxJobState.FAILED,
        SandboxJobState.NSFW,
        SandboxJobState.CANCELED,
    ):
        text = json.dumps(SHAPES[number](JobView(job=make_job(), state=state)))
        assert "/results/" not in text
    assert "/results/" not in json.dumps(SHAPES[number](JobView(job=make_job(), state=SandboxJobState.COMPLETED)))


def test_the_shapes_differ_and_spell_every_word_of_a_state() -> None:
    done = JobView(job=make_job(), state=SandboxJobState.COMPLETED, url="u", preview_url="u")
    assert len({json.dumps(shape(done), sort_keys=True) for shape in SHAPES}) == len(SHAPES)
    for state, words in WORDS.items():
        assert {word(state, number).lower() for number in range(18)} == set(words)
    assert {word(SandboxJobState.COMPLETED, number) for number in range(18)} >= {"done", "DONE", "Done"}


def test_every_form_of_acceptance_names_the_job_set_and_answers_2xx() -> None:
    forms = [accepted_as(make_job(), number, "http://127.0.0.1:1") for number in range(6)]
    assert {form.status for form in forms} == {200, 201, 202}
    assert all("the-set" in json.dumps(form.value) for form in forms)


def test_the_standard_webhooks_signature_is_the_published_one() -> None:
    # Test vector of the Standard Webhooks libraries.
    body = b'{"test": 2432232314}'
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_callback_without_a_secret_carries_no_proof() -> None:
    headers = headers_of(Delivery(url="u", secret=None, message_id="m", value={}), b"{}", 5)
    assert set(headers) == {"Content-Type", "webhook-id", "webhook-timestamp"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": "4k"},
        {"rate": "x"},
        {"port": -1},
        {"generation_s": -1.0},
        {"max_concurrent": 0},
        {"chaos_intensity": 2},
    ],
)
def test_wrong_settings_cannot_be_built(wrong: dict[str, object]) -> None:
    with pytest.raises(SandboxError):
        SandboxSettings(data_dir=Path("x"), **wrong)  # type: ignore[arg-type]
