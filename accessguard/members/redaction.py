"""What names a person, taken out of texts that are about something else. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

ERASED: Final = "[erased]"
WORD: Final = re.compile(r"\w+")
LEAST_CHARS: Final = 4
"""Shorter names are words of other texts more often than names ("7", "Ana")."""


class Names:
    """What one person is called: ids, e-mail addresses, telephone numbers; each found as a whole word, in either case.

    A dot, a hyphen or a plus between two letters or digits joins them to one word: `stu-1` is not in `stu-1-b`.
    """

    def __init__(self, names: Iterable[str | None]) -> None:
        all_of_them = {each for each in names if each}
        self._short = {each for each in all_of_them if len(each) < LEAST_CHARS}
        self.words: Sequence[str] = sorted(all_of_them - self._short, key=len)
        longest_first = "|".join(re.escape(each) for each in reversed(self.words))
        whole = rf"(?<!\w)(?<!\w[.+-])(?:{longest_first})(?!\w)(?![.+-]\w)"
        self._found = re.compile(whole, re.IGNORECASE) if self.words else None

    @property
    def written(self) -> list[str]:
        """Every way a name may stand in stored JSON or plain text."""
        return sorted({*self.words, *(msgspec.json.encode(each).decode()[1:-1] for each in self.words)})

    @property
    def quoted(self) -> list[str]:
        """The same, and short ones as a whole JSON text: where one stands alone it is no word of another text."""
        return sorted({*self.written, *(msgspec.json.encode(each).decode() for each in self._short)})

    def is_one(self, text: str) -> bool:
        """Whether a text is one of the names, and nothing else."""
        return self._found is not None and self._found.fullmatch(text) is not None

    def out_of(self, value: Any) -> Any:
        """The same text, or JSON as plain values, with every name replaced; keys say what a value is, and nobody's name."""
        if self._found is None:
            return value
        match value:
            case str():
                return self._found.sub(ERASED, value)
            case dict():
                return {key: self.out_of(each) for key, each in value.items()}
            case list() | tuple():
                return [self.out_of(each) for each in value]
            case _:
                return value


class Index:
    """Which of many people a text may name: told by the first word of each name, so that it costs the same for one and for thousands."""

    def __init__(self, people: Mapping[str, Names]) -> None:
        self._by_word: dict[str, set[str]] = {}
        self._wordless: dict[str, str] = {}
        for person, names in people.items():
            for name in names.words:
                first = WORD.search(name.casefold())
                if first is None:
                    self._wordless[name] = person
                else:
                    self._by_word.setdefault(first[0], set()).add(person)

    def named(self, text: str) -> set[str]:
        """Whoever may be named; `Names` knows who is."""
        words = set(WORD.findall(text.casefold()))
        found = {person for word in words & self._by_word.keys() for person in self._by_word[word]}
        return found | {person for name, person in self._wordless.items() if name in text}
