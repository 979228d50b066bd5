"""One caller's flood leaves room for others: in a turn of the loop, among steps of handlers, and among connections."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web

from accessguard.api import bounds, shares
from accessguard.api.bounds import MOST_PENALTY_S, REFUSALS_PER_S, STRANGERS_BURST_S, Bounds, Rates
from accessguard.api.connections import Patience
from accessguard.api.keys import Caller, Role
from accessguard.api.lane import Lane
from accessguard.api.passage import Passage
from accessguard.api.shares import CROWD, CROWDED, SHARE, Shares
from accessguard.api.steps import AT_A_STRETCH_S, Steps, Stepwise
from accessguard.app import service as application
from accessguard.serving import lane_protocol
from accessguard.sessions.pipe import Pipe
from tests.api.lanes import request
from tests.api.test_bounds import check, lines
from tests.service import Service, Tenant

PLACES = 16
CALLER = Caller(subject="busy", role=Role.PLATFORM, tenant="t", expires_at=0, token_id=None)
OTHER = msgspec.structs.replace(CALLER, subject="other")


@pytest.fixture
async def port(service: Service) -> AsyncIterator[int]:
    """The fast lane with room for few."""
    handlers = application(service.context, body_limit_bytes=1_048_576)
    runner = web.AppRunner(handlers, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    patience = Patience(connections=PLACES, request_s=20, write_s=20)
    fast = lane_protocol(runner, service.context, body_limit_bytes=1_048_576, patience=patience)
    server = await asyncio.get_running_loop().create_server(fast, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await runner.cleanup()


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[Counter[asyncio.Transport]]:
    """How many answers each connection was given in each turn from now on."""
    found, flush = list[Counter[asyncio.Transport]](), Lane.flush

    def noting(one: Lane) -> None:
        found.append(Counter(transport for transport, _ in one.ready))
        flush(one)

    monkeypatch.setattr(Lane, "flush", noting)
    return found


async def test_a_connection_has_its_share_of_a_turn_however_much_it_sends(port: int, tenant: Tenant, turns):
    """Hundreds of checks in one piece are all answered, some in each turn, and one behind whose end is missing waits for it."""
    login = await tenant.login()
    whole = check(tenant, login["session"]["id"])

    async with lines(port, whole * 300 + whole[:-7], whole) as (many, one):
        other = await one.status()
        statuses = Counter([await many.status() for _ in range(300)])
        many.writer.write(whole[-7:] + whole)
        last = [await many.status() for _ in range(2)]

    assert (other, statuses, last) == (200, {200: 300}, [200, 200])
    assert max(max(turn.values(), default=0) for turn in turns) <= 2 * 16


async def test_no_caller_fills_a_turn(port: int, tenant: Tenant, monkeypatch):
    """Connections beyond a caller's share rest; whatever they have sent is answered all the same."""
    monkeypatch.setattr(shares, "SHARE", 4)
    rested, rest = list[bool](), Passage.rest

    def noting(each: Passage) -> bool:
        rested.append(rest(each))
        return rested[-1]

    monkeypatch.setattr(Passage, "rest", noting)
    other = tenant.service.tenant()
    mine, theirs = [check(each, (await each.login())["session"]["id"]) for each in (tenant, other)]

    async with lines(port, *[mine] * 10, *[theirs] * 2) as made:
        first = [await each.status() for each in made]
        for each, asked in zip(made, [mine] * 10 + [theirs] * 2, strict=True):
            each.writer.write(asked * 100)
        statuses = Counter([await each.status() for each in made for _ in range(100)])

    assert (set(first), statuses) == ({200}, {200: 1_200})
    assert any(rested)


class One:
    """A connection of that caller."""

    def __init__(self, caller: Caller) -> None:
        self.caller: Caller | None = caller
        self.rests = False

    def rest(self) -> bool:
        """Begin to rest."""
        rested, self.rests = not self.rests, True
        return rested

    def wake(self) -> None:
        """Go on."""
        self.rests = False


async def test_each_caller_has_its_share_of_a_crowded_turn():
    """Who has no more does not rest; those that rest wake in the order in which they began to, a share in each turn."""
    held = Shares(asyncio.get_running_loop())
    busy, other = [One(CALLER) for _ in range(4 * SHARE)], One(OTHER)

    held.crowded([*busy, other])
    at_once = [each.rests for each in busy]
    meanwhile = held.crowd
    later = []
    for _ in range(4):
        await asyncio.sleep(0)
        later.append(sum(each.rests for each in busy))

    assert at_once == [False] * SHARE + [True] * (3 * SHARE)
    assert later == [2 * SHARE, SHARE, 0, 0]
    assert not other.rests
    assert (meanwhile, held.crowd) == (CROWDED, CROWD)


