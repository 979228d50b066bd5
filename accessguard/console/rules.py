"""Rules: what each does in a sentence; changed with a look at what it would have done in the last 30 days."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context, origin
from accessguard.api.read import path_id
from accessguard.api.wire import RuleRequest, rule_reply, rule_version_reply
from accessguard.console.charts import Bar, bars
from accessguard.console.door import see_other
from accessguard.console.fields import fields, params
from accessguard.console.forms import form, taken, text
from accessguard.console.pen import page, reader_of
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.facts import from_ms
from accessguard.guard.simulation import Simulation
from accessguard.jobs.model import Job
from accessguard.policies.model import RuleBody, RuleRecord, normalised
from accessguard.policies.params import ACTIONS
from accessguard.rules.model import Kind, Mode
from accessguard.words.operator import sentence

TRIED_ON: Final = timedelta(days=30)


async def listed(request: web.Request) -> web.StreamResponse:
    """Every rule, those that are off included."""
    language = reader_of(request).language
    found = await context(request).policies.rules(asking(request).tenant)
    return page(request, "rules.html", {"rules": [rule_reply(each, language) for each in found], "kinds": tuple(Kind)})


async def new(request: web.Request) -> web.StreamResponse:
    """An empty form for a kind of rule."""
    kind = _kind(request.query.get("kind", Kind.SESSION_LIMIT))
    return _form(request, RuleBody(kind=kind, params={}), None)


async def one(request: web.Request) -> web.StreamResponse:
    """The form of a rule."""
    record = await _rule(request)
    return _form(request, record.body, record)


async def tried(request: web.Request) -> web.StreamResponse:
    """What a rule would have done in the last 30 days, beside the form that says it; nothing is saved."""
    record = await _known(request)
    body = await _said(request, record)
    now = from_ms(context(request).now_ms())
    try:
        found = await context(request).simulations.simulate(
            asking(request).tenant, body, since=now - TRIED_ON, until=now, language=reader_of(request).language
        )
    except GuardError as error:
        if error.code is ErrorCode.UNAVAILABLE:
            raise
        return _form(request, body, record, problems=error.problems or (Problem(pointer="", detail=error.message),))
    return _form(request, body, record, found=found)


async def saved(request: web.Request) -> web.StreamResponse:
    """Save a new rule, or the next version of one."""
    record = await _known(request)
    body, sent, ctx, who = await _said(request, record), await form(request), context(request), asking(request)
    save = ctx.tenancy.create_rule if record is None else ctx.tenancy.replace_rule
    try:
        await save(
            who.tenant,
            who.actor,
            ctx.new_id() if record is None else record.id,
            body,
            origin=origin(request),
            confirmed=bool(text(sent, "confirm")),
            reason=text(sent, "reason") or None,
            now_ms=ctx.now_ms(),
        )
    except GuardError as error:
        if error.code not in (ErrorCode.INVALID, ErrorCode.CONFLICT):
            raise
        return _form(request, body, record, problems=error.problems or (Problem(pointer="", detail=error.message),))
    return see_other("/console/rules?done=saved")


async def deleted(request: web.Request) -> web.StreamResponse:
    """Take a rule out of force."""
    sent, ctx, who = await form(request), context(request), asking(request)
    rule_id = path_id(request, "rule_id")
    reason = text(sent, "reason") or None
    await ctx.tenancy.delete_rule(who.tenant, who.actor, rule_id, reason=reason, now_ms=ctx.now_ms())
    return see_other("/console/rules?done=deleted")


async def versions(request: web.Request) -> web.StreamResponse:
    """Every version of a rule in a sentence, the newest first."""
    language = reader_of(request).language
    found = await context(request).policies.versions(asking(request).tenant, path_id(request, "rule_id"))
    if not found:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such rule.")
    told = [(rule_version_reply(each), _sentence(each.body, language)) for each in found]
    return page(request, "rule_versions.html", {"versions": told})


async def _rule(request: web.Request) -> RuleRecord:
    found = await context(request).policies.rule(asking(request).tenant, path_id(request, "rule_id"))
    if found is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such rule.")
    return found


async def _known(request: web.Request) -> RuleRecord | None:
    """The rule that the path names; None on the form of a new one."""
    return await _rule(request) if "rule_id" in request.match_info else None


async def _said(request: web.Request, record: RuleRecord | None) -> RuleBody:
    """The rule that the form says, with what no form says as it was."""
    sent = await form(request)
    kind = record.body.kind if record else _kind(text(sent, "kind"))
    before = record.body if record else RuleBody(kind=kind)
    said = {
        "kind": kind,
        "name": text(sent, "name"),
        "mode": text(sent, "mode"),
        "action": text(sent, "action") or None,
        "params": params(kind, sent, before.params),
        "message": text(sent, "message") or None,
        "priority": before.priority,
    }
    return msgspec.structs.replace(taken(RuleRequest, said).body(), applies_to=before.applies_to)


def _kind(said: str) -> Kind:
    try:
        return Kind(said)
    except ValueError:
        raise GuardError(ErrorCode.INVALID, "There is no such kind of rule.") from None


def _form(
    request: web.Request,
    body: RuleBody,
    record: RuleRecord | None,
    *,
    found: Simulation | Job | None = None,
    problems: tuple[Problem, ...] = (),
) -> web.Response:
    language = reader_of(request).language
    rule_id: UUID | None = record.id if record else None
    shown = {
        "rule": body,
        "rule_id": rule_id,
        "version": record.version if record else None,
        "fields": fields(body.kind),
        "actions": ACTIONS[body.kind],
        "modes": tuple(Mode),
        "kinds": tuple(Kind),
        "sentence": _sentence(body, language),
        "problems": problems,
        "found": found if isinstance(found, Simulation) else None,
        "long": isinstance(found, Job),
        "chart": _chart(request, found) if isinstance(found, Simulation) else (),
        "there": f"/console/rules/{rule_id or 'new'}",
    }
    return page(request, "rule.html", shown, status=400 if problems else 200)


def _sentence(body: RuleBody, language: str) -> str | None:
    """What the rule does; None while its parameters are none."""
    try:
        whole = normalised(body)
    except GuardError:
        return None
    return sentence(language, kind=whole.kind, mode=whole.mode, action=whole.action, params=whole.params)


def _chart(request: web.Request, found: Simulation) -> tuple[Bar, ...]:
    last = reader_of(request).now.astimezone(reader_of(request).zone).date()
    days = [(each.day, each.denials) for each in found.by_day]
    return bars(days, first=last - TRIED_ON, last=last)
