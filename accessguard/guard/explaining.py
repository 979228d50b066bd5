"""What a refused student sees and may do: how it stands now, one place freed, a few words kept for support."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from accessguard.challenges.model import Freed
from accessguard.devices.store import DeviceStore
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.challenges import Challenges, Standing
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Choice
from accessguard.guard.refused import Refused
from accessguard.rules.model import Access, Code
from accessguard.sessions.history import HistoryStore
from accessguard.violations.model import StudentWords
from accessguard.violations.store import MOST_WORDS, ViolationStore

MOST_SHOWN: Final = 20
OF_SESSIONS: Final = frozenset({Code.SESSION_LIMIT})
OF_DEVICES: Final = frozenset({Code.DEVICE_LIMIT, Code.DEVICE_CHURN})


class Stands(msgspec.Struct, frozen=True, kw_only=True):
    """How a refusal stands now: what counts, the challenge if one was put, what the student wrote and whether there is room for more.

    `freed` is what the place was called that was freed for it; None for none, and for what has no name.
    """

    counted: tuple[Choice, ...] = ()
    challenge: Standing | None = None
    written: tuple[StudentWords, ...] = ()
    may_write: bool = False
    freed: str | None = None


class Explaining:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(
        self, *, challenges: Challenges, history: HistoryStore, devices: DeviceStore, violations: ViolationStore
    ) -> None:
        self._challenges = challenges
        self._history = history
        self._devices = devices
        self._violations = violations

    async def stands(self, refused: Refused, now_ms: int) -> Stands:
        """How it stands now, for the student who was refused and for nobody else."""
        tenant, member_id = refused.tenant, refused.member_id
        if member_id is None:
            return Stands()
        challenge = None
        if refused.challenge_id is not None:
            challenge = await self._challenges.standing(tenant, member_id, refused.challenge_id, now_ms)
        freed = challenge.freed if challenge else None
        written = None
        if refused.violation_id is not None:
            written = await self._violations.student_words(tenant, member_id, refused.violation_id)
        return Stands(
            counted=tuple(await self._counted(refused, member_id, from_ms(now_ms))),
            challenge=challenge,
            written=tuple(written or ()),
            may_write=written is not None and len(written) < MOST_WORDS,
            freed=None
            if freed is None
            else await self._devices.called(tenant, member_id, freed.device_id or freed.merged_id, freed.session_id),
        )

    async def free(self, refused: Refused, freed: Freed, now_ms: int) -> None:
        """Free a place, within the rule's budget. Raises GuardError(CONFLICT) when that is not possible (any more).

        Asked for again, what was freed stays freed, and nothing more happens.
        """
        member_id, challenge_id = refused.member_id, refused.challenge_id
        if member_id is None or challenge_id is None:
            raise GuardError(ErrorCode.CONFLICT, "There is no place to free for this refusal.")
        before = await self._challenges.standing(refused.tenant, member_id, challenge_id, now_ms)
        if before is None or before.freed != freed:
            try:
                await self._challenges.free(refused.tenant, member_id, challenge_id, freed, now_ms)
            except GuardError:  # of two that ask at once, the second comes after what it asks for
                after = await self._challenges.standing(refused.tenant, member_id, challenge_id, now_ms)
                if after is None or after.freed != freed:
                    raise

    async def write(self, refused: Refused, text: str, now_ms: int) -> None:
        """Keep a few words with the case. Raises GuardError(CONFLICT) where there is none, or enough was written."""
        words = StudentWords(at=from_ms(now_ms), text=cleaned(text))
        if not words.text:
            problem = Problem(pointer="/text", detail="empty")
            raise GuardError(ErrorCode.INVALID, "The message was refused.", problem)
        member_id, case = refused.member_id, refused.violation_id
        if (
            member_id is None
            or case is None
            or not await self._violations.write(refused.tenant, member_id, case, words)
        ):
            raise GuardError(ErrorCode.CONFLICT, "Nothing more can be written about this case.")

    async def _counted(self, refused: Refused, member_id: str, now: datetime) -> Sequence[Choice]:
        """What counts against the limit that refused, by what is stored now."""
        if refused.code not in OF_SESSIONS | OF_DEVICES:
            return ()
        devices = await self._devices.listed(refused.tenant, member_id, now=now, after=None, limit=MOST_SHOWN)
        if refused.code in OF_DEVICES:
            return [
                Choice(
                    kind="device", id=str(each.id), label=each.name or each.label, last_activity_at=each.last_seen_at
                )
                for each in devices
                if each.admitted_at is not None and each.access is not Access.BLOCKED
            ]
        labels = {each.id: each.name or each.label for each in devices}
        found = await self._history.open_sessions(refused.tenant, member_id, now=now, limit=MOST_SHOWN)
        return [
            Choice(
                kind="session",
                id=each.id,
                label=labels.get(each.device_id, each.device_class) if each.device_id else each.device_class,
                last_activity_at=max(each.started_at, each.last_activity_at or each.started_at),
            )
            for each in found
        ]


def cleaned(text: str) -> str:
    """Words as they are kept: on one line, without what is not printable, such as signs that turn the direction of a text."""
    return " ".join("".join(each if each.isprintable() or each in JOINERS else " " for each in text).split())


JOINERS: Final = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}\N{VARIATION SELECTOR-16}"
"""Not printable by themselves, and needed by emoji and by several scripts."""
