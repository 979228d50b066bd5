"""Platforms that ask all the time, operators who block and allow, and one fault after the other."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import psutil

from accessguard.client import AccessGuard, BlockingAccessGuard, OnUnknown, Settings
from tests.chaos.stage import Host, gone, tell
from tests.client_faults.judging import Breach, Judge, Student
from tests.client_faults.weather import Sky, Weather
from tests.service import CHROME, LAPTOP, token

STUDENTS: Final = 24
DEADLINE_MS: Final = 500
CONNECTIONS: Final = 4
BLOCKED_S: Final = (6.0, 9.0)
BACK_S: Final = 5.0
"""How long after a fault a client may take until it knows answers again: the breaker's pause, a stream's, and patience."""
TENANT: Final = "school"
THREAD: Final = "thread"
"""The name of a task that waits for a thread, which ends by itself, before its client is closed."""
NOT_ANSWERED: Final = (aiohttp.ClientError, TimeoutError, OSError)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to; seconds."""

    seed: int
    seconds: float
    faults: dict[str, int]
    said: dict[str, int]
    slowest: dict[str, float]
    blocks: int
    events: int
    back: list[float]
    breaches: list[Breach]


class Play:
    """The clients of one run, between `begin` and the end of `stack`."""

    def __init__(self, url: str, tenant: str, folder: Path, dice: random.Random, *, host: Host | None = None) -> None:
        self.url, self.tenant, self._folder, self._dice, self.host = url, tenant, folder, dice, host
        self.judge = Judge()
        self.sky = Sky(folder / "sky", int(url.rpartition(":")[2]), dice)
        self.students: list[Student] = []
        self.blocks = 0
        self.back: list[float] = []
        self.played: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._guards: dict[str, AccessGuard] = {}
        self._twin: BlockingAccessGuard | None = None
        self._http: aiohttp.ClientSession
        self._ended = False

    @contextlib.asynccontextmanager
    async def begun(self) -> AsyncIterator[None]:
        """Everybody is logged in, and asked about, until the end."""
        loop = asyncio.get_running_loop()
        handler = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, told: self.judge.breach("nothing is raised", "loop", str(told)))
        await self.sky.turn(Weather.FAIR)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as self._http:
            self.students = [await self._student(number) for number in range(STUDENTS)]
            self._open()
            try:
                yield
            finally:
                await self._close()
                loop.set_exception_handler(handler)

    def _open(self) -> None:
        asking = Settings(
            address=f"unix:{self.sky.path}", token=token(self.tenant, "platform"), deadline_ms=DEADLINE_MS
        )
        for name, on in (("open", OnUnknown.ALLOW), ("closed", OnUnknown.DENY)):
            guard = self._guards[name] = AccessGuard(msgspec.structs.replace(asking, on_unknown=on))
            for _ in range(4):
                self._run(self._asks(name, guard))
            self._run(self._asks_many(name, guard))
        self._twin = BlockingAccessGuard(asking)
        for _ in range(3):
            self._run(self._thread(self._twin), name=THREAD)
        self._run(self.judge.watch())
        for _ in range(2):
            self._run(self._operator())

    def _run(self, work: Any, *, name: str | None = None) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.judge.breach("nothing is raised", task.get_name(), repr(error))

    async def _close(self) -> None:
        self._ended = True
        for each in tuple(self._tasks):
            if each.get_name() != THREAD:
                each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for guard in self._guards.values():
            await guard.close()
        if self._twin is not None:
            await asyncio.to_thread(self._twin.close)
        await self.sky.stop()

    async def _asks(self, name: str, guard: AccessGuard) -> None:
        while True:
            await self._ask(name, guard)
            await asyncio.sleep(self._dice.uniform(0, 0.04))

    async def _asks_many(self, name: str, guard: AccessGuard) -> None:
        """In one turn: they leave together."""
        while True:
            await asyncio.gather(*(self._ask(name, guard) for _ in range(20)))
            await asyncio.sleep(self._dice.uniform(0, 0.2))

    async def _ask(self, name: str, guard: AccessGuard) -> None:
        student = self._dice.choice(self.students)
        before, began = self._as_it_is(student), time.monotonic()
        found = await guard.check(student.session_id, LAPTOP, **self._question())
        if self._as_it_is(student) == before:
            self.judge.judge(name, began, DEADLINE_MS / 1000, student, found)

    async def _thread(self, twin: BlockingAccessGuard) -> None:
        await asyncio.to_thread(self._in_thread, twin)

    def _in_thread(self, twin: BlockingAccessGuard) -> None:
        dice = random.Random(self._dice.random())
        while not self._ended:
            student = dice.choice(self.students)
            before, began = self._as_it_is(student), time.monotonic()
            found = twin.check(student.session_id, LAPTOP, **self._question())
            if self._as_it_is(student) == before:
                self.judge.judge("blocking", began, DEADLINE_MS / 1000, student, found)
            time.sleep(dice.uniform(0, 0.04))

    def _question(self) -> Mapping[str, str]:
        return {"user_agent": CHROME.format(142), "resource": f"lesson:{self._dice.randrange(2)}"}

    @staticmethod
    def _as_it_is(student: Student) -> tuple[object, ...]:
        return student.session_id, student.blocked, student.free

    async def _operator(self) -> None:
        """Blocks a device, or ends a session, watches what comes of it, and takes it back."""
        while True:
            student = self._dice.choice(self.students)
            if student.free is None:
                await asyncio.sleep(0.05)
                continue
            student.free = None
            again = await (self._blocked if self._dice.random() < 0.6 else self._over)(student)
            student.blocked = time.monotonic()
            self.blocks += 1
            await asyncio.sleep(self._dice.uniform(*BLOCKED_S))
            student.blocked = None
            await again()
            student.free = time.monotonic()

    async def _blocked(self, student: Student) -> Callable[[], Awaitable[object]]:
        path = f"/v1/members/{student.member_id}/devices/{student.device_id}"
        await self._call("PATCH", path, {"access": "blocked"}, "supervisor")
        return lambda: self._call("PATCH", path, {"access": "default"}, "supervisor")

    async def _over(self, student: Student) -> Callable[[], Awaitable[object]]:
        await self._call("POST", f"/v1/sessions/{student.session_id}/end", {"reason": "logout"}, "platform")

        async def again() -> None:
            new = await self._student(int(student.member_id.removeprefix("s")))
            student.session_id, student.device_id = new.session_id, new.device_id

        return again

    async def _student(self, number: int) -> Student:
        asked = {"member_id": f"s{number}", "outcome": "success", "ip": LAPTOP, "user_agent": CHROME.format(142)}
        said = await self._call("POST", "/v1/logins", asked, "platform")
        return Student(member_id=f"s{number}", session_id=said["session"]["id"], device_id=said["device"]["id"])

    async def _call(self, method: str, path: str, body: Any, role: str) -> Any:
        """Straight to the service, until it answers."""
        headers = {"Authorization": f"Bearer {token(self.tenant, role)}"}
        while True:
            with contextlib.suppress(*NOT_ANSWERED):
                async with self._http.request(method, self.url + path, json=body, headers=headers) as said:
                    if said.status < 300:
                        return await said.json()
                    if said.status != 503:
                        raise AssertionError(f"{method} {path}: {said.status} {await said.text()}")
            await asyncio.sleep(0.1)

    async def fault(self, name: str, lasting_s: float) -> None:
        """One fault, and the time after it until every client knows again."""
        self.judge.phase = name
        self.played[name] = self.played.get(name, 0) + 1
        if name in PROCESS:
            assert self.host is not None
            await PROCESS[name](self.host, self._dice, lasting_s)
            await revived(self.host)
        else:
            await self.sky.turn(Weather(name))
            await asyncio.sleep(lasting_s)
            await self.sky.turn(Weather.FAIR)
        self.judge.phase = f"after {name}"
        await self._known_again(time.monotonic())

    async def _known_again(self, ended: float) -> None:
        names = {*self._guards, "blocking"}
        while behind := {each for each in names if self.judge.known.get(each, 0.0) < ended}:
            if time.monotonic() > ended + BACK_S + 2 * self.judge.lateness():
                self.judge.breach("clients come back by themselves", ", ".join(sorted(behind)), f"not in {BACK_S} s")
                return
            await asyncio.sleep(0.02)
        self.back.append(max(self.judge.known.values()) - ended)

    def reckon(self) -> None:
        """In fair weather at the end: nobody keeps more connections than were allowed, and everybody listens again."""
        most = (len(self._guards) + 1) * (CONNECTIONS + 1)
        if len(self.sky.writers) > most:
            self.judge.breach("connections are bounded", "all", f"{len(self.sky.writers)} of {most}")
        listening = self.sky.streams
        if listening < len(self._guards) + 1:
            self.judge.breach("everybody listens again", "all", f"{listening} streams")

    def outcome(self, seed: int, seconds: float) -> Outcome:
        """What it came to."""
        judge, twin = self.judge, self._twin
        events = sum(each.tally.events for each in self._guards.values()) + (twin.tally.events if twin else 0)
        return Outcome(
            seed=seed,
            seconds=round(seconds, 1),
            faults=self.played,
            said={f"{client}: {word}": count for (client, word), count in sorted(judge.said.items())},
            slowest={name: round(each, 3) for name, each in judge.slowest.items()},
            blocks=self.blocks,
            events=events,
            back=sorted(round(each, 3) for each in self.back),
            breaches=judge.breaches,
        )


