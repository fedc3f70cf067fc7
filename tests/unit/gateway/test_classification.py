"""Every way a call can end, and what it means for the money: the paid line's table, row by row."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest

from pipeline.gateway.classification import PollOutcomeKind, SubmitOutcome, SubmitOutcomeKind
from pipeline.gateway.job_status import JobStatus
from pipeline.gateway.kinds.pixazo import REFUSALS, RULES, classify_poll, classify_submit
from pipeline.gateway.responses import NoResponse, Response
from tests.support.factories import make_params

NOW = 1_790_000_000.0
FIXTURES = Path(__file__).parents[2] / "fixtures"
SUBMITTED = (FIXTURES / "document_submit_answer.json").read_bytes()

DOCUMENT_ERRORS = {
    400: b'{ "error": "Invalid request parameters" }',
    401: b'{ "error": "Invalid or missing authentication" }',
    403: b'{ "error": "Access denied for this operation" }',
    404: b'{ "error": "Endpoint not found" }',
    429: b'{ "error": "Rate limit exceeded, please retry later" }',
    500: b'{ "error": "An unexpected error occurred, please try again later" }',
}
HTML = b"<html><head><title>Just a moment</title></head></html>"


def answer(status: int, body: bytes | object = b"", **headers: str) -> Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status=status, body=raw, headers={name.replace("_", "-"): value for name, value in headers.items()})


def judged(status: int, body: bytes | object = b"", **headers: str) -> SubmitOutcome:
    return classify_submit(answer(status, body, **headers), now_unix=NOW)


# --- submit: the classes ---


def test_a_call_that_provably_was_not_sent_may_be_sent_again() -> None:
    verdict = classify_submit(NoResponse(sent=False, what="no connection"), now_unix=NOW)
    assert verdict.kind is SubmitOutcomeKind.NOT_SENT


def test_a_call_that_perhaps_was_sent_is_unknown() -> None:
    verdict = classify_submit(NoResponse(sent=True, what="silence for 330 s"), now_unix=NOW)
    assert verdict.kind is SubmitOutcomeKind.UNKNOWN
    assert verdict.reason == "silence for 330 s"


@pytest.mark.parametrize("status", [200, 201, 202, 203, 299])
def test_any_2xx_with_an_id_is_accepted(status: int) -> None:
    verdict = judged(status, {"job_set_id": "a1"})
    assert verdict.kind is SubmitOutcomeKind.ACCEPTED
    assert verdict.ticket is not None
    assert verdict.ticket.job_set_id == "a1"


EXPECTED = {
    **dict.fromkeys((400, 406, 411, 413, 414, 415, 422, 431), SubmitOutcomeKind.REJECTED),
    **dict.fromkeys((401, 402), SubmitOutcomeKind.FATAL),
    **dict.fromkeys((403, 451), SubmitOutcomeKind.FORBIDDEN),
    **dict.fromkeys((404, 405, 410), SubmitOutcomeKind.WRONG_PATH),
    **dict.fromkeys((423, 429), SubmitOutcomeKind.THROTTLED),
}


@pytest.mark.parametrize(
    "body", [b"", HTML, b'{"error": "no"}', b"\xff", b"["], ids=["empty", "html", "json", "x", "cut"]
)
def test_every_status_there_is_falls_in_its_class_whatever_the_body(body: bytes) -> None:
    for status in range(100, 1000):
        assert judged(status, body).kind is EXPECTED.get(status, SubmitOutcomeKind.UNKNOWN), status


def test_every_refusal_has_a_row_that_always_applies() -> None:
    always = {status for rule in RULES if rule.says is None for status in rule.statuses}
    assert always == set(REFUSALS) == set(EXPECTED)


@pytest.mark.parametrize(
    ("status", "kind"), [(status, EXPECTED.get(status, SubmitOutcomeKind.UNKNOWN)) for status in DOCUMENT_ERRORS]
)
def test_the_documents_error_answers_mean_what_the_table_says(status: int, kind: SubmitOutcomeKind) -> None:
    verdict = judged(status, DOCUMENT_ERRORS[status])
    assert verdict.kind is kind
    assert json.loads(DOCUMENT_ERRORS[status])["error"] in verdict.reason


@pytest.mark.parametrize(
    "status", [100, 101, 204, 301, 302, 307, 308, 408, 409, 425, 499, 500, 502, 503, 504, 520, 526]
)
def test_what_may_come_after_the_request_was_taken_is_unknown(status: int) -> None:
    assert judged(status, b'{"error":"x"}').kind is SubmitOutcomeKind.UNKNOWN


def test_a_refusal_counts_although_its_body_was_cut() -> None:
    # The status line is the server's decision; what is missing are only its words.
    cut = Response(status=429, body=b'{"err', complete=False, what="the answer was cut")
    verdict = classify_submit(cut, now_unix=NOW)
    assert verdict.kind is SubmitOutcomeKind.THROTTLED
    assert "cut" in verdict.reason


def test_a_refusal_that_names_a_job_set_is_unknown_and_its_id_salvaged() -> None:
    verdict = judged(400, {"error": "late", "job_set_id": "a1"})
    assert (verdict.kind, verdict.salvaged) == (SubmitOutcomeKind.UNKNOWN, ("a1",))


def test_a_trace_id_in_a_refusal_changes_nothing() -> None:
    assert judged(400, {"error": "bad", "request_id": "trace-1"}).kind is SubmitOutcomeKind.REJECTED


# --- submit: 2xx without an id ---


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b'{ "success": true }',
        b'{"error":"Invalid parameters"}',
        b'{"success":false,"error":"nope"}',
        b'{"statusCode":429,"message":"Rate limit is exceeded. Try again in 60 seconds."}',
        b'{"statusCode":401,"message":"Access denied due to invalid subscription key."}',
        b'{"jobs":[{"id":"j1","status":"queued"}]}',
        HTML,
        b"[" * 100_000,
        b'{"job_set_id":' + b"1" * 6000 + b"}",
        b"\xff\xfe\xfd",
    ],
)
def test_a_2xx_without_an_id_is_unknown_whatever_it_says(body: bytes) -> None:
    assert judged(200, body).kind is SubmitOutcomeKind.UNKNOWN


def test_the_text_of_an_unknown_may_slow_or_stop_the_others() -> None:
    slow = judged(200, {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 60 seconds."})
    assert (slow.wait_s, slow.stop_submitting) == (60.0, False)
    assert judged(200, {"error": "Insufficient credits"}).stop_submitting
    assert judged(500, {"error": "insufficient_balance"}).stop_submitting
    assert judged(200, {"message": "Access denied due to invalid subscription key."}).stop_submitting
    assert judged(503, b"", retry_after="30").wait_s == 30.0


def test_an_error_with_a_mere_trace_id_is_unknown_and_the_id_salvaged() -> None:
    verdict = judged(200, {"success": False, "error": "x", "request_id": "r1"})
    assert (verdict.kind, verdict.salvaged) == (SubmitOutcomeKind.UNKNOWN, ("r1",))


def test_a_queue_answer_with_a_null_error_is_accepted() -> None:
    assert judged(202, {"request_id": "r1", "status": "QUEUED", "error": None}).kind is SubmitOutcomeKind.ACCEPTED


def test_a_cut_2xx_is_unknown_and_its_id_salvaged() -> None:
    cut = Response(status=200, body=SUBMITTED[:80], complete=False, what="the answer was cut")
    verdict = classify_submit(cut, now_unix=NOW)
    assert (verdict.kind, verdict.salvaged) == (SubmitOutcomeKind.UNKNOWN, ("96ddb2c0-2685-XXXX-XXXX-XXXXXXXXXXXX",))


def test_two_answers_run_together_are_unknown_and_both_ids_salvaged() -> None:
    verdict = judged(200, b'{"job_set_id":"a"}{"job_set_id":"b"}')
    assert (verdict.kind, verdict.salvaged) == (SubmitOutcomeKind.UNKNOWN, ("a", "b"))


def test_an_id_in_a_502_is_salvaged_but_proves_nothing() -> None:
    verdict = judged(502, {"job_set_id": "a1"})
    assert (verdict.kind, verdict.salvaged, verdict.ticket) == (SubmitOutcomeKind.UNKNOWN, ("a1",), None)


def test_an_answer_to_another_request_is_unknown_and_its_id_is_not_offered() -> None:
    verdict = classify_submit(answer(200, SUBMITTED), now_unix=NOW, params=make_params(seed=7))
    assert (verdict.kind, verdict.salvaged) == (SubmitOutcomeKind.UNKNOWN, ())
    assert "123456" in verdict.reason
    assert classify_submit(answer(200, SUBMITTED), now_unix=NOW).kind is SubmitOutcomeKind.ACCEPTED


# --- submit: throttles, quota, credit ---


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"),
    [
        (429, b"", {"retry_after": "7"}, (SubmitOutcomeKind.THROTTLED, False, 7.0)),
        (429, b"", {"retry_after": "3600"}, (SubmitOutcomeKind.THROTTLED, False, 900.0)),
        (429, {"message": "Try again in 60 seconds."}, {}, (SubmitOutcomeKind.THROTTLED, False, 60.0)),
        (423, b"", {}, (SubmitOutcomeKind.THROTTLED, False, None)),
        (403, b"", {"retry_after": "30"}, (SubmitOutcomeKind.THROTTLED, False, 30.0)),
        (403, b"Quota will be replenished in 00:05:00.", {}, (SubmitOutcomeKind.THROTTLED, False, 300.0)),
        (403, b"Out of call volume quota.", {}, (SubmitOutcomeKind.THROTTLED, False, None)),
        (403, b"Quota will be replenished in 03:00:00.", {}, (SubmitOutcomeKind.THROTTLED, True, 900.0)),
        (403, b"Your balance is insufficient", {"retry_after": "5"}, (SubmitOutcomeKind.FATAL, True, None)),
        (403, HTML, {}, (SubmitOutcomeKind.FORBIDDEN, False, None)),
        (403, {"error": "Invalid subscription key"}, {}, (SubmitOutcomeKind.FATAL, True, None)),
        (402, b"", {}, (SubmitOutcomeKind.FATAL, True, None)),
        (401, b"", {"retry_after": "5"}, (SubmitOutcomeKind.FATAL, True, None)),
        (400, {"error": "Not enough credits"}, {}, (SubmitOutcomeKind.FATAL, True, None)),
        (429, {"error": "You are out of credits"}, {}, (SubmitOutcomeKind.FATAL, True, None)),
        (422, {"detail": "insufficient_credits"}, {}, (SubmitOutcomeKind.FATAL, True, None)),
        (422, {"code": "InsufficientCredits"}, {}, (SubmitOutcomeKind.FATAL, True, None)),
        (400, {"error": "Invalid prompt: white balance on a beam"}, {}, (SubmitOutcomeKind.REJECTED, False, None)),
        (400, {"error": "Invalid prompt: a dancer out of balance"}, {}, (SubmitOutcomeKind.REJECTED, False, None)),
        (429, {"error": "Rate limit exceeded. See credits page."}, {}, (SubmitOutcomeKind.THROTTLED, False, None)),
        (
            400,
            b"Maximum number of concurrent requests (4) has been reached",
            {},
            (SubmitOutcomeKind.CONCURRENCY, False, None),
        ),
        (429, {"error": "Too many concurrent jobs"}, {"retry_after": "9"}, (SubmitOutcomeKind.CONCURRENCY, False, 9.0)),
        (429, {"error": "queue is full"}, {}, (SubmitOutcomeKind.CONCURRENCY, False, None)),
        (400, {"code": "concurrency_limit", "limit": 6}, {}, (SubmitOutcomeKind.CONCURRENCY, False, None)),
        (404, {"error": "concurrency page not found"}, {}, (SubmitOutcomeKind.WRONG_PATH, False, None)),
    ],
)
def test_a_refusals_text_and_hint_decide_between_waiting_stopping_and_rejecting(
    status: int, body: bytes | object, headers: dict[str, str], expected: tuple[SubmitOutcomeKind, bool, float | None]
) -> None:
    verdict = judged(status, body, **headers)
    assert (verdict.kind, verdict.stop_submitting, verdict.wait_s) == expected


def test_the_cap_on_jobs_at_once_is_read_where_it_is_said() -> None:
    assert judged(400, b"Maximum number of concurrent requests (4) has been reached").job_cap == 4
    assert judged(429, {"code": "concurrency_limit", "limit": 6}).job_cap == 6
    assert judged(429, {"error": "too many concurrent jobs"}).job_cap is None


def test_a_hint_is_also_given_as_stated() -> None:
    assert judged(429, b"", retry_after="3600").stated_wait_s == 3600


def test_nothing_may_be_sent_again_that_could_have_been_paid() -> None:
    for status, body, complete in product(range(100, 600), (b"", SUBMITTED), (True, False)):
        verdict = classify_submit(Response(status=status, body=body, complete=complete), now_unix=NOW)
        if verdict.kind not in (SubmitOutcomeKind.ACCEPTED, SubmitOutcomeKind.UNKNOWN):
            assert status in REFUSALS
            assert b"job_set_id" not in body


# --- broken twins of the submit judge ---


def retry_on_server_errors(status: int) -> bool:
    """The broken twin: the retry rule of common libraries."""
    return status in (408, 409, 429, 500, 502, 503, 504)


def test_the_twin_that_resends_on_server_errors_is_caught() -> None:
    wrong = [s for s in range(100, 600) if retry_on_server_errors(s) and judged(s).kind is SubmitOutcomeKind.UNKNOWN]
    assert wrong == [408, 409, 500, 502, 503, 504]


def believe_the_body(body: bytes) -> bool:
    """The broken twin: an error in a 2xx body means nothing was created."""
    return "error" in json.loads(body)


def test_the_twin_that_believes_an_error_in_a_2xx_is_caught() -> None:
    body = b'{"error":"upstream timed out"}'
    assert believe_the_body(body)
    assert judged(200, body).kind is SubmitOutcomeKind.UNKNOWN


# --- poll ---


def looked(status: int, body: bytes | object = b"", job_set_id: str | None = None, **headers: str) -> PollOutcomeKind:
    return classify_poll(answer(status, body, **headers), now_unix=NOW, job_set_id=job_set_id).kind


def test_a_report_comes_from_a_whole_2xx_only() -> None:
    body = {"job_set_id": "a", "status": "failed"}
    assert looked(200, body) is PollOutcomeKind.REPORT
    cut = Response(status=200, body=json.dumps(body).encode(), complete=False)
    assert classify_poll(cut, now_unix=NOW).kind is PollOutcomeKind.UNCLEAR
    for status in (400, 404, 409, 429, 500, 502, 503):
        assert looked(status, body) is not PollOutcomeKind.REPORT


POLL_EXPECTED = {
    401: PollOutcomeKind.KEY_REFUSED,
    402: PollOutcomeKind.KEY_REFUSED,
    403: PollOutcomeKind.KEY_REFUSED,
    404: PollOutcomeKind.NOT_FOUND,
    423: PollOutcomeKind.THROTTLED,
    429: PollOutcomeKind.THROTTLED,
}


@pytest.mark.parametrize("body", [b"", HTML, b'{"status":"failed"}', b'{"error":"gone"}'])
def test_no_error_of_a_poll_decides_a_jobs_fate(body: bytes) -> None:
    for status in [*range(100, 200), *range(300, 1000)]:
        verdict = classify_poll(answer(status, body), now_unix=NOW)
        assert (verdict.kind, verdict.report) == (POLL_EXPECTED.get(status, PollOutcomeKind.UNCLEAR), None)


@pytest.mark.parametrize("sent", [True, False])
def test_a_poll_without_an_answer_is_unclear(sent: bool) -> None:
    verdict = classify_poll(NoResponse(sent=sent, what="cut"), now_unix=NOW)
    assert verdict.kind is PollOutcomeKind.UNCLEAR


@pytest.mark.parametrize("body", [b"", b"{}", HTML, b"[" * 100_000, b'{"error":"Endpoint not found"}'])
def test_a_2xx_that_is_no_report_is_unclear(body: bytes) -> None:
    assert looked(200, body) is PollOutcomeKind.UNCLEAR


def test_a_report_about_another_job_is_unclear() -> None:
    body = {"job_set_id": "b", "status": "completed", "video_url": "https://x/b.mp4"}
    assert looked(200, body, job_set_id="a") is PollOutcomeKind.UNCLEAR
    assert looked(200, body, job_set_id="b") is PollOutcomeKind.REPORT
    assert looked(200, {"id": "trace", "status": "completed"}, job_set_id="a") is PollOutcomeKind.REPORT


def test_a_403_with_a_hint_or_quota_text_slows_the_polls_only() -> None:
    assert looked(403, b"", retry_after="5") is PollOutcomeKind.THROTTLED
    assert looked(403, b"Out of call volume quota.") is PollOutcomeKind.THROTTLED
    assert classify_poll(answer(403, b""), now_unix=NOW).stop_submitting


def test_a_polls_hint_is_handed_on() -> None:
    assert classify_poll(answer(429, b"", retry_after="4"), now_unix=NOW).wait_s == 4.0
    assert classify_poll(answer(503, b"", retry_after="4"), now_unix=NOW).wait_s == 4.0


def test_the_documents_submit_answer_is_understood_by_the_poll_judge() -> None:
    report = classify_poll(answer(200, SUBMITTED), now_unix=NOW).report
    assert report is not None
    assert report.status is JobStatus.PENDING


def mark_failed_on_any_error(status: int) -> bool:
    """The broken twin: a wait that dies of one bad status, as clients in the field do."""
    return status >= 400


def test_the_twin_that_fails_a_job_on_a_502_is_caught() -> None:
    assert mark_failed_on_any_error(502)
    assert looked(502, HTML) is PollOutcomeKind.UNCLEAR


@pytest.mark.parametrize(
    "body",
    [
        b'{"request_id": "r-1", "request_id": "r-2"}',
        b'{"job_set_id": "r-1", "job\\u005fset_id": "r-2"}',
        b'{"data": {"task_id": "r-1", "taskId": "r-2"}}',
    ],
)
def test_an_answer_that_gives_its_id_twice_names_several_jobs(body: bytes) -> None:
    """A reader of JSON keeps the last of two values: the other one may be the job that is paid for."""
    found = judged(200, body)
    assert found.kind is SubmitOutcomeKind.UNKNOWN
    assert "several jobs: r-1, r-2" in found.reason


def test_an_id_that_is_repeated_in_another_spelling_is_one_job() -> None:
    one = b'{"request_id": "96DDB2C0-2685-4000-8000-000000000001", "requestId": "96ddb2c0-2685-4000-8000-000000000001"}'
    assert judged(200, one).kind is SubmitOutcomeKind.ACCEPTED
