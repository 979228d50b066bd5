"""Several workers under one supervisor, in processes of their own: killed, renewed, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import ClientSession, UnixConnector

from tests.api.test_metrics import Samples, read
from tests.journeys.test_kill import KEYS, Process, attempt, call, started
from tests.service import CHROME, LAPTOP, token

DIED = ("accessguard_worker_restarts_total", ("died",))
RENEWED = ("accessguard_worker_restarts_total", ("renewed",))
ALLOWED = ("accessguard_decisions_total", ("none", "check", "allow"))


class Crew(Process):
    """A supervisor with two workers, and its admin port."""

    admin: str
    http: ClientSession
    unix: Path

    def workers(self) -> list[psutil.Process]:
        """The processes that answer, the oldest first."""
        return sorted(psutil.Process(self.process.pid).children(), key=lambda each: each.create_time())

    async def ready(self) -> dict[str, str]:
        """What `/readyz` of the admin port says of each part."""
        async with self.http.get(f"{self.admin}/readyz") as response:
            parts: dict[str, str] = (await response.json())["parts"]
            return parts

    async def scrape(self) -> Samples:
        """What Prometheus reads."""
        async with self.http.get(f"{self.admin}/metrics") as response:
            return read(await response.text())

    async def all_up(self) -> None:
        """Wait until every worker answers."""
        async with asyncio.timeout(60):
            while "down" in (await self.ready()).values():
                await asyncio.sleep(0.05)

    async def becomes(self, name: tuple[str, tuple[str, ...]], value: float) -> None:
        """Wait until a series has this value."""
        async with asyncio.timeout(60):
            while (await self.scrape())[name] != value:
                await asyncio.sleep(0.05)


class Caller:
    """One keep-alive connection that asks without pause, and opens another one only when it is told to."""

    def __init__(self, url: str, bearer: str, session_id: str) -> None:
        host, _, self._port = url.removeprefix("http://").partition(":")
        self._host = host
        body = json.dumps({"session_id": session_id, "ip": LAPTOP, "activity": "lesson_open"}).encode()
        head = f"POST /v1/check HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {bearer}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._request = head.encode() + body
        self.answers = 0
        self.told_to_close = 0

    async def go(self, stop: asyncio.Event, *, pause_s: float = 0.001, once: bool = False) -> None:
        """Ask until `stop`, or with `once` on one connection until it is to be closed; raises whatever goes wrong."""
        while not stop.is_set():
            reader, writer = await asyncio.open_connection(self._host, int(self._port))
            while not stop.is_set():
                writer.write(self._request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                answer = json.loads(await reader.readexactly(length))
                assert head.startswith(b"http/1.1 200"), head
                assert answer["decision"] == "allow", answer
                self.answers += 1
                if b"connection: close" in head:
                    self.told_to_close += 1
                    break
                await asyncio.sleep(pause_s)
            writer.close()
            if once:
                return


def free_port() -> str:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return str(found.getsockname()[1])


@contextlib.asynccontextmanager
async def crew(folder: Path, stores: Any, *, workers: int = 2) -> AsyncIterator[Crew]:
    """A supervisor and its workers (one needs none) that answer, also on a Unix socket."""
    path, admin, unix = folder / "accessguard.toml", free_port(), Path(f"/tmp/ag-{free_port()}.sock")
    path.write_text(f'[server]\ndrain_s = 2\nunix_socket = "{unix}"\n')
    values = KEYS | {"database_url": stores.database_url, "redis_url": stores.redis_url, "admin_port": admin}
    async with (
        started(folder, "serve", "--workers", str(workers), config=str(path), **values) as process,
        ClientSession() as http,
    ):
        made = Crew(process.process, process.url, process.log)
        made.admin, made.http, made.unix = f"http://127.0.0.1:{admin}", http, unix
        yield made
    unix.unlink(missing_ok=True)


class Crews:
    """One after the other: each for as many tests as leave it at work."""

    def __init__(self, folder: Path, stores: Any) -> None:
        self._folder, self._stores = folder, stores
        self._stack = contextlib.AsyncExitStack()
        self._there: Crew | None = None

    async def there(self) -> Crew:
        """The one that is at work, or a new one."""
        if self._there is None or self._there.process.returncode is not None:
            await self.gone()
            self._there = await self._stack.enter_async_context(crew(self._folder, self._stores))
        await self._there.all_up()
        return self._there

    async def gone(self) -> None:
        """End the one that is at work, if there is one."""
        self._there = None
        await self._stack.aclose()


@pytest.fixture(scope="module")
async def crews(service: Any, stores: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Crews]:
    """Three processes take seconds until they answer, so they are shared."""
    made = Crews(tmp_path_factory.mktemp("crews"), stores)
    yield made
    await made.gone()


@pytest.fixture
async def two(crews: Crews) -> Crew:
    """A supervisor and two workers that answer."""
    return await crews.there()


async def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them end within a while."""
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout=20)
    return not alive


