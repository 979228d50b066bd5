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
async def crew(folder: Path, stores: Any, *, config: str = "") -> AsyncIterator[Crew]:
    """A supervisor and two workers that answer."""
    path = folder / "accessguard.toml"
    path.write_text(config)
    admin = free_port()
    values = KEYS | {"database_url": stores.database_url, "redis_url": stores.redis_url, "admin_port": admin}
    async with (
        started(folder, "serve", "--workers", "2", config=str(path), **values) as process,
        ClientSession() as http,
    ):
        made = Crew(process.process, process.url, process.log)
        made.admin, made.http = f"http://127.0.0.1:{admin}", http
        yield made


async def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them end within a while."""
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout=20)
    return not alive


@pytest.mark.chaos
async def test_a_worker_that_dies_is_replaced_and_nobody_new_waits_for_it(service, tenant, stores, tmp_path):
    """The other one accepts for it meanwhile; health and metrics tell of it, and no counter falls."""
    platform = token(tenant.name, "platform")
    async with crew(tmp_path, stores) as two:
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
        await two.becomes(DIED, 1)
        await two.all_up()
        after, workers, parts = await two.scrape(), two.workers(), await two.ready()

    assert set(statuses) == {200}
    assert before[ALLOWED] == 20
    assert after[ALLOWED] == 60
    assert other in workers
    assert len(workers) == 2
    assert parts == dict.fromkeys(("postgres", "valkey", "channel", "worker_1", "worker_2"), "up")


@pytest.mark.chaos
async def test_a_worker_that_hangs_is_replaced_and_nobody_new_waits_for_its_end(service, tenant, stores, tmp_path):
    """The other one takes what waits in its queue; what it held is given up with it."""
    platform = token(tenant.name, "platform")
    async with crew(tmp_path, stores) as two:
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
        await two.becomes(DIED, 1)
        await two.all_up()
        workers = two.workers()
        why = [line["why"] for line in two.lines() if line["event"] == "worker_died"]

    assert set(statuses) == {200}
    assert hung
    assert victim not in workers
    assert other in workers
    assert why == ["It did not answer for 10 s."]


@pytest.mark.chaos
async def test_workers_are_renewed_under_load_without_a_failed_request(service, tenant, stores, tmp_path):
    """Each connection hears `Connection: close` with an answer before it is closed; every check is counted once."""
    platform = token(tenant.name, "platform")
    async with crew(tmp_path, stores, config="[server]\ndrain_s = 2\n") as two:
        _, told = await call(two.http, "POST", f"{two.url}/v1/logins", platform, attempt("ana"))
        callers = [Caller(two.url, platform, told["session"]["id"]) for _ in range(8)]
        before, stop = two.workers(), asyncio.Event()
        going = asyncio.gather(*(each.go(stop) for each in callers))
        two.process.send_signal(signal.SIGHUP)
        await two.becomes(RENEWED, 2)
        assert await gone(before)
        stop.set()
        await going
        await two.all_up()
        after, workers = await two.scrape(), two.workers()

    assert not set(before) & set(workers)
    assert len(workers) == 2
    assert all(each.told_to_close >= 1 for each in callers)
    assert after[ALLOWED] == sum(each.answers for each in callers)


@pytest.mark.chaos
async def test_a_supervisor_that_is_told_to_stop_leaves_no_process_and_nothing_pending(
    service, tenant, stores, tmp_path
):
    """Both workers flush and end; the exit code is 0."""
    platform = token(tenant.name, "platform")
    async with crew(tmp_path, stores) as two:
        _, told = await call(two.http, "POST", f"{two.url}/v1/logins", platform, attempt("ana"))
        await call(two.http, "POST", f"{two.url}/v1/check", platform, _check(told))
        workers = two.workers()
        two.process.send_signal(signal.SIGTERM)
        code = await two.process.wait()
        ended = await gone(workers)
        events = [line["event"] for line in two.lines()]

    session = await tenant.see(f"/v1/sessions/{told['session']['id']}")
    assert (code, ended, len(workers)) == (0, True, 2)
    assert session["last_activity_kind"] == "lesson_open"
    assert events.count("stopping") == 2
    assert "worker_killed" not in events


@pytest.mark.chaos
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_stop_answers_whatever_was_asked_on_an_open_connection(service, tenant, stores, tmp_path, workers):
    """Who asks now and then hears with an answer that the connection ends; no request crosses its end."""
    platform, stop = token(tenant.name, "platform"), asyncio.Event()
    urls = {"database_url": stores.database_url, "redis_url": stores.redis_url}
    async with started(tmp_path, "serve", "--workers", workers, **KEYS, **urls) as process, ClientSession() as http:
        _, told = await call(http, "POST", f"{process.url}/v1/logins", platform, attempt("ana"))
        callers = [Caller(process.url, platform, told["session"]["id"]) for _ in range(60)]
        pauses = [0.2 + number / 200 for number in range(len(callers))]
        asking = [
            asyncio.create_task(each.go(stop, pause_s=pause_s, once=True))
            for each, pause_s in zip(callers, pauses, strict=True)
        ]
        while any(each.answers < 2 for each in callers):
            await asyncio.sleep(0.01)
        process.process.send_signal(signal.SIGTERM)
        code = await process.process.wait()
        await asyncio.gather(*asking)

    assert code == 0
    assert all(each.told_to_close == 1 for each in callers)


@pytest.mark.chaos
async def test_what_a_worker_starts_does_not_listen(service, tenant, stores, tmp_path):
    """A program that looks up browsers would else keep the port open when everybody else has left, and reset who came."""
    platform = token(tenant.name, "platform")
    async with crew(tmp_path, stores) as two:
        said = attempt("ana") | {"user_agent": CHROME.format(time.time_ns() % 1_000_000)}
        await call(two.http, "POST", f"{two.url}/v1/logins", platform, said)
        async with asyncio.timeout(60):
            while not (started_by := [each for worker in two.workers() for each in worker.children()]):
                await asyncio.sleep(0.01)
        found = {each.status for process in started_by for each in process.net_connections("tcp")}

    assert psutil.CONN_LISTEN not in found


@pytest.mark.chaos
async def test_workers_end_by_themselves_when_their_supervisor_is_killed(service, tenant, stores, tmp_path):
    """In order: what was pending is flushed, and the port is free; a worker that stood still is no exception."""
    platform = token(tenant.name, "platform")
    async with crew(tmp_path, stores) as two:
        _, told = await call(two.http, "POST", f"{two.url}/v1/logins", platform, attempt("ana"))
        await call(two.http, "POST", f"{two.url}/v1/check", platform, _check(told))
        workers = two.workers()
        workers[0].suspend()
        two.kill()
        ended = await gone(workers)

    session = await tenant.see(f"/v1/sessions/{told['session']['id']}")
    with socket.create_server(("127.0.0.1", int(two.url.rpartition(":")[2]))):
        assert ended
    assert session["last_activity_kind"] == "lesson_open"


@pytest.mark.chaos
async def test_a_port_in_use_is_one_sentence_though_workers_could_share_it(service, stores, tmp_path):
    """SO_REUSEPORT is for workers of one supervisor, not for a second service by mistake."""
    async with crew(tmp_path, stores) as two:
        values = KEYS | {"port": two.url.rpartition(":")[2]}
        urls = {"database_url": stores.database_url, "redis_url": stores.redis_url}
        with pytest.raises(AssertionError, match="Cannot listen"):
            async with started(tmp_path, "serve", "--workers", "2", **values, **urls):
                pass


@pytest.mark.chaos
async def test_the_unix_socket_is_shared_and_survives_a_renewal(service, stores, tmp_path):
    """One path for all workers; it is gone with the supervisor."""
    path = Path(f"/tmp/ag-{free_port()}.sock")
    async with crew(tmp_path, stores, config=f'[server]\nunix_socket = "{path}"\ndrain_s = 1\n') as two:
        statuses = []
        for renewed in (2, None):
            async with ClientSession(connector=UnixConnector(str(path))) as http, http.get("http://a/healthz") as said:
                statuses.append(said.status)
            if renewed is not None:
                two.process.send_signal(signal.SIGHUP)
                await two.becomes(RENEWED, renewed)
        two.process.send_signal(signal.SIGTERM)
        await two.process.wait()

    assert statuses == [200, 200]
    assert not path.exists()


def _check(told: Any) -> dict[str, Any]:
    """A check of the session that a login was told."""
    return {"session_id": told["session"]["id"], "ip": LAPTOP, "activity": "lesson_open"}