async def revived(host: Host) -> None:
    """Start the service again, as systemd does, where it has ended; every worker answers, as a start wants them all."""
    before = _starts(host)
    if not host.workers():
        await host.restart()
        async with asyncio.timeout(60):
            while _starts(host) == before:
                await asyncio.sleep(0.05)


def _starts(host: Host) -> int:
    return host.log.read_text().count("AccessGuard answers at") if host.log.exists() else 0


async def kill(host: Host, _: random.Random, lasting_s: float) -> None:
    """SIGKILL for all of it."""
    everyone = list(reversed([psutil.Process(host.pid), *host.workers()]))
    tell(everyone, signal.SIGKILL)
    await gone(everyone[:-1])
    await asyncio.sleep(lasting_s)


async def kill_worker(host: Host, dice: random.Random, lasting_s: float) -> None:
    """SIGKILL for one of its workers, which is replaced."""
    tell([dice.choice(host.workers())], signal.SIGKILL)
    await asyncio.sleep(lasting_s)


async def pause(host: Host, _: random.Random, lasting_s: float) -> None:
    """SIGSTOP for all of it."""
    await _paused([psutil.Process(host.pid), *host.workers()], lasting_s)


async def pause_worker(host: Host, dice: random.Random, lasting_s: float) -> None:
    """SIGSTOP for one of its workers."""
    await _paused([dice.choice(host.workers())], lasting_s)


async def _paused(processes: list[psutil.Process], lasting_s: float) -> None:
    tell(processes, signal.SIGSTOP)
    try:
        await asyncio.sleep(lasting_s)
    finally:
        tell(processes, signal.SIGCONT)


async def restart(host: Host, _: random.Random, lasting_s: float) -> None:
    """An orderly end."""
    await host.stop()
    await asyncio.sleep(lasting_s)


async def renew(host: Host, _: random.Random, lasting_s: float) -> None:
    """SIGHUP: its workers are replaced one by one."""
    tell([psutil.Process(host.pid)], signal.SIGHUP)
    await asyncio.sleep(lasting_s)


PROCESS: Final[Mapping[str, Callable[[Host, random.Random, float], Awaitable[None]]]] = {
    "killed": kill,
    "a worker killed": kill_worker,
    "paused": pause,
    "a worker paused": pause_worker,
    "restarted": restart,
    "renewed": renew,
}
IN_THE_AIR: Final = tuple(each.value for each in Weather if each is not Weather.FAIR)
FAULTS: Final = (*PROCESS, *IN_THE_AIR)
