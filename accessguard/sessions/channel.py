"""A subscription to Valkey that knows at once when it is lost: pushed changes are worth only what their loss is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, cast

import hiredis

from accessguard.sessions.pipe import Place, connect

PING_S: Final = 1.0
SILENCE_S: Final = 3.0
"""A channel that is pinged every second and says nothing for three has lost its other end."""


class Subscription(asyncio.Protocol):
    """One connection's subscription; over when `lost` is set."""

    def __init__(
        self, place: Place, channel: str, *, on_message: Callable[[bytes], None], on_up: Callable[[], None]
    ) -> None:
        self._place = place
        self._channel = channel
        self._on_message = on_message
        self._on_up = on_up
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._heard = self._loop.time()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Subscribe."""
        self._transport = cast("asyncio.Transport", transport)
        for command in (*self._place.greetings(), ("SUBSCRIBE", self._channel)):
            self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type] # its stub asks for 1-tuples

    def data_received(self, data: bytes) -> None:
        """Hand over messages as they arrive."""
        self._heard = self._loop.time()
        self._reader.feed(data)
        while (said := self._reader.gets()) is not False:
            if isinstance(said, hiredis.ReplyError):
                self.close()
                return
            if isinstance(said, list) and said[0] == b"message":
                self._on_message(said[2])
            elif isinstance(said, list) and said[0] == b"subscribe":
                self._on_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that it is over."""
        del exc
        self._transport = None
        self.lost.set()

    def close(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    async def watch(self, still: Callable[[Place], bool]) -> None:
        """Ping it every second; drop it when nothing is heard for three, or when nobody publishes there any more."""
        while not self.lost.is_set():
            if self._loop.time() - self._heard > SILENCE_S or not still(self._place):
                self.close()
            elif self._transport is not None:
                self._transport.write(hiredis.pack_command(("PING",)))
            try:
                async with asyncio.timeout(PING_S):
                    await self.lost.wait()
            except TimeoutError:
                continue


async def follow(
    where: Callable[[], Awaitable[Place]],
    channel: str,
    *,
    on_message: Callable[[bytes], None],
    on_channel: Callable[[bool], None],
    still: Callable[[Place], bool] = lambda _: True,
) -> None:
    """Hand over messages until cancelled; `on_channel` is told of each loss and each return. Tries again every second.

    `where` says anew for each try which server to listen to, `still` whether it is one to listen to yet.
    """
    while True:
        try:
            place = await where()
            await _followed(place, channel, on_message, on_channel, still)
        except (OSError, TimeoutError):
            pass
        finally:
            on_channel(False)  # noqa: FBT003 - the one thing it says
        await asyncio.sleep(PING_S)


async def _followed(
    place: Place,
    channel: str,
    on_message: Callable[[bytes], None],
    on_channel: Callable[[bool], None],
    still: Callable[[Place], bool],
) -> None:
    """Hand over what one server says until it is lost. Raises OSError or TimeoutError."""
    subscription = Subscription(
        place,
        channel,
        on_message=on_message,
        on_up=lambda: on_channel(True),  # noqa: FBT003 - the one thing it says
    )
    try:
        await connect(place, subscription)
        await subscription.watch(still)
    finally:
        subscription.close()
