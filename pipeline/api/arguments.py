"""What a call was given, as the values that the steps take: settings, dollars, a choice of rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path

from pipeline.config.loader import effective, environment, load
from pipeline.config.settings import Settings
from pipeline.errors import UsageError
from pipeline.manifest.labels import did_you_mean
from pipeline.planning.selection import Selection
from pipeline.records import MICROUSD, microusd

Dollars = float | int | str | Decimal
"""US dollars. A float is taken as Python prints it: 0.1 is ten cents exactly."""

SEPARATOR = "__"
"""Separates section and key in a keyword, as it does in the environment: `outputs__dir`."""


def settings_from(config: Path | str | None, given: Mapping[str, object]) -> Settings:
    """The settings in force: keywords over environment over file over default.

    Args:
        config: a configuration file; None takes the one that `dop` would take without `--config`.
        given: `section__key` -> value.

    Raises:
        UsageError: a keyword is no setting, or a value is wrong.
    """
    path = None if config is None else Path(config)
    environ = environment(os.environ, Path.cwd())
    plain = load(path, overrides={}, environ=environ)
    if not given:
        return plain
    known = {key.replace(".", SEPARATOR, 1) for key, _, _ in effective(plain)}
    for name in given:
        if SEPARATOR not in name and name != "models":
            raise UsageError(f"{name}: is no argument, nor a setting.{_nearest(name, known)}")
    overrides = {name.replace(SEPARATOR, ".", 1): setting_text(value) for name, value in given.items()}
    return load(path, overrides=overrides, environ=environ)


def _nearest(name: str, known: Iterable[str]) -> str:
    """The setting that was meant; one underscore where two are due is the usual slip."""
    same = next((key for key in known if key.replace(SEPARATOR, "_") == name), None)
    if same is not None:
        return f" Did you mean {same!r}?"
    return did_you_mean(name, sorted(known)) or " Settings are written section__key, e.g. outputs__dir='films'"


def setting_text(value: object) -> str:
    """A setting as it is written in the environment."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def max_cost_microusd(amount: Dollars) -> int:
    """Micro-dollars of `max_cost`, which is in dollars.

    Raises:
        UsageError: it is no amount, negative, or finer than a micro-dollar.
    """
    try:
        if isinstance(amount, bool):
            raise ValueError(f"{amount!r} is not an amount in dollars")
        return microusd(str(float(amount)) if isinstance(amount, float) else amount)
    except (TypeError, ValueError):
        raise UsageError(f"max_cost={amount!r}: give dollars, e.g. 2.50; nothing was sent") from None


def dollars(amount_microusd: int) -> Decimal:
    """Exact US dollars."""
    return Decimal(amount_microusd) / MICROUSD


def selection(tags: Iterable[str] | str, first: int | None, sample: int | None) -> Selection:
    """The rows that a call chooses.

    Raises:
        UsageError: a number below 1.
    """
    for name, value in {"first": first, "sample": sample}.items():
        at_least_one(name, value)
    named = [tags] if isinstance(tags, str) else tags
    return Selection(tags=tuple(tag for text in named for tag in text.split(",") if tag), sample=sample, first=first)


def at_least_one(name: str, value: int | None) -> None:
    """Refuse a count below 1.

    Raises:
        UsageError: it is below 1.
    """
    if value is not None and value < 1:
        raise UsageError(f"{name}={value}: give at least 1; nothing was sent")
