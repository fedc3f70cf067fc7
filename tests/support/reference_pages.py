"""The reference pages of the documentation, made from the parser and the settings, so that they cannot be out of date.

python -m tests.support.reference_pages docs/reference      writes commands.md and configuration.md there
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MOST = 8
"""An option that at least so many commands have alike is described once, at the top of the page."""

COMMANDS_HEAD = """\
# Commands

Generated from the program. In the terminal, `dop COMMAND --help` shows the same.

Times are written `30s`, `5m`, `2h`; money is in US dollars. `RUN` is a run's name, the beginning of one, or `latest`.
Without `RUN` you get the newest run. Data goes to stdout, everything else to stderr.
"""

CONFIGURATION_HEAD = """\
# Configuration

Generated from `configs/live.yaml` and the settings of the program.

You can set each value in four places. The first one that is set applies:

1. a flag: `--set budget.max_cost=2`, or the setting's own flag such as `--max-cost 2`;
2. the environment: `DOP_BUDGET__MAX_COST=2` (two underscores between section and key);
3. the configuration file;
4. the program's default.

The tables show the values of `configs/live.yaml`. An empty one is not set. The file is the one of `--config`, else
the one that `DOP_CONFIG` names, else `dop.yaml` in the folder. Without a file you get `configs/default.yaml`, which
uses the sandbox.

`dop doctor --settings` shows every value with its source. An unknown key is an error. Times are seconds or `250ms`,
`30s`, `5m`, `2h`; money is in US dollars; sizes are bytes or `512MB`.

Your API key is never in a configuration. Store it with `dop key set`, or set `PIXAZO_API_KEY`.
"""


@dataclass(frozen=True, slots=True)
class DocumentedOption:
    """An argument of a command: how it is written, and what it does."""

    written: str
    does: str


def commands_page() -> str:
    """The page of all commands as Markdown."""
    from pipeline.cli.parser import build_parser

    commands = list(_commands(build_parser()))
    counts = Counter(option for _, parser in commands for option in _options(parser))
    common = [option for option, count in counts.items() if count >= MOST]
    parts = [COMMANDS_HEAD]
    if common:
        parts.append("## Options of most commands\n\n" + _table("option", common))
    parts += [_command(name, parser, set(common)) for name, parser in commands]
    return "\n".join(parts)


def _commands(parser: argparse.ArgumentParser, prefix: str = "dop") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command with its parser, in the parser's order; a command with sub-commands comes before them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield f"{prefix} {name}", inner
                yield from _commands(inner, f"{prefix} {name}")


def _options(parser: argparse.ArgumentParser) -> list[DocumentedOption]:
    actions = [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]
    return [
        DocumentedOption(_written(action), _cell(action.help or ""))
        for action in actions
        if action.help != argparse.SUPPRESS and "--help" not in action.option_strings
    ]


def _written(action: argparse.Action) -> str:
    """`-j N`, `--max-in-flight N`; the name alone of a flag or an argument."""
    shown = action.metavar if isinstance(action.metavar, str) else None
    if action.choices is not None and shown is None:
        shown = "{" + ",".join(map(str, action.choices)) + "}"
    value = shown if shown is not None else action.dest.upper()
    if not action.option_strings:
        return f"`{_cell(value)}`"
    takes = action.nargs != 0
    optional = action.nargs == "?"
    tail = f" [{value}]" if takes and optional else f" {value}" if takes else ""
    return ", ".join(f"`{_cell(name + tail)}`" for name in action.option_strings)


def _cell(text: str) -> str:
    return text.replace("%%", "%").replace("|", "\\|").replace("\n", " ")


def _command(name: str, parser: argparse.ArgumentParser, common: set[DocumentedOption]) -> str:
    lines = [f"## {name}", "", _sentence(parser.description or "")]
    examples = re.findall(r"^(?:examples?:)?\s*(dop .*)$", parser.epilog or "", flags=re.M)
    if examples:
        lines += ["", "```", *examples, "```"]
    own = [option for option in _options(parser) if option not in common]
    if own:
        lines += ["", _table("option", own).rstrip()]
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    plain = _cell(" ".join(text.split()))
    return plain[:1].upper() + plain[1:] + ("" if plain.endswith((".", ":")) else ".")


def _table(first: str, options: Iterable[DocumentedOption]) -> str:
    rows = [f"| {option.written} | {option.does} |" for option in options]
    return "\n".join([f"| {first} | what it does |", "|---|---|", *rows]) + "\n"


@dataclass(frozen=True, slots=True)
class DocumentedSetting:
    """A line of a configuration file: its value as written, and its comment."""

    value: str
    comment: str


def configuration_page() -> str:
    """The page of all settings as Markdown: a table for each section of configs/live.yaml."""
    from pipeline.config.loader import effective, load, packaged

    file = packaged("live.yaml")
    written = dict(_lines(file.read_text(encoding="utf-8")))
    keys = [key for key, _, _ in effective(load(file, overrides={}, environ={}))]
    missing = [key for key in keys if key not in written]
    if missing:
        raise ValueError(f"configs/live.yaml does not have {', '.join(missing)}")
    parts = [CONFIGURATION_HEAD]
    for section in dict.fromkeys(key.partition(".")[0] for key in written):
        inner = [key for key in keys if key.partition(".")[0] == section]
        about = written[section].comment
        rows = [f"| `{key}` | {_value(written[key])} | {_cell(written[key].comment)} |\n" for key in inner]
        head = "| setting | value | what it is |\n|---|---|---|\n" if rows else ""
        parts.append(
            "\n\n".join(filter(None, [f"## {section}", _sentence(about) if about else "", head + "".join(rows)]))
        )
    return "\n".join(parts)


def _value(setting: DocumentedSetting) -> str:
    return f"`{_cell(setting.value)}`" if setting.value else ""


def _lines(text: str) -> Iterator[tuple[str, DocumentedSetting]]:
    """`section` or `section.key` -> what a configuration file says of it."""
    section = ""
    for line in text.splitlines():
        found = re.match(r"^(?P<indent> *)(?P<key>[\w-]+):(?P<value>[^#]*)(?:#\s*(?P<comment>.*))?$", line)
        if found is None:
            continue
        if not found["indent"]:
            section = found["key"]
        key = f"{section}.{found['key']}" if found["indent"] else section
        yield key, DocumentedSetting(found["value"].strip(), found["comment"] or "")


PAGES = {"commands.md": commands_page, "configuration.md": configuration_page}
"""File name in docs/reference -> what makes its content."""


def main(folder: Path) -> None:
    """Write every page into `folder`."""
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
