"""Somebody who is told by webhooks, in either format, and what sends to them until it is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import jwt
import msgspec
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from tests.service import Clock, Tenant

ISSUER = "https://guard.example"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"


class Message(msgspec.Struct):
    """One message as a receiver understands it, whatever the format."""

    id: str
    kind: str
    member: str | None
    session: str | None
    device: str | None
    said: dict[str, Any]


class Receiver:
    """Somebody who is told; `mode` is how it answers: ok, hang, redirect, deep, a status, or the `err` of a token refused."""

    def __init__(self) -> None:
        self.mode = "ok"
        self.url = ""
        self.secret = ""
        self.keys: dict[str, Any] = {}
        self.tries: list[tuple[str, str]] = []
        self.taken: list[Message] = []

    async def answer(self, request: web.Request) -> web.Response:
        """Take a message, or do not; one that is not signed as it should be is an error."""
        text = await request.text()
        tokens = request.content_type == "application/secevent+jwt"
        message = self._token(request, text) if tokens else self._standard(request, text)
        mode = self.mode
        self.tries.append((mode, request.path))
        if mode == "hang":
            await asyncio.sleep(5)
            return web.Response(status=500)
        if mode == "redirect":
            return web.Response(status=307, headers={"Location": self.url + "/elsewhere"})
        if mode.startswith("invalid_"):
            said = f"no\u202e\n {request.headers['Authorization']} " + "x" * 3_000
            return web.json_response({"err": mode, "description": said}, status=400)
        if mode == "deep":
            return web.Response(status=400, text='{"x":' + "[" * 9_000)
        if mode != "ok":
            return web.Response(status=int(mode), text="{" * 9_000)
        self.taken.append(message)
        return web.Response(status=202 if tokens else 204)

    def _standard(self, request: web.Request, text: str) -> Message:
        sent, when = request.headers["webhook-id"], int(request.headers["webhook-timestamp"])
        signed = Webhook(self.secret).sign(sent, datetime.fromtimestamp(when, UTC), text)
        assert request.headers["webhook-signature"] == signed
        said = json.loads(text)
        data = said["data"]
        member, session, device = (data.get(name) for name in ("member_id", "session_id", "device_id"))
        return Message(sent, said["type"], member, session, device, data)

    def _token(self, request: web.Request, text: str) -> Message:
        assert request.headers["Authorization"] == f"Bearer {self.secret}"
        head = jwt.get_unverified_header(text)
        assert (head["typ"], head["alg"]) == ("secevent+jwt", "ES256")
        said = jwt.decode(
            text,
            self.keys[head["kid"]],
            algorithms=["ES256"],
            audience="https://school.example/caep",
            issuer=ISSUER,
            options={"verify_iat": False},  # by a clock that tests set forward
        )
        assert not {"exp", "sub"} & said.keys()
        ((uri, event),) = said["events"].items()
        assert said["sub_id"]["format"] == "complex"
        about = said["sub_id"]
        assert about["user"]["format"] == "iss_sub"
        session, device = (about.get(name, {}).get("id") for name in ("session", "device"))
        return Message(said["jti"], uri.removeprefix(CAEP), about["user"]["sub"], session, device, event)

    def tried(self, mode: str, times: int) -> bool:
        """Whether it was tried so often while it answered so."""
        return sum(each == mode for each, _ in self.tries) >= times

    def has(self, messages: int, clock: Clock) -> bool:
        """Whether it has taken so many different ones; while not, time goes on."""
        clock.forward(60_000)
        return len({each.id for each in self.taken}) == messages

    @property
    def once(self) -> list[Message]:
        """What it has taken, each once, in the order in which it came first."""
        return list({each.id: each for each in reversed(self.taken)}.values())[::-1]


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a free port of this machine."""
    made, app = Receiver(), web.Application()
    app.router.add_post("/{path:.*}", made.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def hook(tenant: Tenant, receiver: Receiver, **more: Any) -> str:
    """A webhook of the tenant's to this receiver; its path."""
    if more.get("format") == "caep":
        more |= {"audience": "https://school.example/caep"}
        async with tenant.service.http.get(f"{tenant.service.url}/.well-known/jwks.json") as response:
            published = await response.json(content_type=None)
        receiver.keys = {each["kid"]: jwt.PyJWK(each).key for each in published["keys"]}
    asked = {"url": receiver.url + "/hook"} | more
    made = await tenant.call("POST", "/v1/webhooks", asked, role="administrator")
    assert made.status == 201, made.body
    receiver.secret = made["secret"]
    return f"/v1/webhooks/{made['id']}"


async def sent(tenant: Tenant, there: Callable[[], bool | Awaitable[bool]]) -> None:
    """Send what is due until this is so; an event may wait for a transaction of somebody else."""
    webhooks = tenant.service.context.webhooks
    async with asyncio.timeout(20):
        while True:
            await webhooks.once()
            await asyncio.gather(*webhooks._under_way, return_exceptions=True)
            found = there()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)
