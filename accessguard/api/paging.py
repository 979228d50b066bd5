"""Lists: one page as JSON, or every row as CSV."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from accessguard.api.read import Paging, bad_cursor, from_cursor, to_cursor
from accessguard.api.reply import CSV, SAFE_HEADERS, as_row, csv_header, csv_lines, reply
from accessguard.errors import ErrorCode, GuardError

Item = TypeVar("Item", bound=msgspec.Struct)
Place = TypeVar("Place")

CSV_PAGE: Final = 500


async def page(
    request: web.Request,
    asked: Paging,
    kind: type[Item],
    place: type[Place],
    fetch: Callable[[Place | None, int], Awaitable[Sequence[tuple[Item, Place]]]],
) -> web.StreamResponse:
    """Answer one page of `fetch(after, limit)`, whose rows come with the place to go on after."""
    if CSV in request.headers.get("Accept", ""):
        return await _stream(request, kind, fetch)
    rows = await _after(asked.cursor, place, asked.limit + 1, fetch)
    more = len(rows) > asked.limit
    shown = rows[: asked.limit]
    cursor = to_cursor(list(_parts(shown[-1][1]))) if more else None
    return reply({"items": [item for item, _ in shown], "next_cursor": cursor})


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


async def _stream(
    request: web.Request,
    kind: type[Item],
    fetch: Callable[[Place | None, int], Awaitable[Sequence[tuple[Item, Place]]]],
) -> web.StreamResponse:
    columns = kind.__struct_fields__
    rows = await fetch(None, CSV_PAGE)
    response = web.StreamResponse(headers={"Content-Type": f"{CSV}; charset=utf-8", **SAFE_HEADERS})
    await response.prepare(request)
    await response.write(csv_header(columns))
    while rows:
        await response.write(csv_lines([as_row(item) for item, _ in rows], columns))
        rows = await fetch(rows[-1][1], CSV_PAGE) if len(rows) == CSV_PAGE else ()
    await response.write_eof()
    return response


def _parts(place: Any) -> Sequence[Any]:
    return place if isinstance(place, (tuple, list)) else (place,)