async def test_while_some_of_a_caller_s_connections_rest_all_of_them_take_turns():
    """The first of a crowded turn has its share of that one; in the next it goes behind those that rest already."""
    held = Shares(asyncio.get_running_loop())
    first, *others = [One(CALLER) for _ in range(4)]
    other = One(OTHER)

    held.crowded([first] * SHARE + [each for each in others for _ in range(SHARE)])
    at_once = (first.rests, [each.rests for each in others])
    held.crowded([first] * SHARE + [other])
    then = (first.rests, other.rests)
    woken = []
    for _ in range(4):
        await asyncio.sleep(0)
        woken.append([each.rests for each in (*others, first)].count(False))

    assert at_once == (False, [True] * 3)
    assert then == (True, False)
    assert woken == [1, 2, 3, 4]


async def test_callers_take_turns_in_their_steps_and_one_step_is_made_in_a_turn():
    """Whoever has fifty calls under way has no more of them than whoever has one."""
    steps, made = Steps(), list[str]()

    async def call(name: str) -> str:
        for _ in range(5):
            made.append(name)
            await asyncio.sleep(0)
        return name

    async def begun(name: str) -> str:
        return await Stepwise(call(name), steps, name)

    calls = [asyncio.create_task(begun("busy")) for _ in range(50)]
    await asyncio.sleep(0)
    other = asyncio.create_task(begun("other"))
    counts = []
    while not other.done():
        before = len(made)
        await asyncio.sleep(0)
        counts.append(len(made) - before)
    until = made.copy()

    assert await asyncio.gather(*calls, other) == ["busy"] * 50 + ["other"]
    assert max(counts) == 1
    assert until.count("busy") <= 16


async def test_answers_and_commands_leave_before_a_step(service: Service):
    """What the lane and the pipe to Valkey would write at the end of the turn is written when a handler is to go on."""
    written = list[bytes]()
    fast = Lane(service.context, body_limit_bytes=1_048_576, keepalive_s=75)
    transport = cast("asyncio.Transport", SimpleNamespace(write=written.append))
    fast.ready.append((transport, b"an answer"))
    pipe = service.context.changes._live._pipe
    assert isinstance(pipe, Pipe)
    await pipe.call("PING")
    asked = pipe.call("PING")
    gathered = len(pipe._outgoing)

    service.context.steps.make_way()

    assert (written, fast.ready) == ([b"an answer"], [])
    assert (gathered, pipe._outgoing) == (1, [])
    assert await asked == b"PONG"
    service.context.steps.first.remove(fast.leave)


@pytest.mark.parametrize("asked", [True, False], ids=["checks are asked", "nobody asks"])
async def test_steps_leave_checks_as_much_time_as_they_take(asked, monkeypatch):
    """What is ready leaves before each step; while checks come, the loop has a pause after some steps."""
    left, paused = list[int](), list[float]()
    loop = asyncio.get_running_loop()
    steps = Steps(lambda: left.append(1))

    async def call() -> None:
        for _ in range(10):
            steps.asked_at = loop.time() if asked else -1.0
            time.sleep(AT_A_STRETCH_S)
            await asyncio.sleep(0)

    later = loop.call_later

    def noting(_: Any, delay: float, call: Callable[..., None], *more: Any) -> asyncio.TimerHandle:
        if getattr(call, "__self__", None) is steps:
            paused.append(delay)
        return later(delay, call, *more)

    monkeypatch.setattr(type(loop), "call_later", noting)
    await _whole(Stepwise(call(), steps, "one"))

    assert len(left) == 11
    assert len(paused) == (10 if asked else 0)
    assert sum(paused) >= len(paused) * AT_A_STRETCH_S


async def test_a_call_made_in_steps_ends_as_it_would_by_itself():
    """Its answer, its error, its time-out, its end when it is called off, and what it does about them."""
    steps, ended = Steps(), list[str]()

    async def well() -> str:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(60)
        return "done"

    async def badly() -> None:
        await asyncio.sleep(0)
        raise LookupError("gone")

    async def for_ever() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("called off")
            raise

    made = [asyncio.create_task(_whole(Stepwise(each(), steps, "one"))) for each in (well, badly, for_ever)]
    await asyncio.wait(made[:2])
    made[2].cancel()
    found = await asyncio.gather(*made, return_exceptions=True)

    assert found[0] == "done"
    assert [type(each) for each in found[1:]] == [LookupError, asyncio.CancelledError]
    assert ended == ["called off"]


async def _whole(made: Stepwise[Any]) -> Any:
    return await made


