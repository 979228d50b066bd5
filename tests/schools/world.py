"""A worker of its own on a database of its own, and schools in it of which each tells when it hears of another."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import re
import time
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from uuid import uuid4

import asyncpg
from aiohttp import ClientSession, web
from redis.asyncio import Redis
from yarl import URL

from accessguard.api.keys import Role
from accessguard.api.routes import ROUTES, UUIDS, Route
from accessguard.app import Parts, open_parts
from accessguard.guard.facts import from_ms
from accessguard.guard.upkeep import Chore, Job
from tests.schools.calls import ATTEMPT, BODIES, DENIED, Picked, check, denial, late, settings, target
from tests.schools.census import Census
from tests.service import FIREFOX, LAPTOP, Answer, Clock, Service, Tenant, config, listening, token

MEMBERS = ("ana", "ä/%2F \U0001f600", "ben", "cy", "dee")
"""Ids of members that every school has; the third has nothing but itself."""
SESSIONS = ("platform-1", "platform/2%")
PRODUCTS = ("course-42", "course/43")
CREATES = {
    "POST /v1/rules": "rule_id",
    "POST /v1/webhooks": "webhook_id",
    "POST /v1/imports": "job_id",
    "POST /v1/reports": "job_id",
    "POST /v1/members/bulk": "job_id",
    "POST /v1/revocations": "revocation_id",
}
CONFIRMED = {"POST /v1/members/bulk": "preview", "POST /v1/members/erase": "erasure"}
ON_PAGES = {"section": "brand", "code": "ip_denied", "language": "en", "version": "1", "at": "0", "name": "school"}
"""What stands in the paths of the console's pages besides ids."""
KEPT_UP = (Job.DIRECTORY, Job.TALLIES, Job.PAGES)
"""Upkeep that gathers what schools have done, whenever it is run."""
WRITTEN = tuple(
    route for route in ROUTES if route.method != "GET" and route.roles and not late(route) and not route.installation
)
"""Calls that write something and take nothing away."""
BUSY = """
    SELECT concat('job ', kind, ' ', state) FROM job WHERE state = 'running' OR (state = 'waiting' AND kind <> 'bulk')
     UNION ALL SELECT concat('delivery ', kind, ' ', last_error) FROM webhook_delivery WHERE state = 'pending'
"""
OPAQUE = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[\w.+/=-]{40,}")
"""What was made for one school: an id, a token, a secret."""
SHARED = frozenset({ATTEMPT})
PUBLISHED = "/.well-known/jwks.json"
"""Public keys of the installation, by which every school's receivers know its tokens."""
HASHED = "sha256-"
"""Begins what a page says of its own style (Content-Security-Policy)."""


