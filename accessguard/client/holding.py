"""Answers that are held for as long as the service said, and dropped when it says that something changed."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final, TypeAlias

from accessguard.client.events import Event, about
from accessguard.client.model import Decision, Tally, Verdict

Question: TypeAlias = tuple[str, str, str | None, str | None, str | None, str | None, str | None]
"""Everything a check says: session, address, browser, device token, activity, resource, product."""

# Recorded, not decided: the state that an answer was made of is the same.
HARMLESS: Final = frozenset({"violation", "message"})


class Holding:
    """What may be answered without asking; safe for threads, as reading it is one look into a dict.

    `epoch` grows with everything that is dropped: an answer that was asked for
    before is not held after.
    """

    def __init__(self, most: int, clock: Callable[[], float], tally: Tally) -> None:
        self.answers: dict[Question, tuple[Verdict, float]] = {}
        self.epoch = 0
        self._most = most
        self._clock = clock
        self._tally = tally
        self._by_session: dict[str, set[Question]] = {}
        self._by_member: dict[str, set[str]] = {}
        self._lock = Lock()

    def keep(self, asked: Question, verdict: Verdict, *, since: float, epoch: int) -> None:
        """Hold an allow for its time, counted from when it was asked for: by then it may have been decided."""
        if verdict.ttl_ms <= 0 or verdict.decision is not Decision.ALLOW or self._most <= 0:
            return
        with self._lock:
            if epoch != self.epoch:
                return
            self._room()
            self.answers[asked] = (verdict, since + verdict.ttl_ms / 1000)
            self._by_session.setdefault(asked[0], set()).add(asked)
            if verdict.member_id is not None:
                self._by_member.setdefault(verdict.member_id, set()).add(asked[0])

    def heard(self, event: Event) -> bool:
        """Drop what an event makes doubtful; whether it was of a kind that does."""
        self._tally.events += 1
        who = about(event)
        if event.kind in HARMLESS or (event.kind == "device_changed" and who.change == "new"):
            return False
        if who.session_id is not None:
            self._drop(who.session_id, None)
        elif who.member_id is not None:
            self._drop(None, who.member_id)
        else:
            self.drop_all()
        return True

    def drop_session(self, session_id: str) -> None:
        """Drop what is held about one session."""
        self._drop(session_id, None)

    def drop_all(self) -> None:
        """Drop everything."""
        with self._lock:
            self.epoch += 1
            self._clear()

    def _drop(self, session_id: str | None, member_id: str | None) -> None:
        with self._lock:
            self.epoch += 1
            sessions = self._by_member.pop(member_id, set()) if member_id is not None else set()
            for session in sessions | ({session_id} if session_id is not None else set()):
                for asked in self._by_session.pop(session, ()):
                    self.answers.pop(asked, None)

    def _room(self) -> None:
        """When full: forget what is over, or else everything, which is rarer and cheaper than one at a time."""
        if len(self.answers) < self._most:
            return
        now = self._clock()
        fresh = {asked: held for asked, held in self.answers.items() if held[1] > now}
        self._clear()
        if len(fresh) <= self._most // 2:
            self._restore(fresh)

    def _restore(self, fresh: dict[Question, tuple[Verdict, float]]) -> None:
        for asked, (verdict, until) in fresh.items():
            self.answers[asked] = (verdict, until)
            self._by_session.setdefault(asked[0], set()).add(asked)
            if verdict.member_id is not None:
                self._by_member.setdefault(verdict.member_id, set()).add(asked[0])

    def _clear(self) -> None:
        self.answers.clear()
        self._by_session.clear()
        self._by_member.clear()
