"""Rules and their versions, settings, the audit log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from aiohttp import web

from accessguard.api.context import asking, context, origin
from accessguard.api.idempotency import new_id
from accessguard.api.paging import page
from accessguard.api.read import body, path_id, query
from accessguard.api.reply import nothing, reply
from accessguard.api.speech import reading
from accessguard.api.wire import (
    AuditQuery,
    DeleteQuery,
    RuleRequest,
    SettingsRequest,
    rule_reply,
    rule_version_reply,
)
from accessguard.errors import ErrorCode, GuardError
from accessguard.events.audit import AuditFilter, Entry
from accessguard.policies.model import Settings

Place: TypeAlias = tuple[datetime, UUID]
Fetch: TypeAlias = Callable[[Place | None, int], Awaitable[Sequence[tuple[Entry, Place]]]]


async def listed(request: web.Request) -> web.Response:
    """List the rules, those that are off included."""
    found = await context(request).policies.rules(asking(request).tenant)
    return reply({"items": [rule_reply(each, reading(request)) for each in found], "next_cursor": None})


async def get(request: web.Request) -> web.Response:
    """Read one rule."""
    found = await context(request).policies.rule(asking(request).tenant, path_id(request, "rule_id"))
    if found is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such rule.")
    return reply(rule_reply(found, reading(request)))


async def create(request: web.Request) -> web.Response:
    """Save a new rule; saving it ends no session.

    Raises INVALID (400) with a pointer to what is wrong, CONFLICT (409) when
    it would lock out its author.
    """
    asked = await body(request, RuleRequest)
    ctx, who = context(request), asking(request)
    made = await ctx.tenancy.create_rule(
        who.tenant,
        who.actor,
        await new_id(request),
        asked.body(),
        origin=origin(request),
        confirmed=asked.confirm_lockout,
        reason=asked.reason,
        now_ms=ctx.now_ms(),
    )
    return reply(rule_reply(made, reading(request)), status=201)


async def replace(request: web.Request) -> web.Response:
    """Save the next version of a rule.

    Raises INVALID (400) with a pointer to what is wrong, CONFLICT (409) when
    it would lock out its author.
    """
    asked = await body(request, RuleRequest)
    ctx, who = context(request), asking(request)
    saved = await ctx.tenancy.replace_rule(
        who.tenant,
        who.actor,
        path_id(request, "rule_id"),
        asked.body(),
        origin=origin(request),
        confirmed=asked.confirm_lockout,
        reason=asked.reason,
        now_ms=ctx.now_ms(),
    )
    return reply(rule_reply(saved, reading(request)))


async def delete(request: web.Request) -> web.Response:
    """Take a rule out of force; its versions stay."""
    asked = query(request, DeleteQuery)
    ctx, who = context(request), asking(request)
    await ctx.tenancy.delete_rule(
        who.tenant, who.actor, path_id(request, "rule_id"), reason=asked.reason, now_ms=ctx.now_ms()
    )
    return nothing()


async def versions(request: web.Request) -> web.Response:
    """List every version of a rule, also of one that was deleted."""
    found = await context(request).policies.versions(asking(request).tenant, path_id(request, "rule_id"))
    if not found:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such rule.")
    return reply({"items": [rule_version_reply(each) for each in found], "next_cursor": None})


async def settings(request: web.Request) -> web.Response:
    """Read the tenant's settings."""
    return reply(await context(request).policies.settings(asking(request).tenant) or Settings())


async def save_settings(request: web.Request) -> web.Response:
    """Replace the tenant's settings.

    Raises INVALID (400) when two of them contradict each other.
    """
    asked = await body(request, SettingsRequest)
    ctx, who = context(request), asking(request)
    save = ctx.tenancy.save_settings
    return reply(await save(who.tenant, who.actor, asked.settings(), reason=asked.reason, now_ms=ctx.now_ms()))


async def audit(request: web.Request) -> web.StreamResponse:
    """List what operators changed: who, what, when, why."""
    asked = query(request, AuditQuery)
    return await page(request, asked, Entry, tuple[datetime, UUID], await entries(request, asked))


async def entries(request: web.Request, asked: AuditQuery) -> Fetch:
    """What reads a page of the audit log."""
    ctx, tenant = context(request), asking(request).tenant
    found = AuditFilter(**{name: getattr(asked, name) for name in AuditFilter.__struct_fields__})

    async def fetch(after: tuple[datetime, UUID] | None, limit: int) -> Sequence[tuple[Entry, tuple[datetime, UUID]]]:
        rows = await ctx.audit.listed(tenant, found, after=after, limit=limit, descending=asked.order == "desc")
        return [(row, (row.at, row.id)) for row in rows]

    return fetch
