"""The summary line and run.json."""

from __future__ import annotations

import json

from pipeline.records import State, Totals
from pipeline.reports.summary import run_json, summary_line, without_secrets

TOTALS = Totals(
    counts={State.DONE: 12, State.EXPIRED: 1, State.REFUSED: 2, State.STALLED: 3, State.ACCEPTED: 4, State.PLANNED: 5},
    confirmed_microusd=1_620_000,
    disputed_microusd=270_000,
    reserved_microusd=945_000,
)


def test_the_summary_line_is_the_documented_one() -> None:
    totals = Totals(counts={State.DONE: 12}, confirmed_microusd=1_620_000)
    assert summary_line(totals, "r1") == (
        "done=12 failed=0 refused=0 unknown=0 in_flight=0 planned=0 "
        "confirmed=1.620 disputed=0.000 reserved=0.000 run=r1"
    )


def test_every_attempt_is_in_exactly_one_count_of_the_summary_line() -> None:
    for state in set(State) - {State.SKIPPED}:
        parts = dict(part.split("=") for part in summary_line(Totals(counts={state: 1}), "r").split())
        counts = [parts[word] for word in ("done", "failed", "refused", "unknown", "in_flight", "planned")]
        assert sorted(counts) == ["0", "0", "0", "0", "0", "1"], state


def test_run_json_holds_totals_settings_and_versions() -> None:
    summary = run_json(
        run="r1", gateway="sandbox", totals=TOTALS, settings={"pace": {"rate": "10/1m"}}, started_at=0.0, ended_at=61.5
    )
    assert json.loads(json.dumps(summary)) == summary
    assert summary["counts"] == {"planned": 5, "accepted": 4, "stalled": 3, "done": 12, "expired": 1, "refused": 2}
    assert (summary["confirmed_usd"], summary["worst_usd"]) == ("1.620", "2.835")
    assert (summary["started_at"], summary["ended_at"]) == ("1970-01-01T00:00:00Z", "1970-01-01T00:01:01Z")
    assert summary["settings"] == {"pace": {"rate": "10/1m"}}
    versions = summary["versions"]
    assert isinstance(versions, dict)
    assert {"python", "aiohttp", "dop-batch"} <= set(versions)


def test_settings_lose_their_secrets_at_any_depth() -> None:
    settings = {
        "gateway": {"base_url": "https://me:pw@gw.example.com/x", "api_key": "s3cret"},
        "webhook": [{"secret": "s3cret", "webhook_secret": "s3cret", "listen": "127.0.0.1:0"}],
        "ledger": {"url": "postgresql://dop:s3cret@db/ledger"},
        "keyboard": "kept",
    }
    assert without_secrets(settings) == {
        "gateway": {"base_url": "https://gw.example.com/x"},
        "webhook": [{"listen": "127.0.0.1:0"}],
        "ledger": {"url": "postgresql://db/ledger"},
        "keyboard": "kept",
    }
