"""What can go wrong: each fault happens, is there while the load goes on, and is over."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import psutil

from tests.chaos.relay import Line
from tests.chaos.stage import Stage, family, gone, tell

Played: TypeAlias = Callable[[Stage, random.Random], AbstractAsyncContextManager[None]]


class Out(StrEnum):
    """Which promise on checks a fault is judged by: a store is out, nothing may fail, or connections are lost with a process."""

    STORE = "store"
    NOTHING = "nothing"
    PROCESS = "process"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault; `hold_s` is the least and the greatest time for which it lasts."""

    name: str
    out: Out
    play: Played
    hold_s: tuple[float, float] = (2.0, 6.0)


def kill(store: str) -> Played:
    """SIGKILL for the server, and a start afterwards."""

    @contextlib.asynccontextmanager
    async def play(stage: Stage, _: random.Random) -> AsyncIterator[None]:
        everyone = stage.stores.processes(store)
        tell(stage.stores.servers(store), signal.SIGKILL)
        await gone(everyone)
        try:
            yield
        finally:
            await _start(stage, store)

    return play


def restart(store: str) -> Played:
    """An orderly stop, and a start afterwards."""

    @contextlib.asynccontextmanager
    async def play(stage: Stage, _: random.Random) -> AsyncIterator[None]:
        if store == "valkey":
            await stage.stores.valkey.halt()
        elif stage.stores.postgres is not None:
            await stage.stores.postgres.stop()
        try:
            yield
        finally:
            await _start(stage, store)

    return play


def stop(store: str) -> Played:
    """SIGSTOP for all its processes, then SIGCONT."""

    @contextlib.asynccontextmanager
    async def play(stage: Stage, _: random.Random) -> AsyncIterator[None]:
        everyone = stage.stores.processes(store)
        tell(everyone, signal.SIGSTOP)
        try:
            yield
        finally:
            tell(everyone, signal.SIGCONT)

    return play


def cut(store: str, line: Line) -> Played:
    """No connection to it, or connections that say nothing."""

    @contextlib.asynccontextmanager
    async def play(stage: Stage, _: random.Random) -> AsyncIterator[None]:
        await stage.cut(store, line)
        try:
            yield
        finally:
            await stage.cut(store, Line.OPEN)

    return play


async def _start(stage: Stage, store: str) -> None:
    if store == "postgres":
        await stage.stores.start_postgres()
    else:
        await stage.stores.valkey.start()


@contextlib.asynccontextmanager
async def postgres_read_only(stage: Stage, _: random.Random) -> AsyncIterator[None]:
    """As a standby is, or a server whose disk an operator wants to save."""
    async with stage.stores.connected() as db:
        await db.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await db.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            await db.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await db.execute("SELECT pg_reload_conf()")


@contextlib.asynccontextmanager
async def postgres_locked(stage: Stage, _: random.Random) -> AsyncIterator[None]:
    """Tables that somebody else holds: every call waits, and every pool is exhausted."""
    async with stage.stores.connected() as db, db.transaction():
        await db.execute("LOCK TABLE member, session, device, violation_case IN ACCESS EXCLUSIVE MODE")
        yield


@contextlib.asynccontextmanager
async def postgres_disk_full(stage: Stage, _: random.Random) -> AsyncIterator[None]:
    """Not a byte left on PostgreSQL's disk."""
    filler = stage.stores.disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 65536)
    try:
        yield
    finally:
        filler.unlink()
        await asyncio.sleep(0.5)  # a server that gave up is on its way out
        await stage.stores.start_postgres()


@contextlib.asynccontextmanager
async def valkey_flush(stage: Stage, _: random.Random) -> AsyncIterator[None]:
    """FLUSHALL while PostgreSQL is there and nothing waits: in one step, as a slow moment may have made a login wait."""
    async with asyncio.timeout(30):
        while not await stage.stores.valkey.flush_unless_waiting():
            await asyncio.sleep(0.05)
    yield


@contextlib.asynccontextmanager
async def valkey_full(stage: Stage, _: random.Random) -> AsyncIterator[None]:
    """No memory for another byte, and nothing may be evicted."""
    await stage.stores.valkey.limit(1)
    try:
        yield
    finally:
        await stage.stores.valkey.limit(0)


@contextlib.asynccontextmanager
async def both_out(stage: Stage, _: random.Random) -> AsyncIterator[None]:
    """PostgreSQL is killed, Valkey hangs."""
    async with stop("valkey")(stage, _), kill("postgres")(stage, _):
        yield


@contextlib.asynccontextmanager
async def worker_kill(stage: Stage, dice: random.Random) -> AsyncIterator[None]:
    """SIGKILL for one worker."""
    tell([dice.choice(dice.choice(stage.hosts).workers())], signal.SIGKILL)
    yield


@contextlib.asynccontextmanager
async def worker_stop(stage: Stage, dice: random.Random) -> AsyncIterator[None]:
    """One worker is paused for longer than a block may be missed."""
    victim = [dice.choice(dice.choice(stage.hosts).workers())]
    async with _stopped(victim):
        yield


