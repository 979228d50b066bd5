"""The running service for tests, and a caller that knows only the HTTP contract."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jwt
from aiohttp import ClientSession, web

from accessguard.api.context import Context
from accessguard.app import Parts, open_parts, service
from accessguard.config import Config, Database, Geo, Keys, Limits, Redis, Server, Tenants, Tokens, Webhooks
from accessguard.serving import lane_protocol
from accessguard.signing import SigningKey

SECRET = "a-secret-of-the-tests-that-is-long-enough-to-be-one"
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36"
)
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0"
LAPTOP = "203.0.113.9"
TOKEN_S = 30 * 86_400
"""How long a token of the tests is good: longer than the time that any of them lets pass."""

CLOCKS: weakref.WeakSet[Clock] = weakref.WeakSet()
_numbers = itertools.count(1)


class Clock:
    """The service's clock in a test: real time plus whatever the test has let pass."""

    def __init__(self) -> None:
        self.ahead_ms = 0
        self._stopped_ms: int | None = None
        CLOCKS.add(self)

    def mark(self) -> tuple[int, int | None]:
        """How it goes, to be given to `reset`."""
        return self.ahead_ms, self._stopped_ms

    def reset(self, mark: tuple[int, int | None]) -> None:
        """Let it go as it did then."""
        self.ahead_ms, self._stopped_ms = mark

    def __call__(self) -> int:
        """The time in milliseconds since the epoch."""
        now = time.time_ns() // 1_000_000 if self._stopped_ms is None else self._stopped_ms
        return now + self.ahead_ms

    def stop(self) -> None:
        """Let no time pass but what the test says."""
        self._stopped_ms = time.time_ns() // 1_000_000

    def forward(self, ms: int) -> None:
        """Let `ms` milliseconds pass (or go back, when negative)."""
        self.ahead_ms += ms


@dataclass
class Service:
    """One worker; `plain_url` is the same without the fast lane."""

    url: str
    plain_url: str
    http: ClientSession
    context: Context
    clock: Clock

    def tenant(self) -> Tenant:
        """A fresh tenant, as somebody who holds tokens of all its roles."""
        return Tenant(self, f"t{next(_numbers)}-{time.time_ns()}")


@dataclass
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.body[name]


@dataclass
class Tenant:
    """Calls for one tenant."""

    service: Service
    name: str

    async def call(self, method: str, path: str, body: Any = None, *, role: str = "platform", **more: Any) -> Answer:
        """One call with a token of `role`; `subject` tells two operators apart."""
        subject = more.pop("subject", f"{role}@{self.name}")
        headers = {"Authorization": f"Bearer {token(self.name, role, subject)}"} | more.pop("headers", {})
        kind = {} if body is None else {"json": body}
        async with self.service.http.request(
            method, self.service.url + path, headers=headers, **kind, **more
        ) as response:
            raw = await response.read()
            parsed = (
                await response.json(content_type=None)
                if raw and response.content_type.endswith(("/json", "+json"))
                else raw
            )
            return Answer(response.status, parsed, dict(response.headers))

    async def login(self, member: str = "ana", **fields: Any) -> Answer:
        """A login that the platform itself accepted."""
        asked = {"member_id": member, "outcome": "success", "ip": LAPTOP, "user_agent": CHROME.format(142)} | fields
        return await self.call("POST", "/v1/logins", asked)

    async def check(self, session: Answer | str, **fields: Any) -> Answer:
        """Ask whether this session may go on."""
        session_id = session if isinstance(session, str) else session["session"]["id"]
        asked = {"session_id": session_id, "ip": LAPTOP, "user_agent": CHROME.format(142)} | fields
        return await self.call("POST", "/v1/check", asked)

    async def rule(self, kind: str, action: str | None = None, *, mode: str = "enforce", **params: Any) -> Answer:
        """A new rule, saved by an administrator."""
        asked = {"kind": kind, "mode": mode, "params": params} | ({"action": action} if action else {})
        return await self.call("POST", "/v1/rules", asked, role="administrator")

    async def see(self, path: str, **more: Any) -> Answer:
        """What a supervisor reads."""
        return await self.call("GET", path, role="supervisor", **more)

    async def device(self, member: str, device_id: str, **fields: Any) -> Answer:
        """A supervisor's word on a device."""
        path = f"/v1/members/{member}/devices/{device_id}"
        return await self.call("PATCH", path, fields, role="supervisor")


def token(tenant: str, role: str, subject: str = "tests", **claims: Any) -> str:
    """A genuine token; `claims` replace what it says, None takes a claim out."""
    said = {
        "iss": "tests",
        "aud": "accessguard",
        "sub": subject,
        "role": role,
        "tenant": tenant,
        "exp": int(time.time()) + TOKEN_S,
    } | claims
    return jwt.encode({name: value for name, value in said.items() if value is not None}, SECRET, algorithm="HS256")


def config(database_url: str, redis_url: str, *geo: str) -> Config:
    """The configuration of a worker of the tests, with these geographic files."""
    return Config(
        server=Server(
            check_deadline_ms=5_000, public_url="https://guard.example"
        ),  # on a machine where much goes on at once; what is late has tests of its own
        database=Database(url=database_url),
        redis=Redis(url=redis_url),
        geo=Geo(files=geo),
        limits=Limits(operator_calls_per_s=1_000),  # tests ask faster than people
        webhooks=Webhooks(allow_networks=("127.0.0.0/8",)),
        tokens=Tokens(secrets=(SECRET,)),
        tenants=Tenants(preset="none"),  # a test says which rules there are
        keys=Keys(
            device=(SigningKey(id="d1", secret="d" * 40),),
            session=(SigningKey(id="s1", secret="s" * 40),),
            identifier="i" * 40,
        ),
    )


@contextlib.asynccontextmanager
async def running(database_url: str, redis_url: str, *geo: str) -> AsyncIterator[Service]:
    """A worker that answers on two free ports until the end: with the fast lane, and without."""
    async with configured(config(database_url, redis_url, *geo)) as worker:
        yield worker


@contextlib.asynccontextmanager
async def configured(said: Config) -> AsyncIterator[Service]:
    """The same with a configuration of the test's own."""
    clock = Clock()
    parts = await opened(said, clock)
    async with parts.running() as context, listening(context) as (url, plain_url), ClientSession() as http:
        yield Service(url, plain_url, http, context, clock)


async def opened(said: Config, now_ms: Callable[[], int]) -> Parts:
    """What a worker is made of; nobody looks at browsers again: device-detector takes seconds of a core to start."""
    parts = await open_parts(said, now_ms=now_ms)
    waiting = parts.recogniser._waiting

    async def nobody_looks() -> None:
        while True:
            await waiting.get()

    parts.recogniser.run = nobody_looks  # type: ignore[method-assign]
    return parts


@contextlib.asynccontextmanager
async def listening(context: Context) -> AsyncIterator[tuple[str, str]]:
    """The application behind the fast lane, and on its own."""
    limit = 1_048_576
    runner = web.AppRunner(service(context, body_limit_bytes=limit), access_log=None, shutdown_timeout=1)
    await runner.setup()
    fast = lane_protocol(runner, context, body_limit_bytes=limit)
    server = await asyncio.get_running_loop().create_server(fast, "127.0.0.1", 0)
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports = (server.sockets[0].getsockname()[1], runner.addresses[0][1])
        yield f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
    finally:
        server.close()
        await runner.cleanup()


def items(answer: Answer) -> Iterator[dict[str, Any]]:
    """The items of a list, after checking that it is one."""
    assert answer.status == 200, answer.body
    return iter(answer["items"])
