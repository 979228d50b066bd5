"""A store that does not answer is left alone, and asked on the side until it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from accessguard.breaker import MOST_FAILURES, Breaker, Store
from accessguard.database import MOST_WAITING, Database
from accessguard.errors import ErrorCode, GuardError


class Silent:
    """A store that a test lets answer."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.asked = 0
        self.at_once = 0

    async def probe(self) -> None:
        """Answer once it may."""
        self.asked += 1
        self.at_once += 1
        assert self.at_once == 1
        await asyncio.sleep(0)
        self.at_once -= 1
        if not self.answers.is_set():
            raise OSError("silence")


async def test_it_opens_after_a_few_failures_in_a_row_and_closes_with_an_answer():
    """An answer in between begins the count anew; what comes while it is open is refused and asks nobody."""
    store = Silent()
    breaker = Breaker(Store.POSTGRES, store.probe)
    for _ in range(MOST_FAILURES - 1):
        breaker.failed()
    breaker.succeeded()
    for _ in range(MOST_FAILURES - 1):
        breaker.failed()
    before = breaker.refused()
    breaker.failed()

    during = [breaker.refused() for _ in range(1000)]
    asked = store.asked
    store.answers.set()
    async with asyncio.timeout(30):
        while breaker.open:
            await asyncio.sleep(0.01)

    assert (before, set(during), asked) == (False, {True}, 0)
    assert (breaker.refused(), breaker.opened) == (False, 1)


async def test_one_probe_at_a_time_goes_out_however_many_calls_fail():
    """Calls that were under way when it opened start no second one."""
    store = Silent()
    breaker = Breaker(Store.VALKEY, store.probe)
    for _ in range(100):
        breaker.failed()

    async with asyncio.timeout(30):
        while store.asked < 3:
            await asyncio.sleep(0.01)
    store.answers.set()
    async with asyncio.timeout(30):
        while breaker.open:
            await asyncio.sleep(0.01)

    assert breaker.opened == 1
    assert store.asked == breaker.probes


async def test_calls_that_one_loss_took_along_count_once():
    """However many were under way; the next loss is another one."""
    store = Silent()
    breaker = Breaker(Store.VALKEY, store.probe)
    one, two = object(), object()
    for loss in (one,) * 100 + (two,) * 100:
        breaker.failed(loss)

    assert (breaker.open, breaker.failures) == (False, 2)


async def test_a_probe_that_fails_for_a_reason_nobody_thought_of_is_asked_again():
    """Left alone for ever is what a store never is."""
    asked = 0

    async def probe() -> None:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise ValueError("nobody thought of this")

    breaker = Breaker(Store.POSTGRES, probe)
    for _ in range(MOST_FAILURES):
        breaker.failed()
    async with asyncio.timeout(30):
        while breaker.open:
            await asyncio.sleep(0.01)

    assert (breaker.open, breaker.opened, asked) == (False, 1, 3)


@pytest.fixture
async def small(database_url: str) -> AsyncIterator[Database]:
    """A pool of one connection."""
    made = await Database.connect(database_url, size=1, timeout_s=20)
    yield made
    await made.close()


async def test_a_pool_that_is_in_use_refuses_in_the_end_and_is_no_dead_server(small):
    """Whoever waits too long is told to come back; the breaker stays closed, as the server answers."""
    async with small.transaction() as busy:
        with pytest.raises(GuardError) as caught:
            await small.value("SELECT 1", timeout_s=0.05)
        inside = await busy.value("SELECT 2")

    assert (caught.value.code, inside) == (ErrorCode.UNAVAILABLE, 2)
    assert (small.breaker.open, small.breaker.failures) == (False, 0)
    assert await small.value("SELECT 3") == 3


async def test_the_queue_for_a_connection_is_bounded(small):
    """Whoever comes when it is full is refused at once, and not only when his time is over."""
    async with small.transaction():
        waiting = [asyncio.create_task(small.value("SELECT 1")) for _ in range(MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(GuardError):
            await small.value("SELECT 1", timeout_s=60)
        others = [each for each in waiting if not each.done()]
    results = await asyncio.gather(*waiting, return_exceptions=True)

    assert len(others) == MOST_WAITING
    assert results.count(1) + sum(isinstance(each, GuardError) for each in results) == MOST_WAITING


async def test_a_statement_that_takes_too_long_is_cancelled_and_its_connection_used_again(small):
    """Nothing of it is left in the server, and the next call needs no new process there."""
    pid = await small.value("SELECT pg_backend_pid()")

    with pytest.raises(GuardError):
        await small.value("SELECT pg_sleep(600)", timeout_s=0.05)

    assert await small.value("SELECT pg_backend_pid()") == pid