@pytest.mark.chaos
async def test_a_worker_that_dies_is_replaced_and_nobody_new_waits_for_it(tenant, two):
    """The other one accepts for it meanwhile; health and metrics tell of it, and no counter falls."""
    platform, first = token(tenant.name, "platform"), await two.scrape()
    _, told = await call(two.http, "POST", f"{two.url}/v1/logins", platform, attempt("ana"))
    for _ in range(20):  # each on a connection of its own, so that both workers have some
        async with ClientSession() as http:
            await call(http, "POST", f"{two.url}/v1/check", platform, _check(told))
    before = await two.scrape()
    victim, other = two.workers()
    victim.kill()
    assert await gone([victim])
    statuses = []
    for _ in range(40):
        async with ClientSession() as http:
            status, _ = await call(http, "POST", f"{two.url}/v1/check", platform, _check(told))
            statuses.append(status)
    await two.becomes(DIED, first[DIED] + 1)
    await two.all_up()
    after, workers, parts = await two.scrape(), two.workers(), await two.ready()

    assert set(statuses) == {200}
    assert before[ALLOWED] == first[ALLOWED] + 20
    assert after[ALLOWED] == first[ALLOWED] + 60
    assert other in workers
    assert len(workers) == 2
    assert parts == dict.fromkeys(("postgres", "valkey", "channel", "worker_1", "worker_2"), "up")


@pytest.mark.chaos
async def test_a_worker_that_hangs_is_replaced_and_nobody_new_waits_for_its_end(tenant, two):
    """The other one takes what waits in its queue; what it held is given up with it."""
    platform, first = token(tenant.name, "platform"), await two.scrape()
    _, told = await call(two.http, "POST", f"{two.url}/v1/logins", platform, attempt("ana"))
    victim, other = two.workers()
    victim.suspend()
    statuses = []
    async with asyncio.timeout(60):
        for _ in range(40):
            async with ClientSession() as http:
                status, _ = await call(http, "POST", f"{two.url}/v1/check", platform, _check(told))
                statuses.append(status)
    hung = victim.is_running()
    await two.becomes(DIED, first[DIED] + 1)
    await two.all_up()
    workers = two.workers()
    why = [line["why"] for line in two.lines() if line["event"] == "worker_died"]

    assert set(statuses) == {200}
    assert hung
    assert victim not in workers
    assert other in workers
    assert why[-1] == "It did not answer for 10 s."


@pytest.mark.chaos
async def test_workers_are_renewed_under_load_without_a_failed_request(tenant, two):
    """Each connection hears `Connection: close` with an answer before it is closed; every check is counted once.

    The Unix socket is shared by all, and there all the time.
    """
    platform, first = token(tenant.name, "platform"), await two.scrape()
    _, told = await call(two.http, "POST", f"{two.url}/v1/logins", platform, attempt("ana"))
    callers = [Caller(two.url, platform, told["session"]["id"]) for _ in range(8)]
    before, stop = two.workers(), asyncio.Event()
    statuses = [await _healthy(two.unix)]
    going = asyncio.gather(*(each.go(stop, pause_s=0.01) for each in callers))
    two.process.send_signal(signal.SIGHUP)
    await two.becomes(RENEWED, first[RENEWED] + 2)
    assert await gone(before)
    stop.set()
    await going
    statuses.append(await _healthy(two.unix))
    await two.all_up()
    after, workers = await two.scrape(), two.workers()

    assert not set(before) & set(workers)
    assert len(workers) == 2
    assert all(each.told_to_close >= 1 for each in callers)
    assert after[ALLOWED] == first[ALLOWED] + sum(each.answers for each in callers)
    assert statuses == [200, 200]


