"""Killed in the middle of its work: whatever was answered is there afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import psutil
import pytest
from aiohttp import ClientError, ClientSession

from tests.data import lay_out
from tests.service import CHROME, LAPTOP, SECRET, token

KEYS = {
    "token_secrets": SECRET,
    "device_keys": f"d1:{SECRET}-d",
    "session_keys": f"s1:{SECRET}-s",
    "identifier_key": f"{SECRET}-i",
    "port": "0",
    "admin_port": "0",
}


class Process:
    """`accessguard` in a process of its own, and its address."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self.process, self.url, self.log = process, url, log

    def kill(self) -> None:
        """End it as the kernel would."""
        self.process.send_signal(signal.SIGKILL)

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged; each line is JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextlib.asynccontextmanager
async def started(folder: Path, *words: str, **values: str) -> AsyncIterator[Process]:
    """The command, once it says that it answers; it is gone at the end, whatever happens."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ACCESSGUARD_")}
    environ |= {f"ACCESSGUARD_{name.upper()}": value for name, value in values.items()}
    environ |= {"PYTHONPATH": str(Path(__file__).parents[2])}
    log = folder / f"{time.time_ns()}.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "accessguard", *words, cwd=folder, env=environ, stdout=-1, stderr=errors
        )
    try:
        yield Process(process, await _address(process, log), log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def _address(process: asyncio.subprocess.Process, log: Path) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        async for line in process.stdout:
            if found := re.search(rb"answers at (http://\S+)", line):
                return found[1].decode()
    raise AssertionError(log.read_text())


async def call(http: ClientSession, method: str, url: str, bearer: str, body: Any = None) -> tuple[int, Any]:
    """Status and body of one call."""
    async with http.request(method, url, json=body, headers={"Authorization": f"Bearer {bearer}"}) as response:
        return response.status, await response.json(content_type=None)


def attempt(member: str) -> dict[str, Any]:
    """A login of that member."""
    return {
        "member_id": member,
        "identifier": f"{member}@private.example",
        "outcome": "success",
        "ip": LAPTOP,
        "user_agent": CHROME.format(142),
    }


class Crowd:
    """Members who log in one after the other, and what they were told."""

    def __init__(self, http: ClientSession, url: str, bearer: str) -> None:
        self._http, self._url, self._bearer = http, url, bearer
        self.told: list[tuple[str, dict[str, Any]]] = []

    async def go(self, members: int) -> None:
        """Log in until nobody answers any more."""
        await asyncio.gather(*(self._one(f"m{each}") for each in range(members)))

    async def _one(self, member: str) -> None:
        with contextlib.suppress(ClientError, ConnectionError):
            while True:
                status, body = await call(self._http, "POST", f"{self._url}/v1/logins", self._bearer, attempt(member))
                assert status == 200, body
                self.told.append((member, body))


@pytest.mark.chaos
async def test_every_login_that_was_answered_is_there_after_a_kill(service, tenant, stores, tmp_path):
    """Twenty members log in without pause when the service is killed; the next one knows all they were told."""
    urls = {"database_url": stores.database_url, "redis_url": stores.redis_url}
    platform, supervisor = token(tenant.name, "platform"), token(tenant.name, "supervisor")
    async with ClientSession() as http:
        async with started(tmp_path, "serve", **KEYS, **urls) as first:
            crowd = Crowd(http, first.url, platform)
            going = asyncio.create_task(crowd.go(20))
            while len(crowd.told) < 200:
                await asyncio.sleep(0.001)
                assert not going.done()
            first.kill()
            await going
        async with started(tmp_path, "serve", **KEYS, **urls) as second:
            attempts: dict[str, Any] = {}
            for member in {member for member, _ in crowd.told}:
                url = f"{second.url}/v1/members/{member}/logins?limit=200"
                status, page = await call(http, "GET", url, supervisor)
                assert (status, page["next_cursor"]) == (200, None)
                attempts |= {line["id"]: line for line in page["items"]}
            checks = [{"session_id": told["session"]["id"], "ip": LAPTOP} for _, told in crowd.told]
            status, answer = await call(http, "POST", f"{second.url}/v1/checks", platform, {"checks": checks[:500]})

    assert len(crowd.told) >= 200
    assert {told["attempt_id"] for _, told in crowd.told} <= set(attempts)
    assert all(attempts[told["attempt_id"]]["session_id"] == told["session"]["id"] for _, told in crowd.told)
    assert status == 200
    assert {result["decision"] for result in answer["results"]} == {"allow"}


@pytest.mark.chaos
async def test_a_service_that_is_told_to_stop_finishes_and_says_nothing_about_anybody(
    service, tenant, stores, tmp_path
):
    """Beats are flushed, the exit code is 0, and each line of the log is JSON without a person in it."""
    urls = {"database_url": stores.database_url, "redis_url": stores.redis_url}
    platform = token(tenant.name, "platform")
    async with ClientSession() as http, started(tmp_path, "serve", **KEYS, **urls) as worker:
        status, told = await call(http, "POST", f"{worker.url}/v1/logins", platform, attempt("secret-person"))
        check = {"session_id": told["session"]["id"], "ip": LAPTOP, "activity": "lesson_open"}
        await call(http, "POST", f"{worker.url}/v1/check", platform, check)
        await call(http, "GET", f"{worker.url}/v1/members/secret-person", "not-a-token")
        await _garbage(worker.url, b"GET /v1/members/secret-person HTTP/9.9\r\n\r\n")
        await _garbage(worker.url, b"POST /v1/check HTTP/1.1\r\nContent-Length: secret-person\r\n\r\n")
        worker.process.send_signal(signal.SIGTERM)
        code = await worker.process.wait()
        lines, text = worker.lines(), worker.log.read_text()

    session = await tenant.see(f"/v1/sessions/{told['session']['id']}")
    assert (status, code) == (200, 0)
    assert session["last_activity_kind"] == "lesson_open"
    assert [line["event"] for line in lines][:1] == ["serving"]
    personal = ["secret-person", "private.example", LAPTOP, told["device"]["token"], told["device"]["id"], platform]
    assert [each for each in personal if each in text] == []


async def _garbage(url: str, sent: bytes) -> None:
    """Send bytes that are no request, and hear them refused."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    assert answer.split(b" ")[1].startswith(b"4"), answer


