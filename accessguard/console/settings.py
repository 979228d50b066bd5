"""What a school chose: one page for each subject, saved by the same call as the API's; a preview of what students read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, get_args

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.explained import Visit, drawn
from accessguard.api.reply import STATUS
from accessguard.api.restricted_view import Shown
from accessguard.api.restricted_view import page as student_page
from accessguard.api.speech import Listener
from accessguard.console.document import SECTIONS, Document, document_of, filled, judged, mark_of
from accessguard.console.door import see_other
from accessguard.console.forms import Form, form, text
from accessguard.console.pen import page, reader_of
from accessguard.console.shield import POLICY
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.challenges import Standing
from accessguard.guard.explaining import OF_DEVICES, OF_SESSIONS, Stands
from accessguard.guard.facts import from_ms, to_ms
from accessguard.guard.model import Choice
from accessguard.guard.refused import Refused
from accessguard.policies.model import Language, Settings, Wording, policy
from accessguard.rules.model import Activity, Code, Stage
from accessguard.words.moments import clock
from accessguard.words.operator import case_text
from accessguard.words.page import NATIVE
from accessguard.words.student import Told, refusal
from accessguard.words.template import PLACEHOLDERS

LANGUAGES: Final[tuple[str, ...]] = get_args(Language)
SPARE: Final = 3
"""Empty rows at the end of a list, to be filled in."""


async def home(request: web.Request) -> web.StreamResponse:
    """The first of the pages."""
    return see_other("/console/settings/school")


async def shown(request: web.Request) -> web.StreamResponse:
    """One subject."""
    section, settings = _section(request), await _settings(request)
    return _page(request, section, document_of(settings), mark_of(settings))


async def saved(request: web.Request) -> web.StreamResponse:
    """Save one subject; what other pages show stays as it is stored."""
    section, sent, settings = _section(request), await form(request), await _settings(request)
    document = filled(document_of(settings), section, sent)
    try:
        await _save(request, sent, document)
    except GuardError as error:
        if error.code not in (ErrorCode.INVALID, ErrorCode.CONFLICT):
            raise
        return _page(request, section, document, text(sent, "seen"), error)
    return see_other(f"/console/settings/{section}?done=settings")


async def messages(request: web.Request) -> web.StreamResponse:
    """Every code with what the school says itself, in which languages."""
    settings, language = await _settings(request), reader_of(request).language
    rows = [(code.value, case_text(language, code.value, {}), settings.messages.get(code, {})) for code in Code]
    offered = settings.languages or LANGUAGES
    return page(request, "settings_messages.html", {"rows": rows, "offered": offered, "native": NATIVE})


async def message(request: web.Request) -> web.StreamResponse:
    """One text in one language, beside the student's page that shows it."""
    code, language = _which(request)
    settings = await _settings(request)
    wording = next((each for tongue, each in settings.messages.get(code, {}).items() if tongue == language), None)
    return _message_page(request, settings, wording, mark_of(settings))


async def message_saved(request: web.Request) -> web.StreamResponse:
    """Save one text, or take it away by leaving it empty."""
    code, language = _which(request)
    sent, settings = await form(request), await _settings(request)
    said = {"text": text(sent, "text").replace("\r\n", "\n"), "state": text(sent, "state")}
    document = document_of(settings)
    texts = document["messages"].setdefault(code.value, {})
    texts.pop(language, None)
    if said["text"].strip():
        texts[language] = said
    try:
        await _save(request, sent, document)
    except GuardError as error:
        if error.code not in (ErrorCode.INVALID, ErrorCode.CONFLICT):
            raise
        return _message_page(request, settings, said, text(sent, "seen"), error)
    return see_other("/console/settings/messages?done=settings")


async def preview(request: web.Request) -> web.StreamResponse:
    """The student's page for one code and language: with the text that a form says, or as it is saved."""
    code, language = _which(request)
    settings = await _settings(request)
    if request.method == "POST":
        said = text(await form(request), "text").replace("\r\n", "\n")[:1000]
        settings = _with_text(settings, code, language, said)
    return student_page(_preview(settings, code, language, context(request).now_ms(), asking(request).tenant))


async def _save(request: web.Request, sent: Form, document: Document) -> None:
    ctx, who = context(request), asking(request)
    await ctx.tenancy.save_settings(
        who.tenant,
        who.actor,
        judged(document),
        reason=text(sent, "reason")[:1000] or None,
        now_ms=ctx.now_ms(),
        seen=lambda stored: mark_of(stored) == text(sent, "seen"),
    )


async def _settings(request: web.Request) -> Settings:
    return await context(request).policies.settings(asking(request).tenant) or Settings()


