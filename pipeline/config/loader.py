"""The configuration: flags, environment and one YAML file become frozen settings, and each value knows its source.

Reads files, and must never read or keep the gateway's key together with them: `read_key` is asked for it apart.
All mistakes are reported at once, with file, line and column; an unknown key is a mistake.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pipeline.config import strict_yaml
from pipeline.config.api_key import KEY_FILE, KEY_VARIABLE, environment, read_key
from pipeline.config.gateway_address import SANDBOX
from pipeline.config.settings import KIND_PRICES_MICROUSD, PIXAZO, Settings, gateway_id
from pipeline.config.units import duration_s, size_bytes
from pipeline.config.yaml_file import RawValue, RawValues, read_leaves
from pipeline.errors import ManifestError, Problem, UsageError
from pipeline.records import MICROUSD

__all__ = [
    "Settings",
    "duration_s",
    "effective",
    "environment",
    "gateway_id",
    "load",
    "packaged",
    "read_key",
    "size_bytes",
]

PREFIX = "DOP_"
CONFIG_VARIABLE = "DOP_CONFIG"
TYPED = {"defaults"}
"""Values of manifest rows get the types a manifest would give them; all others stay the text that was written."""


_SECRET_WORDS = {"key", "api_key", "apikey", "subscription_key", "token", "secret", "pixazo_api_key"}
_FROM_THE_ENVIRONMENT = {("webhook", "signing_secret")}
"""Settings that are secrets: a file of the project or the arguments of a process would show them to others."""
_MONEY = re.compile(r"prices\.|budget\.|on_unknown\.max_cost")


def load(path: Path | None, *, overrides: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
    """The settings in force: flag over environment over file over default.

    Args:
        path: the file of `--config`; None takes the usual one (`configuration_file`).
        overrides: `section.key` -> text, of `--set` and of the flags that stand for a key.
        environ: `DOP_SECTION__KEY` -> text; other names are ignored.

    Raises:
        ManifestError: every mistake of every source, each with its place.
        UsageError: the file cannot be read.
    """
    file = path if path is not None else configuration_file(environ)
    problems: list[Problem] = []
    leaves = read_leaves(file, typed=TYPED, problems=problems) | _from_environment(environ) | _from_flags(overrides)
    unknown = ((given, _what_is_wrong(leaf, given)) for leaf, given in leaves.items())
    problems.extend(given.problem(message) for given, message in unknown if message)
    # A value under a misspelt key is missing where it belongs: what the model says of the rest would mislead.
    settings = None if problems else _build(leaves, problems)
    if settings is None or problems:
        raise ManifestError(problems)
    given_by = {".".join(leaf): given.source for leaf, given in leaves.items()}
    return settings.with_sources({key: given_by.get(key, "default") for key, _ in _walk(settings)})


def packaged(name: str) -> Path:
    """A file of configs/ as it ships: inside the installed package, else beside it in the source tree.

    Raises:
        UsageError: neither place has it.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"configs/{name} is missing from the installation: install dop-batch again")


