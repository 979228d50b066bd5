"""How a connection of the fast lane ends, and what a client costs that does not read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import Any

import pytest
import structlog

from accessguard.api.fastlane import FastLane
from tests.api.lanes import lanes, one, question, replies, request
from tests.service import LAPTOP

# How a connection ends.


@pytest.mark.parametrize("kind", ["held", "made", "batch", "reading", "login", "several", "other last"])
async def test_a_client_that_has_sent_all_it_will_is_answered(both, known, kind):
    """Half-closed right behind the request; then the server closes too, and nothing of the connection is left."""
    name = known.tenant.name
    reading = request(name, None, path="/v1/members/ana", method="GET", role="supervisor")
    made = request(name, question("not-known-yet"))
    asked = {
        "held": known.check(),
        "made": made,
        "batch": known.checks(30),
        "reading": reading,
        "login": request(name, {"member_id": "ana", "outcome": "success", "ip": LAPTOP}, path="/v1/logins"),
        "several": known.check() + made + known.check() + reading + known.checks(3) + known.check(),
        "other last": known.check() + made + reading + reading,
    }[kind]

    talk = await both.talk(both.fast, asked, half_close=True, quiet_s=0.5)

    assert talk.statuses == [200] * asked.count(b" HTTP/1.1\r\n")
    assert talk.closed
    assert both.connections[-1].transport is None


async def test_an_end_that_comes_behind_an_answer_closes_the_connection(both, known, monkeypatch):
    """Also one that is there before aiohttp's task, which has given it, waits for the next request."""
    finish = FastLane.finish_response

    async def quick(self, *answer):
        done = await finish(self, *answer)
        self.eof_received()
        return done

    monkeypatch.setattr(FastLane, "finish_response", quick)
    reader, writer = await asyncio.open_connection("127.0.0.1", both.fast)
    writer.write(request(known.tenant.name, None, path="/nothing", method="GET"))

    answer, rest = await one(reader), await asyncio.wait_for(reader.read(), 5)

    assert (answer.status, rest) == (404, b"")
    writer.close()


@pytest.mark.parametrize(
    "cut", [b"POST /v1/che", b"POST /v1/check HTTP/1.1\r\nHost: h\r\n", "half a body", "half a login"]
)
async def test_a_client_that_stops_in_the_middle_is_let_go(both, known, cut):
    """What came whole before is answered; nothing waits for the rest."""
    if isinstance(cut, str):
        login = {"member_id": "eve", "outcome": "success", "ip": LAPTOP}
        whole = known.check() if "body" in cut else request(known.tenant.name, login, path="/v1/logins")
        cut = whole[:-5]

    talk = await both.talk(both.fast, known.check() + cut, half_close=True, quiet_s=0.5)

    assert (talk.statuses, talk.closed, talk.decided) == ([200], True, 1)


@pytest.mark.parametrize("lane", ["fast", "plain"])
async def test_a_client_that_goes_in_the_middle_of_a_body_is_no_failure(both, known, lane):
    """Its connection is reset while a handler waits for the rest of a body in chunks: nothing is logged."""
    head = known.check().partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"
    with structlog.testing.capture_logs() as logged:
        reader, writer = await asyncio.open_connection("127.0.0.1", getattr(both, lane))
        writer.write(head)
        await asyncio.sleep(0.1)  # its handler waits
        writer.transport.abort()
        await asyncio.sleep(0.1)

    assert (await reader.read(), logged) == (b"", [])


async def test_a_check_whose_caller_is_gone_is_carried_out_all_the_same(service, both, known):
    """As in the other lane: a counted interaction is in Valkey and on its way to PostgreSQL, or in neither."""
    for port in (both.fast, both.plain):
        login = await known.tenant.login()
        session_id = login["session"]["id"]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(known.tenant.name, question(session_id, activity="lesson_open")))
        await asyncio.sleep(0.0005)
        writer.transport.abort()
        await asyncio.sleep(0.1)

        seen = await known.tenant.see(f"/v1/sessions/{session_id}")

        assert seen["last_activity_at"] is not None


async def test_an_idle_connection_is_closed_and_one_in_use_is_not(service, known):
    """The time runs from the last answer, in both lanes."""
    async with lanes(service.context, keepalive_timeout=0.3) as found:
        for port in (found.fast, found.plain):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(6):
                writer.write(known.check())
                assert (await one(reader)).status == 200
                await asyncio.sleep(0.15)
            began = time.monotonic()
            assert await reader.read() == b""
            assert 0.05 < time.monotonic() - began < 0.6
            writer.close()


