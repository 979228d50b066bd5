"""Random histories of a few members, and a player that lives them on the workers of a service."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

import msgspec

from accessguard.api.checks import held, made
from accessguard.api.context import Context
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Actor, Check, Login, LoginOutcome
from accessguard.members.model import Enrolment
from accessguard.rules.model import Activity, EnrolmentStatus
from accessguard.sessions.live import Change
from tests.service import CHROME, FIREFOX

PHONE: Final = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Mobile/15E148 Safari/604.1"
BROWSERS: Final = (CHROME.format(142), FIREFOX, PHONE, CHROME.format(141))
ADDRESSES: Final = ("203.0.113.9", "203.0.113.77", "198.51.100.4", "192.0.2.200", "2001:db8:1::7")
KINDS: Final = (Activity.VIDEO_WATCH, Activity.LESSON_OPEN, Activity.COURSE_OPEN)
HASTE_S: Final = (31, 45, 31, 31, 45, 31)
STEPS_S: Final = (31, 45, 90, 110, 600, 1_799, 1_801, 7_200, 40_000, 90_000)
"""How long after each other things happen: at the beginning in haste. Always more than a beat: what is asked earlier is not recorded, and so cannot be played again."""

AT_ONCE = 3
"""Worlds that live a tick at the same time."""


class Act(msgspec.Struct, frozen=True):
    """One thing that happens to a member: `browser` logs in, or fails to, `session` (the tick it began at) is used.

    Or the platform says how the enrolment stands (`enrol`).
    """

    kind: str
    browser: int = 0
    session: int = 0
    address: int = 0
    activity: Activity = Activity.LESSON_OPEN
    known: bool = True
    worker: int = 0
    status: EnrolmentStatus = EnrolmentStatus.ACTIVE


class History(msgspec.Struct, frozen=True):
    """What members do at each tick (None: nothing), and how long after the one before it comes, in ms."""

    gaps_ms: tuple[int, ...]
    acts: dict[str, tuple[Act | None, ...]]


def history(seed: int, *, members: int, ticks: int) -> History:
    """A history that is the same for the same seed."""
    random = Random(seed)
    gaps = tuple(1_000 * gap for gap in (*HASTE_S, *random.choices(STEPS_S, k=ticks - len(HASTE_S))))
    return History(gaps, {f"m{number:02}": _life(random, ticks) for number in range(members)})


def _life(random: Random, ticks: int) -> tuple[Act | None, ...]:
    """One member: some have one browser and use it, some many and log in all the time, some share one session."""
    browsers, eager, shares = random.randint(1, len(BROWSERS)), random.random(), random.random() < 0.25
    begun: list[tuple[int, int]] = []
    acts: list[Act | None] = []
    for tick in range(ticks):
        common: dict[str, Any] = {"address": random.randrange(len(ADDRESSES)), "worker": random.randrange(2)}
        chance = random.random()
        if shares and begun and chance < 0.9:
            acts.append(Act("use", begun[0][1], begun[0][0], **common | {"address": tick % 2}))
            continue
        if not begun or chance < 0.15 + 0.3 * eager:
            browser = random.randrange(browsers)
            begun.append((tick, browser))
            acts.append(Act("login", browser=browser, **common))
        elif chance < 0.6:
            acts.append(Act("fail", browser=random.randrange(browsers), known=random.random() < 0.5, **common))
        elif chance < 0.65:
            acts.append(None)
        elif chance < 0.69:
            acts.append(Act("enrol", status=random.choice(list(EnrolmentStatus)), **common))
        else:
            session, browser = random.choice(begun[-4:])
            acts.append(Act("use", browser, session, activity=random.choice(KINDS), **common))
    return tuple(acts)


@dataclass
class World:
    """One tenant on two workers, and what it was refused: by member, time and code.

    With `in_turn` its members do things one after the other: for rules by
    which what one member does matters to another.
    """

    tenant: str
    workers: Sequence[Context]
    in_turn: bool = False
    refused: list[tuple[str, datetime, str]] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    tokens: dict[tuple[str, int], str] = field(default_factory=dict)

    async def live(self, member: str, tick: int, act: Act, now_ms: int) -> str | None:
        """Let a member do one thing; why it was refused, None when it was not."""
        if act.kind == "enrol":
            await self._enrol(member, act, now_ms)
            return None
        code = await (self._use(member, act, now_ms) if act.kind == "use" else self._log_in(member, tick, act, now_ms))
        self.answers[code or "allow"] += 1
        if code is not None:
            self.refused.append((member, from_ms(now_ms), code))
        return code

    async def _log_in(self, member: str, tick: int, act: Act, now_ms: int) -> str | None:
        asked = Login(
            member_id=member,
            outcome=LoginOutcome.SUCCESS if act.kind == "login" else LoginOutcome.FAILURE,
            ip=ADDRESSES[act.address],
            user_agent=BROWSERS[act.browser],
            device_token=self.tokens.get((member, act.browser)) if act.known or act.kind == "login" else None,
            session_id=f"{member}-{tick}" if act.kind == "login" else None,
            app="courses" if act.browser % 2 else "shop",
        )
        verdict = await self.workers[act.worker].logins.login(self.tenant, asked, now_ms)
        if verdict.device is not None and act.kind == "login":
            self.tokens[member, act.browser] = verdict.device.token
        return None if verdict.refusal is None or verdict.refusal.code is None else verdict.refusal.code.value

    async def _enrol(self, member: str, act: Act, now_ms: int) -> None:
        said = Enrolment(
            product_id="course",
            starts_at=from_ms(now_ms),
            ends_at=from_ms(now_ms) + timedelta(days=2),
            purchased_at=None,
            status=act.status,
            reopens_at=from_ms(now_ms) + timedelta(hours=3) if act.status is EnrolmentStatus.FROZEN else None,
            updated_at=from_ms(now_ms),
        )
        platform = Actor(subject="tests", role="platform")
        await self.workers[act.worker].grants.enrol(self.tenant, platform, member, said, reason=None)

    async def _use(self, member: str, act: Act, now_ms: int) -> str | None:
        asked = Check(
            session_id=f"{member}-{act.session}",
            ip=ADDRESSES[act.address],
            user_agent=BROWSERS[act.browser],
            activity=act.activity,
        )
        ctx = self.workers[act.worker]
        question = (ctx, self.tenant, asked, now_ms, lambda: "en")
        answer = held(*question) or await made(*question)
        reason = msgspec.json.decode(answer)["reason"]
        return None if reason is None else str(reason["code"])


async def play(free: World, ruled: Sequence[World], lives: History, begin_ms: int, clock: Any) -> int:
    """Live the same history without a rule and under rules; the time of its end, in ms.

    Nobody does under a rule what could not be done without one: such as to go
    on with a session that a later login has replaced.
    """
    now_ms = begin_ms
    for tick, gap in enumerate(lives.gaps_ms):
        now_ms += gap
        clock.now_ms = now_ms
        acts = [
            (member, act, now_ms + number)
            for number, (member, each) in enumerate(lives.acts.items())
            if (act := each[tick]) is not None
        ]
        codes = await asyncio.gather(*(free.live(member, tick, act, at_ms) for member, act, at_ms in acts))
        done = [each for each, code in zip(acts, codes, strict=True) if code is None]
        for first in range(0, len(ruled), AT_ONCE):  # all at once would overrun the time that a login has
            await asyncio.gather(*(_all(world, tick, done) for world in ruled[first : first + AT_ONCE]))
        await settled(free.workers)
    return now_ms + 1_000


async def _all(world: World, tick: int, acts: Sequence[tuple[str, Act, int]]) -> None:
    if not world.in_turn:
        await asyncio.gather(*(world.live(member, tick, act, at_ms) for member, act, at_ms in acts))
        return
    for member, act, at_ms in acts:
        await world.live(member, tick, act, at_ms)


async def settled(workers: Sequence[Context]) -> None:
    """Let what was pushed arrive everywhere, and what is gathered be written: less than a second of real life."""
    for ctx in workers:
        await ctx.activity.flush()
        await ctx.folds.flush()
    for ctx in workers:
        for other in workers:
            other.book._held["settled"] = next(iter(other.book._held.values()))
        await ctx.changes._live.publish(Change(tenant="settled", kind="policy_changed"))
        while any("settled" in other.book._held for other in workers):
            await asyncio.sleep(0)
