"""What the command line said, as values: the settings in force, money, durations. Nothing is sent from here."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.loader import Settings, environment, load
from pipeline.config.setting_types import ALL_KINDS, CHECK_KINDS
from pipeline.config.units import duration_s
from pipeline.errors import ManifestError, UsageError
from pipeline.records import microusd
from pipeline.reports.progress import UnbreakableStream, escape_controls, strip_control_chars

if TYPE_CHECKING:
    from pipeline.planning.requests import BoundManifest
    from pipeline.planning.selection import Selection


MAX_NAMES = 5
"""Files that a message lists."""


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings: flags over environment over file over default."""
    overrides = dict(_pair(text) for text in args.set or [])
    _untangle_fail_on_check(args)
    flags = {
        "outputs": "outputs.dir",
        "max_in_flight": "pace.max_in_flight",
        "rate": "pace.rate",
        "max_unknown": "on_unknown.max",
        "fail_on_check": "checks.fail_on",
    }
    for flag, key in flags.items():
        value = getattr(args, flag, None)
        if value is not None:
            overrides[key] = str(value)
    if getattr(args, "no_download", False):
        overrides["download.enabled"] = "false"
    return load(args.config, overrides=overrides, environ=environment(os.environ, Path.cwd()))


def _untangle_fail_on_check(args: argparse.Namespace) -> None:
    """`--fail-on-check shots.csv` names no kind: its word is the manifest, and every kind counts."""
    word = getattr(args, "fail_on_check", None)
    has_no_manifest = "plan" in args and args.plan is None and args.manifest is None
    if word and has_no_manifest and not set(word.split(",")) <= {*CHECK_KINDS, ALL_KINDS}:
        args.manifest, args.fail_on_check = Path(word), ALL_KINDS


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise UsageError(f"--set {text!r}: write section.key=value")
    return key.strip(), value


def money(text: str | None, flag: str) -> int | None:
    """Micro-dollars of a flag's value.

    Raises:
        UsageError: it is no amount.
    """
    if text is None:
        return None
    try:
        return microusd(text.lstrip("$"))
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None


def seconds(text: str | None, flag: str) -> float | None:
    """Seconds of a flag's value such as 2h.

    Raises:
        UsageError: it is no duration.
    """
    if text is None:
        return None
    try:
        return duration_s(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None


def lock_wait_s(args: argparse.Namespace) -> float:
    """Seconds of --lock-wait; 0 where the flag is not given."""
    return seconds(args.lock_wait, "--lock-wait") or 0.0


def selection_of(args: argparse.Namespace) -> Selection:
    """Which rows the flags choose.

    Raises:
        UsageError: a number below 1, or no shard.
    """
    from pipeline.planning.selection import Selection, parse_shard

    for flag in ("first", "sample", "max_new", "pilot"):
        value = getattr(args, flag, None)
        if value is not None and value < 1:
            raise UsageError(f"--{flag.replace('_', '-')} {value}: give at least 1")
    return Selection(
        tags=tuple(tag for text in args.filter_tag or [] for tag in text.split(",") if tag),
        shard=parse_shard(args.shard) if args.shard else None,
        sample=args.sample,
        first=args.first,
    )


def _samples(settings: Settings) -> frozenset[str]:
    if not settings.gateway.is_embedded:
        return frozenset()
    from pipeline.runner.embedded_sandbox import sample_pictures  # brings the HTTP library

    return sample_pictures()


def _near_manifests(path: Path) -> str:
    """Files beside `path`, or of the same name elsewhere below the working folder, that may be meant."""
    folder = path.parent if path.parent.is_dir() else Path()
    names = [one.name for one in folder.iterdir() if one.is_file()]
    near = [str(folder / name) for name in difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)]
    near += [str(one) for one in (Path("manifests") / path.name,) if one.is_file()]
    return f"; did you mean {near[0]}?" if near else ""


def manifests_here() -> str:
    """Sheets and YAML files of the working folder, for the end of a message; "" where there are none."""
    endings = (".csv", ".tsv", ".yaml", ".yml", ".xlsx", ".csv.gz")
    found = sorted(
        path.name for path in Path.cwd().iterdir() if path.name.endswith(endings) and path.name != "dop.yaml"
    )
    more = f" and {len(found) - MAX_NAMES} more" if len(found) > MAX_NAMES else ""
    return f"; here are {', '.join(found[:MAX_NAMES])}{more}" if found else ""


def bound_manifest(args: argparse.Namespace, settings: Settings, *, may_draw: bool = False) -> BoundManifest:
    """The manifest that the command names, chosen from as its flags say.

    Raises:
        ManifestError: mistakes; too large a sweep tells its price too.
    """
    from pipeline.manifest.reader import DEFAULT_MAX_ROWS, TooManyRowsError  # brings the readers of YAML and CSV
    from pipeline.planning.requests import bind_manifest, with_price
    from pipeline.planning.saved_plan import draw_seeds

    try:
        return bind_manifest(
            args.manifest,
            settings,
            selection=selection_of(args),
            max_rows=args.max_rows or DEFAULT_MAX_ROWS,
            draw=draw_seeds if may_draw else None,
            samples=_samples(settings),
        )
    except TooManyRowsError as error:
        raise with_price(error, settings) from None
    except ManifestError as error:
        if args.manifest.exists() or args.manifest.name == "-":
            raise
        near = _near_manifests(args.manifest)
        raise UsageError(f"{args.manifest}: there is no such file{near or manifests_here()}") from error


def ask_to_trust(settings: Settings) -> bool:
    """Whether the user at the terminal lets the key go to the configured address; no without a terminal."""
    if not has_terminal():
        return False
    source = settings.sources.get("gateway.base_url", "default")
    print_notice([f"The key was never sent to {settings.gateway.base_url} before. This address comes from {source}."])
    return confirm("send the key there?")


def has_terminal() -> bool:
    """Whether the user can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def confirm(question: str) -> bool:
    """Whether the user at the terminal says yes."""
    # On stderr, because stdout may be read by a program.
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def print_warnings(texts: Iterable[str]) -> None:
    """Notices that begin with the word warning."""
    print_notice(f"warning: {text}" for text in texts)


def print_notice(lines: Iterable[str]) -> None:
    """Lines for the user, to stderr, harmless for the terminal. A stderr that is gone stops nothing."""
    stream = UnbreakableStream(sys.stderr)
    for line in lines:
        stream.write("\n".join(strip_control_chars(part) for part in line.split("\n")) + "\n")
        stream.flush()


def print_json(value: Mapping[str, object]) -> None:
    """One object on stdout, for `--json`: readable, and harmless for the terminal that shows it."""
    print(escape_controls(json.dumps(value, ensure_ascii=False)))
