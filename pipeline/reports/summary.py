"""What a run says at its end: the summary line and run.json. Never holds a secret: settings pass a sieve by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from platform import platform, python_version

from pipeline.ledger.keepers import NO_KEEPERS, KeeperSummary
from pipeline.records import FAILED_FOR_GOOD, IN_FLIGHT, State, Totals, usd
from pipeline.reports.tables import moment

NAMED_PACKAGES = ("dop-batch", "aiohttp", "aiolimiter", "sqlalchemy", "pandas", "av", "pillow", "jinja2")
"""The packages whose versions run.json records."""

MAX_NAMES = 20
"""Shots that one line names; a terminal shows no more of use."""

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:key|keys|secret|token|password|passwd|credential|credentials|authorization)$", re.I
)
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]*@")


def summary_line(totals: Totals, run: str) -> str:
    """The one line at the end of every run: counts by outcome, the three sums in dollars, the run."""
    counts = {
        "done": totals.count(State.DONE),
        "failed": totals.count(*FAILED_FOR_GOOD - {State.REFUSED}),
        "refused": totals.count(State.REFUSED),
        "unknown": totals.count(State.UNKNOWN),
        "in_flight": totals.count(*IN_FLIGHT),
        "planned": totals.count(State.PLANNED),
    }
    parts = [f"{word}={count}" for word, count in counts.items()]
    parts += [f"{word}={amount}" for word, amount in _sums(totals).items()]
    return " ".join([*parts, f"run={run}"])


def keepers_line(keepers: KeeperSummary) -> str:
    """Where the shots of a run stand, those that lack keepers by name; "" without shots."""
    if not keepers.shots:
        return ""
    parts = [f"{keepers.satisfied} of {keepers.shots} shots have their clips"]
    parts += [f"no candidate left: {_some(keepers.used_up)}"] if keepers.used_up else []
    parts += [f"waiting for you: {_some(keepers.waiting)}"] if keepers.waiting else []
    return "; ".join(parts)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more (run.json has all)" if len(names) > MAX_NAMES else ""
    return f"{', '.join(names[:MAX_NAMES])}{more}"


def checks_line(checks: Mapping[str, object]) -> str:
    """Clips by grade and findings by kind in one line; "" when nothing was checked."""
    kinds = checks.get("kinds")
    if not any(value for name, value in checks.items() if name != "kinds"):
        return ""
    parts = [f"{name}={value}" for name, value in checks.items() if name != "kinds"]
    named = ", ".join(f"{kind} {count}" for kind, count in kinds.items()) if isinstance(kinds, Mapping) else ""
    return f"checks: {' '.join(parts)}{f' ({named})' if named else ''}"


def _sums(totals: Totals) -> dict[str, str]:
    return {
        "confirmed": usd(totals.confirmed_microusd),
        "disputed": usd(totals.disputed_microusd),
        "reserved": usd(totals.reserved_microusd),
    }


def run_json(
    *,
    run: str,
    gateway: str,
    totals: Totals,
    settings: Mapping[str, object],
    manifest: str = "",
    started_at: float | None = None,
    ended_at: float | None = None,
    versions: Mapping[str, str] | None = None,
    checks: Mapping[str, object] | None = None,
    ending: Mapping[str, object] | None = None,
    started_by: str = "",
    keepers: KeeperSummary = NO_KEEPERS,
) -> dict[str, object]:
    """The object of run.json.

    Args:
        settings: the effective settings; values under secret names and user names inside URLs are left out.
        started_at, ended_at: Unix seconds; None while not known.
        versions: what `installed_versions()` found, or a test's own.
        checks: clips by grade and findings by kind.
        keepers: where the shots stand.
        ending: how the newest command ended (`run_lookup.ending_facts`).
        started_by: the operator's account name.
    """
    return {
        "run": run,
        "gateway": gateway,
        "manifest": manifest,
        "started_by": started_by or None,
        "started_at": _iso(started_at),
        "ended_at": _iso(ended_at),
        "counts": {
            **{state.value: totals.counts[state] for state in State if totals.counts.get(state)},
            **({"not_needed": totals.spare} if totals.spare else {}),
        },
        **{f"{word}_usd": amount for word, amount in _sums(totals).items()},
        "worst_usd": usd(totals.worst_microusd),
        **(ending or {}),
        "checks": dict(checks or {}),
        **({"keepers": keepers.as_json()} if keepers.shots else {}),
        "settings": without_secrets(settings),
        "versions": dict(installed_versions() if versions is None else versions),
    }


def _iso(at: float | None) -> str | None:
    when = moment(at)
    return None if when is None else when.strftime("%Y-%m-%dT%H:%M:%SZ")


def without_secrets(value: object) -> object:
    """`value` as plain JSON without what its name calls a secret, and without the user part of URLs."""
    match value:
        case Mapping():
            named = ((str(name), inner) for name, inner in value.items())
            return {name: without_secrets(inner) for name, inner in named if not _SECRET_NAME.search(name)}
        case None | bool() | int() | float():
            return value
        case str():
            return _USER_IN_URL.sub("", value)
        case Iterable():
            return [without_secrets(inner) for inner in value]
    return _USER_IN_URL.sub("", str(value))


def installed_versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that shape a run's results."""
    found = {"python": python_version(), "platform": platform()}
    for package in NAMED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
