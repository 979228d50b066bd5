"""The student's page as HTML: one file without script, small enough for an old phone; the school's colours are its style."""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime
from functools import cache, lru_cache
from hashlib import sha256
from typing import Final
from urllib.parse import urlencode

import msgspec
from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from accessguard.api.reply import STATUS, problem_headers
from accessguard.api.restricted_wire import MOST_CHARS, RestrictedPage
from accessguard.errors import GuardError
from accessguard.policies.branding import Brand, origins, shades
from accessguard.words import page as words
from accessguard.words.catalogues import Text, say
from accessguard.words.moments import Clock, day, hour

NOTES: Final = {
    "written": words.SENT,
    "late": words.LATE,
    "empty": words.EMPTY,
}
"""What is said on top, by the word in the address; that a place is free, the page says by itself."""
HEADERS: Final = {
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A page with what its links and forms carry on: the token, the language that was chosen, what was done just now.

    `framed`: it is an operator's preview, shown within the console.
    """

    page: RestrictedPage
    token: str
    lang: str | None
    done: str = ""
    clock: Clock = Clock()
    framed: bool = False


def page(shown: Shown) -> web.Response:
    """The whole page."""
    found = shown.page
    return _response(
        "restricted.html",
        found.brand,
        language=found.language,
        framed=shown.framed,
        page=found,
        token=shown.token,
        note=NOTES.get(shown.done),
        room=MOST_CHARS,
        used=lambda at: _used(found.language, at, shown.clock),
        here=lambda lang: f"?{urlencode({'t': shown.token, 'lang': lang})}",
        kept="" if shown.lang is None else f"?{urlencode({'lang': shown.lang})}",
    )


def over(language: str) -> web.Response:
    """What is said instead of a page that is over or never was: the same of every one, so that it tells nothing."""
    return _notice(language, words.OVER, words.OVER_WHY, status=404)


def broken(language: str, error: GuardError) -> web.Response:
    """What is said when nothing can be done now, or the form was none of this page's."""
    response = _notice(language, words.TITLES["undecided"], words.LATE, status=STATUS[error.code])
    response.headers.update(problem_headers(error))
    return response


def _notice(language: str, title: Text, why: Text, *, status: int) -> web.Response:
    return _response("restricted_over.html", Brand(), language=language, status=status, title=title, why=why)


def _response(
    template: str, brand: Brand, *, language: str, status: int = 200, framed: bool = False, **shown: object
) -> web.Response:
    style = style_of(brand)
    said = {"style": Markup(style), "language": language, "W": words, "native": words.NATIVE}  # noqa: S704 -- our own file
    said["say"] = lambda text, number=1, label="": say(language, text, {"count": number, "label": label}, number=number)
    html = room().get_template(template).render(**said, **shown)
    headers = HEADERS | {"Content-Security-Policy": policy(brand, style, framed=framed)}
    headers["X-Frame-Options"] = "SAMEORIGIN" if framed else "DENY"
    return web.Response(text=html, status=status, content_type="text/html", charset="utf-8", headers=headers)


def policy(brand: Brand, style: str, *, framed: bool) -> str:
    """What the browser may load: this one style, and the school's pictures (CSP level 3)."""
    pictures = " ".join(("'self'", *origins(brand)))
    source = b64encode(sha256(style.encode()).digest()).decode()
    ancestors, forms = ("'self'", "'none'") if framed else ("'none'", "'self'")
    return (
        f"default-src 'none'; style-src 'sha256-{source}'; img-src {pictures}; form-action {forms}; base-uri 'none'; "
        f"frame-ancestors {ancestors}"
    )


@lru_cache(maxsize=256)
def style_of(brand: Brand) -> str:
    """The style in a school's colours."""
    return room().get_template("restricted.css").render(c=shades(brand)).strip()


@cache
def room() -> Environment:
    """The templates, read once."""
    made = Environment(
        loader=PackageLoader("accessguard.api"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["plainly"] = lambda label: label.replace(" on ", " · ")
    return made


def _used(language: str, at: datetime, clock: Clock) -> str:
    return say(language, words.LAST_USED, {"date": day(language, at, clock), "time": hour(language, at, clock)})
