"""Requests as typed values: body, query, paging. Bad input is a GuardError that points at the field."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, TypeAlias, TypeVar
from uuid import UUID

import msgspec
from aiohttp import web
from multidict import MultiDictProxy

from accessguard.api.reply import JSON
from accessguard.errors import ErrorCode, GuardError, Problem, problem_of

T = TypeVar("T")
Fields: TypeAlias = MultiDictProxy[str | bytes | bytearray | web.FileField]

RAW: Final = web.RequestKey("raw", bytes)
BODY_S: Final = 20.0
"""How long a body may take: the largest at 50 kB a second."""
DEEPEST: Final = 32
"""Levels of lists and objects in a value that may be anything."""
NUL: Final = b"\\u0000"

# Fields that are cleaned or read as unknown instead of refused: a browser sends in them what it likes.
LENIENT: Final = frozenset({"user_agent", "client_hints", "device_token"})


class Paging(msgspec.Struct, frozen=True, kw_only=True):
    """What every list takes."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50
    cursor: Annotated[str, msgspec.Meta(max_length=2000)] | None = None


async def body(request: web.Request, kind: type[T]) -> T:
    """The JSON body as `kind`. Raises GuardError INVALID, TOO_LARGE or UNSUPPORTED."""
    if request.content_type not in (JSON, "application/octet-stream") and not request.content_type.endswith("+json"):
        raise GuardError(ErrorCode.UNSUPPORTED, "The body must be application/json.")
    return decode(await raw_body(request), kind)


async def raw_body(request: web.Request) -> bytes:
    """The body as bytes, as often as asked. Raises GuardError INVALID or TOO_LARGE.

    Nearly always it is all here before its handler runs, and is taken in one
    step; to wait for it the way aiohttp does costs as much as to decode it.
    """
    if RAW in request:
        return request[RAW]
    try:
        raw = _at_hand(request)
        if raw is None:
            async with in_time():
                raw = await request.read()
        request[RAW] = raw
    except web.HTTPRequestEntityTooLarge:
        raise GuardError(ErrorCode.TOO_LARGE, "The body is larger than this service accepts.") from None
    except web.RequestPayloadError:
        raise GuardError(ErrorCode.INVALID, "The body is not what its headers say.") from None
    return raw


@asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """While a body is waited for. Raises GuardError(TIMED_OUT) when it does not come."""
    try:
        async with asyncio.timeout(BODY_S):
            yield
    except TimeoutError:
        raise GuardError(
            ErrorCode.TIMED_OUT, f"The body did not arrive within {BODY_S:.0f} s.", headers={"Connection": "close"}
        ) from None


def _at_hand(request: web.Request) -> bytes | None:
    """The body when all of it is here and its length was announced, within what may be read; else None."""
    length, content = request.content_length, request.content
    if length is None or length > request.client_max_size or "Content-Encoding" in request.headers:
        return None
    return content.read_nowait() if content.is_eof() else None


async def posted(request: web.Request) -> Fields:
    """The fields of a form, as often as asked. Raises GuardError: INVALID, TIMED_OUT, TOO_LARGE.

    A form names the codec of its text, which may be none, or one that makes what UTF-8 cannot say.
    """
    try:
        async with in_time():
            sent = await request.post()
        "".join(each for field in sent.items() for each in field if isinstance(each, str)).encode()
    except web.HTTPRequestEntityTooLarge:
        raise GuardError(ErrorCode.TOO_LARGE, "The form is larger than this service accepts.") from None
    except (ValueError, LookupError, web.RequestPayloadError):
        raise GuardError(ErrorCode.INVALID, "The form is not what its headers say.") from None
    return sent


def decode(raw: bytes, kind: type[T]) -> T:
    """JSON bytes as `kind`. Raises GuardError(INVALID) with a pointer to the refused field."""
    try:
        value = msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise refused(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise GuardError(ErrorCode.INVALID, "The body is not valid JSON in UTF-8.") from None
    if NUL in raw:
        _refuse_nul(msgspec.to_builtins(value), "")
    return value


def shallow(value: Any, pointer: str) -> None:
    """Refuse what is nested deeper than anybody reads it, and than every encoder on its way can. Raises GuardError(INVALID)."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for each in level for inner in _inner(each)]
        if not level:
            return
    problem = Problem(pointer=pointer, detail=f"nested deeper than {DEEPEST} levels")
    raise GuardError(ErrorCode.INVALID, "The body was refused.", problem)


def _inner(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return tuple(value.values())
    return value if isinstance(value, list) else ()


def query(request: web.Request, kind: type[T]) -> T:
    """The query as `kind`; a parameter given twice or unknown is refused. Raises GuardError(INVALID)."""
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given:
            raise _query_problem(name, "given twice")
        if "\0" in value:
            raise _query_problem(name, "contains a NUL character")
        given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise refused(str(error), "The query is not valid.") from None


def path_text(request: web.Request, name: str) -> str:
    """A path segment that is an opaque id. Raises GuardError(NOT_FOUND) for what cannot be one."""
    value = request.match_info[name]
    if not 0 < len(value) <= 128 or "\0" in value:
        raise GuardError(ErrorCode.NOT_FOUND, "There is nothing here.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise GuardError(ErrorCode.NOT_FOUND, "There is nothing here.") from None
    return value


def path_id(request: web.Request, name: str) -> UUID:
    """A path segment that is a UUID. Raises GuardError(NOT_FOUND) for what is none."""
    try:
        return UUID(request.match_info[name])
    except ValueError:
        raise GuardError(ErrorCode.NOT_FOUND, "There is nothing here.") from None


def to_cursor(place: Sequence[Any]) -> str:
    """The place after which the next page begins, as an opaque text."""
    return urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def from_cursor(cursor: str | None, kind: type[T]) -> T | None:
    """The place that a cursor stands for; None without one. Raises GuardError(INVALID)."""
    if cursor is None:
        return None
    try:
        return msgspec.json.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=kind)
    except (ValueError, msgspec.DecodeError):
        raise bad_cursor() from None


def bad_cursor() -> GuardError:
    """The refusal of a cursor that this list did not give."""
    return _query_problem("cursor", "not a cursor that this list gave")


def refused(text: str, message: str = "The body was refused.") -> GuardError:
    """The refusal that msgspec's words come to, with a pointer to the field."""
    return GuardError(ErrorCode.INVALID, message, problem_of(text))


def _refuse_nul(value: Any, pointer: str) -> None:
    if isinstance(value, str) and "\0" in value:
        problem = Problem(pointer=pointer, detail="contains a NUL character")
        raise GuardError(ErrorCode.INVALID, "The body was refused.", problem)
    if isinstance(value, dict):
        for name, each in value.items():
            if name not in LENIENT:
                _refuse_nul(name, pointer)
                _refuse_nul(each, f"{pointer}/{name}")
    elif isinstance(value, (list, tuple)):
        for place, each in enumerate(value):
            _refuse_nul(each, f"{pointer}/{place}")


def _query_problem(name: str, detail: str) -> GuardError:
    return GuardError(ErrorCode.INVALID, "The query is not valid.", Problem(pointer=f"/{name}", detail=detail))
