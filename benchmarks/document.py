"""docs/internals/benchmarks.md, written from the kept figures; nothing in it is typed by hand. Pure but for `write`.

`python -m benchmarks` writes it and its pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Figures, kept

UNQUIET_MS = 20
"""A timer of the gateway that rings so late says that others used the machine."""

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "internals" / "benchmarks.md"

HEAD = """# Benchmarks: how near the limit, how many polls, how much memory

Everything here runs over HTTP on 127.0.0.1: the gateway is the sandbox, each client a process of its own, `dop run`
the whole command with its durable ledger. What counts are the gateway's books (accepted, rejected, when a finished
job was first seen), never the client's. This page is written by `python -m benchmarks` from the figures that the
commands below kept.

The rivals, all made to go on until every job is accepted (benchmarks/rivals.py):

| | |
|---|---|
| botocore | its adaptive retry mode: its own rate limiter, cubic law and back-off, in 16 threads |
| aiohttp-retry | RetryClient with ExponentialRetry as it comes, 16 connections |
| tenacity | Semaphore(16) + aiolimiter + `wait_random_exponential(multiplier=1, max=60)` |
| sdk | where jobs are polled: a loop for each accepted job, as vendors' SDKs have it, and submits as `bare` |
| cookbook | the parallel-request script, retold: full speed until a 429, then 15 s of silence |
| bare | 16 workers that post again 0.2 s after a refusal; without a limit, the ceiling of this machine |

Where the limit is unknown, tenacity and cookbook are given 100 a second, a guess that is too high. None of them keeps
a ledger.
"""

LIMITS = """
## One limit, 1,200 submits at 40 a second

`python -m benchmarks.limits --write-docs`

{circumstances}

All clients of a scenario at the same time, each with a gateway of its own; then `dop run` once more, alone: six clients
and six gateways leave little of two cores, and what that does to a client is not the limit's doing. A client that is
not done after 1.25 times the ideal time is judged by what was accepted until then (marked \\*).

The ratio is the ideal time over the time from the first submit to the last acceptance. The ideal is a caller who
knows the limiter: its n-th call is let in at

| limiter | n-th call |
|---|---|
| bucket of B tokens, r a second | max(0, (n - B) / r) |
| fixed window of L in p seconds | (ceil(n / L) - 1) p - f, where f is how far into a window the first call came |
| sliding window of L in p seconds | floor((n - 1) / L) p |
| one after another | each offers what it lets in during its time; a changed limit begins with a full allowance |

`early` counts submits that arrived while a Retry-After given 0.1 s before or earlier still held.
Where every 429 says 3600 s, early ones are wanted: the rule is in docs/internals/pace.md, and costs the first minute.

The configured rate of this table was evenly spaced (`pace.burst: 1`): the first 40 go unused, 0.967 is the most.
`python -m benchmarks.alone` measures it with its default burst.

This table is of the pace before 2026-11-30; what the present one reaches is under "`dop run` alone".
"""

CHANGING = """
![accepted submits a second while the limit goes 40, 15, 60](../pictures/bench-changing.svg)
"""

ALONE = """
## `dop run` alone

`python -m benchmarks.alone --write-docs`

{circumstances}

The same scenarios without other clients at the same time. A configured rate has its default burst here.
"""

SHARED = """
## Polls and submits in one bucket of 40 a second, 1,000 jobs

`python -m benchmarks.shared --write-docs`

{circumstances}

Time is pressed together by five: a job takes about 8 s, our poll settings are a fifth of the defaults, and the rivals
ask for each job every 1 s. The bound of the makespan is the larger of two calls a job, (2 n - 40) / 40 s, and of each
job's place in the line plus its generation time, the longest first. `first` and `lag` are in median generation times:
when the first video was seen, and how late a finished one was seen on average.
"""

CURVE = """
### Bound against lag: `poll.max_lag_s`

The same, limit known; `auto` is the line above. Smaller lags cost polls, and with them time for the whole batch.
"""

SCATTERED = """
### Generation times from 0.2 to 3 times 8 s

Polls have no limit here, submits a known one of 40 a second.
"""

COST = """
## No limit: 5,000 jobs, what a job costs the program

`python -m benchmarks.cost --write-docs`

{circumstances}

One client at a time, rounds interleaved. Jobs a second from the first submit to the moment the last job was seen
finished; CPU of the process without its start, report included. `fresh` is the bare loop with a connection of its own
for each submit, as paid calls have here.
"""

BUDGET = """
### Where the CPU of a job goes

`python -m benchmarks.budget --write-docs`

{circumstances}