def _section(request: web.Request) -> str:
    section = request.match_info["section"]
    if section not in SECTIONS:
        raise GuardError(ErrorCode.NOT_FOUND, "There is nothing here.")
    return section


def _which(request: web.Request) -> tuple[Code, str]:
    code, language = request.match_info["code"], request.match_info["language"]
    if code not in {each.value for each in Code} or language not in LANGUAGES:
        raise GuardError(ErrorCode.NOT_FOUND, "There is nothing here.")
    return Code(code), language


def _problems(error: GuardError | None) -> Sequence[Problem]:
    if error is None:
        return ()
    return error.problems or (Problem(pointer="", detail=error.message),)


def _page(
    request: web.Request, section: str, document: Document, seen: str, error: GuardError | None = None
) -> web.Response:
    """The page of a subject; each problem stands by its field, those of no field on top."""
    empty_host = {"host": "", "primary": False, "status": "active"}
    empty_path = {"path": "", "kind": "lesson_open", "methods": ["GET"], "resource": None, "product": None}
    shown = {
        "section": section,
        "fields": SECTIONS[section],
        "document": document,
        "seen": seen,
        "problems": _problems(error),
        "hosts": [*document["hosts"], *(SPARE * [empty_host])],
        "paths": [*document["proxy"]["activities"], *(SPARE * [empty_path])],
        "activities": tuple(Activity),
        "native": NATIVE,
    }
    return page(request, "settings.html", shown, status=STATUS[error.code] if error else 200)


def _message_page(
    request: web.Request,
    settings: Settings,
    wording: Wording | dict[str, Any] | None,
    seen: str,
    error: GuardError | None = None,
) -> web.Response:
    code, language = _which(request)
    kept = msgspec.to_builtins(wording) if wording is not None else {"text": "", "state": "draft"}
    shown = {
        "code": code.value,
        "name": case_text(reader_of(request).language, code.value, {}),
        "language": language,
        "native": NATIVE,
        "wording": kept,
        "usual": refusal(language, Told(code=code.value, limit=2, counted=3, support_email=settings.support_email)),
        "placeholders": PLACEHOLDERS,
        "seen": seen,
        "problems": _problems(error),
    }
    response = page(request, "settings_message.html", shown, status=STATUS[error.code] if error else 200)
    response.headers["Content-Security-Policy"] = f"{POLICY}; frame-src 'self'"
    return response


def _with_text(settings: Settings, code: Code, language: str, said: str) -> Settings:
    """The settings as if the text were enabled; an empty one is the usual text."""
    texts = {tongue: each for tongue, each in settings.messages.get(code, {}).items() if tongue != language}
    if said.strip():
        texts[language] = Wording(text=said, state="enabled")  # type: ignore[index] # _which saw to the language
    return msgspec.structs.replace(settings, messages={**settings.messages, code: texts})


def _preview(settings: Settings, code: Code, language: str, now_ms: int, tenant: str) -> Shown:
    """The page of a student who is made up."""
    limits = code in OF_SESSIONS | OF_DEVICES
    said = Refused(
        tenant=tenant,
        at_ms=now_ms,
        code=code,
        challenged=False,
        member_id="student",
        session_id=None,
        device=None,
        rule=None,
        violation=None,
        challenge=None,
        limit=2,
        counted=3,
        retry_ms=to_ms(from_ms(now_ms) + timedelta(hours=3)) if limits or code is Code.LOGIN_FAILURES else None,
        end_reason="session_limit" if code is Code.SESSION_ENDED else None,
        lapse="expired" if code is Code.NO_ACTIVE_ENROLMENT else None,
        locale=language,
        time_zone=settings.time_zone,
    )
    whole = policy(tenant, 0, msgspec.structs.replace(settings, languages=(language,)), ())
    visit = Visit(
        refused=said,
        policy=whole,
        listener=Listener(settings=whole.settings),
        lang=language,
        user_agent=None,
        now_ms=now_ms,
    )
    kind = "session" if code in OF_SESSIONS else "device"
    labels = ("Chrome on Windows", "Safari on iOS") if limits else ()
    counted = tuple(
        Choice(kind=kind, id=label, label=label, last_activity_at=from_ms(now_ms) - timedelta(hours=hours))
        for hours, label in enumerate(labels, start=1)
    )
    stands = Stands(
        counted=counted,
        challenge=Standing(stage=Stage.LOGIN, choices=counted, swaps_left=int(bool(limits))),
        may_write=True,
    )
    return Shown(
        page=drawn(visit, stands), token="", lang=None, clock=clock(settings.time_zone, settings.time_zone), framed=True
    )
