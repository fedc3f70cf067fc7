"""The argument parser: every verb with its flags and an example. Only argparse is imported, so that --help is fast."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli.parser_base import Parser, TopParser, Verbs


class _Version(argparse.Action):
    """Prints the installed version; nothing is looked up before the flag is used."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"{parser.prog} {version('dop-batch')}")
        parser.exit()


_RUN_HELP = "name of the run or its beginning, or its folder (default: the newest)"

_ALL = 10_000_000
"""What `--show` without a number means: more rows than a manifest may have."""


_OUTPUT_FLAGS = {
    ("-v", "--verbose"): "print more details",
    ("-q", "--quiet"): "silent unless something is wrong",
    ("--no-progress",): "no bar",
    ("--log-json",): "the run's log on stderr as JSON lines",
}
"""What a command prints while it works. Every command takes them, so that scripts can always give them."""

_WHILE_RUNNING = ("--quiet", "--no-progress", "--log-json")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows: put --show behind the manifest, or --show 5")
    return int(text)


def _add_settings(parser: argparse.ArgumentParser, *used: str) -> None:
    """The flags that every command takes. Those of output are in the help only of a command that uses them."""
    group = parser.add_argument_group("settings")
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration (default: $DOP_CONFIG, ./dop.yaml, configs/default.yaml)",
    )
    group.add_argument("--set", action="append", metavar="section.key=value", help="override one setting; repeatable")
    group.add_argument("--outputs", metavar="DIR", help="folder for runs and the ledger")
    for names, text in _OUTPUT_FLAGS.items():
        group.add_argument(*names, action="store_true", help=text if names[-1] in used else argparse.SUPPRESS)


def _add_manifest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="a YAML or CSV file that says what to buy")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _add_run_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to run")
    group.add_argument("-j", "--max-in-flight", type=int, metavar="N", help="at most N jobs in flight")
    group.add_argument("--rate", metavar="N/1m", help="submits a second, minute or hour; default: automatic")
    group.add_argument("--max-duration", metavar="2h", help="stop after that long; run again to continue")
    group.add_argument("--lock-wait", metavar="30s", help="wait that long for another run to end")
    group.add_argument("--webhook", action="store_true", help="let the gateway call back instead of most polls")
    group.add_argument("--no-download", action="store_true", help="leave the videos where they are")
    group.add_argument("--error-on-nothing", action="store_true", help="exit 9 when there was nothing to do")
    _add_json(parser)


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several machines")
    group.add_argument("--cluster", action="store_true", help="leave the work to `dop worker` processes and follow it")


