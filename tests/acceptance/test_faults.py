"""What the gateway may do wrong, against the real command: nothing is bought twice, nothing that is paid is lost.

One run meets many faults at once: each row's prompt names the one that its submit meets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal

import pytest

from tests.acceptance.conftest import Opened
from tests.support.cli_driver import cost, shots, table
from tests.support.fake_gateway import Json, tiny_clip

Against = Callable[..., Opened]

REJECTED: dict[str, Json] = {
    "plain-400": {"status": 400, "body": {"error": "Invalid request parameters"}},
    "413": {"status": 413, "body": "<html>Request Entity Too Large</html>"},
    "422": {"status": 422, "body": {"detail": [{"loc": ["body", "seed"], "msg": "too large"}]}},
}
"""Refused for good: nothing was created."""

UNCLEAR: dict[str, Json] = {
    "500-recorded": {"status": 500, "body": {"error": "An unexpected error occurred"}, "book": True},
    "500-unrecorded": {"status": 500, "body": {"error": "An unexpected error occurred"}},
    "502-recorded": {"status": 502, "body": "<html>Bad Gateway</html>", "book": True},
    "504-unrecorded": {"status": 504, "body": ""},
    "no-id": {"status": 200, "body": {"success": True}, "book": True},
    "error-in-200": {"status": 200, "body": {"error": "Invalid request parameters"}},
    "page-in-200": {"status": 200, "body": "<html>Welcome</html>", "book": True},
    "reset-recorded": {"reset": "after", "book": True},
    "reset-unrecorded": {"reset": "after"},
    "cut-recorded": {"cut": 10, "book": True},
    "redirect": {"status": 307, "headers": {"Location": "/ai-model-api/v1/image-to-video"}},
    "408": {"status": 408, "body": {"error": "Request Timeout"}},
    "520": {"status": 520, "body": "<html>Unknown Error</html>", "book": True},
}
"""Perhaps paid: parked, named, never sent again."""


def named(faults: dict[str, Json]) -> str:
    """A manifest with one row for each fault, which its prompt names."""
    return table(
        {"id": name, "image": "https://cdn.example.com/a.jpg", "prompt": f"({name}) a lake", "seed": number}
        for number, name in enumerate(faults, start=1)
    )


def asked(bodies: list[str]) -> Counter[str]:
    """How often each body was sent."""
    return Counter(bodies)


@pytest.mark.long
@pytest.mark.process
def test_requests_that_are_refused_for_good_cost_nothing_and_stop_no_others(against: Against) -> None:
    good: dict[str, Json] = {"fine-1": {}, "fine-2": {}}
    dop, double = against(prompts={f"({name})": fault for name, fault in REJECTED.items()})
    manifest = dop.csv(named({**REJECTED, **good}))
    end = dop.buy(manifest)
    assert end.code == 1, end.err
    assert end.counts == {"done": 2, "failed": 3}
    rows = {row["row_id"]: row for row in dop.rows()}
    assert {name for name, row in rows.items() if row["status"] == "rejected"} == set(REJECTED)
    assert all(rows[name]["reason"] and Decimal(rows[name]["cost_usd"]) == 0 for name in REJECTED)
    assert "too large" in rows["422"]["reason"]
    assert len(double.submits) == 5
    again = dop.buy(manifest)
    assert again.code == 0, "the failure was of the command before"
    assert "3 failed earlier: " in again.err
    assert len(double.submits) == 5, "what was refused is not sent again automatically"


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.long) for part in range(1, 5))])
def test_unclear_answers_are_parked_and_never_sent_again(against: Against, part: int) -> None:
    faults = dict(list(UNCLEAR.items())[part::5])  # the breaker would stop a run that meets more of them
    good: dict[str, Json] = {f"fine-{number}": {} for number in range(4)}
    dop, double = against(prompts={f"({name})": fault for name, fault in faults.items()})
    manifest = dop.csv(named({**good, **faults}))
    end = dop.buy(manifest, "--set", "pace.submit_concurrency=1")
    assert end.code == 3, end.err
    assert end.counts == {"done": 4, "unknown": len(faults)}
    rows = {row["row_id"]: row for row in dop.rows()}
    assert {name for name, row in rows.items() if row["status"] == "unknown"} == set(faults)
    assert all(rows[name]["cost_state"] == "reserved" and rows[name]["reason"] for name in faults)
    assert all(name in end.err for name in faults)
    recorded = sum(fault.get("book", False) for fault in faults.values())
    assert double.charged == 4 + recorded
    assert dop.ledger_mills() == 135 * (4 + len(faults))
    sent = len(double.submits)
    again = dop.buy(manifest)
    assert again.code == 3, again.err
    assert len(double.submits) == sent == 4 + len(faults)
    assert again.run == end.run, "a run with an unresolved outcome continues"


@pytest.mark.long
def test_a_connection_that_is_refused_is_not_money_and_is_tried_again(against: Against) -> None:
    dop, double = against()
    address = double.base_url
    dop.base_url = "http://127.0.0.1:9"
    end = dop.buy(dop.csv(shots(1)), "--max-duration", "2s")
    assert end.code == 5, end.err
    assert end.counts == {"planned": 1}
    dop.base_url = address
    assert dop.buy(dop.csv(shots(1))).code == 0


def test_the_other_submit_path_is_used_when_nothing_lives_at_the_documents(against: Against) -> None:
    dop, double = against(paths=["/ai-model-api/v1/image-to-video"], shape="queue")
    end = dop.buy(dop.csv(shots(6)), "--set", "pace.submit_concurrency=1")
    assert end.code == 0, end.err
    assert double.charged == 6
    assert [submit["path"][-5:] for submit in double.submits] == ["quest", *["video"] * 6]


@pytest.mark.long
def test_no_submit_path_at_all_is_a_wrong_address(against: Against) -> None:
    dop, double = against(paths=[])
    end = dop.buy(dop.csv(shots(3)))
    assert end.code == 7, end.err
    assert end.counts == {"planned": 3}
    assert "base_url" in end.err
    assert double.charged == 0
    assert dop.ledger_mills() == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, "Access denied due to invalid subscription key."),
        (402, "Payment Required"),
        (400, "Insufficient credits: please top up your balance"),
    ],
)
def test_no_key_or_no_credit_stops_buying_and_collects_what_is_paid(against: Against, status: int, text: str) -> None:
    dop, double = against(submits={"3-": {"status": status, "body": {"error": text}}}, generation_s=0.3)
    end = dop.buy(dop.csv(shots(6)), "--set", "pace.submit_concurrency=1")
    assert end.code == 7, end.err
    assert end.counts == {"done": 2, "planned": 4}
    assert text.split(":", maxsplit=1)[0] in end.err
    assert len(double.submits) == 3
    assert len(dop.videos()) == 2
    double.script.submits = {}
    assert dop.buy(dop.csv(shots(6))).code == 0
    assert double.charged == 6


@pytest.mark.long
@pytest.mark.parametrize(
    ("status", "text", "words", "left"),
    [
        (403, "Access denied for this operation", "`dop doctor --live` checks the key", {"failed": 3, "planned": 1}),
        (404, "Endpoint not found", "no longer takes submits", {"planned": 4}),
        (410, "This model is retired", "no longer takes submits", {"planned": 4}),
    ],
)
def test_three_rows_refused_after_an_acceptance_stop_the_buying(
    against: Against, status: int, text: str, words: str, left: dict[str, int]
) -> None:
    dop, double = against(submits={"3-": {"status": status, "body": {"error": text}}}, generation_s=0.3)
    end = dop.buy(dop.csv(shots(6)), "--set", "pace.submit_concurrency=1")
    assert end.code == 7, end.err
    assert end.counts == {"done": 2, **left}
    assert text in end.err
    assert words in end.err
    assert (len(double.submits), double.charged) == (5, 2)
    again = dop.buy(dop.csv(shots(20)), "--set", "pace.submit_concurrency=1")
    assert again.code == 7, again.err
    assert (len(double.submits), double.charged) == (7, 2), "two calls show that it is still gone"


@pytest.mark.long
def test_quota_text_with_a_short_hint_waits_and_continues(against: Against) -> None:
    text = "Out of call volume quota. Quota will be replenished in 00:00:02."
    quota = {"status": 403, "body": {"statusCode": 403, "message": text}, "wait_s": 2}
    dop, double = against(submits={"2": quota})
    end = dop.buy(dop.csv(shots(4)), "--set", "pace.submit_concurrency=1")
    assert end.code == 0, end.err
    assert double.charged == 4
    assert double.submits[2]["at"] - double.submits[1]["at"] >= 2.0


@pytest.mark.long
def test_quota_that_is_gone_for_hours_ends_the_buying(against: Against) -> None:
    text = "Out of call volume quota. Quota will be replenished in 05:00:00."
    dop, double = against(submits={"2-": {"status": 403, "body": {"statusCode": 403, "message": text}}})
    end = dop.buy(dop.csv(shots(4)), "--set", "pace.submit_concurrency=1")
    assert end.code == 5, end.err
    assert end.counts == {"done": 1, "planned": 3}
    assert len(double.submits) == 2


@pytest.mark.long
@pytest.mark.parametrize("says", ["seconds", *(pytest.param(how, marks=pytest.mark.long) for how in ("date", "text"))])
def test_nothing_is_sent_before_the_time_that_a_429_names(against: Against, says: str) -> None:
    dop, double = against(shut={"after": 4, "for_s": 2.0, "says": says})
    end = dop.buy(dop.csv(shots(12)))
    assert end.code == 0, end.err
    assert end.counts == {"done": 12}
    assert double.charged == 12
    _none_came_early(double.submits, double.shut_until)
    assert any(int(row["throttled"]) for row in dop.rows())


def _none_came_early(submits: list[Json], open_at: float) -> None:
    """Every submit that had not left when the first 429 was written waits until submits are admitted again."""
    refused = [submit["at"] for submit in submits if submit["job"] is None]
    assert refused
    late = [at for at in refused if at > refused[0] + 0.25]
    assert late == [], f"{len(late)} of {len(refused)} came although a wait was demanded"
    after = [submit["at"] for submit in submits if submit["at"] > refused[0] + 0.25]
    assert min(after) >= open_at


@pytest.mark.long
def test_ten_seconds_of_429_lose_nothing(against: Against) -> None:
    dop, double = against(shut={"after": 10, "for_s": 10.0, "says": "seconds"})
    end = dop.buy(dop.csv(shots(60)), timeout_s=110)
    assert end.code == 0, end.err
    assert double.charged == 60
    assert max(asked(double.bodies()).values()) == 1
    _none_came_early(double.submits, double.shut_until)


@pytest.mark.long
def test_a_cap_on_jobs_at_once_is_learned_and_kept(against: Against) -> None:
    dop, double = against(most=3, generation_s=0.5)
    end = dop.buy(dop.csv(shots(9)))
    assert end.code == 0, end.err
    assert double.charged == 9
    assert end.counts == {"done": 9}


FATES: dict[str, tuple[Json, str]] = {
    "refused": ({"end": "nsfw"}, "refused"),
    "moderated": ({"end": "ip_detected"}, "refused"),
    "failed": ({"end": "failed", "reason": "out of memory"}, "failed"),
    "error": ({"end": "ERROR", "reason": {"message": "worker lost"}}, "failed"),
    "canceled": ({"end": "cancelled"}, "canceled"),
    "no-result": ({"no_link": True}, "failed"),
    "dead-for-ever": ({"dead_links": 999}, "expired"),
    "dead-once": ({"dead_links": 1}, "done"),
    "cut-twice": ({"cut": 2}, "done"),
    "sign-in-page": ({"not_a_video": 1}, "done"),
    "redirected": ({"redirects": 3}, "done"),
    "poll-trouble": (
        {
            "polls_in_trouble": 6,
            "trouble": [
                {"status": 502, "body": "<html>Bad Gateway</html>"},
                {"status": 500, "body": {"error": "x"}},
                {"status": 404, "body": {"error": "Endpoint not found"}},
                {"reset": "after"},
                {"status": 200, "body": "<html>login</html>"},
                {"status": 429, "body": {"error": "Rate limit exceeded"}, "wait_s": 1},
            ],
        },
        "done",
    ),
}
"""What becomes of a paid job, and the state that it must end in."""


@pytest.mark.long
def test_each_fate_of_a_paid_job_ends_in_its_own_state(against: Against) -> None:
    dop, double = against(rows={f"({name})": script for name, (script, _) in FATES.items()})
    manifest = dop.csv(named({name: script for name, (script, _) in FATES.items()}))
    end = dop.buy(manifest)
    rows = {row["row_id"]: row for row in dop.rows()}
    assert {name: row["status"] for name, row in rows.items()} == {name: fate for name, (_, fate) in FATES.items()}
    assert end.code == 1, end.err
    states = {"done": "confirmed", "expired": "confirmed"}
    assert {name: row["cost_state"] for name, row in rows.items()} == {
        name: states.get(fate, "disputed") for name, (_, fate) in FATES.items()
    }
    assert "out of memory" in rows["failed"]["reason"]
    assert "worker lost" in rows["error"]["reason"]
    assert "no_result" in rows["no-result"]["reason"]
    assert all(video.read_bytes() == tiny_clip() for video in dop.videos())
    assert len(dop.videos()) == sum(fate == "done" for _, fate in FATES.values())
    assert list(dop.outputs.rglob("*.part*")) == []
    assert cost(dop.rows()) == Decimal(double.charged_mills) / 1000 == Decimal(dop.ledger_mills()) / 1000
    confirmed, disputed, reserved = end.usd
    assert (confirmed, disputed, reserved) == (Decimal("0.810"), Decimal("0.810"), Decimal(0))
    assert dop.buy(manifest).code == 0
    assert double.charged == len(FATES), "a second run buys nothing"


@pytest.mark.long
def test_a_job_about_which_the_gateway_never_answers_is_stalled_when_all_else_is_done(against: Against) -> None:
    dop, double = against(generation_s=0.5, jobs={"1": {"polls_in_trouble": 10_000}})
    end = dop.buy(dop.csv(shots(4)), "--set", "poll.deadline_s=3")
    assert end.code == 5, end.err
    assert sorted(row["status"] for row in dop.rows()) == ["done", "done", "done", "stalled"]
    assert double.charged == 4


@pytest.mark.long
def test_a_job_that_the_gateway_does_not_know_is_stalled_with_that_reason(
    against: Against, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.runner.poll_outcomes.LAG_GRACE_S", 0.0)
    unknown = {"polls_in_trouble": 10_000, "trouble": [{"status": 404, "body": {"error": "Not found"}}]}
    dop, double = against(jobs={"1": unknown})
    end = dop.buy(dop.csv(shots(2)), "--set", "poll.deadline_s=1")
    assert end.code == 5, end.err
    (row,) = (row for row in dop.rows() if row["status"] == "stalled")
    assert row["reason"].endswith(f"the gateway says that it knows no job {row['job_set_id']}")
    assert double.charged == 2


@pytest.mark.long
def test_a_job_past_its_deadline_is_stalled_and_collected_later(against: Against) -> None:
    dop, double = against(generation_s=3.0)
    end = dop.buy(dop.csv(shots(2)), "--set", "poll.deadline_s=1")
    assert end.code == 5, end.err
    assert {row["status"] for row in dop.rows()} == {"stalled"}
    assert {row["cost_state"] for row in dop.rows()} == {"reserved"}
    later = dop.call("collect", "--set", "poll.deadline_s=30")
    assert later.code == 0, later.err
    assert later.counts == {"done": 2}
    assert later.run == end.run
    assert double.charged == 2
