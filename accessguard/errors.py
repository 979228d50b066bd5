"""What a caller can act on: one error type, one closed set of codes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec

PATH: Final = re.compile(r"^(.*?)(?: - at (?:`key` in )?`\$?(.*)`)?$", re.DOTALL)


class ErrorCode(StrEnum):
    """Why a call was not carried out; `api/reply.py` maps each to one HTTP status."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported_media_type"
    UNPROCESSABLE = "unprocessable"
    THROTTLED = "throttled"
    TIMED_OUT = "timed_out"
    UNAVAILABLE = "unavailable"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One refused field: `pointer` is a JSON pointer (RFC 6901) into the body."""

    pointer: str
    detail: str


def problem_of(text: str) -> Problem:
    """From msgspec's "... - at `$.rules[0].max`" to a problem with the pointer `/rules/0/max`."""
    match = PATH.match(text)
    detail, path = (match.group(1), match.group(2) or "") if match else (text, "")
    pointer = re.sub(r"[.\[]", "/", path.partition("[...]")[0]).replace("]", "")
    return Problem(pointer=pointer, detail=detail)


class GuardError(Exception):
    """A refusal that the caller can act on; rendered once, at the boundary.

    `message` is one sentence for a person and never carries a secret, a token
    or an address. `problems` names the refused fields, if any; `headers` go
    with the answer.
    """

    def __init__(
        self, code: ErrorCode, message: str, *problems: Problem, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.problems = problems
        self.headers = headers


class StartError(Exception):
    """The service cannot start; the text is one sentence that says why."""