def _add_choice(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which rows")
    group.add_argument("--filter-tag", action="append", metavar="TAG", help="only rows with this tag; repeatable")
    group.add_argument("--shard", metavar="I/N", help="only the I-th of N parts, the same part each time")
    group.add_argument("--sample", type=int, metavar="N", help="N rows, pseudo-random, the same each time")
    group.add_argument("--first", type=int, metavar="N", help="only the first N rows")
    group.add_argument("--max-rows", type=int, metavar="N", help="maximum number of generated rows (default 256)")


def _add_buying_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to buy")
    group.add_argument("-n", "--dry-run", action="store_true", help="show the plan and stop")
    group.add_argument("-y", "--yes", action="store_true", help="buy without asking")
    group.add_argument("--max-cost", metavar="USD", help="the most this run may cost, over all its restarts")
    group.add_argument("--max-new", type=int, metavar="N", help="buy at most N in this call")
    text = "buy nothing more when so much is unknown, over all restarts"
    group.add_argument("--max-unknown", metavar="N|USD", help=text)
    text = "stop buying when that much failed; a share is judged once 10 have ended"
    group.add_argument("--halt", metavar="fail=3|fail=10%", help=text)
    kinds = "exit 1 when a check finds a clip bad: for any kind of defect, or for those named"
    group.add_argument("--fail-on-check", nargs="?", const="all", metavar="KIND,...", help=kinds)
    group.add_argument("--no-preflight", action="store_true", help="do not check the images before buying")
    text = "buy with a ledger that this account has not used before"
    group.add_argument("--new-ledger", action="store_true", help=text)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = TopParser(
        prog="dop",
        description="Buy AI video in bulk without waste: a batch pipeline for the Higgsfield DoP image-to-video API.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="the version, and nothing else")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)

    _add_verbs(Verbs(verbs))
    return parser


def _add_verbs(verbs: Verbs) -> None:
    _add_starting(verbs)
    _add_planning(verbs)
    _add_buying(verbs)
    _add_resolving(verbs)
    _add_inspecting(verbs)
    _add_choosing(verbs)
    _add_care(verbs)


def _add_starting(verbs: Verbs) -> None:
    text = "sample manifests and configurations to start from"
    sub = verbs.add("init", "init:init", text, "dop init my-film")
    sub.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR", help="where (default: here)")
    text = "a sheet with a row for each picture of a folder; photo.txt beside photo.jpg is its prompt"
    sub.add_argument("--from", dest="pictures", type=Path, metavar="DIR", help=text)

    sub = verbs.add("help", "", "the help of a command", "dop help run")
    sub.add_argument("words", nargs="*", metavar="COMMAND")

    text = "a script that completes verbs, flags and files"
    sub = verbs.add("completion", "init:completion", text, 'eval "$(dop completion bash)"')
    sub.add_argument("shell", choices=("bash", "zsh", "tcsh", "fish"))
    sub.set_defaults(whole_parser=build_parser)


def _add_planning(verbs: Verbs) -> None:
    sub = verbs.add("validate", "plan:validate", "all mistakes of a manifest at once", "dop validate shots.csv")
    _add_manifest(sub)
    _add_choice(sub)
    _add_json(sub)
    _add_settings(sub)

    sub = verbs.add("plan", "plan:plan", "what a manifest would buy, and its price", "dop plan shots.csv --json")
    _add_manifest(sub)
    _add_json(sub)
    sub.add_argument("--out", type=Path, metavar="PLAN", help="save it for `dop run --plan PLAN`")
    sub.add_argument("--look", action="store_true", help="ask the object store about its images first")
    sub.add_argument("--max-cost", metavar="USD", help="compare the price with this budget")
    text = "every request as it would be sent, prompts expanded; or the first N"
    sub.add_argument("--show", nargs="?", type=_count, const=_ALL, metavar="N", help=text)
    _add_choice(sub)
    _add_settings(sub)


def _add_buying(verbs: Verbs) -> None:
    for name, text, example in (
        ("run", "submit, poll, download, report", "dop run shots.csv --max-cost 5"),
        ("submit", "buy and leave; collect later", "dop submit shots.csv --yes"),
    ):
        sub = verbs.add(name, f"run:{name}", text, example)
        sub.add_argument("manifest", nargs="?", type=Path, metavar="MANIFEST", help="a YAML or CSV file")
        sub.add_argument("--plan", type=Path, metavar="PLAN", help="buy exactly what `dop plan --out PLAN` showed")
        pilot = "buy the N cheapest first; go on if they came out well"
        sub.add_argument("--pilot", type=int, metavar="N", help=pilot)
        _add_choice(sub)
        _add_buying_flags(sub)
        _add_run_flags(sub)
        _add_cluster(sub)
        _add_settings(sub, *_WHILE_RUNNING)

    text = "poll, download and report what is bought; never spends"
    sub = verbs.add("collect", "run:collect", text, "dop collect")
    sub.add_argument("run", nargs="?", metavar="RUN", help="one run (default: every unfinished one)")
    sub.add_argument("-y", "--yes", action="store_true", help="accepted for scripts; nothing is bought")
    _add_run_flags(sub)
    _add_cluster(sub)
    _add_settings(sub, *_WHILE_RUNNING)


def _add_resolving(verbs: Verbs) -> None:
    text = "buy chosen kinds of failure again"
    sub = verbs.add("retry", "resolve:retry", text, "dop retry latest --failed --refused")
    sub.add_argument("run", nargs="?", metavar="RUN", help=_RUN_HELP)
    for kind in ("failed", "refused", "expired", "canceled", "rejected"):
        sub.add_argument(f"--{kind}", action="store_true", help=f"those that are {kind}")
    _add_buying_flags(sub)
    _add_run_flags(sub)
    _add_settings(sub, *_WHILE_RUNNING)

    text = "cancel jobs that are bought and have not started; where the gateway can, for free"
    sub = verbs.add("cancel", "cancel:cancel", text, "dop cancel latest")
    sub.add_argument("what", nargs="?", metavar="RUN|REQUEST", help="a run (default: newest), a request id or a row id")
    _add_settings(sub)

    text = "compare the ledger with what the gateway says it charged; changes nothing"
    sub = verbs.add("reconcile", "reconcile:reconcile", text, "dop reconcile usage.csv")
    text = "the gateway's list of charged jobs; without it the gateway is asked, where it can be"
    sub.add_argument("usage", nargs="?", type=Path, metavar="USAGE.csv", help=text)
    _add_settings(sub)

    text = "accept that a row failed: no command names it any more"
    sub = verbs.add("dismiss", "dismiss:dismiss", text, "dop dismiss row-7")
    sub.add_argument("row", nargs="?", metavar="ROW", help="row id or request id; with --all a run (default: newest)")
    sub.add_argument("run", nargs="?", metavar="RUN", help="the run whose row is meant (default: any)")
    sub.add_argument("--all", action="store_true", help="every failed row of the run")
    _add_settings(sub)

    text = "settle an unknown outcome"
    sub = verbs.add("resolve", "resolve:resolve", text, "dop resolve lamp@calm-11 --charged")
    sub.add_argument("id", nargs="?", metavar="ID", help="request id (or its beginning) or row id")
    sub.add_argument("--all", action="store_true", help="every unknown outcome; shown, and asked about, first")
    text = "decide by the gateway's own list of charged jobs; shown, and asked about, first"
    sub.add_argument("--from-usage", type=Path, metavar="CSV", help=text)
    way = sub.add_mutually_exclusive_group()
    way.add_argument("--adopt", metavar="JOB_SET_ID", help="it was accepted as this job")
    way.add_argument("--charged", action="store_true", help="it was charged and is lost")
    way.add_argument("--resend", action="store_true", help="it was not charged: the next run buys it")
    sub.add_argument("--lock-wait", metavar="30s", help="wait that long for another run to end")
    sub.add_argument("-y", "--yes", action="store_true", help="with --all or --from-usage: do not ask")
    _add_settings(sub)


def _add_inspecting(verbs: Verbs) -> None:
    sub = verbs.add("status", "status:status", "counts and money of a run", "dop status latest")
    sub.add_argument("run", nargs="?", metavar="RUN", help=_RUN_HELP)
    _add_json(sub)
    _add_settings(sub)

    text = "look for broken clips: frozen, black, cut, soft and other defects"
    sub = verbs.add("check", "check:check", text, "dop check latest --again")
    sub.add_argument("run", nargs="?", metavar="RUN", help=_RUN_HELP)
    sub.add_argument("--again", action="store_true", help="check every clip again, also those that have a result")
    _add_json(sub)
    _add_settings(sub, "--no-progress")

    sub = verbs.add("list", "status:list_runs", "every run", "dop list")
    _add_json(sub)
    _add_settings(sub)

    sub = verbs.add("show", "status:show", "one request's whole history", "dop show lamp@calm-11")
    sub.add_argument("id", metavar="ID", help="request id (or its beginning), row id or job id")
    sub.add_argument("run", nargs="?", metavar="RUN", help="the run whose row is meant (default: any)")
    _add_json(sub)
    _add_settings(sub, "--verbose")

    text = "tables and pictures of a run"
    sub = verbs.add("report", "status:report", text, "dop report latest -o run.jsonl sheet.html grid.mp4")
    sub.add_argument("run", nargs="?", metavar="RUN", help=_RUN_HELP)
    kinds = ".csv .jsonl .parquet .junit.xml .html .zip (page and small clips) .mp4 (all clips) .png (contact print)"
    sub.add_argument("-o", "--output", nargs="+", type=Path, default=[], metavar="FILE", help=kinds)
    sub.add_argument("--embed", action="store_true", help="an .html that holds its clips, for a few of them")
    text = "the sheet of the run: -o is a copy of it with the results behind its columns"
    sub.add_argument("--into", type=Path, metavar="CSV", help=text)
    _add_json(sub)
    _add_settings(sub)


def _add_choosing(verbs: Verbs) -> None:
    text = "look at the clips in the browser, also during the run"
    sub = verbs.add("view", "view:view", text, "dop view latest")
    sub.add_argument("run", nargs="?", metavar="RUN", help="which to open (default: the newest)")
    sub.add_argument("--port", type=int, default=0, metavar="N", help="on 127.0.0.1 (default: any free one)")
    sub.add_argument("--no-open", action="store_true", help="print the address and do not open a browser")
    _add_reviewer(sub)
    _add_settings(sub)

    review = verbs.add("review", "", "what reviewers said of the clips, as a file", "dop review import reviews.json")
    words = Verbs(review.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser))
    text = "add the reviews that a page saved as a file, or `export` wrote, or the picks of an earlier version"
    sub = words.add("import", "review:import_reviews", text, "dop review import reviews.json --as ana")
    sub.add_argument("files", nargs="+", type=Path, metavar="FILE", help="- is stdin")
    _add_reviewer(sub)
    _add_settings(sub)
    text = "every review ever made, with who made it and when; of one run's clips with RUN"
    sub = words.add("export", "review:export_reviews", text, "dop review export latest -o reviews.json")
    sub.add_argument("run", nargs="?", metavar="RUN", help=_RUN_HELP)
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: stdout")
    _add_settings(sub)

    text = "a new manifest from the clips that reviewers keep"
    sub = verbs.add("derive", "derive:derive", text, "dop derive latest --set model=dop-preview")
    sub.add_argument("run", nargs="?", metavar="RUN", help="default: the run that the picks name, else the newest")
    sub.add_argument("--picks", type=Path, metavar="FILE", help="these picks instead of what reviewers keep")
    sub.add_argument("--row", action="append", metavar="ID", help="row id or request id of a clip; repeatable")
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: beside the run's manifest")
    _add_settings(sub)


def _add_reviewer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--as", dest="reviewer", metavar="NAME", help="whose reviews they are (default: your user name)"
    )