@pytest.mark.chaos
async def test_a_killed_dev_takes_its_stores_along_and_finds_its_data_again(tmp_path):
    """No process is left behind, and the next start has every answered login."""
    await lay_out(tmp_path / ".accessguard")
    async with ClientSession() as http:
        async with started(tmp_path, "dev", "--port", "0", admin_port="0") as first:
            children = psutil.Process(first.process.pid).children(recursive=True)
            platform = _dev_token(tmp_path)
            logins = [
                await call(http, "POST", f"{first.url}/v1/logins", platform, attempt(f"m{each}")) for each in range(20)
            ]
            first.kill()
            await first.process.wait()
            left = await asyncio.to_thread(psutil.wait_procs, children, timeout=15)
        async with started(tmp_path, "dev", "--port", "0", admin_port="0") as second:
            checks = [{"session_id": told["session"]["id"], "ip": LAPTOP} for _, told in logins]
            _, answer = await call(http, "POST", f"{second.url}/v1/checks", platform, {"checks": checks})
            children = psutil.Process(second.process.pid).children(recursive=True)
            second.process.send_signal(signal.SIGTERM)
            code = await second.process.wait()
            gone, alive = await asyncio.to_thread(psutil.wait_procs, children, timeout=15)

    assert {status for status, _ in logins} == {200}
    assert len(children) >= 2
    assert left[1] == []
    assert {result["decision"] for result in answer["results"]} == {"allow"}
    assert (code, alive, bool(gone)) == (0, [], True)


def _dev_token(folder: Path) -> str:
    """A platform's token for the demo tenant, signed with the secret that `dev` has made."""
    secrets = tomllib.loads((folder / ".accessguard" / "secrets.toml").read_text())
    claims = {
        "iss": "tests",
        "aud": "accessguard",
        "sub": "tests",
        "role": "platform",
        "tenant": "demo",
        "exp": int(time.time()) + 600,
    }
    return jwt.encode(claims, secrets["ACCESSGUARD_TOKEN_SECRETS"], algorithm="HS256")
