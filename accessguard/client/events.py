"""Server-sent events (WHATWG HTML, 9.2), and what they say about answers that are held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

MOST_LINE: Final = 1_048_576


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event: its kind, its data as they came, and the id to go on from."""

    kind: str
    data: str
    id: str | None


class About(msgspec.Struct, frozen=True):
    """Whom an event is about; what is None is not said."""

    session_id: str | None = None
    member_id: str | None = None
    change: str | None = None


class Events:
    """Puts the bytes of a stream together to events.

    `last` is the id to go on from, which may come without an event; `retry_ms`
    is how long the service asks to wait before coming back.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._kind, self._data = "", list[str]()
        self.last: str | None = None
        self.retry_ms: int | None = None

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that `data` completes, in order; comments are none. Raises ValueError for an endless line."""
        *lines, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        if len(self._rest) > MOST_LINE:
            raise ValueError("a line of the stream is too long")
        for line in lines:
            event = self._line(line.decode("utf-8", "replace"))
            if event is not None:
                yield event

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatched()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self.last = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)
        return None

    def _dispatched(self) -> Event | None:
        kind, data = self._kind or "message", self._data
        self._kind, self._data = "", []
        if not data and kind == "message":
            return None
        return Event(kind=kind, data="\n".join(data), id=self.last)


_read = msgspec.json.Decoder(About).decode


def about(event: Event) -> About:
    """Whom an event is about; nobody in particular when it does not say."""
    try:
        return _read(event.data)
    except msgspec.DecodeError:
        return About()
