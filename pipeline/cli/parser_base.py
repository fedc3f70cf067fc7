"""argparse with the help and the errors of this command: grouped commands, examples, "did you mean" at every level."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from pipeline.cli.help_text import DETAILS, EXAMPLES, EXIT_CODES, GROUPS, SYNONYMS

MAX_LISTED = 8
"""Commands that an error lists; `dop` itself has more, and --help groups them."""

COLUMN = 16
"""Column at which the texts of the commands begin."""


class Parser(argparse.ArgumentParser):
    """argparse that suggests a word or flag for one that it does not know, and guesses at none by its beginning."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **more})

    def error(self, message: str) -> NoReturn:
        """Exit with 2, and say what is wrong and where the flags are listed."""
        # argparse says what is wrong in words only, so the words are taken apart.
        unknown = re.match(r"argument (?:VERB|ACTION): invalid choice: '(.*)' \(choose from", message)
        text = self._unknown_command(unknown[1]) if unknown else f"{message}{self._suggestion(message)}"
        program, _, words = self.prog.partition(" ")
        help_command = f"{program} help {words}".rstrip()
        self.exit(2, f"{self.prog}: error: {text}\n`{help_command}` lists {'the flags' if words else 'all commands'}\n")

    def format_help(self) -> str:
        """The help of one command, with a usage line that names its arguments and not each of its flags."""
        if self.usage is None:
            places = [_place(action) for action in self._actions if not action.option_strings]
            self.usage = " ".join([self.prog, *places, "[FLAGS]"])
        return super().format_help()

    def _unknown_command(self, word: str) -> str:
        choices = [str(choice) for action in self._actions for choice in (action.choices or ())]
        meant = SYNONYMS.get(word) if SYNONYMS.get(word) in choices else None
        near = [meant] if meant is not None else _near(word, choices)
        guess = f"; did you mean {near[0]}?" if near else ""
        listed = f"; there are {', '.join(choices)}" if not guess and len(choices) <= MAX_LISTED else ""
        return f"{word!r} is no command of {self.prog}{guess}{listed}"

    def _suggestion(self, message: str) -> str:
        known = [option for action in self._actions for option in (*action.option_strings, *(action.choices or ()))]
        names = [str(one) for one in known]
        for word in re.split(r"[\s',:=]+", message):
            near = _near(word, names) if word not in names else []
            if near:
                return f"; did you mean {near[0]}?"
        return ""


class TopParser(Parser):
    """The parser of `dop` itself: its help groups the commands, and flags are judged by the command they follow."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """The parsed command line; `help VERB` is `VERB --help`, and an unknown flag is an error of its own command."""
        words = list(sys.argv[1:] if args is None else args)
        if words[:1] == ["help"]:
            words = [*words[1:], "--help"]
        found, rest = self.parse_known_args(words, namespace)
        if rest:
            parser: Parser = getattr(found, "parser", self)
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        return found

    def format_help(self) -> str:
        """The help of `dop`: commands by purpose, examples, exit codes."""
        texts = {
            one.dest: one.help or "" for action in self._actions for one in getattr(action, "_choices_actions", [])
        }
        grouped = {verb for _, verbs in GROUPS for verb in verbs}
        groups = [*GROUPS, ("Other", tuple(verb for verb in texts if verb not in grouped))]
        lines = [self.description or "", "", "usage: dop COMMAND [FLAGS]      dop help COMMAND      dop --version"]
        for title, verbs in groups:
            known = [verb for verb in verbs if verb in texts]
            if known:
                lines += ["", f"{title}:", *(_two_columns(verb, texts[verb]) for verb in known)]
        lines += ["", "examples:", *(f"  {command:<32} {text}" for command, text in EXAMPLES)]
        lines += [
            "",
            "exit codes, the first of these that applies:",
            *(f"  {code:>11}  {text}" for code, text in EXIT_CODES),
        ]
        return "\n".join(lines) + "\n"


class Verbs:
    """The place where commands are added, each with its examples."""

    def __init__(self, verbs: argparse._SubParsersAction[Parser]) -> None:
        self._verbs = verbs

    def add(self, name: str, target: str, text: str, example: str) -> argparse.ArgumentParser:
        """One more command; `target` is `module:function` below `pipeline.cli.commands`."""
        more, others = DETAILS.get(name, ("", ())) if target else ("", ())
        examples = "\n".join(f"  {one}" for one in (example, *others))
        sub = self._verbs.add_parser(
            name,
            help=text,
            description=f"{text[:1].upper()}{text[1:]}." + (f"\n\n{more}" if more else ""),
            epilog=f"examples:\n{examples}" if others else f"example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(target=target, parser=sub)
        return sub


def _place(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest).upper()
    return f"[{name}]" if action.nargs in ("?", "*") else name


def _two_columns(verb: str, text: str) -> str:
    return f"    {verb:<{COLUMN - 5}} {text}"


def _near(word: str, known: Iterable[str]) -> list[str]:
    import difflib

    return difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
