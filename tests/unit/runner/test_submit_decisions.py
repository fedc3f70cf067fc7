"""What is done about a refusal that may mean one row, or all of them; and what is said of it."""

from __future__ import annotations

import pytest

from pipeline.gateway.kinds.pixazo import classify_submit
from pipeline.gateway.responses import Response
from pipeline.runner.submit_decisions import NO_CREDIT, NOT_SOLD, SubmitAction, decide, refusal_text

AT = 1_800_000_000.0


def test_a_path_that_vanishes_in_mid_run_is_held_against_no_row_before_others_are_asked() -> None:
    """A gateway that stops selling would else be asked for every row of a long sheet, and reject each one."""
    gone = classify_submit(Response(status=404, body=b'{"error": "Endpoint not found"}'), now_unix=AT)
    decision = decide(gone, has_other_path=False, any_accepted=True)
    assert decision.action is SubmitAction.RELEASE
    assert decision.is_refused
    assert decision.stop is None


@pytest.mark.parametrize(
    ("status", "body", "begins"),
    [
        (402, b'{"error": "Payment Required"}', NO_CREDIT),
        (400, b'{"error": "Insufficient credits: please top up"}', NO_CREDIT),
        (403, b'{"detail": "Not enough credits"}', NO_CREDIT),
        (404, b'{"error": "Endpoint not found"}', NOT_SOLD),
        (410, b'{"error": "This model is retired"}', NOT_SOLD),
        (401, b'{"error": "Invalid or missing authentication"}', "the gateway refuses further submits"),
        (403, b'{"error": "Access denied for this operation"}', "the gateway refuses further submits"),
    ],
)
def test_the_reason_to_stop_says_what_is_missing(status: int, body: bytes, begins: str) -> None:
    outcome = classify_submit(Response(status=status, body=body), now_unix=AT)
    assert refusal_text(outcome).startswith(f"{begins}: {status} ")
