"""The vendor's kind: what it sends, what it can't be asked for, and what each answer means."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from pipeline.gateway.classification import PollOutcomeKind, SubmitOutcomeKind
from pipeline.gateway.job_status import JobStatus
from pipeline.gateway.kinds.higgsfield import REFUSALS, RULES, Higgsfield
from pipeline.gateway.kinds.interface import Call, Callback, CancelOutcome, KeyShown, ReplayKind
from pipeline.gateway.responses import NoResponse, Response
from tests.support.factories import make_params

KIND = Higgsfield({"my-model": "kling-video/v2.1/pro"})
NOW = 1_790_000_000.0


def answer(status: int, value: object = None, **headers: str) -> Response:
    body = b"" if value is None else json.dumps(value).encode()
    return Response(status=status, body=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


def call_for(callback: Callback | None = None, **params: object) -> Call:
    return KIND.submit_call(make_params(**params), idempotency_key="k-1", images={}, callback=callback)


def test_the_model_is_the_path_and_every_field_is_said() -> None:
    call = call_for(model="dop-preview", seed=5, strength_hundredths=70, input_images_end=("https://x.example/e.png",))
    assert (call.method, call.target) == ("POST", "/higgsfield-ai/dop/standard")
    assert call.headers == {"Idempotency-Key": "k-1"}
    assert json.loads(call.body or b"") == {
        "prompt": "A serene lake with gentle ripples",
        "image_url": "https://example.com/images/lake-scene.jpg",
        "end_image_url": "https://x.example/e.png",
        "motions": [{"id": "31177282-bde3-4870-b283-1135ca0a201a", "strength": 0.7}],
        "seed": 5,
        "enhance_prompt": False,
    }


def test_a_callback_is_a_query_and_its_secret_is_not_sent() -> None:
    call = call_for(Callback(url="https://me.example/dop/a?b=c&d", secret="whsec_c2VjcmV0"))
    assert parse_qs(urlsplit(call.target).query) == {"hf_webhook": ["https://me.example/dop/a?b=c&d"]}
    assert "whsec" not in call.sealed()


def test_a_sealed_call_is_the_same_to_the_byte() -> None:
    call = call_for(Callback(url="https://me.example/x", secret="s"), prompt='Straße \U0001f32b "quoted"')
    assert Call.unsealed(call.sealed()) == call
    assert Call.unsealed(call.sealed()).body == call.body  # type: ignore[union-attr]
    for text in ("", "{}", "null", "[1]", '{"method": 1}', '{"method":"POST","target":"/","headers":[],"body":null}'):
        assert Call.unsealed(text) is None


def test_a_model_of_the_configuration_is_sent_under_its_own_id() -> None:
    assert call_for(model="my-model").target == "/kling-video/v2.1/pro"


def test_both_halves_of_the_key_are_secret() -> None:
    assert KIND.auth_headers("id-1234:secret-5678") == {"Authorization": "Key id-1234:secret-5678"}
    assert set(KIND.secrets_of("id-1234:secret-5678")) == {"id-1234:secret-5678", "id-1234", "secret-5678"}


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"input_images_end": ("https://a.example/1", "https://a.example/2")}, "takes one end image, not 2"),
        ({"check_nsfw": True}, "no check_nsfw"),
        ({"check_nsfw": False}, "no check_nsfw"),
        ({"model": "dop-huge"}, "no id for model dop-huge"),
        ({"input_images": ("https://a.example/" + "x" * 2100,)}, "has 2118 characters"),
        ({}, None),
    ],
)
def test_what_cannot_be_expressed_is_a_mistake(params: dict[str, object], words: str | None) -> None:
    found = KIND.inexpressible(make_params(**params))
    assert (found is None) if words is None else (found is not None and words in found)


def test_every_refusal_has_a_rule() -> None:
    assert all(any(status in rule.statuses and rule.says is None for rule in RULES) for status in REFUSALS)


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (
            answer(200, {"status": "queued", "request_id": "r-1", "status_url": "https://x/r-1"}),
            SubmitOutcomeKind.ACCEPTED,
        ),
        (
            answer(400, {"detail": "Maximum number of concurrent requests (4) has been reached"}),
            SubmitOutcomeKind.CONCURRENCY,
        ),
        (answer(400, {"detail": "Bad image"}), SubmitOutcomeKind.REJECTED),
        (answer(401, {"detail": "Invalid credentials"}), SubmitOutcomeKind.FATAL),
        (answer(403, {"detail": "Not enough credits"}), SubmitOutcomeKind.FATAL),
        (Response(status=403, body=b"<html>error 1010</html>"), SubmitOutcomeKind.FORBIDDEN),
        (answer(403, {"detail": "no"}, retry_after="5"), SubmitOutcomeKind.FORBIDDEN),
        (answer(404, {"detail": "Model not found"}), SubmitOutcomeKind.MODEL_GONE),
        (answer(410, {"detail": "Model is retired"}), SubmitOutcomeKind.MODEL_GONE),
        (answer(451, {"detail": "Unavailable for legal reasons"}), SubmitOutcomeKind.FORBIDDEN),
        (answer(409, {"detail": "busy"}), SubmitOutcomeKind.UNKNOWN),
        (answer(422, {"detail": [{"loc": ["body", "seed"], "msg": "too large"}]}), SubmitOutcomeKind.REJECTED),
        (answer(422, {"detail": "Idempotency-Key was used with a different body"}), SubmitOutcomeKind.UNKNOWN),
        (answer(423, {"detail": "blocked"}), SubmitOutcomeKind.THROTTLED),
        (answer(429, {"code": "account_queue_full", "limit": 8}, retry_after="3"), SubmitOutcomeKind.CONCURRENCY),
        (answer(429, {"detail": "slow down"}), SubmitOutcomeKind.THROTTLED),
        (answer(500, {"detail": "x"}), SubmitOutcomeKind.UNKNOWN),
        (answer(503, {"detail": "not ready"}), SubmitOutcomeKind.UNKNOWN),
        (answer(200, {"status": "queued"}), SubmitOutcomeKind.UNKNOWN),
        (NoResponse(sent=True, what="cut"), SubmitOutcomeKind.UNKNOWN),
        (NoResponse(sent=False, what="refused"), SubmitOutcomeKind.NOT_SENT),
    ],
)
def test_a_first_submit(response: Response | NoResponse, kind: SubmitOutcomeKind) -> None:
    assert KIND.classify_submit(response, now_unix=NOW).kind is kind


@pytest.mark.parametrize("said", [{"seed": 999}, {"seed": 7, "prompt": "another prompt than was sent"}])
@pytest.mark.parametrize("error", [{}, {"error": "Generation failed"}])
def test_an_answer_that_repeats_another_request_is_not_accepted(
    said: dict[str, object], error: dict[str, object]
) -> None:
    """MONEY: its job is real and another row's: this row's own job would be lost."""
    response = answer(200, {"status": "queued", "request_id": "r-1", "input": said, **error})
    found = KIND.classify_submit(response, now_unix=NOW, params=make_params(seed=7))
    assert found.kind is SubmitOutcomeKind.UNKNOWN
    assert KIND.classify_replay(response, now_unix=NOW, params=make_params(seed=7)).job is None


def test_an_answer_that_names_two_requests_is_not_accepted() -> None:
    body = b'{"status": "queued", "request_id": "r-1", "request_id": "r-2"}'
    found = KIND.classify_submit(Response(status=200, body=body), now_unix=NOW)
    assert found.kind is SubmitOutcomeKind.UNKNOWN
    assert "r-1, r-2" in found.reason


@pytest.mark.parametrize(
    "status", [400, 401, 402, 403, 404, 405, 408, 410, 413, 423, 425, 429, 451, 500, 502, 503, 520]
)
def test_no_error_of_a_repeated_submit_settles_anything(status: int) -> None:
    found = KIND.classify_replay(answer(status, {"detail": "Not enough credits"}, retry_after="7"), now_unix=NOW)
    assert found.kind is ReplayKind.UNCLEAR
    assert found.job is None


def test_a_repeated_submit() -> None:
    accepted = answer(200, {"status": "completed", "request_id": "r-1"})
    assert KIND.classify_replay(accepted, now_unix=NOW).job.job_set_id == "r-1"  # type: ignore[union-attr]
    failed = answer(200, {"status": "failed", "request_id": "r-1", "error": "Generation failed"})
    assert KIND.classify_replay(failed, now_unix=NOW).job.job_set_id == "r-1"  # type: ignore[union-attr]
    trace = answer(200, {"error": "An unexpected error", "request_id": "trace-1"})
    assert KIND.classify_replay(trace, now_unix=NOW).kind is ReplayKind.UNCLEAR
    assert KIND.classify_replay(answer(409, {"detail": "busy"}), now_unix=NOW).kind is ReplayKind.IN_FLIGHT
    assert KIND.classify_replay(answer(422, {"detail": [{"msg": "x"}]}), now_unix=NOW).kind is ReplayKind.MISMATCH
    assert KIND.classify_replay(answer(200, {"ok": True}), now_unix=NOW).kind is ReplayKind.UNCLEAR
    cut = NoResponse(sent=True, what="cut")
    assert KIND.classify_replay(cut, now_unix=NOW).kind is ReplayKind.UNCLEAR


@pytest.mark.parametrize(
    ("value", "status", "url"),
    [
        ({"status": "queued", "request_id": "r"}, JobStatus.PENDING, None),
        ({"status": "in_progress", "request_id": "r"}, JobStatus.RUNNING, None),
        (
            {"status": "completed", "request_id": "r", "video": {"url": "https://c.example/v"}},
            JobStatus.DONE,
            "https://c.example/v",
        ),
        ({"status": "failed", "request_id": "r", "error": "text"}, JobStatus.FAILED, None),
        ({"status": "nsfw", "request_id": "r"}, JobStatus.REFUSED, None),
        ({"status": "canceled", "request_id": "r"}, JobStatus.CANCELED, None),
        ({"status": "warming", "request_id": "r"}, JobStatus.PENDING, None),
    ],
)
def test_a_status(value: dict[str, object], status: JobStatus, url: str | None) -> None:
    found = KIND.classify_poll(answer(200, value), now_unix=NOW, job_set_id="r")
    assert found.kind is PollOutcomeKind.REPORT
    assert found.report is not None
    assert (found.report.status, found.report.video_url) == (status, url)


CONTROL = answer(422, {"detail": [{"type": "missing", "loc": ["body", "prompt"], "msg": "Field required"}]})


@pytest.mark.parametrize(
    ("response", "shown"),
    [
        (answer(422, {"detail": "Idempotency-Key was already used with other parameters"}), KeyShown.HONOURED),
        (answer(422, {"error": {"message": "conflict with request 6f1b2c3d"}}), KeyShown.HONOURED),
        (CONTROL, KeyShown.NOT_SHOWN),
        (answer(422, {"detail": [{"loc": ["body"], "msg": "other words"}]}), KeyShown.NOT_SHOWN),
        (answer(422), KeyShown.NOT_SHOWN),
        (answer(404, {"detail": "Model not found"}), KeyShown.UNCLEAR),
        (answer(400, {"detail": "Maximum number of concurrent requests (4) has been reached"}), KeyShown.UNCLEAR),
        (answer(409, {"detail": "busy"}), KeyShown.UNCLEAR),
        (answer(429, {"code": "account_queue_full", "limit": 2}), KeyShown.UNCLEAR),
        (answer(403, {"detail": "Not enough credits"}), KeyShown.UNCLEAR),
        (answer(500, {"detail": "oops"}), KeyShown.UNCLEAR),
        (answer(200, {"request_id": "r-9", "status": "queued"}), KeyShown.UNCLEAR),
        (Response(status=422, body=b'{"detail": "Idempotency', complete=False), KeyShown.UNCLEAR),
        (NoResponse(sent=True, what="silence"), KeyShown.UNCLEAR),
    ],
)
def test_a_free_proof_that_keys_are_honoured(response: Response | NoResponse, shown: KeyShown) -> None:
    assert KIND.classify_key_probe(response, CONTROL) is shown


def test_the_words_of_an_invalid_body_prove_nothing() -> None:
    """Some gateways refuse with a text; ids and numbers in it differ from call to call."""
    one = answer(422, {"detail": "The body does not match the schema (trace 4f2a-11)"})
    other = answer(422, {"detail": "The body does not match the schema (trace 99b0-7c)"})
    assert KIND.classify_key_probe(one, other) is KeyShown.NOT_SHOWN


def test_the_call_that_proves_it_can_buy_nothing() -> None:
    call = call_for(Callback(url="https://me.example/x", secret="s"))
    probe = KIND.key_probe_call(call)
    assert (probe.target, probe.headers) == (urlsplit(call.target).path, call.headers)
    body = json.loads(probe.body or b"")
    assert "prompt" not in body  # required
    assert not isinstance(body["image_url"], str)
    assert KIND.key_probe_call(call, "fresh").headers == {"Idempotency-Key": "fresh"}


def test_a_job_is_asked_for_by_its_id_where_the_gateways_own_address_is_missing() -> None:
    assert KIND.poll_call("a/b", None, "status").target == "/requests/a%2Fb/status"
    assert KIND.poll_call("a", "https://api.example/requests/a/status", "status").target.startswith("https://api.")


def test_a_cancel() -> None:
    assert KIND.cancel_call("r-1").target == "/requests/r-1/cancel"
    assert KIND.classify_cancel(Response(status=202)) is CancelOutcome.CANCELED
    assert KIND.classify_cancel(answer(400, {"detail": "started"})) is CancelOutcome.TOO_LATE
    assert KIND.classify_cancel(answer(502)) is CancelOutcome.UNCLEAR
    assert KIND.classify_cancel(NoResponse(sent=True, what="cut")) is CancelOutcome.UNCLEAR


def test_the_free_calls_are_read() -> None:
    assert KIND.read_estimate(answer(200, {"credits": "1.500", "usd": "0.094"})) == 94_000
    assert KIND.read_estimate(answer(200, {"credits": "2.000"})) == 125_000
    assert KIND.read_estimate(answer(200, {"type": "description", "pricing_description": "by second"})) is None
    assert KIND.read_models(answer(200, {"items": [{"slug": "a/b"}, {"title": "x"}]})) == frozenset({"a/b"})
    assert KIND.read_models(answer(404, {"detail": "no"})) is None
    series = [{"bucket": "2026-10-23T00:00:00Z", "results": [{"model": "a/b", "quantity": "3", "cost": "0.3750"}]}]
    (line,) = KIND.read_usage(answer(200, {"time_series": series})) or ()
    assert (line.day, line.model, line.quantity, line.cost_microusd) == ("2026-10-23", "a/b", 3, 375_000)
    ticket = {"public_url": "https://c/x", "upload_url": "https://s/y", "upload_headers": {"Content-Type": "image/png"}}
    found = KIND.read_upload(answer(200, ticket))
    assert found is not None
    assert (found.public_url, found.upload_url, dict(found.headers)) == (
        "https://c/x",
        "https://s/y",
        ticket["upload_headers"],
    )
