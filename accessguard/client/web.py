"""Middleware for aiohttp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from accessguard.client.asking import AccessGuard
from accessguard.client.front import Desk, Front, Refusal, Seen, reader
from accessguard.client.gate import AsyncGate
from accessguard.client.naming import NOTHING, mark_of

GATE: Final = web.RequestKey("accessguard", AsyncGate)
"""Where a request's gate is found: `request[GATE]`."""


def guarded(app: web.Application, guard: AccessGuard, front: Front | None = None) -> web.Application:
    """Ask about every request of an application, and close the client with it."""

    async def close(_: web.Application) -> None:
        await guard.close()

    app.middlewares.append(middleware(guard, front))
    app.on_cleanup.append(close)
    return app


def middleware(guard: AccessGuard, front: Front | None = None) -> Middleware:
    """The middleware alone; it finds the mark of `activity` on handlers."""
    desk = Desk(front or Front())

    @web.middleware
    async def asked(request: web.Request, handler: Handler) -> web.StreamResponse:
        seen, values = seen_in(request), request.match_info
        named = desk.paths.find(seen.method, seen.path)
        gate = AsyncGate(guard, desk, seen, mark_of(values.handler, dict(values)) if named is NOTHING else named)
        await gate.ask()
        if gate.stopped:
            return _refused(gate.refusal, gate.cookies)
        request[GATE] = gate
        return await _answered(request, handler, gate)

    return asked


async def _answered(request: web.Request, handler: Handler, gate: AsyncGate) -> web.StreamResponse:
    """The handler's answer with the cookies of a login, or a refusal in its place."""
    try:
        answer = await handler(request)
    except web.HTTPException as raised:
        if gate.stopped:
            return _refused(gate.refusal, gate.cookies)
        for each in gate.cookies:
            raised.headers.add("Set-Cookie", each)
        raise
    if gate.stopped and not answer.prepared:
        return _refused(gate.refusal, gate.cookies)
    for each in () if answer.prepared else gate.cookies:
        answer.headers.add("Set-Cookie", each)
    return answer


def seen_in(request: web.Request) -> Seen:
    """A request as aiohttp tells it."""
    headers: Mapping[str, str] = request.headers

    def header(name: str) -> str:
        return headers.get(name, "").encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    return Seen(
        method=request.method,
        path=request.path,
        query=request.query_string,
        peer=request.remote or "",
        host=header("host"),
        accept=header("accept"),
        cookies="; ".join(request.headers.getall("Cookie", ())),
        user_agent=header("user-agent"),
        forwarded_for=", ".join(request.headers.getall("X-Forwarded-For", ())),
        hints=reader(header),
    )


def _refused(refusal: Refusal, cookies: list[str]) -> web.Response:
    answer = web.Response(status=refusal.status, body=refusal.body)
    for name, value in refusal.headers:
        if name != "Content-Length":
            answer.headers[name] = value
    for each in cookies:
        answer.headers.add("Set-Cookie", each)
    return answer