def _add_care(verbs: Verbs) -> None:
    sub = verbs.add("spend", "spend:spend", "the spend book, by day, month and model", "dop spend --month 2026-11")
    span = sub.add_mutually_exclusive_group()
    span.add_argument("--day", metavar="YYYY-MM-DD", help="one day, UTC")
    span.add_argument("--month", metavar="YYYY-MM", help="one month, UTC")
    what = sub.add_mutually_exclusive_group()
    what.add_argument("--usage", type=Path, metavar="CSV", help="compare with the vendor's usage list")
    text = "what a good clip cost, by model, motion, strength and tag, with a 95 %% interval"
    what.add_argument("--per-keeper", action="store_true", help=text)
    _add_json(sub)
    _add_settings(sub)

    sub = verbs.add("doctor", "doctor:doctor", "checks of key, ledger, clock and disk", "dop doctor --config live.yaml")
    sub.add_argument("--live", action="store_true", help="ask the gateway, with calls that cost nothing")
    sub.add_argument("--settings", action="store_true", help="also every setting in force and where it comes from")
    _add_json(sub)
    _add_settings(sub)

    _add_worker(verbs)
    _add_reaching_out(verbs)
    _add_ledger_care(verbs)

    text = "a local gateway that renders real clips"
    sandbox = verbs.add("sandbox", "", text, "dop sandbox serve --port 8080")
    actions = sandbox.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    serve = actions.add_parser("serve", help="serve it on 127.0.0.1", epilog="example: dop sandbox serve --rate 60/1m")
    from pipeline.sandbox.command import add_arguments

    add_arguments(serve)
    serve.set_defaults(target="sandbox", parser=serve)


