"""In which words somebody is answered: the rule's own, the school's own, or the catalogue's."""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from accessguard.api.context import Context
from accessguard.guard.model import Verdict
from accessguard.guard.refused import RefusedPages
from accessguard.policies.model import Settings
from accessguard.rules.model import Code, Outcome
from accessguard.words.languages import UNDETERMINED, accepted, chosen
from accessguard.words.moments import clock
from accessguard.words.student import Parts, Told, parts, refusal, values
from accessguard.words.template import filled


class Listener(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whom a message is for: a student of a school with these settings, whose browser accepts these languages.

    `pages` makes the address of the page that explains it, at `now_ms`; None for nobody in particular.
    """

    settings: Settings = Settings()
    accepted: tuple[str, ...] = ()
    tenant: str = ""
    pages: RefusedPages | None = None
    now_ms: int = 0

    def page_url(self, verdict: Verdict) -> str | None:
        """Where the student is told more of this refusal."""
        return None if self.pages is None else self.pages.url(self.tenant, verdict, self.now_ms)


ANYBODY: Final = Listener()


def listening(ctx: Context, tenant: str, header: str | None) -> Listener:
    """The listener of a call; `header` is its `Accept-Language`, the student's, which the platform passes on."""
    policy = ctx.book.held(tenant)
    settings = policy.settings if policy else Settings()
    return Listener(settings=settings, accepted=accepted(header), tenant=tenant, pages=ctx.pages, now_ms=ctx.now_ms())


def reading(request: web.Request) -> str:
    """The one of the six languages that an operator reads, by the call's `Accept-Language`."""
    return chosen(accepted(request.headers.get("Accept-Language")))


def language_of(verdict: Verdict, listener: Listener) -> str:
    """The language to answer a student in: by the locale that the platform knows, else by what the browser accepts."""
    wanted = listener.accepted if verdict.locale is None else (verdict.locale, *listener.accepted)
    return chosen(wanted, listener.settings.languages)


def spoken(verdict: Verdict, code: Code, listener: Listener) -> tuple[str, str]:
    """What the student reads, and in which language (BCP 47).

    A rule's own text wins as it is; it is in the school's first language, or in
    one that nobody said. Else the school's text, when it is enabled and names
    nothing that this refusal does not have. Else the catalogue's.
    """
    settings = listener.settings
    if verdict.message is not None:
        return verdict.message, next(iter(settings.languages), UNDETERMINED)
    language, told = language_of(verdict, listener), _told(verdict, code, settings)
    own = _own(settings, code, language)
    text = None if own is None else filled(own, values(language, told))
    return (refusal(language, told) if text is None else text), language


def spoken_in_parts(verdict: Verdict, code: Code, listener: Listener) -> tuple[Parts, str]:
    """The same for a page: sentences apart, and the language of those that say why, which a rule's own text may not share."""
    settings, language = listener.settings, language_of(verdict, listener)
    told = _told(verdict, code, settings)
    usual = parts(language, told)
    text, tongue = spoken(verdict, code, listener)
    if text == refusal(language, told):
        return usual, language
    return msgspec.structs.replace(usual, why=(text,)), tongue


def _own(settings: Settings, code: Code, language: str) -> str | None:
    """The school's own text, when it is enabled."""
    wordings = settings.messages.get(code, {}).items()
    return next((each.text for tongue, each in wordings if tongue == language and each.state == "enabled"), None)


def _told(verdict: Verdict, code: Code, settings: Settings) -> Told:
    return Told(
        code=code.value,
        end_reason=verdict.end_reason,
        lapse=verdict.lapse,
        limit=verdict.limit,
        counted=verdict.counted,
        retry_at=verdict.retry_at,
        support_email=verdict.support_email or settings.support_email,
        challenged=verdict.outcome is Outcome.CHALLENGE,
        clock=clock(verdict.time_zone, settings.time_zone),
    )
