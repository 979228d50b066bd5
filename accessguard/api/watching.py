"""What is counted, noted and traced of each request on the ordinary route, whatever came of it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import web

from accessguard.api.context import CONTEXT
from accessguard.api.keys import Role
from accessguard.api.routes import ROUTES, Route
from accessguard.logs import ASKED, LEVEL, REQUEST_ID, Ids
from accessguard.tracing import TRACING

LOG: Final = structlog.get_logger("accessguard.api")

NAMED: Final = {
    "/v1/check": "check",
    "/v1/checks": "checks",
    "/v1/logins": "login",
    "/v1/challenges/{challenge_id}": "login",
    "/v1/stream": "stream",
}
GATES: Final = ("/auth/", "/access/", "/.well-known/")
PREFIXES: Final = (*((prefix, "gate") for prefix in GATES), ("/v1/", "operator"), ("/console", "console"))
QUIET: Final = frozenset({"check", "checks", "login", "gate", "other"})
"""What is asked all the time, and what both lanes answer: there the id is in an answer only when the failure is ours."""


def entry_of(route: Route) -> str:
    """By which of `metrics.ENTRIES` a call comes in."""
    if route.path in NAMED:
        return NAMED[route.path]
    if Role.PLATFORM in route.roles:
        return "platform"
    return _by_prefix(route.path)


def _by_prefix(path: str) -> str:
    return next((entry for prefix, entry in PREFIXES if path.startswith(prefix)), "other")


ENTRY: Final[Mapping[tuple[str, str], str]] = {(each.method, each.path): entry_of(each) for each in ROUTES}


@web.middleware
async def watched(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Count and time a request, and give it an id; the innermost handler and the boundary are below."""
    resource = request.match_info.route.resource
    path = resource.canonical if resource else ""  # the pattern: a path itself names people
    entry = ENTRY.get((request.method, path)) or _by_prefix(path)
    tally, began, status = request.app[CONTEXT].checks.tally, time.perf_counter(), 0
    said = request.headers.get("traceparent")
    ids = Ids(lambda: said)
    ASKED.set(ids)
    tally.begin(entry)
    try:
        with TRACING.entry(entry, said) as span:
            response = await handler(request)
            status = response.status
            span.ended(status)
        _identify(response, ids, entry)
        return response
    finally:
        seconds = time.perf_counter() - began
        tally.end(entry, status, seconds)
        if LEVEL.debug:
            ms = round(seconds * 1e3, 3)
            LOG.debug("answered", entry=entry, method=request.method, route=path, status=status, ms=ms)


def _identify(response: web.StreamResponse, ids: Ids, entry: str) -> None:
    """Let the caller know by which id to ask for the lines of its request."""
    ours = response.status == HTTPStatus.INTERNAL_SERVER_ERROR
    if not response.prepared and (ours or entry not in QUIET):
        response.headers[REQUEST_ID] = ids.request_id
