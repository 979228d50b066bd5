"""The page that explains a refusal to its student: what happened, what counts, one place freed, a few words to support.

Nobody signs in to it: the token in its address says who was refused, of what
(guard/refused.py). A form carries the same token, which no other site knows;
what changes something is sent by POST, so a mail filter that opens links
changes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, TypeVar
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from accessguard.api.context import Context, context
from accessguard.api.explained import Visit, drawn, with_this
from accessguard.api.read import Fields, body, posted, refused
from accessguard.api.reply import JSON, problem, reply
from accessguard.api.restricted_view import Shown, broken, over, page
from accessguard.api.restricted_wire import MOST_CHARS, PlaceRequest, RestrictedPage, RestrictedQuery, WordsRequest
from accessguard.api.speech import Listener
from accessguard.challenges.model import Freed
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.explaining import Stands
from accessguard.words.languages import LANGUAGES, accepted, chosen
from accessguard.words.moments import clock

FORM: Final = "application/x-www-form-urlencoded"
LARGEST_FORM: Final = 32_768
"""Bytes: a token and 500 characters of four bytes, percent-encoded."""
NOTES: Final = {ErrorCode.CONFLICT: "late", ErrorCode.INVALID: "empty"}
"""What the page says after a form that came to nothing."""

T = TypeVar("T", PlaceRequest, WordsRequest)
Act: TypeAlias = Callable[[Context, Visit, T], Awaitable[None]]
PLACES: Final = {"session": "end_session_id", "device": "forget_device_id"}


async def show(request: web.Request) -> web.Response:
    """Explain a refusal to its student.

    As JSON with `Accept: application/json`, else as a web page. Raises
    NOT_FOUND (404) for a token that is over or never was, UNAVAILABLE (503).
    """
    asked = _query(request)
    try:
        visit = await _visiting(request, asked)
        found = await explained(context(request), visit)
    except GuardError as error:
        return _failed(request, error)
    if _wants_json(request):
        return reply(found)
    return page(
        Shown(
            page=with_this(found, visit),
            token=asked.t,
            lang=visit.lang,
            done=request.query.get("done", ""),
            clock=clock(visit.refused.time_zone, visit.policy.settings.time_zone),
        )
    )


async def free(request: web.Request) -> web.Response:
    """Free a place: end one session, or remove one device.

    Within the budget of the rule that refused. A session that was challenged
    then goes on; a login is to be made anew. Raises NOT_FOUND (404) for a token that is over or never was,
    CONFLICT (409) when it is not possible any more, UNAVAILABLE (503).
    """
    return await _changed(request, PlaceRequest, _free, "freed")


async def write(request: web.Request) -> web.Response:
    """Write a few words to support; they are kept with the case.

    Three times at most. Raises NOT_FOUND (404) for a token that is over or never was, CONFLICT (409) where nothing
    more is kept, UNAVAILABLE (503).
    """
    return await _changed(request, WordsRequest, _write, "written")


async def explained(ctx: Context, visit: Visit) -> RestrictedPage:
    """The page as it stands now; without a store what was told is there all the same."""
    try:
        stands, complete = await ctx.explaining.stands(visit.refused, visit.now_ms), True
    except GuardError as error:
        if error.code is not ErrorCode.UNAVAILABLE:
            raise
        stands, complete = Stands(), False
    return drawn(visit, stands, complete=complete)


async def _changed(request: web.Request, kind: type[T], act: Act[T], done: str) -> web.Response:
    """Do what is asked, then show how it stands: JSON at once, a browser by a page of its own (RFC 9110, 15.4.4)."""
    lang = _query(request).lang
    try:
        asked = await _sent(request, kind) if _is_form(request) else await body(request, kind)
        visit = await _visiting(request, RestrictedQuery(t=asked.t, lang=lang))
    except GuardError as error:
        return _failed(request, error)
    try:
        await act(context(request), visit, asked)
        if _wants_json(request):
            return reply(await explained(context(request), visit))
    except GuardError as error:
        if _wants_json(request) or error.code not in NOTES:
            return _failed(request, error)
        done = NOTES[error.code]
    kept = {"t": asked.t, "done": done} | ({} if lang is None else {"lang": lang})
    headers = {"Location": f"../restricted?{urlencode(kept)}", "Referrer-Policy": "no-referrer"}
    return web.Response(status=303, headers=headers)


async def _free(ctx: Context, visit: Visit, asked: PlaceRequest) -> None:
    if (asked.end_session_id is None) is (asked.forget_device_id is None):
        one = Problem(pointer="/end_session_id", detail="exactly one place is freed")
        raise GuardError(ErrorCode.INVALID, "The body was refused.", one)
    freed = Freed(session_id=asked.end_session_id, device_id=asked.forget_device_id)
    await ctx.explaining.free(visit.refused, freed, visit.now_ms)


async def _write(ctx: Context, visit: Visit, asked: WordsRequest) -> None:
    await ctx.explaining.write(visit.refused, asked.text, visit.now_ms)


async def _visiting(request: web.Request, asked: RestrictedQuery) -> Visit:
    """Who looks. Raises GuardError: NOT_FOUND, UNAVAILABLE."""
    ctx, now_ms = context(request), context(request).now_ms()
    said = ctx.pages.read(asked.t, now_ms)
    policy = None if said is None else await ctx.book.best(said.tenant)
    if said is None or policy is None:
        raise GuardError(ErrorCode.NOT_FOUND, "This page is over, or was never there.")
    offered = policy.settings.languages or LANGUAGES
    return Visit(
        refused=said,
        policy=policy,
        listener=Listener(settings=policy.settings, accepted=accepted(request.headers.get("Accept-Language"))),
        lang=asked.lang if asked.lang in offered else None,
        user_agent=request.headers.get("User-Agent"),
        now_ms=now_ms,
    )


def _query(request: web.Request) -> RestrictedQuery:
    """What the address says; what it should not say is passed over, as a student cannot mend it."""
    lang = request.query.get("lang")
    return RestrictedQuery(t=request.query.get("t", ""), lang=lang if lang in LANGUAGES else None)


async def _sent(request: web.Request, kind: type[T]) -> T:
    """A form as the same request that JSON makes; a place is `session:<id>` or `device:<id>`."""
    sent = await _form(request)
    said = {"t": _field(sent, "t"), "text": _field(sent, "text").replace("\r\n", "\n")[:MOST_CHARS]}
    closed, _, name = _field(sent, "place").partition(":")
    if closed in PLACES:
        said[PLACES[closed]] = name
    try:
        return msgspec.convert(said, kind, strict=False)
    except msgspec.ValidationError as error:
        raise refused(str(error), "The form was refused.") from None


async def _form(request: web.Request) -> Fields:
    """A form of this page, not of another site's: browsers say so (Fetch Metadata); older ones show the token alone.

    Raises GuardError: FORBIDDEN, TOO_LARGE, INVALID.
    """
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise GuardError(ErrorCode.FORBIDDEN, "This form was sent by a page of another site.")
    if (request.content_length or LARGEST_FORM + 1) > LARGEST_FORM:
        raise GuardError(ErrorCode.TOO_LARGE, "The form is larger than this page takes.")
    return await posted(request)


def _field(sent: Fields, name: str) -> str:
    value = sent.get(name)
    return value if isinstance(value, str) else ""


def _is_form(request: web.Request) -> bool:
    return request.content_type == FORM


def _wants_json(request: web.Request) -> bool:
    """Whether the answer is JSON: asked for in so many words, or for who sends JSON and does not say."""
    wanted = request.headers.get("Accept", "")
    return JSON in wanted or (request.content_type == JSON and "text/html" not in wanted)


def _failed(request: web.Request, error: GuardError) -> web.Response:
    if _wants_json(request):
        return problem(error)
    language = _query(request).lang or chosen(accepted(request.headers.get("Accept-Language")))
    return over(language) if error.code is ErrorCode.NOT_FOUND else broken(language, error)
