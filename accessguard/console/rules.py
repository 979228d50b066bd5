"""Rules: what each does in a sentence; changed with a look at what it would have done in the last 30 days."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context, origin
from accessguard.api.read import path_id
from accessguard.api.reports import up_to_date
from accessguard.api.wire import RuleRequest, rule_reply
from accessguard.console.charts import Bar, bars
from accessguard.console.door import see_other
from accessguard.console.fields import apart, fields, params
from accessguard.console.forms import form, taken, text
from accessguard.console.pen import page, reader_of
from accessguard.console.terms import CLASSES, LISTS, applies_to, parts
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.facts import from_ms
from accessguard.guard.simulation import Simulation
from accessguard.jobs.model import Job
from accessguard.policies.model import RuleBody, RuleRecord, normalised
from accessguard.policies.params import ACTIONS
from accessguard.rules.model import Kind, Mode
from accessguard.tallies.model import TallyKind
from accessguard.words.operator import sentence

TRIED_ON: Final = timedelta(days=30)
MOST_TALLIES: Final = 5_000
"""Counts of findings in 30 days: a day has one for each rule and effect."""
SWITCHED: Final = {Mode.ENFORCE: "enforced", Mode.OBSERVE: "observed", Mode.OFF: "off"}


async def listed(request: web.Request) -> web.StreamResponse:
    """Every rule, those that are off included, with what it found in the last 30 days."""
    language = reader_of(request).language
    found = await context(request).policies.rules(asking(request).tenant)
    shown = {
        "rules": [rule_reply(each, language) for each in found],
        "kinds": tuple(Kind),
        "findings": await _findings(request),
    }
    return page(request, "rules.html", shown)


async def new(request: web.Request) -> web.StreamResponse:
    """An empty form for a kind of rule."""
    kind = kind_of(request.query.get("kind", Kind.SESSION_LIMIT))
    return formed(request, RuleBody(kind=kind, params={}), None)


async def one(request: web.Request) -> web.StreamResponse:
    """The form of a rule, with `version` as it was then: saved, that is its next version."""
    record = await _rule(request)
    wanted = request.query.get("version")
    if wanted is None:
        return formed(request, record.body, record, findings=await _findings(request))
    found = await context(request).policies.versions(asking(request).tenant, record.id)
    for each in found:
        if str(each.version) == wanted:
            return formed(request, each.body, record, of=each.version)
    raise GuardError(ErrorCode.NOT_FOUND, "There is no such version.")


async def said(request: web.Request) -> web.StreamResponse:
    """What the rule of a form does, or what is wrong with it; nothing is saved. What a script asks for while somebody types."""
    record = await _known(request)
    try:
        body = await _said(request, record)
        normalised(body)
    except GuardError as error:
        if error.code is not ErrorCode.INVALID:
            raise
        return page(request, "rule_said.html", {"sentence": None, "problems": _problems(error)})
    shown = {"sentence": _sentence(body, reader_of(request).language), "problems": ()}
    return page(request, "rule_said.html", shown)


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
        return formed(request, body, record, problems=_problems(error))
    return formed(request, body, record, found=found)


async def saved(request: web.Request) -> web.StreamResponse:
    """Save a new rule, or the next version of one."""
    record = await _known(request)
    return await _save(request, await _said(request, record), record, "saved")


async def switched(request: web.Request) -> web.StreamResponse:
    """Enforce a rule from now on, only observe it, or switch it off; all else stays."""
    record, sent = await _rule(request), await form(request)
    body = taken(RuleRequest, {"kind": record.body.kind, "mode": text(sent, "mode")})
    return await _save(request, msgspec.structs.replace(record.body, mode=body.mode), record, SWITCHED[body.mode])


async def deleted(request: web.Request) -> web.StreamResponse:
    """Take a rule out of force."""
    sent, ctx, who = await form(request), context(request), asking(request)
    rule_id = path_id(request, "rule_id")
    reason = text(sent, "reason") or None
    await ctx.tenancy.delete_rule(who.tenant, who.actor, rule_id, reason=reason, now_ms=ctx.now_ms())
    return see_other("/console/rules?done=deleted")


async def _save(request: web.Request, body: RuleBody, record: RuleRecord | None, done: str) -> web.StreamResponse:
    sent, ctx, who = await form(request), context(request), asking(request)
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
        return formed(request, body, record, problems=_problems(error))
    return see_other(f"/console/rules?done={done}")


def _problems(error: GuardError) -> tuple[Problem, ...]:
    return error.problems or (Problem(pointer="", detail=error.message),)


async def _findings(request: web.Request) -> Counter[str]:
    """How often each rule found something in the last 30 days, by its id."""
    await up_to_date(request)
    reader = reader_of(request)
    last = reader.now.astimezone(reader.zone).date()
    counted = await context(request).tallies.listed(
        asking(request).tenant,
        TallyKind.REFUSAL,
        since=last - TRIED_ON,
        until=last + timedelta(days=1),
        after=None,
        limit=MOST_TALLIES,
        descending=True,
    )
    found: Counter[str] = Counter()
    for each in counted:
        found[each.one] += each.amount
    return found


async def _rule(request: web.Request) -> RuleRecord:
    found = await context(request).policies.rule(asking(request).tenant, path_id(request, "rule_id"))
    if found is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such rule.")
    return found


async def _known(request: web.Request) -> RuleRecord | None:
    """The rule that the path names; None on the form of a new one."""
    return await _rule(request) if "rule_id" in request.match_info else None


async def _said(request: web.Request, record: RuleRecord | None) -> RuleBody:
    """The rule that the form says, with what it does not say as it was."""
    sent = await form(request)
    kind = record.body.kind if record else kind_of(text(sent, "kind"))
    before = record.body if record else RuleBody(kind=kind)
    said = {
        "kind": kind,
        "name": text(sent, "name"),
        "mode": text(sent, "mode") or before.mode,
        "action": text(sent, "action") or None,
        "params": params(kind, sent) | parts(kind, sent, before.params),
        "message": text(sent, "message") or None,
        "priority": text(sent, "priority").strip() or before.priority,
        "applies_to": msgspec.to_builtins(applies_to(sent, before.applies_to)),
    }
    return taken(RuleRequest, said).body()


def kind_of(said: str) -> Kind:
    """The kind of rule that a text names. Raises GuardError(INVALID)."""
    try:
        return Kind(said)
    except ValueError:
        raise GuardError(ErrorCode.INVALID, "There is no such kind of rule.") from None


def formed(
    request: web.Request,
    body: RuleBody,
    record: RuleRecord | None,
    *,
    found: Simulation | Job | None = None,
    problems: tuple[Problem, ...] = (),
    of: int | None = None,
    findings: Counter[str] | None = None,
) -> web.Response:
    """The form of a rule that says `body`; `of` is the version whose values those are, when they are not its newest."""
    rule_id: UUID | None = record.id if record else None
    shown = {
        "rule": body,
        "rule_id": rule_id,
        "record": record,
        "of": of,
        "fields": fields(body.kind),
        "apart": apart(body.kind),
        "lists": LISTS,
        "classes": CLASSES,
        "actions": ACTIONS[body.kind],
        "modes": tuple(Mode),
        "sentence": _sentence(body, reader_of(request).language),
        "problems": problems,
        "found": found if isinstance(found, Simulation) else None,
        "job": found if isinstance(found, Job) else None,
        "chart": _chart(request, found) if isinstance(found, Simulation) else (),
        "findings": None if findings is None else findings[str(rule_id)],
        "there": f"/console/rules/{rule_id or 'new'}",
    }
    return page(request, "rule.html", shown, status=400 if problems else 200)


def _sentence(body: RuleBody, language: str) -> str | None:
    """What the rule does; None while its parameters are none."""
    try:
        return told(normalised(body), language)
    except GuardError:
        return None


def told(whole: RuleBody, language: str) -> str:
    """What a rule with all its defaults does, in a sentence."""
    return sentence(language, kind=whole.kind, mode=whole.mode, action=whole.action, params=whole.params)


def _chart(request: web.Request, found: Simulation) -> tuple[Bar, ...]:
    last = reader_of(request).now.astimezone(reader_of(request).zone).date()
    days = [(each.day, each.denials) for each in found.by_day]
    return bars(days, first=last - TRIED_ON, last=last)
