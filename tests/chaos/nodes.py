"""What can go wrong with one node of a Valkey Cluster; the rest is in faults.py."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator
from typing import Final

from redis.exceptions import RedisError

from tests.chaos.faults import FAULTS, PAUSE_S, Fault, Out, Played, kill
from tests.chaos.stage import Stage, family, gone, tell
from tests.chaos.valkeys import Nodes
from tests.sessions.topology import Server, eventually

RELAYED: Final = frozenset({"valkey cut off", "valkey hangs", "host cut off"})
"""Nobody stands between a host and the nodes of a cluster, which name each other's addresses."""


def _nodes(stage: Stage) -> Nodes:
    assert stage.stores.nodes is not None, "this is for a cluster"
    return stage.stores.nodes


async def _chosen(stage: Stage, dice: random.Random, *, of_spool: bool) -> Server:
    """A primary: the one that keeps logins that wait, or any."""
    nodes = _nodes(stage)
    return await nodes.owner() if of_spool else dice.choice(sorted(await nodes.primaries(), key=lambda each: each.port))


def node_kill(*, of_spool: bool = False) -> Played:
    """SIGKILL for a primary; it is started again after a replica has taken over, or before."""

    @contextlib.asynccontextmanager
    async def play(stage: Stage, dice: random.Random) -> AsyncIterator[None]:
        victim = await _chosen(stage, dice, of_spool=of_spool)
        await victim.kill()
        try:
            yield
        finally:
            await victim.start()

    return play


@contextlib.asynccontextmanager
async def node_stop(stage: Stage, dice: random.Random) -> AsyncIterator[None]:
    """SIGSTOP for a primary, long enough for a replica to take over, which it hears of when it goes on."""
    victim = await _chosen(stage, dice, of_spool=False)
    victim.freeze()
    try:
        yield
    finally:
        victim.thaw()


@contextlib.asynccontextmanager
async def replica_kill(stage: Stage, dice: random.Random) -> AsyncIterator[None]:
    """SIGKILL for a replica."""
    found = [each for each in (await _nodes(stage).primaries()).values() if each is not None]
    victim = dice.choice(sorted(found, key=lambda each: each.port))
    await victim.kill()
    try:
        yield
    finally:
        await victim.start()


def fail_over(how: str = "") -> Played:
    """A replica takes the place of its primary, in agreement with it or (TAKEOVER) without asking anybody."""

    @contextlib.asynccontextmanager
    async def play(stage: Stage, dice: random.Random) -> AsyncIterator[None]:
        pairs = sorted((await _nodes(stage).primaries()).items(), key=lambda pair: pair[0].port)
        _, replica = dice.choice(pairs)
        assert replica is not None, "a primary without a replica"
        await replica.admin.execute_command("CLUSTER", "FAILOVER", *filter(None, [how]))
        yield

    return play


@contextlib.asynccontextmanager
async def node_kill_in_outage(stage: Stage, dice: random.Random) -> AsyncIterator[None]:
    """PostgreSQL is out, so that logins wait, and the node is killed that keeps them: its replica has them."""
    async with kill("postgres")(stage, dice):
        await asyncio.sleep(dice.uniform(1.0, 2.0))
        nodes = _nodes(stage)
        victim = await nodes.owner()
        await victim.kill()
        try:
            await eventually(lambda: _took_over(nodes, victim))
            yield
        finally:
            await victim.start()


async def _took_over(nodes: Nodes, victim: Server) -> bool:
    try:
        return await nodes.owner() is not victim
    except (RedisError, AssertionError):
        return False


@contextlib.asynccontextmanager
async def majority_out(stage: Stage, _: random.Random) -> AsyncIterator[None]:
    """Two of three primaries are gone at once: nobody may take over, and what they had cannot be asked for."""
    victims = sorted(await _nodes(stage).primaries(), key=lambda each: each.port)[:2]
    processes = [one for each in victims if each.child for one in family(each.child.pid)]
    tell(processes, signal.SIGKILL)
    await gone(processes)
    try:
        yield
    finally:
        await asyncio.gather(*(each.start() for each in victims))


OF_NODES: Final = (
    Fault(name="node killed", out=Out.STORE, play=node_kill(), hold_s=(3.0, 8.0)),
    Fault(name="node killed, back at once", out=Out.STORE, play=node_kill(), hold_s=(0.0, 0.5)),
    Fault(name="spool's node killed", out=Out.STORE, play=node_kill(of_spool=True), hold_s=(3.0, 8.0)),
    Fault(name="node stopped", out=Out.STORE, play=node_stop, hold_s=PAUSE_S),
    Fault(name="node stopped for a moment", out=Out.STORE, play=node_stop, hold_s=(0.3, 0.6)),
    Fault(name="node failed over", out=Out.STORE, play=fail_over()),
    Fault(name="node taken over", out=Out.STORE, play=fail_over("TAKEOVER")),
    Fault(name="replica killed", out=Out.STORE, play=replica_kill),
    Fault(name="two nodes killed", out=Out.STORE, play=majority_out),
    Fault(name="spool's node killed in an outage", out=Out.PROCESS, play=node_kill_in_outage),
)
ON_A_CLUSTER: Final = (*OF_NODES, *(each for each in FAULTS if each.name not in RELAYED))
