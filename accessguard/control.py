"""What a supervisor and its workers say to each other: lines of JSON over a pair of sockets.

The two may be of different releases while a new one is taken up, so unknown
fields are passed over, and nothing here changes its meaning. Whoever reads the
end of the stream knows that the other process is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from enum import StrEnum
from typing import Final, Generic, TypeVar

import msgspec

LONGEST_LINE: Final = 16 * 1_048_576
"""A scrape has some 100 kB."""


class Do(StrEnum):
    """What a worker is told: tell its state; say that it is there; answer for these slots as well as for its own; make way for another."""

    STATE = "state"
    CALL = "call"
    COVER = "cover"
    DRAIN = "drain"


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The supervisor's word; `slots` are all that a worker is to cover, so that none means its own alone."""

    do: Do
    slots: tuple[int, ...] = ()


class Say(StrEnum):
    """What a worker tells: it answers; it is still there (asked for); it cannot start; its state (asked for, and the last thing it says)."""

    READY = "ready"
    HERE = "here"
    FAILED = "failed"
    STATE = "state"


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A worker's word: `why` it failed in a sentence, its `parts` and whether each is up, its `metrics` as text.

    `pending` is how many logins wait for PostgreSQL, of all workers', as far as this one has seen.
    """

    say: Say
    why: str = ""
    parts: dict[str, str] = {}
    metrics: str = ""
    pending: int = 0


class Berth(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is given at its start: numbers of open files.

    `slots` are the listening sockets of every slot, of which number `slot` is its
    own; `shared` are those that all workers accept from; `control` is its end of the pair.
    """

    slot: int
    slots: tuple[tuple[int, ...], ...]
    shared: tuple[int, ...]
    control: int


Heard = TypeVar("Heard", bound=msgspec.Struct)
Told = TypeVar("Told", bound=msgspec.Struct)


class Link(Generic[Told, Heard]):
    """One end of the pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: type[Heard]) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = msgspec.json.Decoder(kind)

    @classmethod
    async def over(cls, end: socket.socket, kind: type[Heard]) -> Link[Told, Heard]:
        """Speak over this end, and hear words of that kind; the socket is this link's from now on."""
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=LONGEST_LINE)
        return cls(reader, writer, kind)

    def tell(self, word: Told) -> None:
        """Say something; nobody may be there to hear it."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write(msgspec.json.encode(word) + b"\n")

    async def hear(self) -> Heard | None:
        """The other's next word that this release knows; None when it is gone."""
        while True:
            try:
                line = await self._reader.readline()
            except (OSError, ValueError):
                return None
            if not line.endswith(b"\n"):
                return None
            with contextlib.suppress(msgspec.DecodeError):
                return self._decoder.decode(line)

    async def close(self) -> None:
        """Say what is still to be said, and let go."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()
            await self._writer.wait_closed()
