"""What the student's page says, made of what was told and of how it stands now. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from accessguard.api.restricted_wire import Place, RestrictedPage
from accessguard.api.speech import Listener, language_of, spoken_in_parts
from accessguard.devices.browser import recognise
from accessguard.guard.explaining import OF_DEVICES, OF_SESSIONS, Stands
from accessguard.guard.facts import from_ms
from accessguard.guard.refused import LASTS_MS, Refused
from accessguard.policies.hosts import primary
from accessguard.policies.model import Policy, Settings
from accessguard.rules.model import Code, Stage
from accessguard.words.catalogues import say
from accessguard.words.languages import LANGUAGES
from accessguard.words.page import TITLES
from accessguard.words.student import CONFIRM

SIGN_IN: Final = frozenset({Code.UNKNOWN_SESSION, Code.SESSION_ENDED, Code.SESSION_EXPIRED, Code.COPIED_SESSION})


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """Who looks: what the token says, the school, in which language, from which browser."""

    refused: Refused
    policy: Policy
    listener: Listener
    lang: str | None
    user_agent: str | None
    now_ms: int


def drawn(visit: Visit, stands: Stands, *, complete: bool = True) -> RestrictedPage:
    """The page of a refusal that stands so."""
    settings, said = visit.policy.settings, visit.refused
    verdict = said.verdict(_message(visit.policy, said))
    if visit.lang is not None:
        verdict = msgspec.structs.replace(verdict, locale=visit.lang)
    language = language_of(verdict, visit.listener)
    parts, tongue = spoken_in_parts(verdict, said.code, visit.listener)
    challenge = stands.challenge
    freed = challenge is not None and challenge.freed is not None
    left = challenge.swaps_left if challenge else 0
    confirm = say(language, CONFIRM)
    return RestrictedPage(
        school=settings.name or said.tenant,
        brand=settings.brand,
        language=language,
        languages=settings.languages or LANGUAGES,
        code=said.code,
        title=say(language, TITLES[said.code]),
        why=tuple(each for each in parts.why if each != confirm) if left else parts.why,
        why_language=tongue,
        when=parts.when,
        retry_at=verdict.retry_at if parts.when else None,
        support_email=settings.support_email,
        places=tuple(_places(said, stands)),
        challenged=said.challenged,
        swaps_left=left,
        freed=freed,
        freed_label=stands.freed,
        next=_next(said, stands, freed=freed),
        continue_url=continue_url(settings),
        may_write=stands.may_write,
        written=stands.written,
        complete=complete,
        expires_at=from_ms(said.at_ms + LASTS_MS),
    )


def with_this(found: RestrictedPage, visit: Visit) -> RestrictedPage:
    """The page with the browser that it is open in among the places, where none of them is known to be it."""
    of_sessions = visit.refused.code in OF_SESSIONS
    counts = of_sessions or visit.refused.code in OF_DEVICES
    if not counts or not found.complete or found.freed or any(each.this for each in found.places):
        return found
    label = recognise(visit.user_agent).label
    this = Place(kind="session" if of_sessions else "device", id=None, label=label, this=True)
    return msgspec.structs.replace(found, places=(this, *found.places))


def continue_url(settings: Settings) -> str | None:
    """Where the student goes on: the school's login page where it is known, else its primary host."""
    login, host = settings.proxy.login_url, primary(settings.hosts)
    login = None if login is None else login.replace("{return_to}", "%2F")
    if login is not None and login.startswith("https://"):
        return login
    return None if host is None else f"https://{host}{login or '/'}"


def _places(said: Refused, stands: Stands) -> Iterator[Place]:
    """What counts, the one that was refused first; what the challenge offers can be closed while the budget lasts."""
    challenge = stands.challenge
    offered = {each.id: each for each in challenge.choices} if challenge and challenge.swaps_left else {}
    counted = {each.id: each for each in stands.counted} | offered
    mine = {said.session_id, str(said.device_id)}
    for each in sorted(counted.values(), key=lambda one: one.id not in mine):
        yield Place(
            kind="session" if each.kind == "session" else "device",
            id=each.id,
            label=each.label,
            last_activity_at=each.last_activity_at,
            this=each.id in mine,
            same=each.id in offered and offered[each.id].same,
            closable=each.id in offered and each.id not in mine,
        )


def _next(said: Refused, stands: Stands, *, freed: bool) -> Literal["sign_in", "go_back"] | None:
    challenge = stands.challenge
    if freed and challenge is not None:
        return "go_back" if challenge.stage is Stage.CHECK else "sign_in"
    return "sign_in" if said.code in SIGN_IN else None


def _message(policy: Policy, said: Refused) -> str | None:
    """The rule's own text, as it is now."""
    return next((rule.message for rule in policy.rules if rule.id == said.rule_id), None)
