"""A store that does not answer is left alone: calls are refused at once, and one probe on the side finds out when it is back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Any, Final

import structlog

from accessguard.metrics import BREAKER_OPEN, BREAKER_OPENED, BREAKER_REFUSED

MOST_FAILURES: Final = 5
"""Calls in a row that got no answer, those of one lost connection counted once: more than fail by chance, fewer than a pool has connections."""
FIRST_S: Final = 0.05
LONGEST_S: Final = 2.0
"""Waits between two probes: doubled after each, and each anything from half of that to all of it, so that workers that
lost a store together do not come back to it together (exponential backoff with jitter)."""
LOG: Final = structlog.get_logger("accessguard.breaker")


class Store(StrEnum):
    """What a breaker stands in front of."""

    POSTGRES = "postgres"
    VALKEY = "valkey"
    REPLICA = "replica"


class Breaker:
    """One for each store and worker.

    `probe` is a call that goes past the breaker; it raises OSError when the
    store does not answer (or anything else, which is logged and means the
    same), and is bounded in time by itself.
    """

    def __init__(self, store: Store, probe: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.open = False
        self.failures = 0
        self.opened = 0
        self.probes = 0
        self._store = store
        self._probe = probe
        self._probing: asyncio.Task[None] | None = None
        self._loss: object = None
        self._state = BREAKER_OPEN.labels(store)
        self._times = BREAKER_OPENED.labels(store)
        self._refused = BREAKER_REFUSED.labels(store)
        self._state.set(0)

    def refused(self) -> bool:
        """Whether a call must not even be tried; one that must not is counted."""
        if self.open:
            self._refused.inc()
        return self.open

    def succeeded(self) -> None:
        """The store has answered, whatever it said."""
        self.failures = 0

    def failed(self, loss: object = None) -> None:
        """A call got no answer; `loss` is the same for all calls that one lost connection took along, None for a call by itself."""
        if loss is not None and loss is self._loss:
            return
        self._loss = loss
        self.failures += 1
        if self.failures >= MOST_FAILURES and not self.open:
            self._trip()

    def close(self) -> None:
        """Stop asking; the worker ends."""
        if self._probing is not None:
            self._probing.cancel()
        self._state.set(0)

    def _trip(self) -> None:
        self.open = True
        self.opened += 1
        self._state.set(1)
        self._times.inc()
        LOG.warning("store_silent", store=self._store)
        self._probing = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        """Ask now and then until there is an answer."""
        wait_s = FIRST_S
        while self.open:
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - it keeps workers apart, and no secret
            wait_s = min(2 * wait_s, LONGEST_S)
            self.probes += 1
            self.open = not await self._answers()
        self.failures = 0
        self._state.set(0)
        LOG.warning("store_back", store=self._store)

    async def _answers(self) -> bool:
        try:
            await self._probe()
        except OSError:
            return False
        except Exception as error:
            # Whatever it is, somebody has to go on asking: the store would be left alone for ever.
            LOG.exception("probe_failed", store=self._store, exc_info=error)
            return False
        return True
