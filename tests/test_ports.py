"""What a listening socket gives to the connections that are accepted from it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from accessguard.config import Config, Server
from accessguard.ports import MOST_UNSENT, listening
from accessguard.serving import Door
from tests.service import Service

WAITS = 4 * MOST_UNSENT
"""Bytes: what is on its way, and what the kernel rounds up to, come to that; without a bound there are megabytes."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps this for each connection")


@contextlib.contextmanager
def slow_reader(port: int) -> Iterator[socket.socket]:
    """One that reads nothing."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        yield client


def taken(connection: socket.socket) -> int:
    """How much the kernel takes for a reader of nothing."""
    connection.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += connection.send(b"x" * 65_536)
    return sent


def test_the_kernel_takes_little_for_who_reads_nothing():
    """What waits there is lost when the connection ends, and is memory that no bound of ours counts."""
    with (
        listening(Server(host="127.0.0.1", port=0), 2) as ports,
        slow_reader(ports.slots[0][0].getsockname()[1]),
        contextlib.ExitStack() as stack,
    ):
        for each in ports.all:
            each.setblocking(False)
        found = None
        while found is None:
            for each in ports.all:
                with contextlib.suppress(BlockingIOError):
                    found = stack.enter_context(each.accept()[0])

        assert MOST_UNSENT <= taken(found) <= WAITS


async def test_so_does_the_only_worker(service: Service):
    """It listens by itself, and asks for the same."""
    said = Config(server=Server(host="127.0.0.1", port=0))
    door = Door(service.context, said)
    await door.set_up()
    try:
        url = await door.open(said)
        with slow_reader(int(url.rpartition(":")[2])) as client:
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n" * 8)
            port = client.getsockname()[1]
            before = -1
            while (waits := queued(port)) != before or not waits:
                before = waits
                await asyncio.sleep(0.1)
    finally:
        await door.close()

    assert waits <= WAITS


def queued(client: int) -> int:
    """Bytes that wait in the kernel for who has this port (proc(5), /proc/net/tcp: tx_queue)."""
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines():
        _, _, remote, _, queues, *_ = line.split()
        if remote.endswith(f":{client:04X}"):
            return int(queues.partition(":")[0], 16)
    return 0
