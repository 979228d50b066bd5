"""Writing a page: its template, its language, its times; everything that is not ours is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, tzinfo
from typing import Final
from urllib.parse import quote

import aiohttp_jinja2
import msgspec
from aiohttp import web
from babel import Locale
from babel.dates import format_date, format_datetime, format_timedelta
from babel.numbers import format_decimal
from jinja2 import PackageLoader, StrictUndefined
from markupsafe import Markup

from accessguard.api.context import asking, context
from accessguard.console import names
from accessguard.console.files import address
from accessguard.console.rights import may
from accessguard.events.console_sessions import ConsoleSession
from accessguard.guard.facts import time_text
from accessguard.policies.model import Settings
from accessguard.words.catalogues import CONSOLE, catalogue, locale
from accessguard.words.languages import LANGUAGES, accepted, chosen
from accessguard.words.moments import zone
from accessguard.words.operator import related_text

SESSION: Final = web.RequestKey("console_session", ConsoleSession)
UNREAD: Final = web.RequestKey("console_unread", int)
NAMES: Final = {name: value for name, value in vars(names).items() if isinstance(value, dict) and name.isupper()}
"""What the templates call things, by the names of `names.py`."""


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """Who a page is written for: a language, a time zone (`zone_name`, IANA), the time now."""

    language: str
    zone: tzinfo
    zone_name: str
    now: datetime

    def time(self, at: datetime | None) -> Markup | str:
        """A time as the reader's clock says, to the minute; the whole of it is in the element."""
        if at is None:
            return "\N{EN DASH}"
        local = at.astimezone(self.zone)
        text = format_datetime(local, "medium", tzinfo=self.zone, locale=locale(self.language))
        return Markup('<time datetime="{}">{}</time>').format(time_text(at), text)

    def ago(self, at: datetime | None) -> Markup | str:
        """How long ago, or in what time; the time itself is in the title."""
        if at is None:
            return "\N{EN DASH}"
        text = format_timedelta(at - self.now, add_direction=True, locale=locale(self.language))
        whole = format_datetime(at.astimezone(self.zone), "long", tzinfo=self.zone, locale=locale(self.language))
        return Markup('<time datetime="{}" title="{}">{}</time>').format(time_text(at), whole, text)

    def day(self, value: date) -> str:
        """A day as the language writes it."""
        return format_date(value, "medium", locale=locale(self.language))

    def number(self, value: float) -> str:
        """A number as the language writes it."""
        return format_decimal(value, locale=locale(self.language))


def set_up(app: web.Application) -> None:
    """Read the templates; `_` is there for each page anew, in its language."""
    room = aiohttp_jinja2.setup(
        app,
        loader=PackageLoader("accessguard.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    room.filters |= {"segment": segment, "plainly": plainly}
    room.globals |= {"file": address, "languages": {tag: _own_name(tag) for tag in LANGUAGES}} | NAMES


def page(request: web.Request, template: str, shown: Mapping[str, object], *, status: int = 200) -> web.Response:
    """A page for somebody who is not signed in, or for nobody in particular."""
    text = written(request, template, shown)
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8")


def written(request: web.Request, template: str, shown: Mapping[str, object]) -> str:
    """A template filled in for the reader: a page, or a part of one."""
    reader = reader_of(request)
    words = catalogue(reader.language, CONSOLE)
    said = {
        "_": words.gettext,
        "many": words.ngettext,
        "reader": reader,
        "common": lambda each: related_text(reader.language, each.reason, shared=each.shared, members=each.members),
        "session": None,
        "form": "",
        "may": _nothing,
        "here": request.path,
        "whole": request.rel_url.raw_path_qs,
        "done": request.query.get("done"),
        "unread": request.get(UNREAD, 0),
        "school": "",
    }
    return aiohttp_jinja2.render_string(template, request, {**said, **_of_session(request), **shown})


def reader_of(request: web.Request) -> Reader:
    """The reader: the language that the operator chose, else what the browser accepts; the zone by the school."""
    settings = settings_of(request)
    own = request[SESSION].language if SESSION in request else None
    language = own if own is not None and own in LANGUAGES else chosen(accepted(request.headers.get("Accept-Language")))
    name = settings.time_zone
    return Reader(
        language=language,
        zone=zone(name) or UTC,
        zone_name=name if zone(name) else "UTC",
        now=datetime.fromtimestamp(context(request).now_ms() / 1000, tz=UTC),
    )


def settings_of(request: web.Request) -> Settings:
    """What the school chose; the defaults where nobody is signed in."""
    policy = context(request).book.held(asking(request).tenant) if SESSION in request else None
    return policy.settings if policy else Settings()


def plainly(label: str) -> str:
    """What a device is called by itself, such as `Chrome on Windows`, without its one English word."""
    return label.replace(" on ", " · ")


def segment(text: object) -> str:
    """A text as one segment of a path, whatever is in it."""
    return quote(str(text), safe="")


def _own_name(tag: str) -> str:
    """A language as those who speak it call it, such as `Italiano`."""
    name = Locale.parse(tag, sep="-").get_display_name() or tag
    return name[:1].upper() + name[1:]


def _of_session(request: web.Request) -> dict[str, object]:
    if SESSION not in request:
        return {}
    session, ctx = request[SESSION], context(request)
    return {
        "session": session,
        "form": ctx.entrance.form_token(session),
        "may": lambda call: may(session.role, call),
        "school": settings_of(request).name or session.tenant,
    }


def _nothing(call: str) -> bool:
    """What somebody may do who is not signed in."""
    return False
