"""Answers that are held for as long as the service said, and dropped when it says that something changed."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final

from accessguard.client.events import Event, about
from accessguard.client.model import Decision, Question, Tally, Verdict

# Recorded, not decided: the state that an answer was made of is the same.
HARMLESS: Final = frozenset({"violation", "message"})

DOUBT_S: Final = 5.0
"""How long another worker of the service may answer as if nothing had happened: a held verdict's time (ttl_ms)."""
MOST_DOUBTED: Final = 10_000
EVERYBODY: Final = ("", "")


class Holding:
    """What may be answered without asking; safe for threads, as reading it is one look into a dict.

    `epoch` grows with everything that is dropped: an answer that was asked for
    before is not held after. What an event was about is asked about each time
    for `DOUBT_S`, as an answer may come from where it has not arrived.
    """

    def __init__(self, most: int, clock: Callable[[], float], tally: Tally) -> None:
        self.answers: dict[Question, tuple[Verdict, float]] = {}
        self.epoch = 0
        self._most = most
        self._clock = clock
        self._tally = tally
        self._by_session: dict[str, set[Question]] = {}
        self._by_member: dict[str, set[str]] = {}
        self._doubts: dict[tuple[str, str], float] = {}  # ("session" or "member", id): until when
        self._lock = Lock()

    def keep(self, asked: Question, verdict: Verdict, *, since: float, epoch: int) -> None:
        """Hold an allow for its time, counted from when it was asked for: by then it may have been decided."""
        if verdict.ttl_ms <= 0 or verdict.decision is not Decision.ALLOW or self._most <= 0:
            return
        with self._lock:
            if epoch != self.epoch or (self._doubts and self._doubted(asked[0], verdict.member_id, since)):
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
            self.drop_session(who.session_id, ended=True)
        elif who.member_id is not None:
            self._doubt("member", who.member_id)
            self._drop(None, who.member_id)
        else:
            self._doubt(*EVERYBODY)
            self.drop_all()
        return True

    def drop_session(self, session_id: str, *, ended: bool = False) -> None:
        """Drop what is held about one session; of one that was ended no answer is held for a while."""
        if ended:
            self._doubt("session", session_id)
        self._drop(session_id, None)

    def drop_all(self) -> None:
        """Drop everything."""
        with self._lock:
            self.epoch += 1
            self._clear()

    def unlock(self) -> None:
        """Begin with an open lock, in a process in which nobody holds it."""
        self._lock = Lock()

    def _drop(self, session_id: str | None, member_id: str | None) -> None:
        with self._lock:
            self.epoch += 1
            sessions = self._by_member.pop(member_id, set()) if member_id is not None else set()
            for session in sessions | ({session_id} if session_id is not None else set()):
                for asked in self._by_session.pop(session, ()):
                    self.answers.pop(asked, None)

    def _doubt(self, kind: str, name: str) -> None:
        """Hold nothing about somebody for a while; about nobody, when there are too many to be named."""
        now = self._clock()
        with self._lock:
            if len(self._doubts) >= MOST_DOUBTED:
                self._doubts = {each: until for each, until in self._doubts.items() if until > now}
            if len(self._doubts) >= MOST_DOUBTED:
                self._doubts.clear()
                kind, name = EVERYBODY
            self._doubts[kind, name] = now + DOUBT_S

    def _doubted(self, session_id: str, member_id: str | None, since: float) -> bool:
        """Whether an answer that was asked for then may be older than what has happened."""
        find = self._doubts.get
        latest = max(find(EVERYBODY, 0.0), find(("session", session_id), 0.0), find(("member", member_id or ""), 0.0))
        return since < latest

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
