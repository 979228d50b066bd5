"""What names a person, taken out of texts that are about something else. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

ERASED: Final = "[erased]"
LEAST_CHARS: Final = 4
"""Shorter names are words of other texts more often than names ("7", "Ana")."""


class Names:
    """What one person is called: ids, e-mail addresses, telephone numbers; each found as a whole word, in either case."""

    def __init__(self, names: Iterable[str | None]) -> None:
        all_of_them = {each for each in names if each}
        self._short = {each for each in all_of_them if len(each) < LEAST_CHARS}
        self.words: Sequence[str] = sorted(all_of_them - self._short, key=len)
        longest_first = "|".join(re.escape(each) for each in reversed(self.words))
        self._found = re.compile(rf"(?<!\w)(?:{longest_first})(?!\w)", re.IGNORECASE) if self.words else None

    @property
    def written(self) -> list[str]:
        """Every way a name may stand in stored JSON or plain text."""
        return sorted({*self.words, *(msgspec.json.encode(each).decode()[1:-1] for each in self.words)})

    @property
    def quoted(self) -> list[str]:
        """The same, and short ones as a whole JSON text: where one stands alone it is no word of another text."""
        return sorted({*self.written, *(msgspec.json.encode(each).decode() for each in self._short)})

    def out_of(self, value: Any) -> Any:
        """The same text, or JSON as plain values, with every name replaced."""
        if self._found is None:
            return value
        match value:
            case str():
                return self._found.sub(ERASED, value)
            case dict():
                return {self.out_of(key): self.out_of(each) for key, each in value.items()}
            case list() | tuple():
                return [self.out_of(each) for each in value]
            case _:
                return value
