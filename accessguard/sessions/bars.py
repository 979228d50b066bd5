"""What operators have barred lately, in Valkey: for workers that cannot ask PostgreSQL, and have not been told.

Each line is a device, a session of one, or a session that was ended, with a
mark: twice the number of the change (the member's generation), and one more
when it was lifted. The greatest mark counts, so it does not matter who writes
first. Ended sessions lie below all others, each by its mark, so that they go
first when there are too many. PostgreSQL is the truth; a flush costs a line until it is told again.
What is written is a hash, so that whoever is erased is not named by a worker
that had heard of them and writes anew what it knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID, uuid4

from accessguard.sessions.live import Live
from accessguard.sessions.spool import place

BARS: Final = "ag:{spool}:bars"
ERA: Final = "ag:{spool}:era"
MOST: Final = 50_000
"""Lines: some 6 MB in Valkey; ended sessions go first, then the ones of the oldest changes."""
BELOW: Final = 1 << 52
"""What the scores of ended sessions are less than their marks: more than any mark, and exact in a score's 53 bits."""
AT_ONCE: Final = 500


def of_device(tenant: str, device_id: UUID | str) -> str:
    """The line of a blocked device."""
    return _line("d", tenant, str(device_id))


def of_session(tenant: str, session_id: str) -> str:
    """The line of a session whose device is blocked."""
    return _line("s", tenant, session_id)


def of_end(tenant: str, session_id: str) -> str:
    """The line of a session that was ended for good."""
    return _line("e", tenant, session_id)


def lines_of(tenant: str, targets: Iterable[str]) -> Sequence[str]:
    """Every line that there may be of things called `session:ID` and `device:ID`; others have none."""
    lines = list[str]()
    for kind, _, each in (target.partition(":") for target in targets):
        if kind == "device":
            lines.append(of_device(tenant, each))
        elif kind == "session":
            lines += (of_session(tenant, each), of_end(tenant, each))
    return lines


def _line(kind: str, tenant: str, name: str) -> str:
    return kind + hashlib.blake2b(place(tenant, name).encode(), digest_size=16).hexdigest()


def is_end(line: str) -> bool:
    """Whether it is the line of an ended session."""
    return line.startswith("e")


def mark_of(generation: int, *, stands: bool) -> int:
    """The mark of a change; `stands` is False for one that lifts a bar."""
    return 2 * generation + (0 if stands else 1)


def bars(mark: int | None) -> bool:
    """Whether something with this mark (None: without any) is barred."""
    return mark is not None and mark % 2 == 0


class BarStore:
    """Every call raises GuardError(UNAVAILABLE) when Valkey does not answer, or has no room."""

    def __init__(self, live: Live) -> None:
        self._live = live

    async def keep(self, marks: Mapping[str, int]) -> None:
        """Write lines, each unless a later change has written it."""
        lines = list(marks)
        for begin in range(0, len(lines), AT_ONCE):
            flat = [part for line in lines[begin : begin + AT_ONCE] for part in (_score(line, marks[line]), line)]
            await self._live.ask("ZADD", BARS, "GT", *flat)
        await self._live.ask("ZREMRANGEBYRANK", BARS, 0, -(MOST + 1))

    async def marks(self, lines: Sequence[str]) -> list[int | None]:
        """The mark of each line, None where there is none."""
        found = await self._live.ask("ZMSCORE", BARS, *lines)
        return [None if score is None else _mark(int(float(score))) for score in found]

    async def drop(self, lines: Sequence[str]) -> None:
        """Let go of lines, whatever they say."""
        for begin in range(0, len(lines), AT_ONCE):
            await self._live.ask("ZREM", BARS, *lines[begin : begin + AT_ONCE])

    async def era(self) -> str:
        """A name that is another one after each flush, so that everybody knows when to write anew what they know."""
        await self._live.ask("SET", ERA, str(uuid4()), "NX")
        return (await self._live.ask("GET", ERA) or b"").decode()


def _score(line: str, mark: int) -> int:
    return mark - BELOW if is_end(line) else mark


def _mark(score: int) -> int:
    return score + BELOW if score < 0 else score
