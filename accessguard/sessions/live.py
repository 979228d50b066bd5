"""Live state in Valkey (or Redis): last activity of a member's sessions, and pushed changes.

Nothing here is the only copy of anything: a flush costs speed alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import hiredis
import msgspec
from redis.asyncio.connection import parse_url

from accessguard.breaker import Breaker, Store
from accessguard.errors import ErrorCode, GuardError
from accessguard.metrics import STORE_FAILURES
from accessguard.rules.model import Activity
from accessguard.sessions.channel import follow
from accessguard.sessions.fleet import Fleet, NodeError
from accessguard.sessions.model import BEAT_MS
from accessguard.sessions.pipe import Pipe, Place, loss_of
from accessguard.sessions.survey import ClusterSurvey, SentinelSurvey
from accessguard.timings import Timing
from accessguard.tracing import TRACING

HERE: Final = Path(__file__).parent
CHANNEL: Final = "accessguard:changes"
KEY_LIFE_S: Final = 86_400
RENEWED_MS: Final = 3_600_000
"""A key's life is begun anew at the first beat of a session in each hour."""


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was changed, told to every worker after its commit.

    Without `member_id` it is about the whole tenant. `session_ids` are the
    sessions that were opened or ended, if the change is about some; with
    `blocked` they are those of `device_id`, which an operator blocked, or no longer does, with the `merged_ids` that lead to it;
    with `ended` nothing opens them again. `sent_ms` is when it was pushed (ms since the epoch, by the sender's clock; 0: not
    said). `generation` is the member's after the change, where that is known.
    `erasure`: the member, or the whole tenant, is gone, as the erasure of that id says.
    """

    tenant: str
    kind: str
    member_id: str | None = None
    session_ids: tuple[str, ...] = ()
    blocked: bool | None = None
    device_id: UUID | None = None
    merged_ids: tuple[UUID, ...] = ()
    ended: bool = False
    generation: int = 0
    erasure: UUID | None = None
    sent_ms: int = 0


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """What a heartbeat found: whether it moved last activity, the value before, and everybody's before, in ms.

    `cold` means that Valkey knew nothing of this member, so that `live` is not all there is.
    `kinds` is which of the six everybody's was, where that was asked for.
    """

    moved: bool
    before_ms: int
    cold: bool
    live: Mapping[str, int]
    kinds: Mapping[str, Activity] = msgspec.field(default_factory=dict)


class Ticked(IntEnum):
    """What came of a heartbeat that reads nobody else's: it moved, it was too early, or it was left undone."""

    EARLY = 0
    MOVED = 1
    UNSURE = 2


class Script(msgspec.Struct, frozen=True):
    """A script that Valkey runs as one step, and the name by which it knows it once it has seen it."""

    text: str
    sha: str


def script(name: str, **constants: int) -> Script:
    """The script beside this file, with its constants written in."""
    text = (HERE / name).read_text()
    for constant, value in constants.items():
        text = text.replace(f"{{{constant}}}", str(value))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


BEAT: Final = script("beat.lua")
TICK: Final = script("tick.lua", interval_ms=BEAT_MS, life_s=KEY_LIFE_S, renewed_ms=RENEWED_MS)
TICK_COMMAND: Final = f"*8\r\n$7\r\nEVALSHA\r\n$40\r\n{TICK.sha}\r\n$1\r\n1\r\n$"
"""EVALSHA with one key and four arguments (RESP2), up to the key's length; packing it by hand costs a tenth of hiredis' way."""
MOST_COUNTED: Final = 1_000
"""Open sessions of a member that a steady verdict may have; of more, no beat is sure."""
COUNTS: Final = (*(f"$3\r\n{count:03}\r\n" for count in range(MOST_COUNTED)), "$1\r\n0\r\n")
SEED: Final = script("seed.lua")
TICKED: Final = tuple(Ticked)


LOADING: Final = ("LOADING", "MASTERDOWN", "CLUSTERDOWN")
"""Refusals that mean the same as no answer; any other shows that the server lives."""


