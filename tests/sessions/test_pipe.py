"""The pipelined connection: replies in order, nothing that hangs, nothing that is somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import hiredis
import msgspec
import pytest

from accessguard.errors import ErrorCode, GuardError
from accessguard.sessions.live import Live, key
from accessguard.sessions.pipe import AGAIN_S, REST_S, SWEEP_S, Pipe, PipeError, Place
from tests.sessions.own import Own, own_valkey, until

TIMEOUT_S = 0.1
IN_TIME_S = TIMEOUT_S + SWEEP_S + AGAIN_S + 0.05
"""The timeout, once round of the sweeper and once more, and what a busy machine adds."""


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Own]:
    """One for all tests of this file; each leaves it running."""
    async with own_valkey(tmp_path_factory.mktemp("pipe")) as valkey:
        yield valkey


@pytest.fixture
async def pipe(shared: Own) -> AsyncIterator[Pipe]:
    """A connection of its own."""
    async with to(shared.place) as made:
        yield made


@contextlib.asynccontextmanager
async def to(place: Place, *, timeout_s: float = TIMEOUT_S) -> AsyncIterator[Pipe]:
    """A pipe that is closed at the end."""
    made = Pipe(place, timeout_s=timeout_s)
    yield made
    made.close()


async def outcome(pipe: Pipe, *command: str | int) -> Any:
    """The reply, or what went wrong."""
    try:
        return await pipe.call(*command)
    except (PipeError, hiredis.ReplyError) as error:
        return error


async def works(pipe: Pipe) -> float:
    """Wait until it answers; the seconds it took."""
    began = time.monotonic()
    while (answer := await outcome(pipe, "PING")) != b"PONG":
        assert time.monotonic() - began < 3, answer
        await asyncio.sleep(0.01)
    return time.monotonic() - began


@pytest.fixture
def frozen(shared: Own):
    """Freezes the server, and lets it go on at the end whatever happens."""
    yield shared.freeze
    shared.thaw()


async def test_every_caller_gets_its_own_reply(pipe):
    """However many ask in one turn of the loop, and from the first call on, while the connection is being made."""
    answers = [await asyncio.gather(*(pipe.call("ECHO", f"{wave}-{n}") for n in range(500))) for wave in range(6)]

    assert answers == [[f"{wave}-{n}".encode() for n in range(500)] for wave in range(6)]


async def test_replies_of_any_size_stay_in_order(pipe):
    """Small ones between such that take many packets."""
    sizes = [1, 200_000, 0, 70_000, 3] * 6
    for number, size in enumerate(sizes):
        await pipe.call("SET", f"size-{number}", "x" * size)

    answers = await asyncio.gather(*(pipe.call("GET", f"size-{number}") for number in range(len(sizes))))

    assert [len(answer) for answer in answers] == sizes


async def test_a_refused_command_is_its_callers_alone(pipe):
    """Those before and behind it get their replies."""
    answers = await asyncio.gather(
        *(outcome(pipe, "ECHO", n) if n % 3 else outcome(pipe, "NONSENSE") for n in range(90))
    )

    assert [isinstance(answer, hiredis.ReplyError) for answer in answers] == [n % 3 == 0 for n in range(90)]
    assert [answer for answer in answers if isinstance(answer, bytes)] == [b"%d" % n for n in range(90) if n % 3]


async def test_a_caller_that_gives_up_does_not_shift_the_replies(pipe):
    """Before its command is sent, while it is under way, at random, many times over."""
    luck = random.Random(7)
    await works(pipe)
    for _ in range(60):
        tasks = [asyncio.ensure_future(pipe.call("ECHO", n)) for n in range(20)]
        await asyncio.sleep(0 if luck.random() < 0.5 else 0.0002)
        given_up = [task for task in tasks if luck.random() < 0.4 and task.cancel()]
        answers = await asyncio.gather(*tasks, return_exceptions=True)

        for n, (task, answer) in enumerate(zip(tasks, answers, strict=True)):
            assert answer == b"%d" % n or (task in given_up and isinstance(answer, asyncio.CancelledError))


async def test_a_server_that_stops_answering_fails_every_call_in_time(pipe, frozen):
    """Those under way and those that come later; nothing hangs and nothing queues."""
    await works(pipe)
    frozen()
    began = time.monotonic()
    early = [asyncio.ensure_future(outcome(pipe, "ECHO", n)) for n in range(100)]

    answers = await asyncio.gather(*early)
    took = time.monotonic() - began
    later = []
    for _ in range(20):
        began = time.monotonic()
        answers.append(await outcome(pipe, "PING"))
        later.append(time.monotonic() - began)
        await asyncio.sleep(0.02)

    assert {type(answer) for answer in answers} == {PipeError}
    assert max(took, *later) < IN_TIME_S
    assert not pipe._waiting


async def test_a_standstill_of_this_process_is_not_taken_for_one_of_the_server(pipe):
    """Replies that have arrived meanwhile are read before anything is given up."""
    await works(pipe)
    for _ in range(3):
        asked = [asyncio.ensure_future(outcome(pipe, "ECHO", n)) for n in range(5)]
        await asyncio.sleep(0)
        time.sleep(2 * TIMEOUT_S)

        assert await asyncio.gather(*asked) == [b"%d" % n for n in range(5)]


async def test_after_a_standstill_it_goes_on_with_nobodys_old_reply(pipe, frozen, shared):
    """What the server still sends of before belongs to nobody."""
    await works(pipe)
    frozen()
    assert isinstance(await outcome(pipe, "ECHO", "old"), PipeError)
    shared.thaw()

    took = await works(pipe)
    answers = await asyncio.gather(*(pipe.call("ECHO", n) for n in range(50)))

    assert answers == [b"%d" % n for n in range(50)]
    assert took < REST_S + 2 * IN_TIME_S


async def test_a_lost_connection_fails_what_is_under_way_and_is_made_again(pipe, shared):
    """At once, not after the timeout."""
    await works(pipe)
    waiting = asyncio.ensure_future(outcome(pipe, "BLPOP", "nothing", 0))
    await asyncio.sleep(0.01)
    began = time.monotonic()

    await shared.admin.client_kill_filter(_type="normal", skipme=True)

    assert isinstance(await waiting, PipeError)
    assert time.monotonic() - began < TIMEOUT_S / 2
    assert await works(pipe) < REST_S + IN_TIME_S


async def test_a_dead_server_is_not_asked_again_and_again(tmp_path):
    """Refused at once while it rests; found again soon after its restart."""
    async with own_valkey(tmp_path) as valkey, to(valkey.place) as pipe:
        await works(pipe)
        await valkey.child.kill()
        first = await outcome(pipe, "PING")
        began = time.monotonic()
        rest = [await outcome(pipe, "PING") for _ in range(100)]
        took = time.monotonic() - began
        await valkey.restart()

        back = await works(pipe)

    assert {type(answer) for answer in (first, *rest)} == {PipeError}
    assert took < IN_TIME_S
    assert back < REST_S + IN_TIME_S


async def test_closing_it_fails_what_is_under_way(pipe):
    """Nobody waits for ever."""
    await works(pipe)
    waiting = asyncio.ensure_future(outcome(pipe, "BLPOP", "nothing", 0))
    await asyncio.sleep(0.01)

    pipe.close()

    assert isinstance(await waiting, PipeError)


async def test_a_server_without_room_is_tried_again(tmp_path):
    """It says so unasked, and closes; once there is room, all is well."""
    async with own_valkey(tmp_path) as valkey, to(valkey.place) as pipe:
        await valkey.admin.config_set("maxclients", 1)
        refused = await outcome(pipe, "PING")
        await valkey.admin.config_set("maxclients", 100)

        await works(pipe)

    assert isinstance(refused, (PipeError, hiredis.ReplyError))


async def test_what_is_said_unasked_drops_the_connection(pipe, shared):
    """Nothing that comes then can be told from a reply."""
    await works(pipe)

    pipe.data_received(b"+HELLO\r\n")

    assert await works(pipe) < REST_S + IN_TIME_S


@pytest.mark.parametrize("database", [0, 3])
async def test_the_greetings_open_the_right_database_with_the_right_password(tmp_path, database):
    """Before the first command, after a loss too."""
    async with own_valkey(tmp_path) as valkey:
        await valkey.admin.config_set("requirepass", "secret")
        await valkey.admin.execute_command("AUTH", "secret")
        await valkey.admin.aclose()
        place = msgspec.structs.replace(valkey.place, password="secret", db=database)
        async with to(place) as pipe:
            answers = await asyncio.gather(*(pipe.call("SET", f"k{n}", n) for n in range(10)))
            await outcome(pipe, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
            await works(pipe)
            found = await asyncio.gather(*(pipe.call("GET", f"k{n}") for n in range(10)))
            space = await pipe.call("INFO", "keyspace")

    assert answers == [b"OK"] * 10
    assert found == [b"%d" % n for n in range(10)]
    assert f"db{database}:keys=10" in space.decode()


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"password": "not-it"}, id="password"),
        pytest.param({"db": 99}, id="database"),
        pytest.param({"username": "nobody", "password": "not-it"}, id="user"),
    ],
)
async def test_a_refused_greeting_is_no_connection(shared, wrong):
    """Every call fails, in time; nothing is kept in a database that was not meant."""
    await shared.admin.flushall()
    async with to(msgspec.structs.replace(shared.place, **wrong)) as pipe:
        began = time.monotonic()
        answers = [await outcome(pipe, "GET", "k") for _ in range(3)]
        later = [await outcome(pipe, "SET", "k", 1) for _ in range(3)]
        took = time.monotonic() - began
        await asyncio.sleep(0.05)

    assert took < 6 * IN_TIME_S
    assert {type(answer) for answer in later} == {PipeError}
    assert all(answer is None or isinstance(answer, (PipeError, hiredis.ReplyError)) for answer in answers)
    assert await shared.admin.dbsize() == 0


async def test_the_greeting_takes_nothing_from_the_time_of_a_call(shared, frozen):
    """A call that waits for the connection fails when its own time is over."""
    frozen()
    place = msgspec.structs.replace(shared.place, db=1)
    async with to(place) as pipe:
        began = time.monotonic()

        answer = await outcome(pipe, "PING")

    assert isinstance(answer, PipeError)
    assert time.monotonic() - began < IN_TIME_S


async def test_the_script_is_sent_again_when_the_server_has_forgotten_it(shared):
    """After SCRIPT FLUSH, for every one of the calls that had only its name."""
    live = Live.connect(shared.url, timeout_s=1)
    await live.pulse("t", "ana", "s0", now_ms=1000, known_ms=0)
    await shared.admin.script_flush()

    pulses = await asyncio.gather(*(live.pulse("t", "ana", f"s{n}", now_ms=90_000, known_ms=0) for n in range(30)))

    stored = await shared.admin.hgetall(key("t", "ana"))
    await live.close()
    assert [pulse.moved for pulse in pulses] == [True] * 30
    assert stored == {b"s%d" % n: b"90000" for n in range(30)}


async def test_a_standstill_is_unavailable_to_who_uses_it(shared, frozen):
    """Every beat of that time says so in time."""
    live = Live.connect(shared.url, timeout_s=TIMEOUT_S)
    await live.pulse("t", "ben", "s", now_ms=1000, known_ms=0)
    frozen()
    began = time.monotonic()

    beats = [live.pulse("t", "ben", f"s{n}", now_ms=90_000, known_ms=0) for n in range(30)]
    results = await asyncio.gather(*beats, return_exceptions=True)

    took = time.monotonic() - began
    await live.close()
    assert {result.code for result in results if isinstance(result, GuardError)} == {ErrorCode.UNAVAILABLE}
    assert len([result for result in results if isinstance(result, GuardError)]) == 30
    assert took < IN_TIME_S


async def test_a_connection_that_is_lost_with_many_calls_is_one_failure(shared, frozen):
    """A busy worker does not leave a server alone that was late once; calls in the rest after it belong to that loss."""
    live = Live(Pipe(shared.place, timeout_s=TIMEOUT_S), timeout_s=TIMEOUT_S, copies=0)
    await live.ping()

    frozen()
    under_way = await asyncio.gather(*(live.ping() for _ in range(50)), return_exceptions=True)
    resting = await asyncio.gather(*(live.ping() for _ in range(50)), return_exceptions=True)
    failures, opened = live.breaker.failures, live.breaker.opened
    await live.close()

    assert {type(each) for each in (*under_way, *resting)} == {GuardError}
    assert (failures, opened) == (1, 0)


def test_a_place_keeps_its_password_to_itself():
    """It may land in a traceback."""
    assert "secret" not in repr(Place(path="/run/valkey.sock", password="secret"))


async def test_an_address_where_nobody_listens_fails_at_once(tmp_path: Path):
    """And every time."""
    async with to(Place(path=str(tmp_path / "nothing.sock"))) as pipe:
        began = time.monotonic()
        answers = [await outcome(pipe, "PING") for _ in range(5)]
        took = time.monotonic() - began
        await until(lambda: pipe._connecting is None)

    assert {type(answer) for answer in answers} == {PipeError}
    assert took < TIMEOUT_S


@pytest.mark.parametrize("alive", [pytest.param(True, id="answered"), pytest.param(False, id="lost")])
async def test_a_caller_that_stumbles_over_its_reply_takes_nobody_elses(shared, alive):
    """Each of the others still hears its own, or that there is none; the loop hears of the fault."""
    faults: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, said: faults.append(said["exception"]))
    heard: list[Any] = []

    def stumble(_: Any) -> None:
        raise RuntimeError("a fault of the caller")

    try:
        async with to(shared.place) as made:
            await made.call("PING")
            made.send(("PING",), stumble)
            made.send(("PING",), heard.append)
            last = made.call("PING")
            if not alive:
                made.close()
            answers = await asyncio.wait_for(asyncio.gather(last, return_exceptions=True), 1)
    finally:
        loop.set_exception_handler(None)

    assert [type(each) for each in faults] == [RuntimeError]
    assert [isinstance(each, PipeError) for each in (*heard, *answers)] == [not alive] * 2
