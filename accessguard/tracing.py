"""Where spans would begin: nothing happens here until `otel.py` has been switched on, and nothing of it is imported."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol


class Span(Protocol):
    """One that has begun."""

    def ended(self, status: int) -> None:
        """Say what it was answered: a status of HTTP."""


class Spans(Protocol):
    """What makes them."""

    def entry(self, name: str, traceparent: str | None) -> AbstractContextManager[Span]:
        """A span for a request, part of its caller's trace if it names one; by its entry, never by its path."""

    def store(self, name: str) -> AbstractContextManager[object]:
        """A span for a call to a store, inside that of the request that it is for."""


class _Silent:
    """A span that is none."""

    def ended(self, status: int) -> None:
        """Nobody wants to know."""


SILENT: Final = nullcontext(_Silent())


class Tracing:
    """The one place that says whether there are spans; `spans` is None while there are none."""

    __slots__ = ("spans",)

    def __init__(self) -> None:
        self.spans: Spans | None = None

    def entry(self, name: str, traceparent: str | None) -> AbstractContextManager[Span]:
        """A span for a request."""
        return SILENT if self.spans is None else self.spans.entry(name, traceparent)

    def store(self, name: str) -> AbstractContextManager[object]:
        """A span for a call to a store."""
        return SILENT if self.spans is None else self.spans.store(name)


TRACING: Final = Tracing()