class School:
    """What it owns, by the places of paths; `word` stands in every text of it, and in no other school's."""

    def __init__(self, world: World) -> None:
        self.word = f"zq{uuid4().hex}"
        self.world = world
        self.tenant = Tenant(world.service, f"{self.word}.school")
        self.ids: dict[str, list[str]] = {name: [str(uuid4())] for name in UUIDS}
        self.ids |= {"member_id": list(MEMBERS), "session_id": list(SESSIONS), "product_id": list(PRODUCTS)}
        self.ids |= {"tenant": [self.tenant.name], "name": ["same", "other.1"], "ip": [LAPTOP, DENIED], "path": ["a/b"]}
        self.ids |= {name: [""] for name in ("token", "page", "preview", "erasure", "cookie")}
        self.main: dict[str, str] = {}
        self.kept: dict[str, str] = {}
        self.told: list[str] = []
        """What came by itself: on the stream, to the webhook."""

    def latest(self) -> dict[str, str]:
        """What belongs together, and the last of everything else."""
        return {name: values[-1] for name, values in self.ids.items()} | self.main

    def about(self, route: Route) -> Iterator[dict[str, str]]:
        """What a call may be about that is to go well, as long as nothing was taken away."""
        name = f"{route.method} {route.path}"
        if "{job_id}" in name:
            yield from (self.latest() | {"job_id": each} for each in self.ids["job_id"])
        elif name.startswith("DELETE") and name.endswith("/{member_id}"):
            yield self.latest() | {"member_id": MEMBERS[2]}
        elif name.endswith("{device_id}/merge"):
            yield self.latest() | {"device_id": self.ids["device_id"][2]}
        else:
            yield self.latest()

    def picked(self, choice: Picked) -> dict[str, str]:
        """A choice of somebody's things, made whole with what only the asking school has."""
        own = {name: self.ids[name][-1] for name in ("page",)}
        more = {"other": MEMBERS[1], "into": self.ids["device_id"][1], "hook": self.world.hook(self)}
        return {**choice, **own, **more}

    async def ask(
        self,
        route: Route,
        role: Role,
        choice: Picked,
        *,
        accept: str = "application/json",
        key: str | None = None,
        tenant: str | None = None,
    ) -> tuple[int, str]:
        """One call about what was picked: its status, and all that came back, unpacked; asserts that none of it is another's."""
        picked = self.picked(choice)
        path = re.sub(r"\{(\w+)\}", lambda found: quote(picked[found[1]], safe=""), route.path)
        path += target(route, self.word, picked)
        name = f"{route.method} {route.path}"
        said = BODIES[name](self.word, picked) if name in BODIES else None
        raw = said if said is None or isinstance(said, bytes) else json.dumps(said).encode()
        headers = self._headers(route, role, picked) | {"Accept": accept}
        headers |= {"Content-Type": "application/x-ndjson" if route.stream else "application/json"} if raw else {}
        headers |= {"Idempotency-Key": key} if key else {}
        headers |= {"AccessGuard-Tenant": tenant} if tenant else {}
        status, text = await self._send(route.method.replace("*", "GET"), path, raw, headers)
        self.world.heard(self, text, f"{path} {(raw or b'').decode()} {headers}")
        self._learn(name, status, text)
        return status, text

    def _headers(self, route: Route, role: Role, picked: Picked) -> dict[str, str]:
        """Who asks; a path that finds that out by itself is asked as a proxy asks."""
        if not route.open:
            return {"Authorization": f"Bearer {token(self.tenant.name, role, f'the-{role}')}"}
        return {
            "AccessGuard-Token": token(self.tenant.name, "platform", "the-proxy"),
            "Cookie": f"__Host-ag_session={picked['cookie']}; __Host-ag_device={picked['token']}",
            "X-Envoy-External-Address": LAPTOP,
        }

    async def _send(self, method: str, path: str, raw: bytes | None, headers: Mapping[str, str]) -> tuple[int, str]:
        service = self.tenant.service
        url = URL(service.url + path, encoded=True)
        async with service.http.request(method, url, data=raw, headers=headers, allow_redirects=False) as response:
            fields = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
            return response.status, f"{fields}\n\n{unpacked(await response.read())}"

    async def sign_in(self, role: Role) -> str:
        """The cookie of a console session of the operator with this role."""
        said = {"token": token(self.tenant.name, role, f"the-{role}"), "next": "/console/"}
        url = f"{self.tenant.service.url}/console/sign-in"
        async with self.tenant.service.http.post(url, data=said, allow_redirects=False) as response:
            assert response.status == 303, await response.text()
            return response.headers["Set-Cookie"].partition(";")[0]

    async def look(self, path: str, choice: Picked, cookie: str) -> int:
        """Open a page of the console about what was picked; asserts that nothing on it is another's."""
        filled = re.sub(r"\{(\w+)\}", lambda found: quote({**ON_PAGES, **choice}[found[1]], safe=""), path)
        status, text = await self._send("GET", filled, None, {"Cookie": cookie})
        self.world.heard(self, text, filled)
        return status

    def _learn(self, name: str, status: int, text: str) -> None:
        """Remember what was made."""
        if status >= 300 or name not in CREATES | CONFIRMED:
            return
        made = json.loads(text.partition("\n\n")[2])
        if name in CONFIRMED and "confirmation" in made:
            self.ids[CONFIRMED[name]].append(made["confirmation"])
        elif name in CREATES:
            self.ids[CREATES[name]].append(made["id"])

    async def build(self) -> School:
        """Something of every kind, under the same names in every school."""
        say = self.tenant.call
        admin = {"role": "administrator"}
        await self._good(say("PUT", "/v1/settings", settings(self.word), **admin))
        for member in MEMBERS:
            said = BODIES["PUT /v1/members/{member_id}"](self.word, {})
            await self._good(say("PUT", f"/v1/members/{quote(member, safe='')}", said))
        await self._make("rule_id", say("POST", "/v1/rules", denial(self.word), **admin))
        limit: dict[str, Any] = {"kind": "session_limit", "name": "the same", "mode": "enforce", "action": "challenge"}
        limit |= {"params": {"max": 1}, "message": self.word}
        hook = {"url": self.world.hook(self), "events": ["violation", "session_ended", "device_new"]}
        await self._make("webhook_id", say("POST", "/v1/webhooks", hook, **admin))
        await self.log_in(MEMBERS[0], session_id=SESSIONS[0], attempt_id=ATTEMPT)
        await self.log_in(MEMBERS[0], user_agent=FIREFOX)
        await self._make("rule_id", say("POST", "/v1/rules", limit, **admin))
        challenged = await self.log_in(MEMBERS[0], session_id="third")
        self.ids["challenge_id"].append(challenged["reason"]["challenge_id"])
        kept = ("device_id", "violation_id", "webhook_id")
        self.main = {name: self.ids[name][-1] for name in kept} | {"member_id": MEMBERS[0], "session_id": SESSIONS[0]}
        await self.log_in(MEMBERS[1], session_id=SESSIONS[1])
        await self.be_denied()
        await self._make("revocation_id", say("POST", "/v1/revocations", {"caller": f"gone-{self.word}"}, **admin))
        for route in WRITTEN:
            await self.ask(route, max(route.roles), self.latest())
        await self.world.settle()
        log = f"/v1/webhooks/{self.main['webhook_id']}/deliveries"
        deliveries = await self._good(say("GET", log, **admin))
        self.ids["delivery_id"].append(deliveries["items"][0]["id"])
        self.main["delivery_id"] = self.ids["delivery_id"][-1]
        return self

    async def log_in(self, member: str, **fields: Any) -> Answer:
        """A login, whose session and device are then the latest."""
        answer = await self._good(self.tenant.login(member, identifier=self.word, app=self.word, **fields))
        self.ids["device_id"].append(answer["device"]["id"])
        self.ids["token"].append(answer["device"]["token"])
        if answer["session"]:
            self.ids["session_id"].append(answer["session"]["id"])
            self.ids["cookie"].append(answer["session"]["token"])
        self.ids["violation_id"] += answer["violations"]
        return answer

    async def be_denied(self) -> None:
        """A refusal with its case, and the page that explains it."""
        asked = check(self.word, self.latest() | {"session_id": SESSIONS[1], "token": ""}) | {"ip": DENIED}
        answer = await self._good(self.tenant.call("POST", "/v1/check", asked))
        if answer["violation_id"] is not None:
            self.ids["violation_id"].append(answer["violation_id"])
            self.ids["page"].append(parse_qs(urlsplit(answer["reason"]["page_url"]).query)["t"][0])

    async def _make(self, name: str, call: Any) -> None:
        self.ids[name].append((await self._good(call))["id"])

    async def _good(self, call: Any) -> Answer:
        answer: Answer = await call
        assert answer.status < 300, answer.body
        self.world.heard(self, f"{answer.body} {answer.headers}", "")
        return answer


