"""Published keys of callers' tokens, fetched on the side: no request ever waits for their source.

A source that is out changes nothing for a day (`max_age_s`): the keys that it
gave last are in use, and it is asked again, ever more seldom. Whoever shows a
`kid` that there is not has it asked sooner, but once in ten seconds at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import aiohttp
import structlog

from accessguard.metrics import JWKS_AGE, JWKS_FETCHES

URL: Final = "url"
"""The name of this source among those of the keyring."""
REFRESH_S: Final = 300.0
ASK_S: Final = 10.0
"""How soon after one try an unknown `kid` leads to another."""
FIRST_REST_S: Final = 1.0
LONGEST_REST_S: Final = 60.0
TIMEOUT_S: Final = 5.0
LARGEST_BYTES: Final = 262_144
"""Two hundred RSA keys with their certificates; what is larger is no set of keys."""
OK: Final = 200
LOG: Final = structlog.get_logger("accessguard.jwks")


class JwksUrl:
    """One address; `take` gets each set, or None when the last one has become too old, and raises ValueError for one that is none.

    `clock` is a monotonic one (s).
    """

    def __init__(
        self, url: str, take: Callable[[bytes | None], None], *, max_age_s: float, clock: Callable[[], float]
    ) -> None:
        self._url = url
        self._take = take
        self._max_age_s = max_age_s
        self._clock = clock
        self._fetched_at: float | None = None
        self._tried_at = float("-inf")
        self._rest_s = 0.0
        self._asked = asyncio.Event()

    @property
    def up(self) -> bool:
        """Whether there are keys of this source."""
        return self._fetched_at is not None

    def wanted(self) -> None:
        """Hear that somebody shows a key that there is not."""
        if self._clock() - self._tried_at >= ASK_S:
            self._asked.set()

    async def run(self) -> None:
        """Fetch again and again, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._rest_s):
                    await self._asked.wait()
            except TimeoutError:
                pass
            await self.refresh()

    async def refresh(self) -> None:
        """Fetch once; what fails is tried again by `run`."""
        self._tried_at = self._clock()
        self._asked.clear()
        try:
            self._take(await self._fetched())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            self._failed(error)
        else:
            self._fetched_at, self._rest_s = self._clock(), REFRESH_S
            JWKS_FETCHES.labels("done").inc()
        self.measure()

    def measure(self) -> None:
        """Bring the metric up to date."""
        JWKS_AGE.set(-1 if self._fetched_at is None else self._clock() - self._fetched_at)

    def _failed(self, error: Exception) -> None:
        self._rest_s = (
            FIRST_REST_S if self._rest_s >= REFRESH_S else min(max(FIRST_REST_S, 2 * self._rest_s), LONGEST_REST_S)
        )
        JWKS_FETCHES.labels("failed").inc()
        LOG.warning("jwks_failed", error=type(error).__name__)
        if self._fetched_at is not None and self._clock() - self._fetched_at > self._max_age_s:
            self._fetched_at = None
            self._take(None)
            LOG.error("jwks_too_old")

    async def _fetched(self) -> bytes:
        """The document. Raises what aiohttp does, TimeoutError, and ValueError for one that is too long or is not given."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), trust_env=False) as http,
            http.get(self._url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            if answer.status != OK:
                raise ValueError(f"answered {answer.status}")
            found = bytearray()
            async for part in answer.content.iter_chunked(LARGEST_BYTES):
                found += part
                if len(found) > LARGEST_BYTES:
                    raise ValueError("too long")
            return bytes(found)
