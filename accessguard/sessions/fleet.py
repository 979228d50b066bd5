"""Several Valkeys that answer as one: the shards of a cluster, or whichever server is the primary now.

Each command goes to the node that has its key, over that node's own `Pipe`. Which node has which key is asked for at
the first command, when a node says otherwise, and when one is lost; a lost node fails its own commands alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from binascii import crc_hqx
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import hiredis
import msgspec

from accessguard.breaker import Breaker, Store
from accessguard.sessions.pipe import REST_S, Pipe, PipeError, Place, loss_of, settle

SLOTS: Final = 16_384
"""Of a Valkey Cluster (Valkey, "Cluster specification"): CRC16 (XMODEM, which is `crc_hqx`) of a key's hash tag, modulo this."""
HOPS: Final = 4
"""How often a command is sent on: a slot that moves costs two, a node that is gone one more."""
TRY_AGAIN_S: Final = 0.005
SURVEY_S: Final = 1.0
"""How long it may take to find out who has what: new connections to one node after the other. No command waits for it
longer than for an answer."""
MOST_HELD: Final = 10_000
"""Commands that may wait for the first answer to which node has what."""
ASKING: Final = hiredis.pack_command(("ASKING",))
NOT_READY: Final = ("LOADING", "MASTERDOWN", "CLUSTERDOWN")
KEYLESS: Final = frozenset({"PING", "PUBLISH"})
EVERYWHERE: Final = frozenset({"SCRIPT", "FLUSHALL", "FLUSHDB"})


class NodeError(PipeError):
    """One of several servers did not answer; the others may."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """The slots from `first` to `last`, and the primary that has them."""

    first: int = 0
    last: int = SLOTS - 1
    place: Place


class Survey(Protocol):
    """How to find out which node has what."""

    async def ask(self) -> tuple[Span, ...]:
        """Who has which slots now. Raises PipeError when nobody says."""

    async def watch(self, renew: Callable[[], None]) -> None:
        """Call `renew` when something has changed, until cancelled."""


class Node:
    """One server: its connection, and whether it is left alone."""

    def __init__(self, place: Place, *, timeout_s: float) -> None:
        self.place = place
        self.pipe = Pipe(place, timeout_s=timeout_s)
        self.breaker = Breaker(Store.VALKEY, self._probe)

    async def _probe(self) -> None:
        try:
            await self.pipe.call("PING")
        except hiredis.ReplyError as error:
            if str(error).startswith(NOT_READY):
                raise OSError("not ready") from error

    def close(self) -> None:
        """Let go of it."""
        self.breaker.close()
        self.pipe.close()


class Errand:
    """One command on its way: where it belongs (`slot`, None: anywhere), and who hears the answer."""

    __slots__ = ("_fleet", "deadline", "hops", "node", "packed", "slot", "then")

    def __init__(
        self, fleet: Fleet, packed: bytes, slot: int | None, then: Callable[[Any], None], deadline: float
    ) -> None:
        self._fleet = fleet
        self.packed = packed
        self.slot = slot
        self.then = then
        self.deadline = deadline
        self.hops = 0
        self.node: Node | None = None

    def __call__(self, answer: Any) -> None:
        """Hear a node's answer: hand it over, or go on to where it says."""
        if isinstance(answer, (hiredis.ReplyError, OSError)):
            self._fleet.refused(self, answer)
            return
        if self.node is not None:
            self.node.breaker.failures = 0
        self.then(answer)