class World:
    """The worker, and every school in it."""

    def __init__(
        self,
        service: Service,
        parts: Parts,
        connection: asyncpg.Connection,
        census: Census,
        chores: tuple[Chore, ...],
    ) -> None:
        self.service = service
        self.census = census
        self.schools: list[School] = []
        self.receiver = ""
        self._parts = parts
        self._connection = connection
        self._chores = chores
        self._owners: dict[str, School] = {}
        self._listening: list[asyncio.Task[None]] = []

    def hook(self, school: School) -> str:
        """Where a school is told of what happens."""
        return f"{self.receiver}/{self.schools.index(school)}"

    async def two(self) -> tuple[School, School]:
        """Two new schools, which have the same; nobody else is there any more."""
        self.forget()
        self.schools = [School(self), School(self)]
        for each in self.schools:
            await each.build()
            self._listening.append(asyncio.create_task(self._listen(each)))
        one, other = self.schools
        return one, other

    def forget(self) -> None:
        """Listen to nobody, and let go of the schools."""
        for task in self._listening:
            task.cancel()
        self._listening, self.schools, self._owners = [], [], {}

    def heard(self, school: School, text: str, sent: str) -> None:
        """Assert that what a school heard holds nothing of another one: no word and nothing made for it, but what it sent itself just now."""
        for other in self.schools:
            if other is not school:
                assert not [each for each in marks(other.word) if each in text and each not in sent], text
        for found in OPAQUE.findall(text):
            owner = self._owners.setdefault(found, school)
            known = found in sent or found in SHARED or found.startswith(HASHED) or sent.startswith(PUBLISHED)
            assert owner is school or known, f"{found} in {text}"

    async def settle(self) -> None:
        """Let all that was begun come to its end: what is gathered is written, jobs are done, messages sent."""
        context = self.service.context
        deadline, busy = time.monotonic() + 30, [""]
        while busy:
            await self._parts._evaluation.finish(5)
            await context.activity.flush()
            await context.folds.flush()
            await self._parts.shown.flush()
            await context.webhooks.once()
            busy = [row[0] for row in await self._connection.fetch(BUSY)]
            assert time.monotonic() < deadline, busy
            await asyncio.sleep(0.005 if busy else 0)
        for chore in self._chores:
            await self._keep_up(chore)
        for school in self.schools:
            told, school.told = school.told, []
            self.heard(school, "\n".join(told), "")

    async def remember(self, school: School) -> None:
        """What a school has, once it changes no more by itself."""
        now: dict[str, str] = {}
        for _ in range(20):
            await self.settle()
            before, now = now, await self.census.take(school.tenant.name)
            if now == before:
                break
        school.kept = now

    async def unchanged(self, school: School, why: object = "") -> None:
        """Assert that a school has what was remembered of it, whatever others did since."""
        await self.settle()
        now = await self.census.take(school.tenant.name)
        assert [name for name in now if now[name] != school.kept[name]] == [], why

    async def _keep_up(self, chore: Chore) -> None:
        async with self._parts._db.transaction() as tx:
            while await chore.step(tx, from_ms(self.service.clock())) >= max(chore.most, 1):
                pass

    async def _listen(self, school: School) -> None:
        """Follow the school's stream until cancelled."""
        headers = {"Authorization": f"Bearer {token(school.tenant.name, 'platform')}"}
        async with self.service.http.get(f"{self.service.url}/v1/stream", headers=headers) as response:
            async for line in response.content:
                school.told.append(line.decode())

    async def take(self, request: web.Request) -> web.Response:
        """A message to a webhook."""
        number = int(request.match_info["number"])
        if number < len(self.schools):
            self.schools[number].told.append(await request.text())
        return web.Response()


