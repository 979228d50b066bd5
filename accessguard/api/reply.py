"""Answers as bytes: JSON, problem documents (RFC 9457) and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec.structs import astuple
from multidict import CIMultiDict

from accessguard.api.encoding import encode
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.facts import time_text

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
CSV: Final = "text/csv"
NDJSON: Final = "application/x-ndjson"
RETRY_AFTER_S: Final = "1"

# Answers carry decisions about a person: nobody on the way may keep them (RFC 9111, 5.2.2.5).
SAFE_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Server": "AccessGuard"}

# Of nearly every answer, so that the boundary has nothing to add; a copy costs half of what building it does.
JSON_HEADERS: Final = CIMultiDict({"Content-Type": JSON, **SAFE_HEADERS})

STATUS: Final[Mapping[ErrorCode, int]] = {
    ErrorCode.INVALID: 400,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.TIMED_OUT: 408,
    ErrorCode.CONFLICT: 409,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.UNSUPPORTED: 415,
    ErrorCode.UNPROCESSABLE: 422,
    ErrorCode.THROTTLED: 429,
    ErrorCode.UNAVAILABLE: 503,
}

TITLES: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.INVALID: "The request is not valid",
    ErrorCode.UNAUTHENTICATED: "Authentication is needed",
    ErrorCode.FORBIDDEN: "Not allowed",
    ErrorCode.NOT_FOUND: "Not found",
    ErrorCode.METHOD_NOT_ALLOWED: "Method not allowed",
    ErrorCode.CONFLICT: "In conflict with what is stored",
    ErrorCode.TOO_LARGE: "The body is too large",
    ErrorCode.UNSUPPORTED: "Unsupported media type",
    ErrorCode.UNPROCESSABLE: "Cannot be processed",
    ErrorCode.THROTTLED: "Too many calls",
    ErrorCode.TIMED_OUT: "The request took too long to arrive",
    ErrorCode.UNAVAILABLE: "Temporarily unavailable",
}

# A cell that starts like this is a formula to a spreadsheet, full-width signs included (OWASP, "CSV Injection").
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457; `errors` points at each refused field."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[Problem, ...] = ()


def reply(value: Any, *, status: int = 200) -> web.Response:
    """A JSON answer; times are written with milliseconds, in UTC."""
    return written_reply(encode(value), status=status)


def written_reply(body: bytes, *, status: int = 200) -> web.Response:
    """A JSON answer whose bytes are there."""
    return web.Response(body=body, status=status, headers=JSON_HEADERS)


def nothing() -> web.Response:
    """An answer without a body."""
    return web.Response(status=204)


def plain(value: msgspec.Struct) -> bytes:
    """The value as JSON, if no time is in it."""
    return msgspec.json.encode(value)


def problem(error: GuardError) -> web.Response:
    """The answer that says why a call was not carried out."""
    return web.Response(
        body=problem_body(error.code, error.message, error.problems),
        status=STATUS[error.code],
        content_type=PROBLEM,
        headers=problem_headers(error),
    )


def problem_headers(error: GuardError) -> dict[str, str]:
    """What goes with a problem besides its body."""
    if error.code is ErrorCode.UNAVAILABLE:
        return {"Retry-After": RETRY_AFTER_S, **error.headers}
    if error.code is ErrorCode.UNAUTHENTICATED:
        return {"WWW-Authenticate": 'Bearer realm="accessguard"', **error.headers}
    return dict(error.headers)


def problem_body(code: ErrorCode, detail: str, errors: Iterable[Problem] = ()) -> bytes:
    """The problem document as bytes."""
    document = ProblemDocument(
        type=f"urn:accessguard:problem:{code}",
        title=TITLES[code],
        status=STATUS[code],
        detail=detail,
        errors=tuple(errors),
    )
    return msgspec.json.encode(document)


def csv_lines(items: Iterable[msgspec.Struct]) -> bytes:
    """Items of a list as CSV (RFC 4180) without a header; what is nested is written as JSON."""
    return csv_rows(astuple(item) for item in items)


def csv_rows(rows: Iterable[Iterable[Any]]) -> bytes:
    """Rows of values as CSV without a header; what is nested is written as JSON."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue().encode()


def csv_header(columns: Iterable[str]) -> bytes:
    """The first line of a CSV answer."""
    buffer = io.StringIO()
    csv.writer(buffer).writerow(columns)
    return buffer.getvalue().encode()


def _cell(value: Any) -> str:
    write = CELLS.get(type(value))
    return _other(value) if write is None else write(value)


def _text(value: str) -> str:
    return f"'{value}" if value.startswith(FORMULA) else str(value)


def _other(value: Any) -> str:
    match value:
        case str():
            return _text(value)
        case datetime():
            return time_text(value)
        case int() | float() | UUID() | date():
            return str(value)
        case _:
            return encode(value).decode()


# By the type itself, which is most of what is looked at for a cell; what is none of these is told by `_other`.
CELLS: Final[Mapping[type, Callable[[Any], str]]] = {
    str: _text,
    type(None): lambda _: "",
    datetime: time_text,
    bool: lambda value: "true" if value else "false",
    **dict.fromkeys((int, float, UUID, date), str),
}
