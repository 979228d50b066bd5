"""Who is barred, as this worker was told: a change makes memory forget a member, but not this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from accessguard.guard.recent import oldest
from accessguard.sessions.bars import bars, mark_of, of_session

MOST_BARRED: Final = 50_000
"""Lines: some 10 MB. Beyond them those are forgotten that were told of longest ago."""


class Barred:
    """Blocked devices, their sessions, and ended sessions, by their line (sessions/bars.py)."""

    def __init__(self) -> None:
        self._marks: dict[str, int] = {}

    def mark(self, line: str) -> int | None:
        """The mark of a line, None when nothing was told of it."""
        return self._marks.get(line)

    def all(self) -> Mapping[str, int]:
        """Everything that was told."""
        return dict(self._marks)

    def tell(self, marks: Mapping[str, int]) -> None:
        """Hear of changes; the latest counts, whichever is heard first."""
        for line, mark in marks.items():
            known = self._marks.pop(line, -1)
            self._marks[line] = max(mark, known)
        for surplus in oldest(self._marks, MOST_BARRED):
            del self._marks[surplus]

    def read(self, tenant: str, session_id: str, generation: int, *, blocked: bool) -> None:
        """Hear what was read of a session; of one that nothing was told of, only that it is blocked."""
        line = of_session(tenant, session_id)
        if blocked or bars(self._marks.get(line)):
            self.tell({line: mark_of(generation, stands=blocked)})
