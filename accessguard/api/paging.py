"""Lists: one page as JSON, or every row as CSV."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from accessguard.api.encoding import encode
from accessguard.api.read import Paging, bad_cursor, from_cursor, to_cursor
from accessguard.api.reply import CSV, SAFE_HEADERS, csv_header, csv_lines, written_reply
from accessguard.errors import ErrorCode, GuardError
from accessguard.listing import Short, onward
from accessguard.slices import drained, in_slices

Item = TypeVar("Item", bound=msgspec.Struct)
Place = TypeVar("Place")

CSV_PAGE: Final = 250
"""Rows that are read at once for a file, some 5 ms of a worker's; of these and the next ones alone anything is held in memory."""
CSV_SLICE: Final = 50
"""Rows that are written at once: about 0.5 ms."""


async def page(
    request: web.Request,
    asked: Paging,
    kind: type[Item],
    place: type[Place],
    fetch: Callable[[Place | None, int], Awaitable[Sequence[tuple[Item, Place]]]],
    *,
    at_once: int = CSV_PAGE,
) -> web.StreamResponse:
    """Answer one page of `fetch(after, limit)`, whose rows come with the place to go on after; of a file `at_once` are read."""
    if CSV in request.headers.get("Accept", ""):
        return await every_row(request, kind, fetch, headers={}, at_once=at_once)
    items, cursor = await portion(asked, place, fetch)
    return written_reply(await listed(items, cursor))


async def listed(items: list[Item], cursor: str | None) -> bytes:
    """A page as JSON, written in slices: between two of them others have their turn. The list is empty afterwards."""
    written = [encode(item) async for item in in_slices(drained(items))]
    return b'{"items":[%b],"next_cursor":%b}' % (b",".join(written), encode(cursor))


async def portion(
    asked: Paging,
    place: type[Place],
    fetch: Callable[[Place | None, int], Awaitable[Sequence[tuple[Item, Place]]]],
) -> tuple[list[Item], str | None]:
    """The items of one page, and the cursor of the next one, if there is one; a page may end early and have one."""
    rows = await _after(asked.cursor, place, asked.limit + 1, fetch)
    if isinstance(rows, Short):
        return [item for item, _ in rows], to_cursor(list(rows.further))
    shown = rows[: asked.limit]
    more = len(rows) > asked.limit
    return [item for item, _ in shown], to_cursor(list(_parts(shown[-1][1]))) if more else None


async def _after(
    cursor: str | None,
    place: type[Place],
    limit: int,
    fetch: Callable[[Place | None, int], Awaitable[Sequence[tuple[Item, Place]]]],
) -> Sequence[tuple[Item, Place]]:
    """The rows after a cursor; one that leads to a place where nothing can be is refused as such."""
    try:
        return await fetch(from_cursor(cursor, place), limit)
    except GuardError as error:
        if cursor is None or error.code is not ErrorCode.INVALID or error.problems:
            raise
        raise bad_cursor() from None


async def every_row(
    request: web.Request,
    kind: type[Item],
    fetch: Callable[[Place | None, int], Awaitable[Sequence[tuple[Item, Place]]]],
    *,
    headers: Mapping[str, str],
    at_once: int = CSV_PAGE,
) -> web.StreamResponse:
    """Every row as CSV, a portion at a time: while the caller takes one, the next one is read, and no further.

    What goes wrong in the middle cuts the connection, so that nobody takes a part for the whole.
    """
    columns = kind.__struct_fields__
    rows = await fetch(None, at_once)
    response = web.StreamResponse(headers={"Content-Type": f"{CSV}; charset=utf-8", **SAFE_HEADERS, **headers})
    await response.prepare(request)
    await response.write(csv_header(columns))
    try:
        await _portions(response, rows, fetch, at_once)
    except GuardError:
        if request.transport is not None:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


async def _portions(
    response: web.StreamResponse,
    rows: Sequence[tuple[Item, Place]],
    fetch: Callable[[Place | None, int], Awaitable[Sequence[tuple[Item, Place]]]],
    at_once: int,
) -> None:
    """All of a list from `rows` on. PostgreSQL reads while this worker writes: neither waits for the other for long."""
    while (after := onward(rows, at_once)) is not None:
        following = asyncio.ensure_future(fetch(after, at_once))
        following.add_done_callback(_seen)
        try:
            await _write(response, rows)
            rows = await following
        finally:
            following.cancel()
    await _write(response, rows)


def _seen(reading: asyncio.Future[Any]) -> None:
    """What goes wrong is told to whoever waits for it, and to nobody where the caller has gone."""
    if not reading.cancelled():
        reading.exception()


async def _write(response: web.StreamResponse, rows: Sequence[tuple[Item, Place]]) -> None:
    """A portion in slices: between two of them whoever else is served by this worker has its turn."""
    for start in range(0, len(rows), CSV_SLICE):
        await response.write(csv_lines(item for item, _ in rows[start : start + CSV_SLICE]))
        await asyncio.sleep(0)


def _parts(place: Any) -> Sequence[Any]:
    return place if isinstance(place, (tuple, list)) else (place,)
