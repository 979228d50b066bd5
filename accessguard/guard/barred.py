"""Whose device is blocked, for when nobody can be asked any more: a change makes memory forget a member, but not this."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from accessguard.guard.recent import Place, oldest

MOST_BARRED: Final = 50_000
"""Sessions: some 10 MB. Beyond them those are forgotten that were told of longest ago."""


class Barred:
    """Sessions of blocked devices, as this worker was last told by a pushed change or by what it read."""

    def __init__(self) -> None:
        self._sessions: dict[Place, None] = {}

    def __contains__(self, place: Place) -> bool:
        return place in self._sessions

    def tell(self, tenant: str, session_ids: Iterable[str], *, blocked: bool) -> None:
        """These sessions have a device that is blocked, or that is not."""
        for session_id in session_ids:
            self._sessions.pop((tenant, session_id), None)
            if blocked:
                self._sessions[tenant, session_id] = None
        for surplus in oldest(self._sessions, MOST_BARRED):
            del self._sessions[surplus]
