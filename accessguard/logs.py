"""Logs: one line of JSON each, on standard error, without anything personal."""

from __future__ import annotations

import logging
import re
import secrets
import sys
import traceback
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

REQUEST_ID: Final = "AccessGuard-Request-Id"
TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
"""W3C Trace Context, 3.2: version, trace id, parent id, flags; later versions may say more behind them."""
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Ids:
    """By what a request's lines are found: an id of our own, and the trace that its caller says it is part of.

    Made and read only when something is logged; `header` gives what `traceparent` said.
    """

    __slots__ = ("_header", "_request_id")

    def __init__(self, header: Callable[[], str | None]) -> None:
        self._header = header
        self._request_id = ""

    @property
    def request_id(self) -> str:
        """32 hexadecimal digits, the same for as long as this lives."""
        self._request_id = self._request_id or secrets.token_hex(16)
        return self._request_id

    @property
    def trace_id(self) -> str | None:
        """The caller's trace; None when it named none, or nothing that is one."""
        found = TRACEPARENT.fullmatch(self._header() or "")
        return found[1] if found else None


class Level:
    """Which lines are written: asked before one that costs more than the question. All, until it is said."""

    __slots__ = ("debug",)

    def __init__(self) -> None:
        self.debug = True


LEVEL: Final = Level()

ASKED: Final[ContextVar[Ids | None]] = ContextVar("asked", default=None)
"""The request that is being answered."""


def set_up_logs(level: str) -> None:
    """Write our own lines from `level` on (debug, info, warning, error), and those of libraries from warning on."""
    LEVEL.debug = level == "debug"
    structlog.configure(
        processors=[
            _which,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _where,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=max(LEVELS[level], logging.WARNING), force=True)
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)  # says every second what the breaker says once


class JsonLines(logging.Formatter):
    """What libraries log, as one line of JSON: their sentence without its values, which may be personal."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: MutableMapping[str, Any] = {
            "event": record.msg if isinstance(record.msg, str) else type(record.msg).__name__,
            "logger": record.name,
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "exc_info": record.exc_info[1] if record.exc_info else None,
        }
        return msgspec.json.encode(_which(None, "", _where(None, "", line))).decode()


def _which(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Say which request a line is about, where it is about one."""
    ids = ASKED.get()
    if ids is not None:
        event["request_id"] = ids.request_id
        if (trace_id := ids.trace_id) is not None:
            event["trace_id"] = trace_id
    return event


def _where(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Say where an error arose, without its message and values: they may be personal."""
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)
        event["error"] = type(error).__name__
        event["frames"] = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return event
