"""`{{ name }}` in a prompt. Names are looked up, nothing is evaluated, and what was put in is not read again. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


class UnknownNamesError(ValueError):
    """A prompt asks for names that no `vars` give; `names` are they, in the prompt's order."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(", ".join(names))
        self.names = names


def has_placeholders(prompt: str) -> bool:
    """Whether anything in the prompt may need a value."""
    return "{{" in prompt


def filled(prompt: str, values: Mapping[str, str]) -> str:
    """The prompt with every `{{ name }}` replaced by its value; single braces and `{% %}` stay as they are.

    Raises:
        UnknownNamesError: between two pairs of braces stands something that is not a name in `values`.
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