@contextlib.asynccontextmanager
async def open_world(database_url: str, redis_url: str) -> AsyncIterator[World]:
    """A worker on this database, whose upkeep is the test's to run."""
    clock = Clock()
    parts = await open_parts(config(database_url, redis_url), now_ms=clock)
    chores, parts.upkeep.chores = tuple(each for each in parts.upkeep.chores if each.job in KEPT_UP), ()
    connection = await asyncpg.connect(database_url)
    try:
        async with Redis.from_url(redis_url) as valkey:
            census = await Census.of(connection, valkey)
            async with ClientSession() as http, _worker(parts, clock, http) as service:
                world = World(service, parts, connection, census, chores)
                async with _receiver(world):
                    yield world
                    world.forget()
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _worker(parts: Parts, clock: Clock, http: ClientSession) -> AsyncIterator[Service]:
    async with parts.running() as context, listening(context) as (url, plain_url):
        yield Service(url, plain_url, http, context, clock)


@contextlib.asynccontextmanager
async def _receiver(world: World) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_post("/{number}", world.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    world.receiver = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        await runner.cleanup()


@cache
def marks(word: str) -> tuple[str, ...]:
    """A word, and how it looks inside of anything that was packed as base64."""
    packed = (base64.b64encode(b" " * shift + word.encode()).decode()[4:-4] for shift in range(3))
    return (word, *packed)


def unpacked(raw: bytes) -> str:
    """An answer as text, whatever it is."""
    if not raw.startswith(b"PK"):
        return raw.decode()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return "\n".join(archive.read(name).decode() for name in archive.namelist())


def named(route: Route) -> bool:
    """Whether a call names something that the service made for one school."""
    return bool(set(re.findall(r"\{(\w+)\}", route.path)) & UUIDS)
