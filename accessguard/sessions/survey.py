"""Who has what: asked of the nodes of a Valkey Cluster, or of Sentinels."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from accessguard.sessions.channel import follow
from accessguard.sessions.fleet import Span, ask
from accessguard.sessions.pipe import PipeError, Place


class ClusterSurvey:
    """Asks any node of a cluster, those of `seeds` at first."""

    def __init__(self, seeds: Sequence[Place]) -> None:
        self._seeds = tuple(seeds)
        self._known: frozenset[Place] = frozenset()

    async def ask(self) -> tuple[Span, ...]:
        """The primaries and their slots. Raises PipeError."""
        for place in mixed((*self._known, *self._seeds)):
            with contextlib.suppress(PipeError):
                said = await ask(place, "CLUSTER", "SLOTS")
                if said:
                    self._known = frozenset(_node(place, node) for _, _, *nodes in said for node in nodes)
                    return tuple(
                        Span(first=first, last=last, place=_node(place, primary)) for first, last, primary, *_ in said
                    )
        raise PipeError("no node says who has what")

    async def watch(self, renew: Callable[[], None]) -> None:
        """Nodes say so themselves when they are asked for what they do not have."""
        del renew
        await asyncio.Event().wait()


class SentinelSurvey:
    """Asks Sentinels who is the primary of the servers that they know as `name`; `server` is what such a server wants to hear."""

    def __init__(self, sentinels: Sequence[Place], name: str, server: Place) -> None:
        self._sentinels = tuple(sentinels)
        self._name = name
        self._server = server
        self._turn = 0

    async def ask(self) -> tuple[Span, ...]:
        """The primary, which has everything. Raises PipeError."""
        for sentinel in mixed(self._sentinels):
            with contextlib.suppress(PipeError):
                said = await ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
                found = said and msgspec.structs.replace(self._server, host=said[0].decode(), port=int(said[1]))
                # A Sentinel may be behind: who is primary no more does not say that it is (Valkey, "Sentinel client spec").
                if found and (await ask(found, "ROLE"))[0] == b"master":
                    return (Span(place=found),)
        raise PipeError("no Sentinel names a primary")

    async def watch(self, renew: Callable[[], None]) -> None:
        """Hear of every switch from one Sentinel after the other; what was missed meanwhile is asked for."""
        await follow(
            self._sentinel,
            "+switch-master",
            on_message=lambda _: renew(),
            on_channel=lambda up: renew() if up else None,
        )

    async def _sentinel(self) -> Place:
        self._turn += 1
        return self._sentinels[self._turn % len(self._sentinels)]


def mixed(places: Sequence[Place]) -> list[Place]:
    """Each once, in any order."""
    return random.sample(list(dict.fromkeys(places)), len(set(places)))


def _node(speaker: Place, said: Any) -> Place:
    """A node as another one names it; without a name it is that other one itself."""
    host, port = said[0], said[1]
    named = host.decode() if host and host != b"?" else speaker.host
    return msgspec.structs.replace(speaker, host=named, port=int(port))
