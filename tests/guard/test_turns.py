"""One at a time for each key."""

import asyncio

import pytest

from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.turns import Turns


async def test_one_key_is_held_by_one_at_a_time():
    """Twenty want the same; never are two in."""
    turns, inside, most = Turns(), 0, 0

    async def enter():
        nonlocal inside, most
        async with turns.turn("a"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(enter() for _ in range(20)))

    assert most == 1


async def test_two_keys_do_not_wait_for_each_other():
    """While one is held, the other is free."""
    turns = Turns()

    async with asyncio.timeout(1), turns.turn("a"), turns.turn("b"):
        inside = set(turns._locks)

    assert inside == {"a", "b"}


async def test_turns_are_given_on_in_the_order_of_asking():
    """Nobody is overtaken."""
    turns, order = Turns(), []

    async def enter(number):
        async with turns.turn("a"):
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(enter(each) for each in range(10)))

    assert order == [*range(10)]


async def test_one_that_fails_or_gives_up_gives_its_turn_on():
    """Nothing is left behind, neither the lock nor its key."""
    turns = Turns()
    with pytest.raises(RuntimeError):
        async with turns.turn("a"):
            raise RuntimeError

    async with turns.turn("a"):
        waiting = asyncio.create_task(turns.turn("a").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(1), turns.turn("a"):
        pass

    assert turns._locks == {}


async def test_nobody_waits_for_a_turn_for_ever(monkeypatch):
    """Who has waited long enough is told to come again, and leaves the others' order as it is."""
    monkeypatch.setattr("accessguard.guard.turns.PATIENCE_S", 0.01)
    turns = Turns()

    async with turns.turn("a"):
        with pytest.raises(GuardError) as refused:
            async with turns.turn("a"):
                pytest.fail("two are in")
        waiting = turns._locks["a"][1]

    assert refused.value.code is ErrorCode.UNAVAILABLE
    assert waiting == 1
    assert turns._locks == {}
