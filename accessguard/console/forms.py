"""What a form says, as the same typed values that the API takes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Final, TypeAlias, TypeVar

import msgspec
from aiohttp import web

from accessguard.api.read import Fields, posted, refused
from accessguard.errors import ErrorCode, GuardError, Problem

T = TypeVar("T")
Form: TypeAlias = Fields
KINDS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")


async def form(request: web.Request) -> Form:
    """The fields, as often as asked. Raises GuardError: TOO_LARGE, INVALID, UNSUPPORTED."""
    if request.content_type not in KINDS:
        raise GuardError(ErrorCode.UNSUPPORTED, "This is not a form.")
    return await posted(request)


def text(sent: Form, name: str) -> str:
    """A field; empty when it is not there or a file."""
    return _text(sent.get(name))


def texts(sent: Form, name: str) -> tuple[str, ...]:
    """A field that may be there many times."""
    return tuple(_text(each) for each in sent.getall(name, []))


def taken(kind: type[T], said: Mapping[str, object]) -> T:
    """The fields as one of the API's requests. Raises GuardError(INVALID) as it does."""
    if any(_has_nul(each) for each in said.values()):
        raise GuardError(ErrorCode.INVALID, "The form contains a NUL character.")
    try:
        return msgspec.convert(said, kind, strict=False)
    except msgspec.ValidationError as error:
        raise refused(str(error), "The form was refused.") from None


def moment(sent: Form, name: str, zone: tzinfo) -> datetime | None:
    """A `datetime-local` field as the reader's clock says it; None when it is empty. Raises GuardError(INVALID)."""
    said = text(sent, name)
    if not said:
        return None
    try:
        return datetime.fromisoformat(said).replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise GuardError(
            ErrorCode.INVALID, "The form was refused.", Problem(pointer=f"/{name}", detail="is no time")
        ) from None


def _has_nul(value: object) -> bool:
    return any(map(_has_nul, value)) if isinstance(value, (list, tuple)) else "\0" in _text(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