def effective(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """`section.key`, its value as shown (seconds, bytes, dollars; passwords masked) and its source, in file order."""
    for key, value in _walk(settings):
        yield key, _shown(key, value), settings.sources.get(key, "default")


def configuration_file(environ: Mapping[str, str]) -> Path:
    """The configuration without `--config`: $DOP_CONFIG, ./dop.yaml, ./configs/default.yaml, the shipped one.

    Raises:
        UsageError: $DOP_CONFIG names a file that is not there: another one in its place could be another gateway.
    """
    named = environ.get(CONFIG_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise UsageError(f"{CONFIG_VARIABLE}={named}: there is no such file")
        return Path(named)
    usual = (Path("dop.yaml"), Path("configs") / "default.yaml")
    return next((file for file in usual if file.is_file()), None) or packaged("default.yaml")


# --- the three sources ---------------------------------------------------------------------------------------------


def _from_environment(environ: Mapping[str, str]) -> RawValues:
    paths = {variable: _variable_path(variable) for variable in sorted(environ)}
    return {
        path: _worded(path, environ[variable], source=f"environment {variable}", where=variable)
        for variable, path in paths.items()
        if path is not None
    }


def _variable_path(variable: str) -> tuple[str, ...] | None:
    """`DOP_GATEWAY__BASE_URL` -> ("gateway", "base_url"); None for a variable that is none of ours."""
    if not variable.startswith(PREFIX):
        return None
    section, separator, key = variable.removeprefix(PREFIX).lower().partition("__")
    if separator:
        # Names of models have hyphens, which no variable can have.
        return section, key.replace("_", "-") if section == "prices" else key
    # With one underscore too few it is still a mistake and not ignored: DOP_GATEWAY_BASE_URL passed over in silence
    # would send the purchase to another gateway.
    meant = (name for name in _top_level() if section == name or section.startswith(name + "_"))
    return next(((name,) for name in meant), None)


def _from_flags(overrides: Mapping[str, str]) -> RawValues:
    paths = {name: tuple(name.split(".", 1)) for name in overrides}
    return {path: _worded(path, overrides[name], source="flag", where=name) for name, path in paths.items()}


def _worded(path: tuple[str, ...], text: str, *, source: str, where: str) -> RawValue:
    meant = strict_yaml.scalar(text)
    value = meant if meant is None or path[0] in TYPED else text
    return RawValue(value=value, source=source, where=where)


# --- from values to settings ---------------------------------------------------------------------------------------


def _top_level() -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in Settings.model_fields.items()}


def _keys(name: str) -> set[str] | None:
    """The keys a section knows; None for what is no such section: a list, or a section where any name will do."""
    section = _top_level()[name].annotation
    if not isinstance(section, type) or not issubclass(section, BaseModel):
        return None
    return {field.alias or key for key, field in section.model_fields.items()}


def _what_is_wrong(path: tuple[str, ...], given: RawValue) -> str | None:
    if path in _FROM_THE_ENVIRONMENT and given.value is not None and not given.source.startswith("environment "):
        return f"is a secret: set it in the environment as {PREFIX}{'__'.join(path).upper()}"
    if len(path) == 1 and given.where.startswith(PREFIX) and (meant := _meant_variable(given.where)):
        return f"is no setting. Did you mean {meant}?"
    return _what_is_unknown(path)


def _meant_variable(variable: str) -> str | None:
    """`DOP_GATEWAY_BASE_URL` lacks an underscore: `DOP_GATEWAY__BASE_URL`."""
    words = variable.removeprefix(PREFIX).lower()
    for section in _top_level():
        key = words.removeprefix(f"{section}_")
        if key != words and key in (_keys(section) or ()):
            return f"{PREFIX}{section}__{key}".upper()
    return None


def _what_is_unknown(path: tuple[str, ...]) -> str | None:
    name, key = path[0], path[1] if len(path) > 1 else None
    if name != "sandbox" and path[-1].lower() in _SECRET_WORDS:
        return f"a key never belongs in a configuration: set {KEY_VARIABLE}, or write it to ~/{KEY_FILE} (chmod 600)"
    if name not in _top_level():
        return "unknown section." + _did_you_mean(name, _top_level())
    if name == "models":
        return None if key is None else "is a list, without keys"
    if key is None:
        return f"is a section: set {name}.KEY (in the environment DOP_{name.upper()}__KEY)"
    keys = _keys(name)
    if keys is None or key in keys:
        return None
    return "unknown key." + (_did_you_mean(key, keys) if keys else f" {name} has no keys in this version")


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, sorted(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(sorted(known))}"


def _build(leaves: RawValues, problems: list[Problem]) -> Settings | None:
    # What is given is laid over the defaults, so that a price for one model leaves those of the others.
    values: dict[str, Any] = {"prices": _default_prices(leaves)}
    for path, given in leaves.items():
        if len(path) == 1:
            values[path[0]] = given.value
        else:
            values.setdefault(path[0], {})[path[1]] = given.value
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_input=False)
        problems.extend(_problem(leaves, detail["loc"], detail["msg"]) for detail in details)
        return None
    return settings


def _default_prices(leaves: RawValues) -> dict[str, str]:
    """The prices of the kind of gateway that is configured; one of another kind has none by default."""
    base_url, kind = leaves.get(("gateway", "base_url")), leaves.get(("gateway", "kind"))
    if base_url is None or base_url.value == SANDBOX:
        kind = leaves.get(("sandbox", "kind")) or kind
    prices = KIND_PRICES_MICROUSD.get(PIXAZO if kind is None or kind.value is None else str(kind.value), {})
    return {model: str(Decimal(price) / MICROUSD) for model, price in prices.items()}


def _problem(leaves: RawValues, loc: tuple[int | str, ...], message: str) -> Problem:
    said = message.removeprefix("Value error, ").removeprefix("Input ")
    path = tuple(str(part) for part in loc)
    given = leaves.get(path[:2]) or leaves.get(path[:1])
    return given.problem(said) if given else Problem(file=None, where=".".join(path), message=said)


def _walk(settings: Settings) -> Iterator[tuple[str, object]]:
    """Every `section.key` with its value, in the order of the sections."""
    for name, field in Settings.model_fields.items():
        section, value = field.alias or name, getattr(settings, name)
        if isinstance(value, BaseModel):
            fields = type(value).model_fields.items()
            yield from ((f"{section}.{child.alias or key}", getattr(value, key)) for key, child in fields)
        elif isinstance(value, Mapping):
            yield from ((f"{section}.{key}", item) for key, item in value.items())
        else:
            yield section, value


def _shown(key: str, value: object) -> str:
    if value is None:
        return "-"
    if tuple(key.split(".")) in _FROM_THE_ENVIRONMENT:
        return "***"
    if key == "notify.url":  # the path of such an address is often its password
        return re.sub(r"(?<=[^:/])/.*", "/***", str(value))
    if isinstance(value, int) and _MONEY.match(key):
        return f"${Decimal(value) / MICROUSD}"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "-"
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", str(value))
