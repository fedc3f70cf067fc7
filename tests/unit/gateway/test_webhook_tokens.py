"""Callback tokens and bodies: none can be made up, every shape of body is read, nothing raises."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.gateway.webhook_tokens import (
    SELF_TEST,
    CallbackDelivery,
    WebhookTokens,
    callback_url,
    ids_in,
    same_secret,
)

ONE = "0123456789abcdef0123456789abcdef"
KEYS = WebhookTokens(b"s" * 32, "sandbox")


def test_a_token_reads_back_as_its_attempt() -> None:
    assert KEYS.read(KEYS.token(ONE, 3)) == CallbackDelivery(request_id=ONE, attempt=3)


@pytest.mark.parametrize(
    "other",
    [
        WebhookTokens(b"t" * 32, "sandbox").token(ONE, 1),
        WebhookTokens(b"s" * 32, "https://gateway.example:443").token(ONE, 1),
        KEYS.token(ONE, 1).replace("-1-", "-2-"),
        KEYS.token(ONE, 1).replace(ONE, SELF_TEST),
        KEYS.token(ONE, 1)[:-1],
        KEYS.token(ONE, 1) + "\n",
        KEYS.token(ONE, 1).upper(),
        f"{ONE}-1-" + "é" * 40,
        "",
    ],
)
def test_a_token_of_another_ledger_gateway_or_attempt_is_nobodys(other: str) -> None:
    assert KEYS.read(other) is None


def test_secrets_differ_by_attempt_and_are_of_the_schemes_form() -> None:
    secrets = {KEYS.secret(ONE, 1), KEYS.secret(ONE, 2), KEYS.secret(SELF_TEST, 1)}
    assert len(secrets) == 3
    assert all(len(base64.b64decode(one.removeprefix("whsec_"), validate=True)) == 32 for one in secrets)
    assert not any(KEYS.token(ONE, 1).split("-")[2] in one for one in secrets)


def test_a_secret_is_compared_whatever_its_characters() -> None:
    assert same_secret("abc", "abc")
    assert not same_secret("\udcff", "abc")
    assert not same_secret("", "abc")


@pytest.mark.parametrize("public", ["https://hooks.example.com", "https://hooks.example.com/base/"])
def test_an_address_is_the_public_one_and_the_token(public: str) -> None:
    assert callback_url(public, "t") == f"{public.rstrip('/')}/dop/t"


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (b'{"job_set_id": "a", "jobs": [{"id": "b"}]}', ("a",)),
        (b'{"id": "c", "request_id": "b", "job_set_id": "a"}', ("a", "b")),
        (b'{"type": "job.done", "data": {"jobSetId": "a"}}', ("a",)),
        (b'[{"request_id": "r"}]', ("r",)),
        (b'{"id": 17}', ("17",)),
        (b"not json", ()),
        (b'{"id": "../x y"}', ()),
        (b"", ()),
        (b"[" * 60_000, ()),
    ],
)
def test_ids_are_read_best_evidence_first(body: bytes, ids: tuple[str, ...]) -> None:
    assert ids_in(body) == ids


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_no_body_raises(body: bytes) -> None:
    assert len(ids_in(body)) <= 4


@given(st.text(max_size=120))
def test_no_path_raises(token: str) -> None:
    assert KEYS.read(token) is None
