"""`{{ name }}` in a prompt. Names are looked up, nothing is evaluated, and what was put in is not read again."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


_OTHER_BRACKETS = re.compile(r"(?<!\{)\$?\{([^{}]+)\}(?!\})|\[([^\[\]]+)\]|<([^<>]+)>|%([^%\s]+)%")
"""Other tools' ways to write a variable: {name}, ${name}, [name], <name>, %name%."""


class UnknownNamesError(ValueError):
    """A prompt asks for names that no `vars` give; `names` are they, in the prompt's order."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(", ".join(names))
        self.names = names


def names(prompt: str) -> list[str]:
    """The names between double braces, in the prompt's order."""
    return [name.strip() for name in _PLACEHOLDER.findall(prompt)]


def other_brackets(prompt: str, known: Collection[str]) -> tuple[str, str] | None:
    """The first known name that is in other brackets, as written and as it is called; None if there is none."""
    by_word = {name.casefold(): name for name in known}
    for match in _OTHER_BRACKETS.finditer(prompt):
        name = by_word.get(next(filter(None, match.groups())).strip().casefold())
        if name is not None:
            return match[0], name
    return None


def has_placeholders(prompt: str) -> bool:
    """Whether anything in the prompt may need a value."""
    return "{{" in prompt


def filled(prompt: str, values: Mapping[str, str]) -> str:
    """The prompt with every `{{ name }}` replaced by its value; single braces and `{% %}` stay as they are.

    Raises:
        UnknownNamesError: between two pairs of braces is something that is not a name in `values`.
    """
    unknown: dict[str, None] = {}

    def value_of(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name not in values:
            unknown[name] = None
        return values.get(name, "")

    text = _PLACEHOLDER.sub(value_of, prompt)
    if unknown:
        raise UnknownNamesError(tuple(unknown))
    return text