{jobs:,} jobs, micro-seconds of CPU a job, user and system, of the whole process: a timer of the process's CPU time
interrupts the program, and what each thread has used since is added to the part that its stack is in. `before` is the
program of commit {commit}, the last one before the cost of a job was worked on; both and `fresh` were run in turn.
"""

TLS = """
## A TLS connection for each paid call

`python -m benchmarks.tls --write-docs`

{circumstances}

CPU of the program's client for one paid call on a connection of its own, {calls} calls one after another, against a
server on this machine with a chain of certificates as public gateways have one (RSA, 2048 bits, one between the
server's and the root).
"""

LARGE = """
## A million rows

`python -m benchmarks.large --write-docs`

{circumstances}

Each line is a process of its own with its start and its end, which imports what this step needs: CPU seconds, user
and system, and the most memory it ever had. The sheet has 500 pictures, 2,000 prompts and a seed for each row. The
crash is one of a run that had bought for a moment: what it wrote since the ledger was last known to be whole is read
and checked, `dop ledger check` reads all.

The lower bound is what no program can leave out, in the same kind of process: of planning, the csv module and a hash
of each row; of listing, SQLite writing the same two tables with their indexes; of the reports, the driver reading the
same rows and the csv module writing their values. What is above it checks each cell, makes the request's id, and puts
each value into words.
"""

CROWD = """
## 100,000 jobs in flight

`python -m benchmarks.crowd --write-docs`

{circumstances}

The jobs are bought through the ledger's own events, then `dop collect` takes them up, as after a restart, and looks
at them for 30 s, in a process that imports nothing but the program. Only the HTTP client is replaced, by one whose
polls all say in_progress. In the lines marked "dop run" that command bought them itself.
"""

WORKERS = """
## Several workers, one ledger: {count:,} jobs without a limit

`python -m benchmarks.workers --write-docs`

{circumstances}

`dop worker` processes on one PostgreSQL server that keeps its word (fsync), and `dop run --cluster`, which follows
them; gateway, settings and jobs as above. The ratio is to a plain `dop run` on SQLite in the same round. All of it
shares the cores named above, gateway and database included: more workers than cores cannot be faster here, and what a
job costs each of them says more than jobs a second do.
"""


def circumstances(figures: Figures) -> str:
    """When and where, for the head of a section."""
    usual, most = figures["load"]
    late_ms, latest_ms = figures["late_ms"]
    late = f"; one timer in a hundred rang {late_ms} ms late or later, in the worst bout {latest_ms} ms"
    unquiet = " **Not a quiet machine: ratios suffer; repeat it on one.**" if late_ms > UNQUIET_MS else ""
    rounds = f"{figures['rounds']} rounds, medians" if figures["rounds"] > 1 else "one round"
    return (
        f"Measured {figures['day']}: {rounds}, {figures['cores']} shared cores, Python {figures['python']}; load "
        f"{usual}, at most {most}{late if late_ms else ''}.{unquiet}"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def limits_section(figures: Figures) -> str:
    """Each scenario's table of clients."""
    text = LIMITS.format(circumstances=circumstances(figures))
    for scenario in figures["scenarios"]:
        rows = [_limit_row(line) for line in scenario["rows"]]
        text += f"\n### {scenario['name'].capitalize()}\n\n"
        text += table(("client", "ratio to the ideal", "lowest .. highest", "rejected", "share", "early"), rows)
    return text + CHANGING + "\n" + _limit_targets(figures)


def alone_section(figures: Figures) -> str:
    """One row for each scenario."""
    rows = [(line["name"], *_limit_row(line)[1:]) for line in figures["rows"]]
    head = ("limit", "ratio to the ideal", "lowest .. highest", "rejected", "share", "early")
    return ALONE.format(circumstances=circumstances(figures)) + "\n" + table(head, rows)


def _limit_row(line: dict[str, Any]) -> tuple[object, ...]:
    ratio = f"{line['ratio']:.3f}" + ("" if line["whole"] else " \\*")
    spread = f"{line['ratios'][0]:.3f} .. {line['ratios'][-1]:.3f}"
    return _bold(line["client"]), ratio, spread, line["rejected"], f"{line['share']:.1%}", line["early"]


def _limit_targets(figures: Figures) -> str:
    rows = []
    for scenario in figures["scenarios"]:
        target = scenario["target"]
        if target is None:
            continue
        cells = [scenario["name"], f">= {target}"]
        lines = {line["client"]: line for line in scenario["rows"]}
        for line in (lines["dop run, alone"], lines["dop run"]):
            met = line["ratio"] >= target and ("->" in scenario["name"] or line["share"] <= 0.01)
            cells += [f"{line['ratio']:.3f}, {line['share']:.1%} rejected", _met(met)]
        rows.append(cells)
    note = "At most 1 % of the submits may be rejected where the limit does not change."
    return f"### Targets\n\n{note}\n\n" + table(("scenario", "target", "alone", "", "beside the others", ""), rows)


def shared_section(figures: Figures) -> str:
    """One bucket, the curve, and the scattered times."""
    head = ("", "makespan / bound", "polls a job", "polls rejected", "submits rejected", "first", "lag")
    tables = figures["tables"]
    text = SHARED.format(circumstances=circumstances(figures)) + "\n"
    text += table(head, map(_shared_row, tables["one bucket"])) + "\n" + _shared_targets(tables["one bucket"])
    text += CURVE + "\n" + table(("max_lag_s", *head[1:]), map(_shared_row, tables["curve"]))
    text += "\n![makespan over its bound against the mean lag](../pictures/bench-lag.svg)\n"
    rows = [(_shared_row(line)[0], _shared_row(line)[2], _shared_row(line)[6]) for line in tables["scattered"]]
    return text + SCATTERED + "\n" + table(("", "polls a job", "lag"), rows)


def _shared_row(line: dict[str, Any]) -> tuple[object, ...]:
    return (
        _bold(line["name"]),
        f"{line['stretch']:.2f}" + ("" if line["whole"] else " \\*"),
        f"{line['polls_a_job']:.2f}",
        f"{line['polls_rejected']:.1%}",
        f"{line['submits_rejected']:.1%}",
        f"{line['first']:.2f}",
        f"{line['lag']:.2f}" if line["lag"] is not None else "none seen",
    )


def _shared_targets(lines: Sequence[dict[str, Any]]) -> str:
    rows = []
    for line in lines:
        if line["name"].startswith("dop run"):
            met = line["polls_a_job"] <= 1.3 and line["stretch"] <= 1.10 and line["first"] <= 2.0
            reached = f"{line['polls_a_job']:.2f}, {line['stretch']:.2f}, {line['first']:.2f}"
            rows.append((line["name"], "<= 1.3 polls a job, <= 1.10 x the bound, first by 2", reached, _met(met)))
    return table(("", "targets", "reached", ""), rows)


def cost_section(figures: Figures) -> str:
    """Ours, the bare loop, and the bare loop with fresh connections."""
    rows = [
        (
            _bold(line["client"]),
            line["jobs_per_s"],
            f"{line['each'][0]} .. {line['each'][-1]}",
            line["cpu_ms"],
            line["start_cpu_s"],
            line["gateway_cpu_ms"],
            line["memory_mb"],
            line["polls_a_job"],
        )
        for line in figures["rows"]
    ]
    head = ("", "jobs / s", "lowest .. highest", "CPU ms / job", "start, CPU s", "gateway's", "peak MB", "polls a job")
    ratio, each = figures["ratio"], ", ".join(str(one) for one in figures["ratios"])
    verdict = f"Ours over the bare loop: {ratio:.2f} (rounds: {each}); target >= 0.8: {_met(ratio >= 0.8)}.\n"
    return COST.format(circumstances=circumstances(figures)) + "\n" + table(head, rows) + "\n" + verdict + _why(figures)


def _why(figures: Figures) -> str:
    """Where the difference goes, as far as these runs tell."""
    cpu_ms = {line["client"]: line["cpu_ms"] for line in figures["rows"]}
    ours, bare, fresh = cpu_ms["dop run"], cpu_ms["bare"], cpu_ms["fresh"]
    return f"""
A job takes {ours - bare:.1f} ms of CPU more than in the bare loop: {fresh - bare:.1f} ms for a connection of its own
(no late answer of another call can be taken for a paid one), {ours - fresh:.1f} ms for what the bare loop does not do:
three durable transactions in the ledger and its journal, judging each answer against what was asked, the pace, the
poll plan, a line of log, progress, the report. All of that is one core's work, so {1000 / ours:.0f} jobs a second are
the most of a core like these. 50 submits a second of the cheapest model cost $24,000 an hour.
"""


def budget_section(figures: Figures) -> str:
    """CPU a job by part of the program, before and now, and the loop against the bare loop."""
    inside, outside = (
        [(name, found) for name, found in _parts(figures) if (name in OUTSIDE) is out] for out in (False, True)
    )
    loop, bound = figures["loop_us"], _bound_us(figures)
    rows = [(name, found["before"], found["now"]) for name, found in inside]
    rows += [("**the loop**", loop["before"], loop["now"])]
    rows += [(f"outside: {name}", found["before"], found["now"]) for name, found in outside]
    rows += [("fresh, its loop", loop["fresh"], loop["fresh"])]
    cpu, jobs = figures["cpu_ratio"], figures["jobs_ratio"]
    targets = table(
        ("against `fresh`, medians of the rounds' ratios", "target", "before", "now", ""),
        [
            ("CPU in the loop", "<= 2.4 x", cpu["before"], cpu["now"], _met(cpu["now"] <= 2.4)),
            ("jobs a second", ">= 0.5 x", jobs["before"], jobs["now"], _met(jobs["now"] >= 0.5)),
        ],
    )
    text = BUDGET.format(circumstances=circumstances(figures), jobs=figures["jobs"], commit=figures["commit"])
    return (
        f"{text}\n{table(('us a job', 'before', 'now'), rows)}\n{targets}"
        f"""
The lower bound: HTTP, the event loop and the ledger alone, with every promise kept, take {bound} us, which is {
            bound / loop["fresh"]:.1f} x.
All runs are slowed by the timer; without it, and with more jobs, `benchmarks.cost` above finds fewer jobs a second
against `fresh`.
These three are two calls by aiohttp with a connection of its own for the paid one, and three durable changes with
their lines of the journal. Less of it means another HTTP client than aiohttp, a kept
connection for paid calls (a late second answer could be taken for another call's), or fewer durable changes. What is
above it judges each answer, keeps the pace, plans the polls and writes the log.
"""
    )


def _parts(figures: Figures) -> list[tuple[str, dict[str, int]]]:
    return sorted(figures["parts"].items(), key=lambda item: -item[1]["now"])


def _bound_us(figures: Figures) -> int:
    return sum(found["now"] for name, found in figures["parts"].items() if name in LOWER_BOUND)


OUTSIDE = ("imports", "reports at the end", "plan, and rows into the ledger", "everything else")
"""Parts that are no part of the loop; `benchmarks.budget` leaves them out of its sums."""

LOWER_BOUND = ("HTTP (aiohttp)", "event loop", "ledger's thread", "ledger, in the loop")
"""Parts without which no paid call is made and none is recorded."""


def tls_section(figures: Figures) -> str:
    """A paid call without TLS, with a full handshake, with a session that is resumed."""
    rows = [(line["way"], f"{line['cpu_ms']:.2f}") for line in figures["rows"]]
    plain, full, resumed, bare = (line["cpu_ms"] for line in figures["rows"])
    half = (
        f"TLS adds {full - plain:.2f} ms with a full handshake and {resumed - plain:.2f} ms with a resumed session.\n"
    )
    goal = (
        f"Target <= 0.8 ms a call with a resumed session: {_met(resumed <= 0.8)}. The lower bound is the last line: "
        f"{bare:.2f} ms are what\nOpenSSL and the kernel take for a connection with a resumed session, without an HTTP "
        "client.\n"
    )
    text = TLS.format(circumstances=circumstances(figures), calls=figures["calls"])
    return text + "\n" + table(("", "CPU ms a call"), rows) + "\n" + half + goal


def large_section(figures: Figures) -> str:
    """What a large sheet costs, step by step."""
    rows = [
        (
            line["name"],
            f"{line['rows']:,}",
            line["cpu_s"],
            "" if line["target_s"] is None else f"<= {line['target_s']:g}",
            line["peak_mb"],
            "" if line["target_mb"] is None else f"<= {line['target_mb']}",
            _large_met(line),
            line["bound_s"] or "",
        )
        for line in figures["rows"]
    ]
    head = ("", "rows", "CPU s", "target", "peak MB", "target", "", "lower bound, CPU s")
    return LARGE.format(circumstances=circumstances(figures)) + "\n" + table(head, rows)


def _large_met(line: dict[str, Any]) -> str:
    if line["target_s"] is None:
        return ""
    return _met(line["cpu_s"] <= line["target_s"] and line["peak_mb"] <= (line["target_mb"] or line["peak_mb"]))


def crowd_section(figures: Figures) -> str:
    """Memory against jobs in flight."""
    rows = [
        (
            f"{line['in_flight']:,}" + (" (dop run)" if line["bought"] else ""),
            f"{line['now_mb']:.0f}",
            f"{line['peak_mb']:.0f}",
            f"{line['polls']:,}",
        )
        for line in figures["rows"]
    ]
    peak = max(line["peak_mb"] for line in figures["rows"])
    few, *_, many = (line for line in figures["rows"] if not line["bought"])
    each_kb = 1000 * (many["peak_mb"] - few["now_mb"]) / (many["in_flight"] - few["in_flight"])
    verdict = (
        f"Target <= 200 MB: {_met(peak <= 200)}. The lower bound: a process with {few['in_flight']:,} jobs has "
        f"{few['now_mb']:.0f} MB, and each further job\ntakes {each_kb:.2f} kB: its id, its request's id, when it is "
        "asked for next, and what it was bought as.\n"
    )
    head = ("jobs in flight", "MB now", "MB at most", "polls meanwhile")
    return CROWD.format(circumstances=circumstances({**figures, "rounds": 1})) + f"\n{table(head, rows)}\n{verdict}"


def workers_section(figures: Figures) -> str:
    """Workers against one plain run, and one worker that holds thousands."""
    rows = [
        (
            _bold(line["name"]),
            f"{line['jobs_per_s']}" + ("" if line["whole"] else " \\*"),
            f"{line['each'][0]} .. {line['each'][-1]}",
            f"{line['ratio']:.2f}",
            line["memory_mb"],
            line["cpu_ms"],
            line["database_cpu_ms"] or "in it",
            line["gateway_cpu_ms"],
            line["polls_a_job"],
        )
        for line in figures["rows"]
    ]
    head = ("", "jobs / s", "lowest .. highest", "ratio", "peak MB each", "CPU ms / job", "database's", "gateway's")
    held = figures["held"]
    verdict = f"""
CPU is that of all workers with their start; the following command's is not in it.

{_cluster_targets(figures)}
One worker that holds {held["in_flight"]:,} accepted jobs and polls them ({held["polls"]:,} times meanwhile): at most
{held["peak_mb"]} MB, {held["now_mb"]} MB after half a minute of it. Target < 200 MB: {_met(held["peak_mb"] < 200)}.
"""
    text = WORKERS.format(circumstances=circumstances(figures), count=figures["count"])
    return text + "\n" + table((*head, "polls a job"), rows) + verdict


def _cluster_targets(figures: Figures) -> str:
    """What a job costs one worker and the database, and whether three workers are faster than a plain run."""
    plain, one, *_, three = figures["rows"]
    count, start, queue = figures["count"], figures["start"], figures["queue"]
    worker_ms = one["cpu_ms"] - 1000 * start["worker_cpu_s"] / count
    database_ms = one["database_cpu_ms"] - 1000 * start["database_cpu_s"] / count
    all_ms = three["cpu_ms"] + three["database_cpu_ms"] + three["gateway_cpu_ms"]
    most = 1000 * figures["cores"] / all_ms
    rows = [
        ("one worker, CPU ms a job without its start", "<= 3", f"{worker_ms:.2f}", _met(worker_ms <= 3)),
        ("database, CPU ms a job without the start", "<= 1.8", f"{database_ms:.2f}", _met(database_ms <= 1.8)),
        ("three workers, ratio to one plain run", "> 1", f"{three['ratio']:.2f}", _met(three["ratio"] > 1)),
    ]
    return f"""{table(("", "target", "reached", ""), rows)}
The lower bound: a worker buys as a plain run does, which takes {plain["cpu_ms"]:.2f} ms a job with its start. The queue
adds {queue["worker_ms"]:.2f} ms to the worker and {queue["database_ms"]:.2f} ms to the database, measured with
{queue["jobs"]:,} jobs that do nothing; the rest is the pace and the ledger, which the workers share over the database.
Three workers, the database and the gateway take {all_ms:.1f} ms a job together, so these {figures["cores"]} cores do at
most {most:.0f} jobs a second, whatever the number of workers; a plain run does {plain["jobs_per_s"]:.0f}.
"""


def _bold(name: str) -> str:
    return f"**{name}**" if name.startswith("dop run") else name


def _met(met: bool) -> str:
    return "met" if met else "**missed**"


SECTIONS = {
    "limits": limits_section,
    "alone": alone_section,
    "shared": shared_section,
    "cost": cost_section,
    "budget": budget_section,
    "tls": tls_section,
    "large": large_section,
    "crowd": crowd_section,
    "workers": workers_section,
}


def rendered(found: dict[str, Figures | None]) -> str:
    """The whole page; a benchmark without figures is left out."""
    parts = [section(figures) for name, section in SECTIONS.items() if (figures := found.get(name)) is not None]
    return HEAD + "".join(parts)


def page() -> str:
    """The page as the kept figures have it."""
    return rendered({name: kept(name) for name in SECTIONS})


def write() -> None:
    """Writes the page."""
    DOCUMENT.write_text(page(), encoding="utf-8")