class Live:
    """One pipelined connection to each server; every call raises GuardError(UNAVAILABLE) when Valkey does not answer in time.

    A server that does not answer is left alone until it does (`Breaker`). `copies` is on how many replicas' disks what
    `on_disk` waits for must be as well.
    """

    def __init__(self, pipe: Pipe | Fleet, *, timeout_s: float, copies: int) -> None:
        self._pipe = pipe
        self._timeout_s = timeout_s
        self._copies = copies
        self._patient: dict[Place, Pipe] = {}
        self._now, self._said_now = -1, ""
        self.breaker = Breaker(Store.VALKEY, self._probe)
        self._failures = STORE_FAILURES.labels(Store.VALKEY)

    @property
    def waiting(self) -> int:
        """Commands that wait for their reply."""
        return self._pipe.waiting

    @classmethod
    def connect(cls, url: str, *, timeout_s: float = 0.1, copies: int | None = None) -> Live:
        """A client for `url`; connects at the first call, and never sends again what may have been done.

        redis://, rediss:// and unix:// are one server,
        redis+cluster://[user:password@]host:port,host:port a Valkey Cluster and
        redis+sentinel://[user:password@]host:port,host:port/name[/db] the Sentinels of the servers called `name`;
        `valkey` and `rediss` are taken for `redis` there. `copies` None: one where a replica may take over, else none.
        Raises ValueError for an address of another kind.
        """
        found = _topology(url)
        if isinstance(found, Place):
            return cls(Pipe(found, timeout_s=timeout_s), timeout_s=timeout_s, copies=copies or 0)
        return cls(Fleet(found, timeout_s=timeout_s), timeout_s=timeout_s, copies=1 if copies is None else copies)

    def leave(self) -> None:
        """Send what has gathered in this turn of the loop."""
        self._pipe.leave()

    async def close(self) -> None:
        """Close the connections."""
        self.breaker.close()
        self._pipe.close()
        for patient in self._patient.values():
            patient.close()

    async def ping(self) -> None:
        """Ask for a sign of life."""
        await self._call("PING")

    async def pulse(
        self, tenant: str, member_id: str, session_id: str, *, now_ms: int, known_ms: int, kind: str | None = None
    ) -> Pulse:
        """Record one interaction if its beat is due (`now_ms` 0: only look), and read everybody's last activity.

        With a `kind` (any, when it only looks) the kinds of everybody's are kept and read too.
        """
        place, values = key(tenant, member_id), (session_id, now_ms, known_ms, BEAT_MS, KEY_LIFE_S)
        if kind is None:
            moved, before, cold, flat = await self._run(BEAT, (place,), values)
            return Pulse(moved=bool(moved), before_ms=int(before), cold=bool(cold), live=_numbers(flat))
        moved, before, cold, flat, named = await self._run(BEAT, (place, _kinds(place)), (*values, kind))
        kinds = {named[i].decode(): Activity(named[i + 1].decode()) for i in range(0, len(named), 2)}
        return Pulse(moved=bool(moved), before_ms=int(before), cold=bool(cold), live=_numbers(flat), kinds=kinds)

    def tick(
        self, tenant: str, member_id: str, session_id: str, times: tuple[int, int, int], then: Callable[[Any], None]
    ) -> None:
        """Record one interaction where nobody else's matters; `then` hears an answer that `ticked` reads.

        `times` are now and last activity as it is known here (ms, 0: never),
        and the number of the member's open sessions. Raises
        GuardError(UNAVAILABLE) when Valkey is out of reach.
        """
        place, (now, known, count) = key(tenant, member_id), times
        if now != self._now:
            self._now, self._said_now = now, f"$13\r\n{now:013}\r\n$13\r\n"
        # numbers of a fixed width, so that theirs need not be counted
        numbers = f"{self._said_now}{known:013}\r\n{COUNTS[count if count < MOST_COUNTED else -1]}"
        size, length = _bytes_of(place), _bytes_of(session_id)
        asked = f"{TICK_COMMAND}{size}\r\n{place}\r\n${length}\r\n{session_id}\r\n{numbers}"
        if self.breaker.open and self.breaker.refused():
            raise _out_of_reach()
        try:
            self._pipe.write(asked.encode(), then)
        except OSError as error:
            self._failed(error)
            raise _out_of_reach() from error

    def ticked(self, answer: Any) -> tuple[Ticked, int]:
        """What came of a beat, and last activity (ms); UNSURE is also what Valkey did not answer in time."""
        if type(answer) is list:
            self.breaker.failures = 0
            return TICKED[answer[0]], answer[1]
        if isinstance(answer, OSError):
            self._failed(answer)
        if isinstance(answer, hiredis.ReplyError) and str(answer).startswith("NOSCRIPT"):
            with contextlib.suppress(OSError):  # the next beat finds it
                self._pipe.send(("SCRIPT", "LOAD", TICK.text), _unheard)
        return Ticked.UNSURE, 0

    async def seed(self, tenant: str, member_id: str, open_ms: Mapping[str, int], ended: Sequence[str] = ()) -> None:
        """Tell what PostgreSQL knows: last activity (ms) of open sessions, and ids that have ended."""
        pairs = [part for session_id, at in open_ms.items() for part in (session_id, at)]
        await self._run(SEED, (key(tenant, member_id),), (KEY_LIFE_S, len(open_ms), *pairs, *ended))

    def forget(self, tenant: str, member_id: str, session_ids: Sequence[str]) -> None:
        """Let go of sessions that have ended, with the next thing that is sent; nothing depends on its being heard."""
        if self.breaker.open:
            return
        with contextlib.suppress(OSError):
            self._pipe.send(("HDEL", key(tenant, member_id), *session_ids), _unheard)

    async def erase(self, tenant: str, member_id: str) -> None:
        """Let go of everything that is known of a member, and be sure of it."""
        place = key(tenant, member_id)
        await self._call("DEL", place, _kinds(place))

    async def take_back(
        self, tenant: str, member_id: str, session_id: str, before_ms: int, *, kind: str | None = None
    ) -> None:
        """Undo a beat that the verdict then refused; `kind` is the one before it ("": there was none), None where none is kept."""
        place = key(tenant, member_id)
        if kind is not None:
            await self._call(
                *(("HSET", _kinds(place), session_id, kind) if kind else ("HDEL", _kinds(place), session_id))
            )
        if before_ms:
            await self._call("HSET", place, session_id, before_ms)
        else:
            await self._call("HDEL", place, session_id)

    async def publish(self, change: Change) -> None:
        """Tell every worker, on every host."""
        await self._call("PUBLISH", CHANNEL, msgspec.json.encode(change))

    async def listen(self, on_change: Callable[[Change], None], on_channel: Callable[[bool], None]) -> None:
        """Hand over changes until cancelled; `on_channel` says when the channel is lost and when it is back."""
        following = follow(
            self._pipe.somewhere,
            CHANNEL,
            on_message=lambda said: on_change(msgspec.json.decode(said, type=Change)),
            on_channel=on_channel,
            still=self._pipe.holds,
        )
        watching = asyncio.create_task(self._pipe.watch())
        try:
            await following
        finally:
            watching.cancel()

    async def ask(self, *command: str | int | bytes) -> Any:
        """The answer to one command."""
        return await self._call(*command)

    async def run(self, what: Script, places: Sequence[str], values: Sequence[str | int | bytes]) -> Any:
        """The answer of one script."""
        return await self._run(what, places, values)

    async def on_disk(self, place: str, *, within_ms: int) -> bool:
        """Wait until what was written before is on Valkey's disk; False when it keeps none (no append-only file).

        Raises GuardError(UNAVAILABLE) when that takes longer.

        Over a connection of its own: the wait holds up whatever comes behind it. The write at `place` makes the wait
        one for everything before it, whoever wrote that.
        """
        if self.breaker.refused():
            raise _out_of_reach()
        try:
            patient = self._patient_at(await self._pipe.place(place), within_ms=within_ms)
            written = patient.call("INCR", place)
            reached = patient.call("WAITAOF", 1, self._copies, within_ms)
            await written
            found: Any = await reached
        except OSError as error:
            raise _out_of_reach() from error
        except hiredis.ReplyError as error:
            if "appendonly" in str(error) or "unknown command" in str(error):
                return False
            raise _out_of_reach() from error
        if int(found[0]) == 0 or int(found[1]) < self._copies:
            raise _out_of_reach()
        return True

    def _patient_at(self, place: Place, *, within_ms: int) -> Pipe:
        """The connection for waiting to a server; that to another one, which had the key before, is let go."""
        if place not in self._patient:
            for patient in self._patient.values():
                patient.close()
            self._patient = {place: Pipe(place, timeout_s=within_ms / 1000 + 0.5, timing=Timing(()))}
        return self._patient[place]

    def _failed(self, error: OSError) -> None:
        """Count a call without an answer; of several servers each is counted by itself."""
        self._failures.inc()
        if not isinstance(error, NodeError):
            self.breaker.failed(loss_of(error))

    async def _traced(self, command: tuple[str | int | bytes, ...]) -> Any:
        """A call inside a span."""
        with TRACING.store(Store.VALKEY):
            return await self._pipe.call(*command)

    async def _run(self, what: Script, places: Sequence[str], values: Sequence[str | int | bytes]) -> Any:
        try:
            return await self._asked("EVALSHA", what.sha, len(places), *places, *values)
        except hiredis.ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise _out_of_reach() from error
        return await self._call("EVAL", what.text, len(places), *places, *values)

    async def _call(self, *command: str | int | bytes) -> Any:
        try:
            return await self._asked(*command)
        except hiredis.ReplyError as error:
            raise _out_of_reach() from error

    async def _asked(self, *command: str | int | bytes) -> Any:
        """The reply, which may be a refusal (hiredis.ReplyError). Raises GuardError(UNAVAILABLE) for none."""
        if self.breaker.refused():
            raise _out_of_reach()
        try:
            answer = await (self._pipe.call(*command) if TRACING.spans is None else self._traced(command))
        except OSError as error:
            self._failed(error)
            raise _out_of_reach() from error
        except hiredis.ReplyError as error:
            if str(error).startswith(LOADING):
                self.breaker.failed()
            else:
                self.breaker.succeeded()
            raise
        self.breaker.succeeded()
        return answer

    async def _probe(self) -> None:
        """Ask for a sign of life, past the breaker. Raises OSError."""
        try:
            await self._pipe.call("PING")
        except hiredis.ReplyError as error:
            if str(error).startswith(LOADING):
                raise OSError("not ready") from error


