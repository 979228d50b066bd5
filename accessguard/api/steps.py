"""Handlers go on one step at a time: between two steps every socket is looked at, and no caller has two before another has one.

A call of an operator is some milliseconds of work, in a dozen steps between
the answers of the stores. Where many are under way, their steps would fall
into one turn of the loop, in which no check is answered. And while checks are
asked, as much time as steps have taken is left to them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, Generic, TypeVar

Answer = TypeVar("Answer")

AT_A_STRETCH_S: Final = 0.001
"""How long steps go on before as long a pause, while checks are asked; the loop's timers have whole milliseconds."""
ASKED_S: Final = 0.02
"""Checks that came within that time are expected to go on."""


class Steps:
    """One in each worker: who goes on next."""

    def __init__(self, *first: Callable[[], None]) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self.first = list(first)
        """What is done before each step: what would leave at the end of the turn leaves now."""
        self.asked_at = -1.0
        """When checks were asked last (s, of the loop's clock)."""
        self._spent_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def spent(self, seconds: float) -> None:
        """Note how long a step took."""
        self._spent_s += seconds

    def make_way(self) -> None:
        """Let what is ready leave."""
        for leave in self.first:
            leave()

    def turn(self, key: str) -> asyncio.Future[None]:
        """What is done when the next step of that caller may be made."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.setdefault(key, deque()).append(future)
        if self._loop is None:
            self._loop = loop
            loop.call_soon(self._next, loop)
        return future

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let one go on, whose caller is then last; or others, for a while."""
        if self._spent_s >= AT_A_STRETCH_S:
            pause_s, self._spent_s = self._spent_s, 0.0
            if loop.time() - self.asked_at < ASKED_S:
                loop.call_later(pause_s, self._next, loop)
                return
        while self._waiting:
            key = next(iter(self._waiting))
            line = self._waiting.pop(key)
            future = line.popleft()
            if line:
                self._waiting[key] = line
            if not future.done():
                future.set_result(None)
                loop.call_soon(self._next, loop)
                return
        self._loop = None


class Stepwise(Generic[Answer]):
    """A coroutine that waits for its caller's turn before each of its steps; to be awaited once."""

    def __init__(self, made: Coroutine[Any, Any, Answer], steps: Steps, key: str) -> None:
        self._made = made
        self._steps = steps
        self._key = key

    def __await__(self) -> Generator[Any, None, Answer]:
        """Hand on what it waits for, and whatever is thrown at it."""
        thrown: BaseException | None = None
        while True:
            try:
                if thrown is None:
                    yield from self._steps.turn(self._key).__await__()
            except GeneratorExit:
                self._made.close()
                raise
            except BaseException as error:  # noqa: BLE001 - its own to deal with
                thrown = error
            self._steps.make_way()
            began = time.perf_counter()
            try:
                asked = self._made.send(None) if thrown is None else self._made.throw(thrown)
            except StopIteration as done:
                answer: Answer = done.value
                return answer
            finally:
                self._steps.spent(time.perf_counter() - began)
            thrown = None
            try:
                yield asked
            except GeneratorExit:
                self._made.close()
                raise
            except BaseException as error:  # noqa: BLE001 - as above
                thrown = error