def test_refusals_of_tokens_that_are_none_leave_at_a_pace():
    """A few at once; then one after the other, however many ask, and no longer off than that. Another address does not wait."""
    now = [0.0]
    limits = Bounds(Rates(), clock=lambda: now[0])
    burst = int(STRANGERS_BURST_S * REFUSALS_PER_S)

    waits = [limits.stranger_s("192.0.2.1") for _ in range(burst + 10_000)]
    other = limits.stranger_s("192.0.2.2")
    now[0] += 60

    assert set(waits[: burst + 1]) == {0.0}
    assert waits[burst + 1 : burst + 4] == pytest.approx([each / REFUSALS_PER_S for each in (1, 2, 3)])
    assert max(waits) == pytest.approx(MOST_PENALTY_S)
    assert (other, limits.stranger_s("192.0.2.1")) == (0.0, 0.0)


async def test_whose_refusals_are_held_back_makes_room_for_others(port: int, tenant: Tenant, monkeypatch):
    """Forged tokens on every connection there may be: whoever comes with a genuine one is answered."""
    monkeypatch.setattr(bounds, "STRANGERS_BURST_S", -MOST_PENALTY_S)
    whole = check(tenant, (await tenant.login())["session"]["id"])
    forged = whole.replace(b"Bearer ", b"Bearer x")

    async with lines(port, *[forged] * PLACES) as waiting:
        statuses = []
        for _ in range(3):
            async with lines(port, whole) as (one,):
                statuses.append(await one.status())
        answered = sum(bool(each.reader._buffer) for each in waiting)  # type: ignore[attr-defined] # without waiting

    assert statuses == [200] * 3
    assert answered == 0


async def test_who_left_while_waiting_for_a_place_is_not_worked_for(port: int, service: Service, tenant: Tenant):
    """A list is not made for a client that has closed since, at least its half; what changes something is carried out."""
    operator = msgspec.structs.replace(CALLER, subject="tests", tenant=tenant.name, role=Role.SUPERVISOR)
    asked = request(tenant.name, None, path="/v1/members", method="GET", role="supervisor")
    await tenant.login()
    change = request(tenant.name, {"tags": ["new"]}, path="/v1/members/ana", method="PATCH", role="supervisor")
    held = service.context.bounds

    async with lines(port, *[asked] * 3, change) as (stays, leaves, goes, writes):
        statuses = [await each.status() for each in (stays, leaves, goes, writes)]
        async with contextlib.AsyncExitStack() as places:
            for _ in range(bounds.PLACES):
                await places.enter_async_context(held.place(operator))
            for each in (stays, leaves, goes):
                each.writer.write(asked)
            writes.writer.write(change)
            await asyncio.sleep(0.1)  # all of them wait
            leaves.writer.write_eof()
            writes.writer.write_eof()
            goes.writer.transport.abort()
            await asyncio.sleep(0.1)
        last = [await each.status() for each in (stays, leaves, goes, writes)]

    assert (statuses, last) == ([200] * 4, [200, 503, 0, 200])


async def test_files_have_places_of_their_own():
    """Whoever has as many files under way as there are places is shown pages all the same."""
    limits = Bounds(Rates(), clock=lambda: 0.0)
    operator = msgspec.structs.replace(CALLER, role=Role.SUPERVISOR)

    async with contextlib.AsyncExitStack() as files:
        waited = [await files.enter_async_context(limits.place(operator, file=True)) for _ in range(bounds.PLACES)]
        async with asyncio.timeout(5), limits.place(operator) as page:
            waited.append(page)

    assert waited == [False] * (bounds.PLACES + 1)
    assert not limits._places


async def test_an_operator_has_so_many_calls_in_work_and_the_next_waits_for_a_place():
    """Each place is given on, also by one that was called off; platforms wait for none."""
    limits, going = Bounds(Rates(), clock=lambda: 0.0), list[int]()
    operator = msgspec.structs.replace(CALLER, role=Role.SUPERVISOR)
    go_on = asyncio.Event()

    async def call(number: int, caller: Caller) -> None:
        async with limits.place(caller):
            going.append(number)
            await go_on.wait()

    calls = [asyncio.create_task(call(number, operator)) for number in range(bounds.PLACES + 4)]
    platforms = [asyncio.create_task(call(-1, CALLER)) for _ in range(bounds.PLACES + 4)]
    await asyncio.sleep(0.01)
    at_first = sorted(going)
    for each in (calls[0], calls[bounds.PLACES], calls[1]):
        each.cancel()
    await asyncio.sleep(0.01)
    then = sorted(set(going) - set(at_first))
    go_on.set()
    await asyncio.gather(*calls, *platforms, return_exceptions=True)

    assert at_first == [-1] * (bounds.PLACES + 4) + list(range(bounds.PLACES))
    assert then == [bounds.PLACES + 1, bounds.PLACES + 2]
    assert sorted(set(going)) == [-1, *range(bounds.PLACES), *range(bounds.PLACES + 1, bounds.PLACES + 4)]
    assert not limits._places
