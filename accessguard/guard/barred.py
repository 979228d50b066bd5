"""Who is barred, as this worker was told: a change makes memory forget a member, but not this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from accessguard.guard.recent import oldest
from accessguard.sessions.bars import bars, is_end, mark_of, of_session

MOST_BARRED: Final = 50_000
"""Lines: some 10 MB. Beyond them ended sessions are forgotten first, then what was told of longest ago."""


class Barred:
    """Blocked devices, their sessions, and ended sessions, by their line (sessions/bars.py)."""

    def __init__(self) -> None:
        self._blocks: dict[str, int] = {}
        self._ends: dict[str, int] = {}

    def mark(self, line: str) -> int | None:
        """The mark of a line, None when nothing was told of it."""
        return self._of(line).get(line)

    def all(self) -> Mapping[str, int]:
        """Everything that was told."""
        return self._blocks | self._ends

    def tell(self, marks: Mapping[str, int]) -> None:
        """Hear of changes; the latest counts, whichever is heard first."""
        for line, mark in marks.items():
            kept = self._of(line)
            known = kept.pop(line, -1)
            kept[line] = max(mark, known)
        for surplus in oldest(self._blocks, MOST_BARRED):
            del self._blocks[surplus]
        for surplus in oldest(self._ends, MOST_BARRED - len(self._blocks)):
            del self._ends[surplus]

    def read(self, tenant: str, session_id: str, generation: int, *, blocked: bool) -> None:
        """Hear what was read of a session; of one that nothing was told of, only that it is blocked."""
        line = of_session(tenant, session_id)
        if blocked or bars(self._blocks.get(line)):
            self.tell({line: mark_of(generation, stands=blocked)})

    def _of(self, line: str) -> dict[str, int]:
        return self._ends if is_end(line) else self._blocks
