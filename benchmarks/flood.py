"""A flood from one caller, and slow clients: a process of their own, `python -m benchmarks.flood PORT REQUESTS`.

Each connection of the flood has `--depth` requests on their way and sends the
next one as soon as an answer begins, so it asks as fast as it is answered.
Slow clients send a byte of their head every two seconds, or ask for much and
read none of it, or have connected and say nothing more; who is parted with
comes again. It says so when all have come, and when it is ended what was
answered since: statuses with their numbers a second, as JSON.

It runs when nothing else wants its core (SCHED_IDLE), which it shares with the
generator and the stores of the run: what is measured is what the flood does to the
worker, not what it takes from the other side's core. It still asks many times what a caller is allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from benchmarks.fallback import read_records

DRIP_S = 2.0
THERE = "there"
"""What is printed when the flood is on its way."""
AGAIN_S = 0.05
ANSWER = re.compile(rb"HTTP/1\.1 ([0-9]{3})")
LONGEST = len(b"HTTP/1.1 20")
GREEDY = b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n" * 8
SLOW = b"POST /v1/check HTTP/1.1\r\nX: "


class Flooder(asyncio.Protocol):
    """One connection of the flood."""

    def __init__(self, requests: Sequence[bytes], depth: int, statuses: Counter[str]) -> None:
        self._next = cycle(requests)
        self._depth = depth
        self._statuses = statuses
        self._kept = b""
        self.transport: asyncio.Transport | None = None
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self._ask(self._depth)

    def data_received(self, data: bytes) -> None:
        """Ask once more for each answer that begins here."""
        data, begun, end = self._kept + data, 0, 0
        for found in ANSWER.finditer(data):
            self._statuses[found[1].decode()] += 1
            begun, end = begun + 1, found.end()
        self._kept = data[end:][-LONGEST:]
        self._ask(begun)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so."""
        if not self.over.done():
            self.over.set_result(None)

    def _ask(self, times: int) -> None:
        if times and self.transport is not None:
            self.transport.write(b"".join(next(self._next) for _ in range(times)))


async def flood(port: int, requests: Sequence[bytes], depth: int, statuses: Counter[str]) -> None:
    """One connection, again and again."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            _, one = await loop.create_connection(lambda: Flooder(requests, depth, statuses), "127.0.0.1", port)
            await one.over
        except OSError:
            statuses["unconnected"] += 1
        await asyncio.sleep(AGAIN_S)


async def drip(port: int) -> None:
    """A request of which a byte comes now and then, each client's at a time of its own."""
    await asyncio.sleep(random.uniform(0, DRIP_S))
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(SLOW)
            while not reader.at_eof() and not writer.is_closing():
                writer.write(b"x")
                await asyncio.sleep(DRIP_S)
        except OSError:
            pass
        await asyncio.sleep(DRIP_S)


async def lie_unread(port: int) -> None:
    """Much that is asked for, and not read."""
    loop = asyncio.get_running_loop()
    while True:
        one = socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await loop.sock_connect(one, ("127.0.0.1", port))
            await loop.sock_sendall(one, GREEDY)
            await asyncio.sleep(60)
        except OSError:
            await asyncio.sleep(DRIP_S)
        finally:
            one.close()


async def say_nothing(port: int) -> None:
    """A connection, and that is all."""
    while True:
        try:
            reader, _ = await asyncio.open_connection("127.0.0.1", port)
            await reader.read(1)
        except OSError:
            pass
        await asyncio.sleep(DRIP_S)


async def besiege(port: int, requests: Sequence[bytes], *, connections: int, depth: int, slow: int) -> dict[str, float]:
    """All of it until SIGTERM; what was answered a second."""
    stop, statuses = asyncio.Event(), Counter[str]()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    ways = cycle((drip, lie_unread, say_nothing))
    tasks = [asyncio.create_task(next(ways)(port)) for _ in range(slow)]
    shares = [requests[number::connections] or requests for number in range(connections)]
    tasks += [asyncio.create_task(flood(port, share, depth, statuses)) for share in shares]
    while statuses.total() < connections and not stop.is_set():  # noqa: ASYNC110 - nobody tells of answers
        await asyncio.sleep(AGAIN_S)
    await asyncio.sleep(DRIP_S)
    print(THERE, flush=True)
    statuses.clear()
    began = time.monotonic()
    await stop.wait()
    seconds = time.monotonic() - began
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {name: count / seconds for name, count in statuses.items()}


def main() -> None:
    """Besiege what listens on the port of the loopback interface that is named first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("requests", type=Path)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--slow", type=int, default=0)
    said = parser.parse_args()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    requests = [each.data for each in read_records(said.requests)]
    besieging = besiege(said.port, requests, connections=said.connections, depth=said.depth, slow=said.slow)
    print(msgspec.json.encode(uvloop.run(besieging)).decode())


if __name__ == "__main__":
    main()