async def test_a_connection_that_says_nothing_or_half_of_it_is_closed(service, known):
    """Nobody keeps a place by being slow with a head."""
    async with lanes(service.context, keepalive_timeout=0.2) as found:
        for begun in (b"", b"POST /v1/check HTTP/1.1\r\n", known.check()[:-3]):
            reader, writer = await asyncio.open_connection("127.0.0.1", found.fast)
            writer.write(begun)
            began = time.monotonic()
            assert await reader.read() == b""
            assert time.monotonic() - began < 0.8
            writer.close()


async def test_a_slow_body_is_not_cut_by_the_idle_time(service, known):
    """It begins anew with each piece of it."""
    asked = known.check()
    async with lanes(service.context, keepalive_timeout=0.3) as found:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.fast)
        for piece in (asked[:-30], asked[-30:-20], asked[-20:-10], asked[-10:]):
            await asyncio.sleep(0.2)
            writer.write(piece)

        assert (await one(reader)).status == 200
        writer.close()


async def test_a_stop_lets_the_answer_under_way_be_given(service, known, monkeypatch):
    """The connection is closed behind it; what was pipelined further is not begun for ever."""
    began = asyncio.Event()
    decide = service.context.checks.decide

    async def slowly(*asked: Any) -> Any:
        began.set()
        await asyncio.sleep(0.2)
        return await decide(*asked)

    monkeypatch.setattr(service.context.checks, "decide", slowly)
    async with lanes(service.context) as found:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.fast)
        idle, other = await asyncio.open_connection("127.0.0.1", found.fast)
        writer.write(request(known.tenant.name, question("not-known-yet")))
        await began.wait()
    answered, nothing = await reader.read(), await idle.read()
    writer.close()
    other.close()

    assert ([reply.status for reply in replies(answered)], nothing) == ([200], b"")
    assert all(each.transport is None for each in found.connections)


# A client that does not read.


async def test_a_client_that_does_not_read_costs_a_bounded_memory(both, known):
    """Its requests are left in the socket; when it reads at last, it is answered on, and nothing is lost."""
    asked, number = known.checks(20, user_agent="x" * 500), 2500  # 30 MB, more than the buffers of any kernel
    with contextlib.closing(_slow_client(both.fast)) as client:
        loop = asyncio.get_running_loop()
        sending = asyncio.ensure_future(loop.sock_sendall(client, asked * number))
        most = 0
        for _ in range(50):
            await asyncio.sleep(0.01)
            connection = both.connections[-1]
            waiting = len(connection._behind)
            unsent = connection.transport.get_write_buffer_size() if connection.transport else 0
            most = max(most, waiting + unsent)
        stuck = not sending.done()

        answered = await _answers(client, number)
        await sending

    assert stuck
    assert most < 8_000_000
    assert answered == number
    assert both.connections[-1]._surrendered is False


async def test_a_client_that_does_not_read_and_sends_no_more_is_answered_in_the_end(both, known):
    """Half-closed with a thousand requests behind an answer that could not be sent."""
    asked, number = known.checks(50), 400
    with contextlib.closing(_slow_client(both.fast)) as client:
        await asyncio.get_running_loop().sock_sendall(client, asked * number)
        client.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.2)

        answered = await _answers(client, number)
        end = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1), 2)

    assert answered == number
    assert end == b""


def _slow_client(port: int) -> socket.socket:
    """A connection with a small buffer, that is read when the test says so."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    return client


async def _answers(client: socket.socket, number: int) -> int:
    """Read that many answers; how many were 200 and had a body of the right length."""
    loop, data, found = asyncio.get_running_loop(), b"", 0
    while found < number:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            data += await asyncio.wait_for(loop.sock_recv(client, 1 << 20), 5)
            continue
        lines = data[:end].split(b"\r\n")
        size = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"Content-Length"))
        while len(data) < end + 4 + size:
            data += await asyncio.wait_for(loop.sock_recv(client, 1 << 20), 5)
        assert lines[0] == b"HTTP/1.1 200 OK"
        data, found = data[end + 4 + size :], found + 1
    assert data == b""
    return found


async def test_a_client_that_disappears_takes_no_other_with_it(both, known):
    """Answers of one turn leave together; one that cannot be sent does not keep the others back."""
    opened = [await asyncio.open_connection("127.0.0.1", both.fast) for _ in range(40)]
    for number, (_, writer) in enumerate(opened):
        writer.write(known.check() * 3)
        if number % 2:
            writer.transport.abort()

    for reader, writer in opened[::2]:
        assert [(await one(reader)).status for _ in range(3)] == [200] * 3
        writer.close()
