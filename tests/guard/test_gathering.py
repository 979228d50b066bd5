"""Calls that share a statement: who leaves when, and who fails for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from accessguard.errors import ErrorCode, GuardError
from accessguard.guard import gathering as room
from accessguard.guard.gathering import Gathering


class Ferry:
    """Carries numbers and brings back their doubles, when it is let go; `sunk` are numbers it refuses to carry."""

    def __init__(self, *, sunk: int | None = None, code: ErrorCode = ErrorCode.CONFLICT) -> None:
        self.trips: list[tuple[int, ...]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.inside, self.most = 0, 0
        self._sunk, self._code = sunk, code

    async def carry(self, numbers: Sequence[int]) -> Sequence[int]:
        """One trip."""
        self.trips.append(tuple(numbers))
        self.inside += 1
        self.most = max(self.most, self.inside)
        await self.go.wait()
        self.inside -= 1
        if self._sunk in numbers:
            raise GuardError(self._code, "One of them is not carried.")
        return [2 * number for number in numbers]


async def settled(ferry: Ferry, trips: int) -> None:
    """Wait until that many trips have begun."""
    async with asyncio.timeout(5):
        while len(ferry.trips) < trips:
            await asyncio.sleep(0)


async def test_one_alone_leaves_at_once():
    """There is nobody to wait for."""
    ferry = Ferry()

    answer = await Gathering(ferry.carry).ask(1)

    assert (answer, ferry.trips) == (2, [(1,)])


async def test_what_comes_during_a_trip_leaves_with_the_next():
    """Everybody gets their own answer, and nobody is left behind or overtaken."""
    ferry = Ferry()
    ferry.go.clear()
    calls = Gathering(ferry.carry, at_once=1)

    first = asyncio.create_task(calls.ask(0))
    await settled(ferry, 1)
    others = [asyncio.create_task(calls.ask(each)) for each in range(1, 9)]
    await asyncio.sleep(0)
    ferry.go.set()
    answers = await asyncio.gather(first, *others)

    assert answers == [2 * each for each in range(9)]
    assert ferry.trips == [(0,), tuple(range(1, 9))]


async def test_of_many_one_half_is_carried_while_the_other_waits():
    """So that whoever carries and whoever asks are at work at the same time."""
    ferry = Ferry()
    calls = Gathering(ferry.carry, at_once=1)

    await asyncio.gather(*(calls.ask(each) for each in range(64)))

    assert [len(trip) for trip in ferry.trips] == [32, 16, 16]


async def test_a_batch_and_the_batches_under_way_are_bounded():
    """Two hundred at once, ten to a batch, three batches at a time."""
    ferry = Ferry()
    ferry.go.clear()
    calls = Gathering(ferry.carry, at_once=3, most=10)

    asked = [asyncio.create_task(calls.ask(each)) for each in range(200)]
    await settled(ferry, 3)
    ferry.go.set()
    answers = await asyncio.gather(*asked)

    assert answers == [2 * each for each in range(200)]
    assert max(len(trip) for trip in ferry.trips) == 10
    assert ferry.most == 3


async def test_a_refusal_of_one_fails_nobody_else():
    """The batch goes again, each alone; the one that is refused hears why."""
    ferry = Ferry(sunk=3)
    calls = Gathering(ferry.carry)

    answers = await asyncio.gather(*(calls.ask(each) for each in range(5)), return_exceptions=True)

    assert [answers[each] for each in (0, 1, 2, 4)] == [0, 2, 4, 8]
    assert isinstance(answers[3], GuardError)
    assert answers[3].code is ErrorCode.CONFLICT
    assert sorted(ferry.trips[1:]) == [(each,) for each in range(5)]


async def test_a_store_out_of_reach_is_not_asked_again_for_each():
    """It would not answer the next one either."""
    ferry = Ferry(sunk=3, code=ErrorCode.UNAVAILABLE)
    calls = Gathering(ferry.carry)

    answers = await asyncio.gather(*(calls.ask(each) for each in range(5)), return_exceptions=True)

    assert [getattr(answer, "code", None) for answer in answers] == [ErrorCode.UNAVAILABLE] * 5
    assert len(ferry.trips) == 1


async def test_whoever_waits_too_long_gives_up_and_is_not_carried():
    """Behind a store that hangs nobody waits longer than alone; who has gone takes no place when it is back."""
    ferry = Ferry()
    ferry.go.clear()
    calls = Gathering(ferry.carry, at_once=1, patience_s=0.05)

    answers = await asyncio.gather(*(calls.ask(each) for each in range(3)), calls.ask(9), return_exceptions=True)
    late = asyncio.create_task(calls.ask(5))
    await asyncio.sleep(0)
    ferry.go.set()

    assert [getattr(answer, "code", None) for answer in answers] == [ErrorCode.UNAVAILABLE] * 4
    assert await late == 10
    assert ferry.trips == [(0, 1, 2, 9), (5,)]


async def test_who_goes_away_takes_nobody_along():
    """Neither while it waits nor on its way."""
    ferry = Ferry()
    ferry.go.clear()
    calls = Gathering(ferry.carry, at_once=1)

    under_way = [asyncio.create_task(calls.ask(each)) for each in (0, 1)]
    await settled(ferry, 1)
    waiting = [asyncio.create_task(calls.ask(each)) for each in (2, 3)]
    await asyncio.sleep(0)
    under_way[0].cancel()
    waiting[0].cancel()
    await asyncio.sleep(0)
    ferry.go.set()

    assert (await under_way[1], await waiting[1]) == (2, 6)
    assert ferry.trips == [(0, 1), (3,)]


async def test_the_line_is_bounded(monkeypatch):
    """Behind a dead store nothing piles up: one more is refused at once."""
    monkeypatch.setattr(room, "WAITING", 3)
    ferry = Ferry()
    ferry.go.clear()
    calls = Gathering(ferry.carry, at_once=1)
    first = asyncio.create_task(calls.ask(0))
    await settled(ferry, 1)
    line = [asyncio.create_task(calls.ask(each)) for each in (1, 2, 3)]
    await asyncio.sleep(0)

    with pytest.raises(GuardError) as refused:
        await calls.ask(4)
    ferry.go.set()

    assert refused.value.code is ErrorCode.UNAVAILABLE
    assert await asyncio.gather(first, *line) == [0, 2, 4, 6]


async def test_a_mistake_of_ours_reaches_everybody_who_waits_for_it():
    """Nobody is left waiting when a statement fails in a way that nobody thought of."""

    async def carry(numbers: Sequence[int]) -> Sequence[int]:
        raise ZeroDivisionError

    calls = Gathering(carry)

    answers = await asyncio.gather(*(calls.ask(each) for each in range(3)), return_exceptions=True)

    assert [type(answer) for answer in answers] == [ZeroDivisionError] * 3


async def test_what_cannot_be_read_of_one_fails_nobody_else():
    """A driver that stumbles over one row says so with an exception of its own."""

    async def carry(numbers: Sequence[int]) -> Sequence[int]:
        if 1 in numbers:
            raise OverflowError
        return numbers

    calls = Gathering(carry)

    answers = await asyncio.gather(*(calls.ask(each) for each in range(3)), return_exceptions=True)

    assert (answers[0], type(answers[1]), answers[2]) == (0, OverflowError, 2)
