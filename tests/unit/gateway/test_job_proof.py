"""What proves that a job is a request's own: one id, a known state word, no contradiction."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.gateway.job_proof import JobProof, only_id, prove_job
from pipeline.gateway.kinds.pixazo import classify_poll
from pipeline.gateway.responses import NoResponse, Response
from pipeline.records import canonical_job_id, job_id_spellings
from tests.support.factories import make_params

JOB = "0b6cea37-238f-435b-8cff-fa0123456789"
PARAMS = make_params(seed=7, prompt="A serene lake", model="dop-lite", enhance_prompt=False)


def proof(said: object, *, status: int = 200) -> JobProof:
    answer = Response(status=status, body=said if isinstance(said, bytes) else json.dumps(said).encode())
    return prove_job(answer, classify_poll(answer, now_unix=0.0, job_set_id=JOB), PARAMS)


@pytest.mark.parametrize(
    "said",
    [
        {"job_set_id": JOB, "jobs": [{"id": "j", "status": "queued"}]},
        {"job_set_id": JOB.upper(), "status": "in_progress"},
        {"status": "COMPLETED", "output": {"media_url": ["https://cdn.example.com/1.mp4"]}},
        {"status": "failed", "error": "content policy"},
        {
            "status": "queued",
            "input_params": {"seed": 7, "prompt": "a  SERENE lake", "model": "higgsfield-ai/dop/lite"},
        },
        {"status": "queued", "input_params": {"model": "a model of another name"}},
        {"status": "queued", "input_params": {"prompt": "rewritten", "enhance_prompt": True, "seed": 7}},
    ],
)
def test_a_known_state_without_a_contradiction_proves_the_job(said: object) -> None:
    assert proof(said) == JobProof(proved=True)


@pytest.mark.parametrize(
    "said",
    [
        {"status": "not_found"},
        {"status": "NOT FOUND"},
        {"status": "unknown"},
        {"status": ""},
        {"job_set_id": JOB},
        {"results": [{"url": "https://cdn.example.com/1.mp4"}]},
        {"status": "error", "message": "no such job"},
        {"id": JOB, "status": "error", "message": "Job set not found"},
        {"status": "failed", "error": "job does not exist"},
        {"job_set_id": "11111111-238f-435b-8cff-fa0123456789", "status": "queued"},
        b"<html>",
        b"",
    ],
)
def test_what_is_no_state_of_this_job_is_asked_again_and_proves_nothing(said: object) -> None:
    found = proof(said)
    assert (found.proved, found.final) == (False, False)
    assert found.reason


@pytest.mark.parametrize(
    "echo",
    [
        {"seed": 8},
        {"seed": "8"},
        {"seed": 8.0},
        {"prompt": "a castle in the fog"},
        {"model": "dop-turbo"},
        {"model": "higgsfield-ai/dop/standard"},
    ],
)
@pytest.mark.parametrize("where", ["input_params", "inputParams", "input"])
def test_a_job_of_another_request_is_refused_for_good(echo: dict[str, object], where: str) -> None:
    for said in ({"status": "completed", where: echo}, {"data": {"status": "completed", where: echo}}):
        found = proof(said)
        assert (found.proved, found.final) == (False, True), said


@pytest.mark.parametrize("status", [404, 401, 429, 500, 302])
def test_an_error_proves_nothing(status: int) -> None:
    assert not proof({"status": "completed"}, status=status).proved


def test_no_answer_proves_nothing() -> None:
    answer = NoResponse(sent=True, what="silence for 60 s")
    found = prove_job(answer, classify_poll(answer, now_unix=0.0, job_set_id=JOB), PARAMS)
    assert (found.proved, found.final) == (False, False)


def test_one_job_is_one_id_in_any_spelling() -> None:
    assert only_id((JOB, JOB.upper())) == JOB.upper()
    assert only_id(("a",)) == "a"
    assert only_id(("a", "A")) is None, "an id that is no UUID is compared letter by letter"
    assert only_id((JOB, "a")) is None
    assert only_id(()) is None


def test_the_ledger_is_searched_for_every_spelling_of_a_uuid() -> None:
    assert {JOB, JOB.upper(), JOB.replace("-", ""), f"{{{JOB}}}"} <= set(job_id_spellings(JOB.upper()))
    assert {canonical_job_id(one) for one in job_id_spellings(JOB)} == {JOB}
    assert job_id_spellings("Job-1") == ("Job-1",)


@given(st.binary(max_size=300))
def test_no_bytes_are_a_proof_or_raise(body: bytes) -> None:
    assert not proof(body).proved