@contextlib.asynccontextmanager
async def host_stop(stage: Stage, dice: random.Random) -> AsyncIterator[None]:
    """The same for a host: its supervisor and all its workers."""
    host = dice.choice(stage.hosts)
    async with _stopped([psutil.Process(host.pid), *host.workers()]):
        yield


@contextlib.asynccontextmanager
async def _stopped(processes: list[psutil.Process]) -> AsyncIterator[None]:
    tell(processes, signal.SIGSTOP)
    try:
        yield
    finally:
        tell(processes, signal.SIGCONT)


@contextlib.asynccontextmanager
async def supervisor_kill(stage: Stage, dice: random.Random) -> AsyncIterator[None]:
    """SIGKILL for a supervisor: its workers end by themselves, and somebody starts it again."""
    host = dice.choice(stage.hosts)
    workers = host.workers()
    tell([psutil.Process(host.pid)], signal.SIGKILL)
    try:
        yield
    finally:
        assert not await gone(workers, 30), "workers that outlive their supervisor"
        await host.restart()


@contextlib.asynccontextmanager
async def host_kill(stage: Stage, dice: random.Random) -> AsyncIterator[None]:
    """SIGKILL for everything on a host, as when its power fails."""
    host = dice.choice(stage.hosts)
    everyone = list(reversed(family(host.pid)))
    tell(everyone, signal.SIGKILL)
    try:
        yield
    finally:
        await gone(everyone[:-1])
        await host.restart()


@contextlib.asynccontextmanager
async def host_cut(stage: Stage, dice: random.Random) -> AsyncIterator[None]:
    """One host reaches neither store, while the other goes on."""
    host = (dice.choice(stage.hosts),)
    for store in ("postgres", "valkey"):
        await stage.cut(store, Line.SILENT, host)
    try:
        yield
    finally:
        for store in ("postgres", "valkey"):
            await stage.cut(store, Line.OPEN, host)


@contextlib.asynccontextmanager
async def host_renew(stage: Stage, dice: random.Random) -> AsyncIterator[None]:
    """SIGHUP: the workers of a host are renewed one by one."""
    host = dice.choice(stage.hosts)
    before = host.workers()
    tell([psutil.Process(host.pid)], signal.SIGHUP)
    async with asyncio.timeout(60):
        while set(before) & set(host.workers()):
            await asyncio.sleep(0.1)
    yield


PAUSE_S: Final = (7.0, 9.0)
FAULTS: Final = (
    Fault(name="postgres killed", out=Out.STORE, play=kill("postgres")),
    Fault(name="postgres stopped", out=Out.STORE, play=stop("postgres"), hold_s=(3.0, 9.0)),
    Fault(name="postgres restarted", out=Out.STORE, play=restart("postgres"), hold_s=(0.0, 1.0)),
    Fault(name="postgres cut off", out=Out.STORE, play=cut("postgres", Line.DEAD), hold_s=(5.0, 9.0)),
    Fault(name="postgres hangs", out=Out.STORE, play=cut("postgres", Line.SILENT), hold_s=(5.0, 9.0)),
    Fault(name="postgres read-only", out=Out.STORE, play=postgres_read_only),
    Fault(name="postgres locked", out=Out.STORE, play=postgres_locked),
    Fault(name="postgres disk full", out=Out.STORE, play=postgres_disk_full),
    Fault(name="valkey killed", out=Out.STORE, play=kill("valkey")),
    Fault(name="valkey stopped", out=Out.STORE, play=stop("valkey"), hold_s=(3.0, 9.0)),
    Fault(name="valkey restarted", out=Out.STORE, play=restart("valkey"), hold_s=(0.0, 1.0)),
    Fault(name="valkey cut off", out=Out.STORE, play=cut("valkey", Line.DEAD), hold_s=(5.0, 9.0)),
    Fault(name="valkey hangs", out=Out.STORE, play=cut("valkey", Line.SILENT), hold_s=(5.0, 9.0)),
    Fault(name="valkey flushed", out=Out.STORE, play=valkey_flush, hold_s=(1.0, 2.0)),
    Fault(name="valkey full", out=Out.STORE, play=valkey_full),
    Fault(name="both out", out=Out.PROCESS, play=both_out),
    Fault(name="worker killed", out=Out.PROCESS, play=worker_kill),
    Fault(name="worker stopped", out=Out.PROCESS, play=worker_stop, hold_s=PAUSE_S),
    Fault(name="supervisor killed", out=Out.PROCESS, play=supervisor_kill, hold_s=(0.5, 3.0)),
    Fault(name="host killed", out=Out.PROCESS, play=host_kill),
    Fault(name="host stopped", out=Out.PROCESS, play=host_stop, hold_s=PAUSE_S),
    Fault(name="host cut off", out=Out.PROCESS, play=host_cut, hold_s=PAUSE_S),
    Fault(name="host renewed", out=Out.NOTHING, play=host_renew, hold_s=(0.0, 1.0)),
)
FLUSHED_IN_OUTAGE: Final = "flushed while logins wait"
"""Played by itself: the one moment at which Valkey may not be flushed (docs/decisions/0006-spool.md)."""
