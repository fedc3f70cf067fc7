"""What a gateway repeats of signed addresses and callback secrets is kept without what opens them."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from urllib.parse import quote

import pytest

from pipeline.gateway.kinds.pixazo import classify_poll, classify_submit
from pipeline.gateway.redaction import redact
from pipeline.gateway.responses import Response

SIGNATURE = "9057cae47ee23fef505d55252942ffe93461cf99aa177a66f4cda0e60012ed8e"
CREDENTIAL = "AKIAEXAMPLE%2F20261122%2Fus-east-1%2Fs3%2Faws4_request"
S3 = (
    "https://bucket.s3.amazonaws.com/dop/a.jpg?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    f"&X-Amz-Credential={CREDENTIAL}&X-Amz-Security-Token=FwoGZXIvYXdzECAaDJ%2B8&X-Amz-Signature={SIGNATURE}"
)
GCS = f"https://storage.googleapis.com/b/a.jpg?X-Goog-Signature={SIGNATURE * 8}&X-Goog-Date=1"
AZURE = (
    "https://account.blob.core.windows.net/c/a.jpg?se=2026-11-23&sp=r&sig=Eby8vdM02xNOcqFlqUwJPLlmEtl%2BK1SZFPTOtr%3D"
)
SECRETS = (SIGNATURE[:20], "AKIAEXAMPLE", "FwoGZXIvYXdz", "Eby8vdM02xN")
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda url: url,
    "quoted": lambda url: f"can't fetch '{url}' (403)",
    "json": lambda url: json.dumps({"detail": url}),
    "escaped json": lambda url: json.dumps({"detail": json.dumps({"url": url}).replace("&", "\\u0026")}),
    "html": lambda url: f"<p>{escape(url)}</p>",
    "percent": lambda url: quote(url, safe=""),
    "percent twice": lambda url: quote(quote(url, safe=""), safe=""),
    "cut": lambda url: url[:-30],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("url", [S3, GCS, AZURE])
def test_no_spelling_of_a_signed_address_keeps_its_signature(url: str, spelling: str) -> None:
    text = SPELLINGS[spelling](url)
    kept = redact(text)
    assert not [secret for secret in SECRETS if secret in kept], kept
    assert "***" in kept
    assert "a.jpg" in kept


def test_what_a_store_says_of_a_bad_signature_is_kept_without_it() -> None:
    said = f"<SignatureProvided>{SIGNATURE}</SignatureProvided><AWSAccessKeyId>AKIAEXAMPLE</AWSAccessKeyId>"
    assert not [secret for secret in SECRETS if secret in redact(said)]


def test_callback_tokens_and_secrets_are_hidden() -> None:
    token = f"{'a' * 32}-1-{'b' * 40}"
    said = json.dumps({"webhook_url": f"https://x.example/dop/{token}", "webhook_secret": "whsec_abc+/def="})
    assert "b" * 8 not in redact(said)
    assert "abc+" not in redact(said)


def test_other_words_stay_as_they_are() -> None:
    said = f"422 input_images: sandbox:sha256-{SIGNATURE} is not known, design = sig, https://x.test/a?b=c&d=e"
    assert redact(said) == said


@pytest.mark.parametrize("body", [{"error": f"can't fetch {S3}"}, {"detail": [{"loc": ["input_images"], "msg": S3}]}])
def test_no_verdict_repeats_a_signature(body: object) -> None:
    raw = json.dumps(body).encode()
    for status in (200, 400, 422, 429, 500):
        answer = Response(status=status, body=raw)
        reasons = [classify_submit(answer, now_unix=0.0).reason, classify_poll(answer, now_unix=0.0).reason]
        assert not [secret for secret in SECRETS if secret in "".join(reasons)]
    failed = {"job_set_id": "j", "jobs": [{"status": "failed", "error": f"can't fetch {S3}"}]}
    report = classify_poll(Response(status=200, body=json.dumps(failed).encode()), now_unix=0.0).report
    assert report is not None
    assert "can't fetch" in (report.reason or "")
    assert SIGNATURE not in (report.reason or "")
