"""A steady day: logins, checks, blocks, ends, marks, rules; and whoever is blocked keeps trying."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import aiohttp

from tests.chaos.ledger import Kind, Ledger
from tests.chaos.platform import NOT_ANSWERED, Platform
from tests.chaos.stage import Host, Stage, seconds
from tests.service import CHROME, LAPTOP

SESSIONS: Final = 2
DEVICES: Final = 3
MEMBERS: Final = {"s": 12, "d": 12, "f": 24}
"""s: at most SESSIONS sessions; d: at most DEVICES devices; f: no limit, and their devices are blocked and allowed."""
FORBIDDEN: Final = "192.0.2.7"
LIVE: Final = 160
CHECKERS: Final = 8
SENTINELS: Final = 3
"""Connections to each host on which sessions that may not go on are asked about without pause, and with all patience."""
LAG_S: Final = 0.005
STALLED_S: Final = 0.5
"""Later than this the harness itself got no time, and what it did not hear says nothing."""
ENDED: Final = ("session_ended", "unknown_session", "session_expired", "device_blocked")
IMPATIENT: Final = aiohttp.ClientTimeout(total=2)
PATIENT: Final = aiohttp.ClientTimeout(total=60)


@dataclass
class Person:
    """A member, and the device tokens in their browsers by the device's id."""

    id: str
    tokens: dict[str, str] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Lag:
    """How late this process itself is: what it adds to every latency that it measures."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque(maxlen=4000)

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            due = seconds() + LAG_S
            await asyncio.sleep(LAG_S)
            late = seconds() - due
            if late > 0.002:
                self._late.append((seconds(), late))

    def since(self, began: float) -> float:
        """Seconds that went by unseen since then."""
        total = 0.0
        for at, late in reversed(self._late):
            if at < began:
                break
            total += late
        return total


class Day:
    """When somebody may call: nobody does before it begins, nor while it is paused."""

    def __init__(self) -> None:
        self._going = asyncio.Event()
        self._busy = 0

    def begin(self) -> None:
        """Let everybody call."""
        self._going.set()

    async def going(self) -> None:
        """Wait until it goes on; who is woken by the end of one pause finds out whether the next one has begun."""
        while not self._going.is_set():
            await self._going.wait()

    async def act(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do something as soon as it goes on."""
        await self.going()
        self._busy += 1
        try:
            await act()
        finally:
            self._busy -= 1

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Nobody calls, and nothing is under way."""
        self._going.clear()
        async with asyncio.timeout(120):
            while self._busy:
                await asyncio.sleep(0.01)
        try:
            yield
        finally:
            self._going.set()


class Load:
    """Everybody who calls; `day` lets what is under way come to its end."""

    def __init__(self, stage: Stage, ledger: Ledger, dice: random.Random) -> None:
        self.stage, self.ledger, self.dice = stage, ledger, dice
        self.people = {f"{group}{n}": Person(f"{group}{n}") for group, many in MEMBERS.items() for n in range(many)}
        self.platform = Platform(stage.hosts, ledger, dice)
        self.lag = Lag()
        self._live: deque[tuple[str, str, str]] = deque(maxlen=LIVE)
        self._of_device: dict[str, list[str]] = {}
        self._rule = ""
        self.day = Day()
        self._tasks: list[asyncio.Task[None]] = []

    async def set_up(self) -> None:
        """Members with their groups, and the rules of the school."""
        for person in self.people.values():
            await self.platform.persist("PUT", f"/v1/members/{person.id}", {"tags": [person.id[0]]})
        await self._new_rule("session_limit", "evict_oldest", {"max": SESSIONS}, tags=["s"])
        await self._new_rule("device_limit", "deny_new", {"max": DEVICES}, tags=["d"])
        await self._new_rule("ip_deny", "deny", {"networks": ["192.0.2.0/24"]})
        self._rule = await self._new_rule("ip_deny", "deny", {"networks": ["198.51.100.1"]})

    async def _new_rule(self, kind: str, action: str, params: dict[str, Any], *, tags: list[str] | None = None) -> str:
        asked = {"kind": kind, "mode": "enforce", "action": action, "params": params}
        asked |= {"applies_to": {"tags": tags}} if tags else {}
        told = await self.platform.persist("POST", "/v1/rules", asked, role="administrator")
        assert told is not None, kind
        return str(told.body["id"])

    def start(self) -> None:
        """Begin the day."""
        self.day.begin()
        acts: list[tuple[int, float, Callable[[], Awaitable[None]]]] = [
            (4, 0.4, self._login),
            (1, 3.0, self._burst),
            (CHECKERS, 0.06, self._check),
            (1, 1.0, self._block),
            (1, 4.0, self._allow),
            (1, 1.5, self._end),
            (1, 1.0, self._mark),
            (1, 2.0, self._change_rule),
        ]
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._again(act, every)) for many, every, act in acts for _ in range(many)]
        self._tasks += [loop.create_task(self._sentinel(host)) for host in self.stage.hosts for _ in range(SENTINELS)]
        self._tasks.append(loop.create_task(self.lag.watch()))

    async def stop(self) -> None:
        """End the day; raises whatever went wrong in the harness itself."""
        for each in self._tasks:
            each.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.platform.close()
        wrong = [each for each in results if isinstance(each, Exception)]
        if wrong:
            raise wrong[0]

    def raise_if_broken(self) -> None:
        """Raise what went wrong in the harness itself, if anything did."""
        for each in self._tasks:
            if each.done():
                each.result()

    async def _again(self, act: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            await self.day.act(act)
            await asyncio.sleep(every_s * self.dice.uniform(0.5, 1.5))

    def _uuid(self) -> str:
        return str(UUID(int=self.dice.getrandbits(128), version=4))

    async def _login(self) -> None:
        person = self.dice.choice(list(self.people.values()))
        async with person.turn:
            await self.login(person)

    async def _burst(self) -> None:
        """Several browsers of one member at once."""
        person = self.people[f"{self.dice.choice('sd')}{self.dice.randrange(12)}"]
        async with person.turn:
            await asyncio.gather(*(self.login(person, known=False) for _ in range(4)))

    async def login(self, person: Person, *, known: bool | None = None) -> dict[str, Any] | None:
        """One login, repeated under its attempt id until it is answered."""
        token = None
        if known is not False and person.tokens and (len(person.tokens) > 3 or self.dice.random() < 0.6):
            token = person.tokens[self.dice.choice(sorted(person.tokens))]
        asked = {
            "member_id": person.id,
            "outcome": "success",
            "ip": LAPTOP,
            "user_agent": CHROME.format(self.dice.randrange(100, 143)),
            "device_token": token,
            "attempt_id": self._uuid(),
        }
        told = await self.platform.persist("POST", "/v1/logins", asked)
        if told is None:
            return None
        answer = told.body
        self.ledger.acknowledge(Kind.LOGIN, told.sent, told.tries, asked, answer)
        self.ledger.violations.update(answer["violations"])
        for violation in answer["violations"]:
            self._violation(violation, told.sent, told.tries, asked)
        if answer["session"] is not None and answer["device"] is not None:
            device, session = answer["device"]["id"], answer["session"]["id"]
            person.tokens[device] = answer["device"]["token"] or person.tokens.get(device, "")
            self._of_device.setdefault(device, []).append(session)
            self._live.append((session, device, person.id))
        return dict(answer)

    def _violation(self, violation: str, sent: float, tries: int, asked: dict[str, Any]) -> None:
        self.ledger.violations.add(violation)
        self.ledger.acknowledge(Kind.VIOLATION, sent, tries, asked, {"violation_id": violation})

    async def _check(self) -> None:
        if not self._live:
            return
        session, _, _ = self.dice.choice(self._live)
        refused = self.dice.random() < 0.03
        asked = {"session_id": session, "ip": FORBIDDEN if refused else LAPTOP, "user_agent": CHROME.format(142)}
        if self.dice.random() < 0.3:
            asked["activity"] = "lesson_open"
        answer = await self._asked(self.dice.choice(self.stage.hosts), asked)
        if answer is not None and answer["reason"] is not None and answer["reason"]["code"] in ENDED:
            self._forget(session)

    def _forget(self, session_id: str) -> None:
        self._live = deque((each for each in self._live if each[0] != session_id), maxlen=LIVE)

    async def _asked(self, host: Host, asked: dict[str, Any]) -> dict[str, Any] | None:
        """One check, not repeated: its answer is judged, and so is that there is one."""
        sent, began, phase = self.ledger.now(), seconds(), self.ledger.phase
        checked = self.ledger.checked[phase]
        try:
            status, answer = await self.platform.once(host, "POST", "/v1/check", asked, timeout=IMPATIENT)
        except NOT_ANSWERED as error:
            if phase == self.ledger.phase and self.lag.since(began) < STALLED_S:
                checked.errors.append(type(error).__name__)
            return None
        took = max(0.0, seconds() - began - self.lag.since(began))
        if phase == self.ledger.phase:
            if status == 200:
                checked.latencies.append(took * 1000)
                checked.degraded += answer["degraded"]
            else:
                checked.errors.append(f"{status} {answer}")
        if status != 200:
            return None
        self.ledger.judge(asked["session_id"], sent, answer)
        if answer["violation_id"] is not None and answer["violation_id"] not in self.ledger.violations:
            self._violation(answer["violation_id"], sent, 1, asked)
        return dict(answer)

    async def _sentinel(self, host: Host) -> None:
        """Ask for what is refused, on one connection, and wait for the answer however long it takes."""
        platform = Platform((host,), self.ledger, self.dice)
        try:
            while True:
                await self.day.going()
                waiting = [*list(self.ledger.blocked_sessions)[-40:], *list(self.ledger.ended)[-10:]]
                if waiting:
                    session, sent = self.dice.choice(waiting), self.ledger.now()
                    asked = {"session_id": session, "ip": LAPTOP, "user_agent": CHROME.format(142)}
                    with contextlib.suppress(*NOT_ANSWERED):
                        status, answer = await platform.once(host, "POST", "/v1/check", asked, timeout=PATIENT)
                        if status == 200:
                            self.ledger.judge(session, sent, answer)
                await asyncio.sleep(0.04)
        finally:
            await platform.close()

    def _free_device(self) -> tuple[str, str] | None:
        """A device that has a session, of a member without limits."""
        found = [(device, member) for _, device, member in self._live if member.startswith("f")]
        found = [each for each in found if each[0] not in self.ledger.blocks]
        return self.dice.choice(found) if found else None

    async def _block(self) -> None:
        chosen = self._free_device()
        if chosen is not None:
            device, member = chosen
            self.people[member].tokens.pop(device, None)
            await self.block(device, member)

    async def block(self, device: str, member: str) -> None:
        """Block a device; from its acknowledgement on, the sessions that it has may not go on."""
        async with self.people[member].turn:
            entry = await self._access(device, member, "blocked")
            if entry is not None:
                self.ledger.block(entry, tuple(self._of_device.get(device, ())))

    async def _access(self, device: str, member: str, access: str) -> Any:
        asked = {"access": access, "reason": self._uuid()}
        told = await self.platform.persist("PATCH", f"/v1/members/{member}/devices/{device}", asked, role="supervisor")
        if told is None:
            return None
        whole = {"device_id": device, "member_id": member} | asked
        return self.ledger.acknowledge(Kind.DEVICE, told.sent, told.tries, whole, {"access": told.body["access"]})

    async def _allow(self) -> None:
        """Let somebody in again who was blocked long ago, or allow a device by name."""
        old = [each for each in self.ledger.blocks.values() if self.ledger.now() - each.entry.acknowledged > 25]
        if old and self.dice.random() < 0.7:
            found = self.dice.choice(old)
            async with self.people[found.member_id].turn:
                self.ledger.lift(found.device_id)
                await self._access(found.device_id, found.member_id, "default")
            return
        chosen = self._free_device()
        if chosen is not None:
            async with self.people[chosen[1]].turn:
                if chosen[0] not in self.ledger.blocks:  # it may have been blocked while others had their turn
                    await self._access(*chosen, "allowed")

    async def _end(self) -> None:
        if not self._live:
            return
        session, _, member = self.dice.choice(self._live)
        async with self.people[member].turn:
            asked = {"session_id": session, "reason": "password_changed"}
            path = f"/v1/sessions/{session}/end"
            told = await self.platform.persist("POST", path, {"reason": asked["reason"]})
            if told is not None:
                self.ledger.ended[session] = self.ledger.acknowledge(Kind.END, told.sent, told.tries, asked, {})

    async def _mark(self) -> None:
        recent = self.ledger.of(Kind.VIOLATION)[-50:]
        if not recent:
            return
        violation = self.dice.choice(recent).answered["violation_id"]
        told = await self.platform.persist(
            "POST", "/v1/violations/mark", {"ids": [violation], "read": True}, role="supervisor"
        )
        if told is not None:
            self.ledger.acknowledge(Kind.MARK, told.sent, told.tries, {"violation_id": violation}, told.body)

    async def _change_rule(self) -> None:
        network = f"198.51.100.{self.dice.randrange(1, 255)}"
        asked = {
            "kind": "ip_deny",
            "mode": "enforce",
            "action": "deny",
            "params": {"networks": [network]},
            "reason": self._uuid(),
        }
        told = await self.platform.persist("PUT", f"/v1/rules/{self._rule}", asked, role="administrator")
        if told is not None:
            answered = {"rule_id": self._rule, "version": told.body["version"]}
            self.ledger.acknowledge(Kind.RULE, told.sent, told.tries, asked, answered)

    async def propagation(self) -> list[float]:
        """How long (ms) each of several connections to the other host was let in after a block was acknowledged there."""
        person = self.people["f0"]
        async with person.turn:
            answer = await self.login(person, known=False)
        if answer is None or answer["session"] is None:
            return []
        device, session = answer["device"]["id"], answer["session"]["id"]
        self._forget(session)
        person.tokens.pop(device, None)
        here, there = self.dice.sample(self.stage.hosts, 2)
        pollers = [Poller(Platform((there,), self.ledger, self.dice), there, session) for _ in range(4)]
        going = [asyncio.get_running_loop().create_task(each.go()) for each in pollers]
        await asyncio.sleep(0.2)
        asked = {"access": "blocked", "reason": self._uuid()}
        path = f"/v1/members/{person.id}/devices/{device}"
        sent = self.ledger.now()
        status, told = await self.platform.once(here, "PATCH", path, asked, role="supervisor")
        acknowledged = seconds()
        await asyncio.gather(*going)
        if status == 200:
            whole = {"device_id": device, "member_id": person.id} | asked
            entry = self.ledger.acknowledge(Kind.DEVICE, sent, 1, whole, {"access": told["access"]})
            self.ledger.block(entry, (session,))
        return [max(0.0, each.last_allowed - acknowledged) * 1000 for each in pollers]


class Poller:
    """One connection that asks about one session until it is refused."""

    def __init__(self, platform: Platform, host: Host, session: str) -> None:
        self._platform, self._host, self._session = platform, host, session
        self.last_allowed = 0.0

    async def go(self) -> None:
        """Ask; `last_allowed` is when the last question was sent that was answered by an allow."""
        asked = {"session_id": self._session, "ip": LAPTOP, "user_agent": CHROME.format(142)}
        try:
            async with asyncio.timeout(10):
                while True:
                    sent = seconds()
                    _, answer = await self._platform.once(self._host, "POST", "/v1/check", asked)
                    if answer["decision"] != "allow":
                        return
                    self.last_allowed = sent
                    await asyncio.sleep(0.001)
        finally:
            await self._platform.close()
