"""What happened lately, as far as there is room to remember it."""

from __future__ import annotations

from itertools import islice
from typing import Final, TypeAlias, TypeVar

Key = TypeVar("Key")
Kept = TypeVar("Kept")

Place: TypeAlias = tuple[str, str]
"""A tenant, and one of its members or sessions."""

MOST_UNKNOWN: Final = 10_000


class Recent:
    """What changed lately, by the number of the change; what it no longer knows of counts as changed with the last it let go."""

    def __init__(self) -> None:
        self._at: dict[Place, int] = {}
        self._floor = -1

    def __len__(self) -> int:
        return len(self._at)

    def note(self, place: Place, number: int) -> None:
        """Something changed just now."""
        self._at.pop(place, None)
        self._at[place] = number
        for surplus in oldest(self._at, MOST_UNKNOWN):
            self._floor = max(self._floor, self._at.pop(surplus))

    def note_all(self, number: int) -> None:
        """Anything may have changed."""
        self._at.clear()
        self._floor = number

    def since(self, place: Place, number: int) -> bool:
        """Whether it may have changed with that number or after it."""
        return self._at.get(place, self._floor) >= number


def oldest(memory: dict[Key, Kept], most: int) -> list[Key]:
    """What to forget of a memory that has grown past `most`: a good many at once, so that it is rarely looked for.

    The first key of a dict is found by passing over all that were deleted
    before it, so one at a time would cost more with each.
    """
    if len(memory) <= most:
        return []
    return list(islice(memory, len(memory) - most + most // 64))
