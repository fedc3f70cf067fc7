"""`reconcile`: the ledger beside what the gateway says was charged. It names every difference and changes nothing."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.cli.arguments import ask_to_trust, print_notice, settings_of
from pipeline.config.settings import Settings
from pipeline.errors import ExitCode, FatalError, UsageError
from pipeline.gateway.kinds import kind_of
from pipeline.gateway.kinds.interface import UsageLine
from pipeline.ledger.transitions import utc_day
from pipeline.ledger.workspace import OpenLedger, open_for_reading
from pipeline.records import Attempt, State, canonical_job_id, counted, usd
from pipeline.reports.run_tables import table
from pipeline.reports.usage_list import jobs_by_id, read_usage
from pipeline.runner.credentials import resolve_api_key
from pipeline.runner.embedded_sandbox import gateway_for
from pipeline.runner.engine import gateway_client
from pipeline.runner.model_offers import ask_again

DAYS = 30
"""How far back the gateway's own list is asked for, in days."""

PAID = frozenset({State.DONE, State.EXPIRED})
"""States of a job that was completed, and so charged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing on which the ledger and the gateway do not agree."""

    what: str
    where: str
    words: str


def reconcile(args: argparse.Namespace) -> int:
    """Name every difference; exit 0 when there is none, 1 otherwise. Nothing is changed."""
    settings = settings_of(args)
    with open_for_reading(settings) as workspace:
        if args.usage is not None:
            found = list(from_list(workspace, read_usage(args.usage)))
        else:
            found = list(from_usage_call(workspace, settings))
    if not found:
        print("no difference")
        return 0
    print_notice(table(("WHAT", "WHERE", "DIFFERENCE"), [[one.what, one.where, one.words] for one in found]))
    print(f"{counted(len(found), 'difference')}; nothing was changed: `dop resolve` settles unknown outcomes")
    return ExitCode.FAILED


def from_list(workspace: OpenLedger, usage: Mapping[str, int | None]) -> Iterable[Difference]:
    """Job by job: `usage` gives micro-dollars (or None where the list names no amount) by job id."""
    ours = jobs_by_id(workspace)
    unknown = workspace.queries.unknowns(workspace.gateway)
    for job, amount in usage.items():
        attempt = ours.get(canonical_job_id(job))
        if attempt is None:
            yield _unlisted(job, amount, unknown)
        elif amount == 0 and attempt.cost_microusd:
            words = f"job {job} is not charged; {_counted(attempt)}"
            yield Difference(what="refunded", where=attempt.row_id, words=words)
        elif amount is not None and amount and amount != attempt.price_microusd and attempt.state in PAID:
            words = f"job {job} is charged ${usd(amount)}; {_counted(attempt)}"
            yield Difference(what="amount", where=attempt.row_id, words=words)
        elif amount and attempt.state not in PAID:
            words = f"job {job} is charged ${usd(amount)}; the ledger says {attempt.state}"
            yield Difference(what="charged", where=attempt.row_id, words=words)
    listed = {canonical_job_id(job) for job in usage}
    for job, attempt in ours.items():
        if attempt.state in PAID and job not in listed:
            words = f"job {job} is not in the list; {_counted(attempt)}"
            yield Difference(what="missing", where=attempt.row_id, words=words)


def _unlisted(job: str, amount: int | None, unknown: Iterable[Attempt]) -> Difference:
    charged = "" if amount is None else f" (${usd(amount)})"
    maybe = [one.row_id for one in unknown if amount in (None, one.price_microusd)]
    if maybe and amount != 0:
        words = f"job {job}{charged} may be what became of {', '.join(maybe[:3])}"
        return Difference(what="charged though unknown", where=maybe[0], words=words)
    return Difference(what="foreign", where=job, words=f"the ledger does not know this job{charged}")


def _counted(attempt: Attempt) -> str:
    return f"the ledger counts ${usd(attempt.price_microusd)} ({attempt.state})"


def from_usage_call(workspace: OpenLedger, settings: Settings) -> Iterable[Difference]:
    """Day by day and model by model, from the gateway's own call. It counts completed videos, and lags.

    Raises:
        UsageError: this gateway has no such call.
        FatalError: it does not answer.
    """
    kind = kind_of(settings)
    if not kind.abilities.usage:
        raise UsageError("this gateway has no call for what it charged: give the list that its web page exports")
    now = time.time()
    lines = asyncio.run(_asked(settings, now))
    ours: Counter[tuple[str, str]] = Counter()
    since = utc_day(now - DAYS * 86_400)
    for one in workspace.queries.jobs(workspace.gateway):
        if one.state in PAID and one.finished_at is not None and utc_day(one.finished_at) >= since:
            ours[utc_day(one.finished_at), kind.vendor_model(one.params.model)] += 1
    theirs = Counter({(line.day, line.model): line.quantity for line in lines})
    unknown = workspace.queries.unknowns(workspace.gateway)
    unknown_days = Counter(utc_day(one.submitted_at) for one in unknown if one.submitted_at)
    for day, model in sorted(ours.keys() | theirs.keys()):
        more = theirs[day, model] - ours[day, model]
        words = f"the gateway counts {theirs[day, model]}, the ledger {ours[day, model]}"
        # The gateway's list names no jobs: more than is known, on a day with unknown outcomes, is probably theirs.
        if more > 0 and unknown_days[day]:
            words = f"{words}; of that day {counted(unknown_days[day], 'outcome')} unknown"
            yield Difference(what="charged though unknown", where=f"{day} {model}", words=words)
        elif more:
            yield Difference(what="foreign" if more > 0 else "missing", where=f"{day} {model}", words=words)


async def _asked(settings: Settings, now: float) -> tuple[UsageLine, ...]:
    kind, key = kind_of(settings), resolve_api_key(settings, ask=ask_to_trust)
    start, end = (datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for at in (now - DAYS * 86_400, now))
    async with gateway_for(settings) as base_url, gateway_client(settings, base_url, key) as client:
        found = kind.read_usage(await ask_again(client, kind.usage_call(start, end)))
    if found is None:
        raise FatalError("the gateway gave no list of what it charged")
    return found
