"""Calls that are under way at the same time share one statement: what gathers during one leaves with the next.

Nobody waits for company: with a place free, what has come in the same turn of
the loop leaves at once. See docs/decisions/0002-optimistic-login.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Final, Generic, TypeAlias, TypeVar
from uuid import UUID

from accessguard.errors import ErrorCode, GuardError
from accessguard.sessions.logins import LoginStore
from accessguard.sessions.model import Knock, LoginRows, Reading

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE: Final = 2
"""Statements under way of one kind: while one commits, the next is carried out; more would only make them smaller."""
MOST: Final = 64
"""Calls in one statement: what each adds to its time is felt by all, and from here on there is little left to share."""
FEW: Final = 16
"""So few leave together; of more only half: while PostgreSQL writes these, the worker decides on those. What a statement
costs beside its rows is over a millisecond: with 32 under way a login costs PostgreSQL 375 to 450 us in batches of 16,
490 to 620 in batches of 8, and 330 in batches of all, where either waits for the other (measured without HTTP)."""
WAITING: Final = 2048
"""Calls that may wait: more than a worker can serve before the first of them gives up."""
PATIENCE_S: Final = 5.0
"""How long a call waits, its own statement included: as long as one that goes alone (`database.py`)."""


class Gathering(Generic[T, R]):
    """Hands calls to `carry` in batches of at most `most`, with at most `at_once` batches under way.

    `carry` answers in the order of asking. When it refuses a batch, because
    of one of them, each is carried alone: nobody fails for a companion.
    """

    def __init__(
        self,
        carry: Callable[[Sequence[T]], Coroutine[None, None, Sequence[R]]],
        *,
        at_once: int = AT_ONCE,
        most: int = MOST,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._carry = carry
        self._at_once, self._most, self._patience_s = at_once, most, patience_s
        self._waiting: deque[_Call[T, R]] = deque()
        self._under_way: set[asyncio.Task[Sequence[R]]] = set()
        self._called = False

    async def ask(self, asked: T) -> R:
        """The answer to one call. Raises what `carry` raises, and GuardError(UNAVAILABLE) when it takes too long."""
        if len(self._waiting) >= WAITING:
            raise _unavailable()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R] = loop.create_future()
        self._waiting.append((asked, answer))
        if not self._called:
            self._called = True
            loop.call_soon(self._leave)
        late = loop.call_later(self._patience_s, _give_up, answer)
        try:
            return await answer
        finally:
            late.cancel()

    def _leave(self) -> None:
        """Let batches leave while there is a place for one and somebody to go."""
        self._called = False
        while self._waiting and len(self._under_way) < self._at_once:
            batch = self._batch()
            if batch:
                self._depart(batch)

    def _batch(self) -> Sequence[_Call[T, R]]:
        """The half that has waited longest, without those who gave up."""
        batch: list[_Call[T, R]] = []
        size = min(self._most, max(FEW, len(self._waiting) // 2))
        while self._waiting and len(batch) < size:
            call = self._waiting.popleft()
            if not call[1].done():
                batch.append(call)
        return batch

    def _depart(self, batch: Sequence[_Call[T, R]]) -> None:
        self._under_way.add(task := asyncio.create_task(self._carry(tuple(asked for asked, _ in batch))))
        task.add_done_callback(partial(self._arrive, batch))

    def _arrive(self, batch: Sequence[_Call[T, R]], task: asyncio.Task[Sequence[R]]) -> None:
        self._under_way.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            for (_, answer), result in zip(batch, task.result(), strict=True):
                if not answer.done():
                    answer.set_result(result)
        elif len(batch) > 1 and _of_one(error):
            for call in batch:
                self._depart((call,))
        else:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
        self._leave()


_Call: TypeAlias = tuple[T, "asyncio.Future[R]"]


class Together:
    """Logins that share their statements with whoever logs in at the same time; each stands or falls alone."""

    def __init__(self, store: LoginStore) -> None:
        self._readings = Gathering(store.read_all)
        self._records = Gathering(store.record_all)

    async def read(self, knock: Knock) -> Reading:
        """What one login is decided on."""
        return await self._readings.ask(knock)

    async def record(self, login: LoginRows) -> tuple[UUID, ...] | None:
        """Write one login: its violations, or None when the member has changed or somebody else holds it."""
        return await self._records.ask(login)


def _of_one(error: BaseException) -> bool:
    """Whether a statement failed for what one call asked (or found, that nothing can read), not for the state of the store."""
    away = isinstance(error, GuardError) and error.code is ErrorCode.UNAVAILABLE
    return isinstance(error, Exception) and not away


def _give_up(answer: asyncio.Future[R]) -> None:
    if not answer.done():
        answer.set_exception(_unavailable())


def _unavailable() -> GuardError:
    return GuardError(ErrorCode.UNAVAILABLE, "The database is out of reach; try again shortly.")
