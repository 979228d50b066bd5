"""Live state in Valkey (or Redis): last activity of a member's sessions, and pushed changes.

Nothing here is the only copy of anything: a flush costs speed alone.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import hiredis
import msgspec
from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from accessguard.errors import ErrorCode, GuardError
from accessguard.sessions.channel import follow
from accessguard.sessions.model import BEAT_MS
from accessguard.sessions.pipe import Pipe, Place

HERE: Final = Path(__file__).parent
CHANNEL: Final = "accessguard:changes"
KEY_LIFE_S: Final = 86_400


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was changed, told to every worker after its commit.

    Without `member_id` it is about the whole tenant. `session_ids` are the
    sessions that were opened or ended, if the change is about some.
    """

    tenant: str
    kind: str
    member_id: str | None = None
    session_ids: tuple[str, ...] = ()


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """What a heartbeat found: whether it moved last activity, the value before, and everybody's before, in ms.

    `cold` means that Valkey knew nothing of this member, so that `live` is not all there is.
    """

    moved: bool
    before_ms: int
    cold: bool
    live: Mapping[str, int]


class Live:
    """One client; every call raises GuardError(UNAVAILABLE) when Valkey does not answer within `timeout_s`."""

    def __init__(self, client: Redis, place: Place, *, timeout_s: float) -> None:
        self._client = client
        self._place = place
        self._timeout_s = timeout_s
        self._seed = client.register_script((HERE / "seed.lua").read_text())
        self._beat = (HERE / "beat.lua").read_text()
        self._beat_sha = hashlib.sha1(self._beat.encode(), usedforsecurity=False).hexdigest()
        self._pipe = Pipe(place, timeout_s=timeout_s)

    @classmethod
    def connect(cls, url: str, *, timeout_s: float = 0.1) -> Live:
        """A client for `url` (redis://, rediss:// or unix://); connects at the first call, never retries."""
        client = Redis.from_url(
            url,
            socket_timeout=max(timeout_s, 1.0),
            socket_connect_timeout=1.0,
            max_connections=64,
            retry=Retry(NoBackoff(), 0),
        )
        return cls(client, _place(url), timeout_s=timeout_s)

    async def close(self) -> None:
        """Close every connection."""
        self._pipe.close()
        await self._client.aclose()

    async def ping(self) -> None:
        """Ask for a sign of life."""
        await self._within(self._client.ping())

    async def pulse(self, tenant: str, member_id: str, session_id: str, *, now_ms: int, known_ms: int) -> Pulse:
        """Record one interaction if its beat is due (`now_ms` 0: only look), and read everybody's last activity."""
        values = (1, key(tenant, member_id), session_id, now_ms, known_ms, BEAT_MS, KEY_LIFE_S)
        try:
            moved, last, cold, flat = await self._script(values)
        except (OSError, hiredis.ReplyError) as error:
            raise _out_of_reach() from error
        live = {flat[i].decode(): int(flat[i + 1]) for i in range(0, len(flat), 2)}
        return Pulse(moved=bool(moved), before_ms=int(last), cold=bool(cold), live=live)

    async def seed(self, tenant: str, member_id: str, open_ms: Mapping[str, int], ended: Sequence[str] = ()) -> None:
        """Tell what PostgreSQL knows: last activity (ms) of open sessions, and ids that have ended."""
        pairs = [part for session_id, at in open_ms.items() for part in (session_id, at)]
        values: list[str | int] = [KEY_LIFE_S, len(open_ms), *pairs, *ended]
        await self._within(self._seed(keys=[key(tenant, member_id)], args=values))

    async def take_back(self, tenant: str, member_id: str, session_id: str, before_ms: int) -> None:
        """Undo a beat that the verdict then refused."""
        if before_ms:
            await self._within(self._client.hset(key(tenant, member_id), session_id, str(before_ms)))
        else:
            await self._within(self._client.hdel(key(tenant, member_id), session_id))

    async def publish(self, change: Change) -> None:
        """Tell every worker, on every host."""
        await self._within(self._client.publish(CHANNEL, msgspec.json.encode(change)))

    async def listen(self, on_change: Callable[[Change], None], on_channel: Callable[[bool], None]) -> None:
        """Hand over changes until cancelled; `on_channel` says when the channel is lost and when it is back."""
        await follow(
            self._place,
            CHANNEL,
            on_message=lambda said: on_change(msgspec.json.decode(said, type=Change)),
            on_channel=on_channel,
        )

    async def _script(self, values: tuple[str | int, ...]) -> Any:
        try:
            return await self._pipe.call("EVALSHA", self._beat_sha, *values)
        except hiredis.ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            return await self._pipe.call("EVAL", self._beat, *values)

    async def _within(self, call: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call
        except (RedisError, OSError, TimeoutError) as error:
            raise _out_of_reach() from error


def _out_of_reach() -> GuardError:
    return GuardError(ErrorCode.UNAVAILABLE, "Live state is out of reach; try again shortly.")


def _place(url: str) -> Place:
    """The same address as redis-py reads it."""
    said = parse_url(url)
    return Place(
        path=said.get("path"),
        host=said.get("host", "localhost"),
        port=int(said.get("port", 6379)),
        tls=url.startswith("rediss:"),
        username=said.get("username"),
        password=said.get("password"),
        db=int(said.get("db", 0)),
    )


def key(tenant: str, member_id: str) -> str:
    """The member's key; its hash tag keeps all of a member's keys on one node of a cluster.

    The length in front keeps ("a:b", "c") and ("a", "b:c") apart.
    """
    return f"ag:{{{len(tenant)}:{tenant}:{member_id}}}:live"
