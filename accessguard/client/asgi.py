"""Middleware for ASGI: FastAPI, Starlette, Django's asynchronous side."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from accessguard.client.asking import AccessGuard
from accessguard.client.front import Desk, Front, Refusal, Seen, reader
from accessguard.client.gate import AsyncGate
from accessguard.client.naming import NOTHING, Named, mark_of

Scope: TypeAlias = MutableMapping[str, Any]  # what ASGI puts into it is JSON's kind of anything
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Names: TypeAlias = Callable[[Scope], Named]

KEY: Final = "accessguard"
"""Where a request's gate is found: `scope["accessguard"]`."""
FULL: Final = 2
"""Starlette's `Match.FULL`."""
POLICY_VIOLATION: Final = 1008
"""RFC 6455, 7.4.1."""


class GuardMiddleware:
    """Asks about every request before the application sees it.

    `names` finds what a request does where no path pattern does; as it is, it
    looks for the mark of `activity` on Starlette's and FastAPI's endpoints.
    """

    def __init__(self, app: App, guard: AccessGuard, front: Front | None = None, *, names: Names | None = None) -> None:
        self._app = app
        self._guard = guard
        self._desk = Desk(front or Front())
        self._names = names or by_route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, by the ASGI specification (3.0)."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, self._ending(receive), send)
            return
        seen = seen_in(scope)
        named = self._desk.paths.find(seen.method, seen.path)
        gate = AsyncGate(self._guard, self._desk, seen, self._names(scope) if named is NOTHING else named)
        await gate.ask()
        if gate.stopped:
            await _refuse(scope, receive, send, gate.refusal)
            return
        scope[KEY] = gate
        await self._app(scope, receive, Sending(gate, send))

    def _ending(self, receive: Receive) -> Receive:
        """Close the client when the server ends."""

        async def received() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._guard.close()
            return message

        return received


class Sending:
    """Passes the application's answer on, with the cookies of a login; or puts a refusal in its place."""

    __slots__ = ("_gate", "_replaced", "_send")

    def __init__(self, gate: AsyncGate, send: Send) -> None:
        self._gate = gate
        self._send = send
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        """One message of the answer."""
        if message["type"] == "http.response.start":
            if self._gate.stopped:
                self._replaced = True
                await _answer(self._send, self._gate.refusal, self._gate.cookies)
                return
            cookies = [(b"set-cookie", each.encode("latin-1")) for each in self._gate.cookies]
            message = {**message, "headers": [*message.get("headers", ()), *cookies]}
        if not self._replaced:
            await self._send(message)


def seen_in(scope: Scope) -> Seen:
    """A request as ASGI tells it; header values are bytes, and more than one `Cookie` is allowed (RFC 9113, 8.2.3)."""
    found: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        text = value.decode("latin-1")
        glue = "; " if name == b"cookie" else ", "
        found[name] = f"{found[name]}{glue}{text}" if name in found else text

    def header(name: str) -> str:
        return found.get(name.encode(), "")

    client = scope.get("client")
    return Seen(
        method=scope.get("method", "GET"),
        path=scope["path"],
        query=scope.get("query_string", b"").decode("latin-1"),
        peer=client[0] if client else "",
        host=header("host"),
        accept=header("accept"),
        cookies=header("cookie"),
        user_agent=header("user-agent"),
        forwarded_for=header("x-forwarded-for"),
        hints=reader(header),
    )


def by_route(scope: Scope) -> Named:
    """The mark on the endpoint that Starlette or FastAPI will call."""
    for route in getattr(scope.get("app"), "routes", ()):
        match, child = route.matches(scope)
        if match.value == FULL:
            return mark_of(child.get("endpoint"), child.get("path_params", {}))
    return NOTHING


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    if scope["type"] == "websocket":
        await receive()  # the handshake, which a close before `accept` answers with 403
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ""})
        return
    await _answer(send, refusal, [])


async def _answer(send: Send, refusal: Refusal, cookies: list[str]) -> None:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in refusal.headers]
    headers += [(b"set-cookie", each.encode("latin-1")) for each in cookies]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": refusal.body})
