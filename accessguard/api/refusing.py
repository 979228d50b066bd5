"""How a proxy is told no: a status and a reason for all, a redirect or a page for browsers where the dialect carries one."""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web
from markupsafe import escape

from accessguard.api.forwarded import Dialect, Told
from accessguard.api.reply import PROBLEM, RETRY_AFTER_S, ProblemDocument
from accessguard.api.speech import Listener
from accessguard.api.wire import refusal
from accessguard.guard.model import Verdict
from accessguard.rules.model import Code

REASON: Final = "AccessGuard-Reason"
TITLES: Final = {401: "Log in first", 403: "Not allowed", 503: "Temporarily unavailable"}
HTML: Final = "text/html"
POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE: Final = (
    '<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><title>{title}</title></head>'
    '<body><p dir="auto">{detail}</p></body></html>'
)


class Refusal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Why a request may not pass, and where its browser should go instead."""

    status: int
    reason: str
    detail: str
    location: str | None = None
    language: str = "en"

    @classmethod
    def of(cls, status: int, verdict: Verdict, code: Code, listener: Listener, login: str | None) -> Refusal:
        """What a verdict comes to for its student."""
        said = refusal(msgspec.structs.replace(verdict, code=code), listener)
        detail, language = (said.message, said.language) if said is not None else (TITLES[status], "en")
        page = said.page_url if said is not None else None
        return cls(status=status, reason=code.value, detail=detail, location=page or login, language=language)


def refusing(dialect: Dialect, say: Told, why: Refusal) -> web.Response:
    """The answer in the words of a dialect."""
    headers = {REASON: why.reason}
    if why.status == 503:
        headers["Retry-After"] = RETRY_AFTER_S
    if why.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="accessguard"'
    location = why.location if say.browser else None
    if location is not None:
        headers["Location"] = location
    if dialect is Dialect.NGINX:
        return web.Response(status=why.status, headers=headers)
    if location is not None:
        headers.pop("WWW-Authenticate", None)
        return web.Response(status=302, headers=headers)
    if say.browser:
        return _page(why, headers)
    return web.Response(status=why.status, headers=headers, body=_document(why), content_type=PROBLEM)


def _page(why: Refusal, headers: dict[str, str]) -> web.Response:
    text = PAGE.format(language=escape(why.language), title=escape(TITLES[why.status]), detail=escape(why.detail))
    headers |= {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
    return web.Response(status=why.status, headers=headers, text=text, content_type=HTML, charset="utf-8")


def _document(why: Refusal) -> bytes:
    kind = f"urn:accessguard:refusal:{why.reason}"
    return msgspec.json.encode(
        ProblemDocument(type=kind, title=TITLES[why.status], status=why.status, detail=why.detail)
    )
