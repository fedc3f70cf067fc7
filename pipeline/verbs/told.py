"""What the command line said, as values: the settings in force, money, durations. Nothing is sent from here."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.config import Settings, environment, load
from pipeline.errors import UsageError
from pipeline.records import microusd
from pipeline.report.progress import printable
from pipeline.settings import duration_s


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings: flags over environment over file over default."""
    overrides = dict(_pair(text) for text in args.set or [])
    for flag, key in (("outputs", "outputs.dir"), ("max_in_flight", "pace.max_in_flight"), ("rate", "pace.rate")):
        value = getattr(args, flag, None)
        if value is not None:
            overrides[key] = str(value)
    if getattr(args, "no_download", False):
        overrides["download.enabled"] = "false"
    return load(args.config, overrides=overrides, environ=environment(os.environ, Path.cwd()))


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


def tell(lines: Iterable[str]) -> None:
    """Words for a person, to stderr, harmless for the terminal."""
    for line in lines:
        print("\n".join(printable(part) for part in line.split("\n")), file=sys.stderr)


def give_json(value: Mapping[str, object]) -> None:
    """One object on stdout, for `--json`."""
    print(json.dumps(value, ensure_ascii=False))
