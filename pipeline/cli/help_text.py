"""Texts of the help: the commands by purpose, examples, exit codes. Data only, so that --help is fast."""

from __future__ import annotations

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Start", ("init", "key", "doctor", "help")),
    ("Plan and buy", ("validate", "plan", "run", "submit", "collect")),
    ("Look and choose", ("view", "report", "check", "review", "derive")),
    ("Follow up", ("status", "list", "show", "spend", "retry", "resolve", "reconcile", "cancel", "dismiss")),
    ("Care", ("ledger", "prune", "motions", "completion")),
    ("Servers", ("worker", "webhook", "sandbox")),
)
"""The commands by purpose, the daily ones first."""

EXAMPLES = (
    ("dop init", "samples to start from"),
    ("dop plan shots.csv", "what it would buy, and the price; sends nothing"),
    ("dop run shots.csv", "buy, download, report; again: it continues"),
    ("dop view", "look at the clips in the browser"),
    ("dop run shots.csv --max-cost 5", "at most $5, over all its restarts"),
)

EXIT_CODES = (
    ("2", "arguments, manifest or configuration wrong, or you said no"),
    ("11", "another run holds the ledger (--lock-wait waits for it)"),
    ("7", "key refused, no credit, wrong address, damaged ledger"),
    ("3", "an outcome is unknown, perhaps paid: see dop status"),
    ("8", "budget reached; what was paid is collected"),
    ("129 130 143", "stopped by HUP, INT or TERM after a clean save"),
    ("5", "unfinished: run the same command again"),
    ("1", "finished; a request or a check failed in this command"),
    ("9", "nothing to do (only with --error-on-nothing)"),
    ("0", "all done"),
)

SYNONYMS = {
    "buy": "run",
    "start": "run",
    "go": "run",
    "resume": "run",
    "continue": "run",
    "download": "collect",
    "fetch": "collect",
    "poll": "collect",
    "cost": "plan",
    "price": "plan",
    "preview": "plan",
    "estimate": "plan",
    "lint": "validate",
    "ls": "list",
    "runs": "list",
    "history": "show",
    "open": "view",
    "gallery": "view",
    "export": "report",
    "budget": "spend",
    "login": "key",
    "auth": "key",
    "config": "doctor",
    "settings": "doctor",
    "clean": "prune",
    "ignore": "dismiss",
    "skip": "dismiss",
    "serve": "sandbox",
    "set": "key",
    "store": "set",
}
"""Words that users try, and the command that they mean."""

_BUYING = """\
Each video is bought once: it is known by what is paid for (picture, prompt,
model, seed, motion, ...), not by its row. The same command again continues where
it stopped. On a live gateway it shows the price and asks; without a terminal it
needs --yes or a budget. It writes OUTPUTS/RUN/ (videos, report.html, report.csv,
run.log) and OUTPUTS/ledger.db."""

DETAILS: dict[str, tuple[str, tuple[str, ...]]] = {
    "run": (
        _BUYING,
        (
            "dop run shots.csv --pilot 2 --max-cost 20      # two first; the rest when they rendered",
            "dop run shots.csv --first 3                    # a part of the sheet is a run of its own",
            "dop run shots.csv -q --yes --lock-wait 30m     # from cron: silent when all is well",
            "dop run shots.csv --json                       # one JSON object on stdout at the end",
        ),
    ),
    "submit": (f"{_BUYING}\nIt does not wait for the videos: `dop collect` fetches them.", ()),
    "collect": (
        "Run it as often as you like. What is not finished stays for the next time (exit 5).",
        ("dop collect latest --max-duration 10m",),
    ),
    "plan": (
        "Sends nothing. Compares the manifest with the ledger: only what is new would be bought.",
        (
            "dop plan shots.csv --show 5      # the first five requests, prompts expanded",
            "dop plan shots.csv --out shots.plan   # then: dop run --plan shots.plan",
        ),
    ),
    "resolve": (
        "Look for the request on the gateway's invoice or job list, then say what you found.",
        ("dop resolve --all --charged", "dop resolve --from-usage usage.csv"),
    ),
    "retry": ("Each is a new attempt at the full price, which is shown first.", ()),
    "doctor": (
        "Exit 0 when nothing is wrong, 7 otherwise. Spends nothing.",
        ("dop doctor --live", "dop doctor --settings"),
    ),
}
"""More about a command, and more examples, by its name."""