def _numbers(flat: Sequence[bytes]) -> Mapping[str, int]:
    return {flat[i].decode(): int(flat[i + 1]) for i in range(0, len(flat), 2)}


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _kinds(place: str) -> str:
    """The key of the kinds beside the one of times, on the same node of a cluster; the release before looks at times alone."""
    return place.removesuffix("live") + "kinds"


def _unheard(_: Any) -> None:
    """Nothing depends on the answer."""


def _out_of_reach() -> GuardError:
    return GuardError(ErrorCode.UNAVAILABLE, "Live state is out of reach; try again shortly.")


def _topology(url: str) -> Place | ClusterSurvey | SentinelSurvey:
    """What an address names. Raises ValueError."""
    scheme, _, rest = url.partition("://")
    server, _, kind = scheme.replace("valkey", "redis").partition("+")
    if not kind:
        return _place(f"{server}://{rest}")
    login, at, rest = rest.rpartition("@")
    hosts, _, path = rest.partition("/")
    places = [_place(f"{server}://{login}{at}{host}") for host in hosts.split(",")]
    if kind == "cluster" and not path:
        return ClusterSurvey(places)
    name, _, db = path.partition("/")
    if kind != "sentinel" or not name:
        raise ValueError("unknown kind of address")
    sentinels = [msgspec.structs.replace(place, username=None, password=None) for place in places]
    return SentinelSurvey(sentinels, name, msgspec.structs.replace(places[0], db=int(db or 0)))


def _place(url: str) -> Place:
    """The same address as redis-py reads it."""
    said = parse_url(url)
    return Place(
        path=said.get("path"),
        host=said.get("host", "localhost"),
        port=int(said.get("port", 6379)),
        tls=url.startswith("rediss:"),
        ca_file=_file(said, "ssl_ca_certs"),
        cert_file=_file(said, "ssl_certfile"),
        key_file=_file(said, "ssl_keyfile"),
        username=said.get("username"),
        password=said.get("password"),
        db=int(said.get("db", 0)),
    )


def _file(said: Mapping[str, object], name: str) -> str | None:
    return None if said.get(name) is None else str(said[name])


def key(tenant: str, member_id: str) -> str:
    """The member's key; its hash tag keeps all of a member's keys on one node of a cluster.

    The length in front keeps ("a:b", "c") and ("a", "b:c") apart.
    """
    return f"ag:{{{len(tenant)}:{tenant}:{member_id}}}:live"
