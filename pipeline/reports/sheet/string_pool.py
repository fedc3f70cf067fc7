"""Texts of a page that are written once and named by their number."""

from __future__ import annotations


class StringPool:
    """Texts by number: a prompt shared by a thousand cells is in the page once."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        known = self._numbers.get(text)
        if known is None:
            known = self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return known