class Fleet:
    """Takes commands as a `Pipe` does; `timeout_s` is for each node's answer."""

    def __init__(self, survey: Survey, *, timeout_s: float) -> None:
        self._survey = survey
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._slots: list[Node | None] = []
        self._nodes: dict[Place, Node] = {}
        self._held: list[Errand] = []
        self._surveying: asyncio.Task[None] | None = None
        self._rest_until = 0.0
        self._listened: Place | None = None

    def call(self, *command: str | int | bytes) -> asyncio.Future[Any]:
        """The same as `send`; the reply, or the server's error, comes with the future."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(command, settle(future))
        return future

    def send(self, command: tuple[str | int | bytes, ...], then: Callable[[Any], None]) -> None:
        """Send a command to the node of its key, of EVERYWHERE to all nodes that are known, of KEYLESS to any.

        Raises PipeError when that node is out of reach.
        """
        packed = hiredis.pack_command(command)  # type: ignore[arg-type] # its stub forgets int
        if command[0] in EVERYWHERE and self._nodes:
            self._send_everywhere(packed, then)
            return
        named = _key(command)
        self._start(self._errand(packed, None if named is None else slot_of(named), then))

    def write(self, packed: bytes, then: Callable[[Any], None]) -> None:
        """Send a command that is packed already, whose first brace opens the hash tag of its key."""
        self._start(self._errand(packed, slot_of(packed), then))

    @property
    def waiting(self) -> int:
        """Commands that wait for their reply, or for their node to be found."""
        return len(self._held) + sum(node.pipe.waiting for node in self._nodes.values())

    async def place(self, key: str) -> Place:
        """Where the node of a key is. Raises PipeError while nobody knows."""
        if not self._slots:
            await asyncio.wait({self.renew()})
        node = self._slots[slot_of(key.encode())] if self._slots else None
        if node is None:
            self.renew()
            raise NodeError("nobody has this slot")
        return node.place

    async def somewhere(self) -> Place:
        """Some node that is there, and another one than the time before where there is one. Raises PipeError."""
        await asyncio.wait({self.renew(at_once=True)})
        found = [node.place for node in self._nodes.values() if not node.breaker.open]
        if not found:
            raise PipeError("no node is known")
        others = [place for place in found if place != self._listened]
        self._listened = random.choice(others or found)  # noqa: S311 - any will do
        return self._listened

    def holds(self, place: Place) -> bool:
        """Whether it is one of the primaries still."""
        return place in self._nodes

    async def watch(self) -> None:
        """Hear of changes as they happen, until cancelled."""
        await self._survey.watch(lambda: void(self.renew(at_once=True)))

    def leave(self) -> None:
        """Send what has gathered for each node; at the end of the turn by itself."""
        for node in self._nodes.values():
            node.pipe.leave()

    def close(self) -> None:
        """Drop all connections and fail what is under way."""
        if self._surveying is not None:
            self._surveying.cancel()
        for node in self._nodes.values():
            node.close()
        self._fail_held()

    def renew(self, *, at_once: bool = False) -> asyncio.Task[None]:
        """Find out anew who has what; one at a time, and at most every 200 ms where it is not asked for `at_once`."""
        running = self._surveying
        if running is not None and (not running.done() or (not at_once and self._loop.time() < self._rest_until)):
            return running
        self._surveying = self._loop.create_task(self._renewed())
        return self._surveying

    def refused(self, errand: Errand, answer: Exception) -> None:
        """Send an errand on to where a node says, or hand over that it failed."""
        if errand.hops < HOPS and self._loop.time() < errand.deadline:
            errand.hops += 1
            with contextlib.suppress(PipeError):
                if self._sent_on(errand, answer):
                    return
        errand.then(self._heard(errand, answer))

    def _heard(self, errand: Errand, answer: Exception) -> Exception:
        """What a refusal means for the node that gave it: of one that is not ready or not there, NodeError."""
        silent = isinstance(answer, OSError) or str(answer).startswith(NOT_READY)
        if silent and errand.node is not None:
            errand.node.breaker.failed(loss_of(answer))
        if silent or str(answer).startswith("READONLY"):
            self.renew()
        return NodeError("no answer") if silent else answer

    def _sent_on(self, errand: Errand, answer: Exception) -> bool:
        """Whether an errand is under way again. Raises PipeError."""
        word, *rest = str(answer).split(" ")
        if isinstance(answer, OSError):
            return errand.slot is None and self._sent_elsewhere(errand, answer)
        if word == "TRYAGAIN":
            self._loop.call_later(TRY_AGAIN_S, self._restart, errand)
            return True
        if word not in {"MOVED", "ASK"} or errand.node is None:
            return False
        node = self._node(_told(rest[1], errand.node.place))
        if word == "MOVED":
            self._slots[int(rest[0])] = node
            self.renew()
        else:
            node.pipe.write(ASKING, void)
        self._to(node, errand)
        return True

    def _sent_elsewhere(self, errand: Errand, answer: OSError) -> bool:
        """Send what any node may have to another one than the one that failed."""
        if errand.node is not None:
            errand.node.breaker.failed(loss_of(answer))
        others = [node for node in self._nodes.values() if node is not errand.node and not node.breaker.open]
        if not others:
            return False
        self._to(random.choice(others), errand)  # noqa: S311 - any will do
        return True

    def _send_everywhere(self, packed: bytes, then: Callable[[Any], None]) -> None:
        """Send a command to every node; the last answer is the one that is heard."""
        nodes = tuple(self._nodes.values())
        left = len(nodes)

        def heard(answer: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                then(answer)

        for node in nodes:
            try:
                self._to(node, self._errand(packed, None, heard))
            except PipeError as error:
                heard(error)

    def _errand(self, packed: bytes, slot: int | None, then: Callable[[Any], None]) -> Errand:
        return Errand(self, packed, slot, then, self._loop.time() + self._timeout_s)

    def _start(self, errand: Errand) -> None:
        """Send an errand to its node, or hold it until that is known. Raises PipeError."""
        if self._slots:
            self._to(self._node_of(errand), errand)
            return
        if self._loop.time() < self._rest_until or len(self._held) >= MOST_HELD:
            raise PipeError("no node is known")
        if not self._held:
            self._loop.call_later(self._timeout_s, self._fail_held)
        self._held.append(errand)
        self.renew()

    def _restart(self, errand: Errand) -> None:
        try:
            self._start(errand)
        except PipeError as error:
            errand.then(error)

    def _node_of(self, errand: Errand) -> Node:
        """The node that an errand belongs to; where any will do, one that is not left alone. Raises NodeError."""
        if errand.slot is None:
            up = [node for node in self._nodes.values() if not node.breaker.open]
            return random.choice(up or list(self._nodes.values()))  # noqa: S311 - any will do
        node = self._slots[errand.slot]
        if node is None:
            self.renew()
            raise NodeError("nobody has this slot")
        return node

    def _to(self, node: Node, errand: Errand) -> None:
        if node.breaker.open and node.breaker.refused():
            self.renew()
            raise NodeError("left alone")
        errand.node = node
        try:
            node.pipe.write(errand.packed, errand)
        except PipeError as error:
            node.breaker.failed(loss_of(error))
            self.renew()
            raise NodeError("resting after a failure") from error

    def _node(self, place: Place) -> Node:
        node = self._nodes.get(place)
        if node is None:
            node = self._nodes[place] = Node(place, timeout_s=self._timeout_s)
        return node

    async def _renewed(self) -> None:
        """Ask, and send what was held. What was known stays when nobody says."""
        try:
            async with asyncio.timeout(SURVEY_S):
                spans = await self._survey.ask()
            self._take(spans)
        except (OSError, TimeoutError):
            pass
        finally:
            self._rest_until = self._loop.time() + REST_S
        self._send_held()

    def _take(self, spans: tuple[Span, ...]) -> None:
        slots: list[Node | None] = [None] * SLOTS
        for span in spans:
            slots[span.first : span.last + 1] = [self._node(span.place)] * (span.last + 1 - span.first)
        self._slots = slots
        left = {span.place for span in spans}
        for place in [each for each in self._nodes if each not in left]:
            # What it was asked before is answered by then, or has failed.
            self._loop.call_later(2 * self._timeout_s, self._nodes.pop(place).close)

    def _send_held(self) -> None:
        if not self._slots:
            self._fail_held()
            return
        held, self._held = self._held, []
        for errand in held:
            self._restart(errand)

    def _fail_held(self) -> None:
        held, self._held = self._held, []
        for errand in held:
            self._loop.call_soon(errand.then, PipeError("no node is known"))


def slot_of(key: bytes) -> int:
    """The slot of a key, of which a hash tag counts alone."""
    start = key.find(b"{") + 1
    end = key.find(b"}", start) if start else -1
    return crc_hqx(key[start:end] if end > start else key, 0) % SLOTS


async def ask(place: Place, *command: str) -> Any:
    """One server's answer, over a connection for this question alone. Raises PipeError, which a refusal is too."""
    pipe = Pipe(place, timeout_s=SURVEY_S / 4)
    try:
        return await pipe.call(*command)
    except hiredis.ReplyError as error:
        raise PipeError("refused") from error
    finally:
        pipe.close()


def void(_: Awaitable[None] | Any) -> None:
    """Nothing depends on the answer."""


def _key(command: tuple[str | int | bytes, ...]) -> bytes | None:
    """The key of a command (of a script, its first); None for one without."""
    if command[0] in KEYLESS or command[0] in EVERYWHERE:
        return None
    named = command[3] if command[0] in {"EVAL", "EVALSHA"} else command[1]
    return named if isinstance(named, bytes) else str(named).encode()


def _told(address: str, by: Place) -> Place:
    """The place at "host:port" as a node names another one; without a host it is the one that speaks."""
    host, _, port = address.rpartition(":")
    return msgspec.structs.replace(by, host=host or by.host, port=int(port))
