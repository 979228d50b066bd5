"""One thing done to many contacts: who, then what, asked twice where it cannot be undone, then how far it is."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from accessguard.api import bulk as api_bulk
from accessguard.api.context import context
from accessguard.api.read import decode
from accessguard.api.wire import BulkFilter, BulkRequest
from accessguard.console.door import see_other
from accessguard.console.forms import Form, form, moment, taken, text, texts
from accessguard.console.pen import page, reader_of
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.selecting import Preview

FIELDS: Final = frozenset(BulkFilter.__struct_fields__)


class Whom(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Those whose ids these are, or with a filter everybody whom it finds."""

    ids: tuple[str, ...] | None = None
    filter: BulkFilter | None = None


async def chosen(request: web.Request) -> web.StreamResponse:
    """Who was chosen, and all that can be done to them; nothing is done yet."""
    whom = _whom(await form(request))
    shown = {
        "whom": msgspec.json.encode(whom).decode(),
        "ids": whom.ids or (),
        "filter": _said(whom.filter),
        "everybody": whom.filter is not None and not _said(whom.filter),
    }
    return page(request, "bulk.html", shown)


async def begin(request: web.Request) -> web.StreamResponse:
    """Begin it; what cannot be undone is shown first, with how many it would be done to."""
    asked = _asked(request, await form(request))
    found = await api_bulk.begun(request, asked, context(request).new_id())
    if isinstance(found, Preview):
        return page(request, "bulk_sure.html", {"preview": found, "asked": msgspec.json.encode(asked).decode()})
    return see_other(f"/console/jobs/{found.id}")


async def confirm(request: web.Request) -> web.StreamResponse:
    """Do what was shown, to exactly those."""
    sent = await form(request)
    asked = decode(text(sent, "asked").encode(), BulkRequest)
    asked = msgspec.structs.replace(asked, confirmation=text(sent, "confirmation"))
    found = await api_bulk.begun(request, asked, context(request).new_id())
    return see_other(f"/console/jobs/{found.id}" if not isinstance(found, Preview) else "/console/contacts")


def _whom(sent: Form) -> Whom:
    if text(sent, "whom") == "found":
        said = {name: value for name, value in parse_qsl(text(sent, "query")) if name in FIELDS}
        return Whom(filter=taken(BulkFilter, said))
    if not texts(sent, "ids"):
        raise GuardError(ErrorCode.INVALID, "Choose at least one contact.")
    return Whom(ids=texts(sent, "ids"))


def _asked(request: web.Request, sent: Form) -> BulkRequest:
    """What the form says; a field that an action does not take is not on its form."""
    whom = decode(text(sent, "whom").encode(), Whom)
    said: dict[str, Any] = {
        "action": text(sent, "action"),
        "tags": [each.strip() for each in text(sent, "tags").splitlines() if each.strip()],
        "until": moment(sent, "until", reader_of(request).zone),
    }
    said |= {name: text(sent, name).strip() or None for name in ("product_id", "mode", "reason")}
    return taken(BulkRequest, said | msgspec.to_builtins(whom))


def _said(found: BulkFilter | None) -> dict[str, str]:
    """The filters that are not empty, as they are in an address."""
    plain = {} if found is None else {name: getattr(found, name) for name in BulkFilter.__struct_fields__}
    return {name: "" if value is True else str(value) for name, value in plain.items() if value}
