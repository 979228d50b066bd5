"""The HTTP API as the platform and support call it. Errors are sentences for the person at the terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import msgspec

AT_ONCE: Final = 16
TIMEOUT_S: Final = 30
UNAVAILABLE: Final = 503
TRIES: Final = 4
PAUSE_S: Final = 1


class DemoError(Exception):
    """The day cannot be played; the text is one sentence that says why."""


class Service:
    """A running service; `tokens` by role."""

    def __init__(self, http: aiohttp.ClientSession, url: str, tokens: Mapping[str, str]) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._headers = {role: {"Authorization": f"Bearer {token}"} for role, token in tokens.items()}

    async def call(self, role: str, method: str, path: str, body: object = None) -> Any:
        """Send one request and return its answer, decoded; raises DemoError for all but a success.

        "Unavailable, try again" (503) is tried again, as a platform would.
        """
        data = None if body is None else msgspec.json.encode(body)
        for _ in range(TRIES - 1):
            status, content = await self._send(role, method, path, data)
            if status != UNAVAILABLE:
                return _read(method, path, status, content, role)
            await asyncio.sleep(PAUSE_S)
        return _read(method, path, *await self._send(role, method, path, data), role)

    async def _send(self, role: str, method: str, path: str, data: bytes | None) -> tuple[int, bytes]:
        headers = {**self._headers[role], "Content-Type": "application/json"}
        try:
            async with self._http.request(method, self._url + path, data=data, headers=headers) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _unreachable(self._url, error) from error

    async def greet(self) -> None:
        """Find out whether an AccessGuard is there; raises DemoError when not."""
        answer = await self.call("platform", "GET", "/healthz")
        if not isinstance(answer, dict) or answer.get("status") != "ok":
            raise DemoError(f"What answers at {self._url} is not AccessGuard.")


@asynccontextmanager
async def connected(url: str, tokens: Mapping[str, str]) -> AsyncIterator[Service]:
    """Give the service at `url`, at most AT_ONCE requests at a time."""
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        service = Service(http, url, tokens)
        await service.greet()
        yield service


def _read(method: str, path: str, status: int, content: bytes, role: str) -> Any:
    try:
        answer = msgspec.json.decode(content) if content else None
    except msgspec.DecodeError:
        answer = None
    if 200 <= status < 300:
        return answer
    detail = answer.get("detail", "") if isinstance(answer, dict) else ""
    if status in (401, 403):
        raise DemoError(f"The service refuses the token of the {role}: {detail} Is this its folder and its tenant?")
    raise DemoError(f"The service answered {status} to {method} {path}. {detail}".strip())


def _unreachable(url: str, error: Exception) -> DemoError:
    if isinstance(error, TimeoutError):
        return DemoError(f"The service at {url} did not answer within {TIMEOUT_S} s.")
    if isinstance(error, aiohttp.ClientConnectorError):
        return DemoError(f"No service answers at {url}; start one with `make run`, or name another with --url.")
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return DemoError(f"{url} is no address of a service; it looks like http://127.0.0.1:8080.")
    return DemoError(f"The connection to {url} broke: {error}.")
