"""Lists on a page: their filters from the address, one page of rows, where the next one begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, TypeVar
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from accessguard.api.paging import CSV_PAGE, every_row
from accessguard.api.read import Paging
from accessguard.console.forms import taken
from accessguard.console.pen import reader_of
from accessguard.console.shield import HEADERS

Asked = TypeVar("Asked", bound=Paging)
Item = TypeVar("Item", bound=msgspec.Struct)
Place = TypeVar("Place")

ROWS: Final = 50


def asked(request: web.Request, kind: type[Asked], **fixed: object) -> Asked:
    """The filters that the address names; an empty one is none, and what is no filter is passed over."""
    known = {each.encode_name for each in msgspec.structs.fields(kind)} - {"limit"}
    said = {name: value for name, value in request.query.items() if name in known and value}
    return taken(kind, {"limit": ROWS} | said | fixed)


def between(request: web.Request) -> dict[str, datetime | None]:
    """The days from `from` to `to`, both included, by the reader's clock; None for one that is not named or is none."""
    return {"from": _day(request, "from"), "to": _day(request, "to", timedelta(days=1))}


def _day(request: web.Request, name: str, after: timedelta = timedelta()) -> datetime | None:
    try:
        day = date.fromisoformat(request.query.get(name, "")) + after
        return datetime.combine(day, time(), reader_of(request).zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def link(request: web.Request, **changed: str | None) -> str:
    """The address of this page with other values; None takes one away, and so does any change the cursor."""
    kept = {name: value for name, value in request.query.items() if name not in ("cursor", "done")}
    said: Mapping[str, str] = {name: value for name, value in (kept | changed).items() if value}
    return f"{request.rel_url.raw_path}?{urlencode(said)}" if said else request.rel_url.raw_path


async def file(
    request: web.Request,
    name: str,
    kind: type[Item],
    fetch: Callable[[Place | None, int], Awaitable[Sequence[tuple[Item, Place]]]],
    *,
    at_once: int = CSV_PAGE,
) -> web.StreamResponse:
    """Every row of a list, however long it is, as a CSV file that the browser keeps as `name`."""
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return await every_row(request, kind, fetch, headers=headers, at_once=at_once)
