"""The subscription: what is pushed arrives, and a loss is known at once, however it comes about."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import msgspec
import pytest

from accessguard.sessions import channel as room
from accessguard.sessions.channel import follow
from accessguard.sessions.live import CHANNEL, Change, Live
from accessguard.sessions.pipe import Place
from tests.sessions.own import Own, own_valkey, until

CUT_S = 0.2
"""By when a closed connection is known."""


class Ear:
    """What a follower heard: messages, and each time the channel was lost (False) or there (True)."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.states: list[bool] = []

    @property
    def up(self) -> bool:
        """Whether the channel is there."""
        return self.states[-1:] == [True]


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Own]:
    """One for all tests of this file; each leaves it running."""
    async with own_valkey(tmp_path_factory.mktemp("channel")) as valkey:
        yield valkey


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is a tenth of one: pings, silence, and how long it waits before it tries again."""
    monkeypatch.setattr(room, "PING_S", 0.1)
    monkeypatch.setattr(room, "SILENCE_S", 0.3)


@contextlib.asynccontextmanager
async def following(place: Place) -> AsyncIterator[Ear]:
    """Follow the channel "news" until the end."""
    ear = Ear()

    async def where() -> Place:
        return place

    task = asyncio.create_task(follow(where, "news", on_message=ear.said.append, on_channel=ear.states.append))
    yield ear
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not ear.up


async def test_what_is_pushed_arrives_in_order(shared):
    """From the moment that the channel is said to be there, and nothing of other channels."""
    async with following(shared.place) as ear:
        await until(lambda: ear.up)
        for number in range(300):
            await shared.admin.publish("news", str(number))
            await shared.admin.publish("olds", "x")
        await until(lambda: len(ear.said) >= 300)

    assert ear.said == [str(number).encode() for number in range(300)]
    assert ear.states == [True, False]


async def test_a_burst_and_a_large_message_arrive_whole(shared):
    """However they are cut on the way."""
    long = b"x" * 300_000
    async with following(shared.place) as ear:
        await until(lambda: ear.up)
        await asyncio.gather(*(shared.admin.publish("news", long if n % 10 == 0 else b"%d" % n) for n in range(50)))
        await until(lambda: len(ear.said) == 50)

    assert sorted(ear.said) == sorted(long if n % 10 == 0 else b"%d" % n for n in range(50))


async def test_a_connection_that_is_cut_is_known_at_once(shared, swift):
    """And made again; what comes after that arrives."""
    async with following(shared.place) as ear:
        await until(lambda: ear.up)
        await shared.admin.client_kill_filter(_type="pubsub")
        noticed = await until(lambda: not ear.up)
        await until(lambda: ear.up)
        await shared.admin.publish("news", "after")
        await until(lambda: bool(ear.said))

    assert noticed < CUT_S
    assert (ear.said, ear.states) == ([b"after"], [True, False, True, False])


async def test_a_dead_server_is_known_at_once_and_followed_again_when_it_is_back(tmp_path, swift):
    """Until then, each try that fails says again that the channel is not there."""
    async with own_valkey(tmp_path) as valkey, following(valkey.place) as ear:
        await until(lambda: ear.up)
        began = time.monotonic()
        await valkey.child.kill()
        await until(lambda: not ear.up)
        noticed = time.monotonic() - began
        await until(lambda: len(ear.states) >= 4)
        meanwhile = ear.states[1:]
        await valkey.restart()
        await until(lambda: ear.up)

    assert noticed < CUT_S
    assert not any(meanwhile)


async def test_a_server_that_stands_still_has_lost_the_channel(shared, swift):
    """Its connection stays open, but a ping is not answered; the silence is bounded."""
    async with following(shared.place) as ear:
        await until(lambda: ear.up)
        await asyncio.sleep(0.5)
        quiet = list(ear.states)
        shared.freeze()
        try:
            noticed = await until(lambda: not ear.up)
        finally:
            shared.thaw()
        await until(lambda: ear.up)

    assert quiet == [True]
    assert noticed < 0.3 + 2 * 0.1 + CUT_S


def test_the_silence_of_a_channel_is_noticed_in_less_than_what_a_lost_message_may_cost():
    """5 s, of which the last ping takes one more."""
    assert room.SILENCE_S + room.PING_S < 5


@pytest.mark.parametrize(
    "wrong",
    [pytest.param({"password": "not-it"}, id="password"), pytest.param({"db": 99}, id="database")],
)
async def test_a_refused_greeting_is_no_channel(shared, swift, wrong):
    """It is tried again, and never said to be there for long enough to trust."""
    async with following(msgspec.structs.replace(shared.place, **wrong)) as ear:
        await until(lambda: len(ear.states) >= 3)

    assert not any(ear.states)


async def test_nothing_of_it_is_left_when_it_is_given_up(shared):
    """The server has no subscriber any more."""
    async with following(shared.place) as ear:
        await until(lambda: ear.up)
        before = await shared.admin.pubsub_numsub("news")
    await asyncio.sleep(0.05)

    assert before == [(b"news", 1)]
    assert await shared.admin.pubsub_numsub("news") == [(b"news", 0)]


async def test_a_message_that_is_no_change_costs_the_channel_and_no_more(shared, swift):
    """What it meant to say is not known, so nothing held is worth anything; the next one is heard again."""
    live, changes, states = Live.connect(shared.url), list[Change](), list[bool]()
    listening = asyncio.create_task(live.listen(changes.append, states.append))
    await until(lambda: states == [True])

    await shared.admin.publish(CHANNEL, b"\xffnonsense")
    await until(lambda: states == [True, False, True])
    await live.publish(Change(tenant="t", kind="member_changed", member_id="ana", session_ids=("s",)))
    await until(lambda: bool(changes))
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await live.close()

    assert changes == [Change(tenant="t", kind="member_changed", member_id="ana", session_ids=("s",))]


async def test_a_change_with_more_to_say_than_this_release_knows_is_understood(shared):
    """Workers of two releases share the channel during an update."""
    live, changes, states = Live.connect(shared.url), list[Change](), list[bool]()
    listening = asyncio.create_task(live.listen(changes.append, states.append))
    await until(lambda: states == [True])

    await shared.admin.publish(CHANNEL, b'{"tenant":"t","kind":"new_kind","since":"tomorrow"}')
    await until(lambda: bool(changes))
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await live.close()

    assert changes == [Change(tenant="t", kind="new_kind")]