def _add_worker(verbs: Verbs) -> None:
    text = "one more machine of a cluster; it takes its work from the ledger's database"
    sub = verbs.add("worker", "worker:worker", text, "dop worker --config live.yaml")
    way = sub.add_mutually_exclusive_group()
    way.add_argument("--health", action="store_true", help="exit 0 when this host's workers are well, else 5")
    way.add_argument("--rebuild-queue", action="store_true", help="rebuild the queue from the ledger, and stop")
    sub.add_argument("--webhook", action="store_true", help="let the gateway call back instead of most polls")
    text = "buy with a ledger that this account has not used before"
    sub.add_argument("--new-ledger", action="store_true", help=text)
    _add_settings(sub, "--verbose")


def _add_reaching_out(verbs: Verbs) -> None:
    text = "the motion presets that a manifest may name"
    sub = verbs.add("motions", "motions:motions", text, "dop motions --search zoom")
    sub.add_argument("--search", metavar="WORDS", help="only those whose name holds every word, or by their id")
    sub.add_argument("--refresh", action="store_true", help="ask the gateway for its own list and keep it")
    _add_json(sub)
    _add_settings(sub)

    key = verbs.add("key", "", "the gateway's key: where it may go, and storing it", "dop key set")
    words = Verbs(key.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser))
    text = "let the key go to a gateway's address that a file of the folder names"
    sub = words.add("trust", "key:trust", text, "dop key trust https://gateway.example")
    sub.add_argument("origin", metavar="ORIGIN", help="https://HOST[:PORT]")
    _add_settings(sub)
    text = "store the key in its file (~/.pixazo/api-key) for this user alone; it is typed unseen, or read from stdin"
    sub = words.add("set", "key:store", text, "dop key set")
    _add_settings(sub)
    webhook = verbs.add("webhook", "", "the callback receiver", "dop webhook serve")
    words = Verbs(webhook.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser))
    text = "take callbacks as a process of its own, for runs with --webhook that come and go"
    sub = words.add("serve", "webhook:serve", text, "dop webhook serve --set webhook.listen=127.0.0.1:8099")
    _add_settings(sub)