@pytest.mark.chaos
async def test_what_a_worker_starts_does_not_listen(tenant, two):
    """A program that looks up browsers would else keep the port open when everybody else has left, and reset who came."""
    platform = token(tenant.name, "platform")
    said = attempt("ana") | {"user_agent": CHROME.format(time.time_ns() % 1_000_000)}
    await call(two.http, "POST", f"{two.url}/v1/logins", platform, said)
    async with asyncio.timeout(60):
        while not (started_by := [each for worker in two.workers() for each in worker.children()]):
            await asyncio.sleep(0.01)
    found = {each.status for process in started_by for each in process.net_connections("tcp")}

    assert psutil.CONN_LISTEN not in found


@pytest.mark.chaos
async def test_a_port_in_use_is_one_sentence_though_workers_could_share_it(stores, tmp_path, two):
    """SO_REUSEPORT is for workers of one supervisor, not for a second service by mistake."""
    values = KEYS | {"port": two.url.rpartition(":")[2]}
    urls = {"database_url": stores.database_url, "redis_url": stores.redis_url}

    with pytest.raises(AssertionError, match="Cannot listen"):
        async with started(tmp_path, "serve", "--workers", "2", **values, **urls):
            pass


@pytest.mark.chaos
async def test_workers_end_by_themselves_when_their_supervisor_is_killed(tenant, two):
    """In order: what was pending is flushed, and the port is free; a worker that stood still is no exception."""
    platform = token(tenant.name, "platform")
    _, told = await call(two.http, "POST", f"{two.url}/v1/logins", platform, attempt("ana"))
    await call(two.http, "POST", f"{two.url}/v1/check", platform, _check(told))
    workers = two.workers()
    workers[0].suspend()
    two.kill()
    await two.process.wait()
    ended = await gone(workers)

    session = await tenant.see(f"/v1/sessions/{told['session']['id']}")
    with socket.create_server(("127.0.0.1", int(two.url.rpartition(":")[2]))):
        assert ended
    assert session["last_activity_kind"] == "lesson_open"


@pytest.mark.chaos
@pytest.mark.parametrize("many", [1, 2])
async def test_a_stop_answers_whatever_was_asked_and_leaves_nothing(service, tenant, stores, tmp_path, many):
    """Who asks now and then hears with an answer that the connection ends; no request crosses its end.

    Beats are flushed, every process ends, the exit code is 0; the supervisor takes its Unix socket along.
    """
    platform, stop = token(tenant.name, "platform"), asyncio.Event()
    async with crew(tmp_path, stores, workers=many) as all_:
        _, told = await call(all_.http, "POST", f"{all_.url}/v1/logins", platform, attempt("ana"))
        callers = [Caller(all_.url, platform, told["session"]["id"]) for _ in range(60)]
        pauses = [0.2 + number / 200 for number in range(len(callers))]
        asking = [
            asyncio.create_task(each.go(stop, pause_s=pause_s, once=True))
            for each, pause_s in zip(callers, pauses, strict=True)
        ]
        while any(each.answers < 2 for each in callers):
            await asyncio.sleep(0.01)
            assert not any(each.done() for each in asking)
        workers = all_.workers() if many > 1 else []
        all_.process.send_signal(signal.SIGTERM)
        code = await all_.process.wait()
        await asyncio.gather(*asking)
        ended = await gone(workers)
        events = [line["event"] for line in all_.lines()]

    session = await tenant.see(f"/v1/sessions/{told['session']['id']}")
    assert (code, ended) == (0, True)
    assert all(each.told_to_close == 1 for each in callers)
    assert session["last_activity_kind"] == "lesson_open"
    assert events.count("stopping") == many
    assert "worker_killed" not in events
    assert many == 1 or not all_.unix.exists()


async def _healthy(unix: Path) -> int:
    """How a new connection to the Unix socket is answered."""
    async with ClientSession(connector=UnixConnector(str(unix))) as http, http.get("http://a/healthz") as said:
        return said.status


def _check(told: Any) -> dict[str, Any]:
    """A check of the session that a login was told."""
    return {"session_id": told["session"]["id"], "ip": LAPTOP, "activity": "lesson_open"}
