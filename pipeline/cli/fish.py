"""A completion script for the fish shell, from the parser; the library that writes the others does not know fish."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

Kind = Callable[[argparse.Action], str]
"""What a value is: "file", "folder" or ""."""


def fish_script(parser: argparse.ArgumentParser, kind: Kind) -> str:
    """Completions for every command, every flag, and files where a flag or an argument names one."""
    lines = ["# completions of dop for fish: dop completion fish > ~/.config/fish/completions/dop.fish"]
    lines += ["complete -c dop -f"]
    for name, text, sub in _commands(parser):
        lines.append(f"complete -c dop -n __fish_use_subcommand -a {name} -d {_quoted(text)}")
        lines += _flags(sub, f"__fish_seen_subcommand_from {name}", kind)
        for inner, inner_text, inner_sub in _commands(sub):
            lines.append(f"complete -c dop -n '__fish_seen_subcommand_from {name}' -a {inner} -d {_quoted(inner_text)}")
            lines += _flags(inner_sub, f"__fish_seen_subcommand_from {inner}", kind)
    return "\n".join(lines)


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    for action in parser._actions:  # argparse has no public way to walk a parser
        if isinstance(action, argparse._SubParsersAction):
            for one in action._choices_actions:
                yield one.dest, one.help or "", action.choices[one.dest]


def _flags(parser: argparse.ArgumentParser, condition: str, kind: Kind) -> Iterator[str]:
    for action in parser._actions:
        names = [f"-s {name[1:]}" for name in action.option_strings if not name.startswith("--")]
        names += [f"-l {name[2:]}" for name in action.option_strings if name.startswith("--")]
        is_file = kind(action) in ("file", "folder")
        if not names:
            if is_file:
                yield f"complete -c dop -n '{condition}' -F"
            elif action.choices and not isinstance(action, argparse._SubParsersAction):
                yield f"complete -c dop -n '{condition}' -a {_quoted(' '.join(map(str, action.choices)))}"
            continue
        value = "" if action.nargs == 0 else " -r -F" if is_file else " -x"
        words = (action.help or "").replace("%%", "%")
        yield f"complete -c dop -n '{condition}' {' '.join(names)}{value} -d {_quoted(words)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