def _add_ledger_care(verbs: Verbs) -> None:
    ledger = verbs.add("ledger", "", "care of the ledger; never spends", "dop ledger check")
    words = Verbs(ledger.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser))
    text = "everything that is wrong with it, and what to do"
    sub = words.add("check", "ledger:check", text, "dop ledger check")
    _add_settings(sub)

    text = "make it again from its journal; the old file is kept"
    sub = words.add("rebuild", "ledger:rebuild", text, "dop ledger rebuild")
    _add_lock_wait(sub)
    _add_settings(sub)

    text = "a consistent copy for a backup, also during a run; or the move to PostgreSQL"
    sub = words.add("copy", "ledger:copy", text, "dop ledger copy --to postgresql://dop@db.example/dop")
    where = sub.add_mutually_exclusive_group(required=True)
    where.add_argument("file", nargs="?", metavar="FILE", help="where to; must not exist")
    where.add_argument("--to", metavar="URL", help="move the ledger to an empty database; the file spends no more")
    _add_lock_wait(sub)
    _add_settings(sub)

    text = "let a copied or restored ledger spend: it is the only one in use now"
    sub = words.add("adopt", "ledger:adopt", text, "dop ledger adopt")
    text = "close a hole of which no row was listed: what the lost events bought is bought again"
    sub.add_argument("--close-hole", action="store_true", help=text)
    _add_lock_wait(sub)
    _add_settings(sub)

    text = "remove the folders of runs that ended long ago; the ledger keeps what it knows"
    sub = verbs.add("prune", "ledger:prune", text, "dop prune --keep 30d --dry-run")
    sub.add_argument("--keep", required=True, metavar="30d", help="keep runs that ended within this time")
    sub.add_argument("-n", "--dry-run", action="store_true", help="show what would go and stop")
    sub.add_argument("-y", "--yes", action="store_true", help="remove without asking")
    _add_lock_wait(sub)
    _add_settings(sub)


def _add_lock_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lock-wait", metavar="30s", help="wait that long for another run to end")
