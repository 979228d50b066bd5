"""The boundary: every refusal becomes a problem document, every failure of ours a bare 500 with a log line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import HttpVersion10, HttpVersion11, web

from accessguard.api.encoding import encode
from accessguard.api.reply import (
    PROBLEM,
    SAFE_HEADERS,
    STATUS,
    ProblemDocument,
    problem,
    problem_body,
    problem_headers,
)
from accessguard.errors import ErrorCode, GuardError
from accessguard.metrics import HTTP

LOG: Final = structlog.get_logger("accessguard.api")

FAILURE: Final = ProblemDocument(
    type="about:blank", title="Internal error", status=500, detail="Something went wrong here; it has been logged."
)

NOT_HTTP: Final = GuardError(ErrorCode.INVALID, "The request is not valid HTTP.")
CODES: Final = {status: code for code, status in STATUS.items()}

REQUEST_ID: Final = "X-Request-ID"
SPOKEN: Final = frozenset({HttpVersion10, HttpVersion11})
"""aiohttp takes a first line without a version, or with 2.0, too; no proxy in front would see the same request in it."""
AUTHZEN: Final = ("/access/v1/", "/.well-known/authzen-configuration")

NAMED_HEADERS: Final = {name: value for name, value in SAFE_HEADERS.items() if name != "Cache-Control"}
ANSWERS: Final = {number: HTTP.labels(f"{number}xx") for number in range(1, 6)}


@web.middleware
async def boundary(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Render errors and count answers."""
    try:
        _check_version(request)
        response = await handler(request)
    except web.HTTPException as error:
        response = _of_http(error)
    except ConnectionError:
        raise  # the caller has gone: there is nobody to answer, and nothing to log
    except Exception as error:  # noqa: BLE001 - the one place where whatever goes wrong becomes an answer
        status, body, headers = rendered(error, route=_route(request))
        response = web.Response(body=body, status=status, content_type=PROBLEM, headers=headers)
    ANSWERS[response.status // 100].inc()
    if request.path.startswith(AUTHZEN):
        _identify(request, response)
    if "Server" not in response.headers and not response.prepared:
        response.headers.update(SAFE_HEADERS if "Cache-Control" not in response.headers else NAMED_HEADERS)
    return response


def _check_version(request: web.Request) -> None:
    if request.version not in SPOKEN:
        raise GuardError(
            NOT_HTTP.code, NOT_HTTP.message
        )  # one that is kept would keep every request that it was raised for


def _identify(request: web.Request, response: web.StreamResponse) -> None:
    """Give the request's id back, whatever the answer (AuthZEN 1.0, "Request Identification in a Response")."""
    said = request.headers.get(REQUEST_ID, "")
    if said.isascii() and said.isprintable() and said and not response.prepared:
        response.headers[REQUEST_ID] = said


def rendered(error: Exception, *, route: str = "fast lane") -> tuple[int, bytes, dict[str, str]]:
    """An error as status, problem document and headers; one that is not the caller's is logged and says nothing."""
    if isinstance(error, GuardError):
        body = problem_body(error.code, error.message, error.problems)
        return STATUS[error.code], body, problem_headers(error)
    LOG.error("unexpected", route=route, exc_info=error)
    return 500, encode(FAILURE), {}


def _of_http(error: web.HTTPException) -> web.StreamResponse:
    """What aiohttp itself refuses (no such path, wrong method, body too large) in the same form."""
    if error.status < HTTPStatus.BAD_REQUEST:
        return error
    code = CODES.get(error.status)
    if code is None:
        document = ProblemDocument(type="about:blank", title=error.reason, status=error.status, detail=error.reason)
        return web.Response(body=encode(document), status=error.status, content_type=PROBLEM)
    response = problem(GuardError(code, _DETAILS.get(code, error.reason)))
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


_DETAILS: Final = {
    ErrorCode.NOT_FOUND: "There is nothing here.",
    ErrorCode.METHOD_NOT_ALLOWED: "This path does not take that method.",
    ErrorCode.TOO_LARGE: "The body is larger than this service accepts.",
}


def _route(request: web.Request) -> str:
    """The path's pattern, never the path itself, which names people."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else "none"
