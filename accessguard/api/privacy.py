"""What a person may ask for: to see everything, to be forgotten; and what they were told."""

from __future__ import annotations

import hashlib

from aiohttp import web

from accessguard.api.archive import Archive
from accessguard.api.context import asking, context
from accessguard.api.read import body, path_text, query
from accessguard.api.reply import SAFE_HEADERS, reply
from accessguard.api.wire import EraseQuery, ExportQuery, NoticeRequest, NoticesReply
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.facts import from_ms, time_text
from accessguard.members.model import Notice
from accessguard.rules.networks import address

ZIP = "application/zip"


async def erase(request: web.Request) -> web.Response:
    """Erase a member for good, or keep its counts without a name.

    Nothing of it is left in any table, cache or queue; a later login of the
    same id is somebody new. The receipt names nobody. Cut off half-way, it
    goes on when it is asked for again. Lines about it of a file of members
    that is being imported are refused.
    """
    asked = query(request, EraseQuery)
    ctx, who, member_id = context(request), asking(request), path_text(request, "member_id")
    await ctx.activity.flush()
    await ctx.folds.flush()
    at = from_ms(ctx.now_ms())
    return reply(await ctx.erasure.erase(who.tenant, member_id, asked.mode, who.actor, reason=asked.reason, at=at))


async def export(request: web.Request) -> web.StreamResponse:
    """Give all that is stored about a member as an archive, or (`ip`) all that is stored about it from one address.

    A zip of JSON, CSV and a page that explains them, streamed. With `ip` also
    the failed logins from there under names that are nobody's. Recorded in the
    audit log before the first byte. Raises INVALID (400) for an `ip` that is no address of one host.
    """
    asked = query(request, ExportQuery)
    ctx, who, member_id = context(request), asking(request), path_text(request, "member_id")
    ip = _address(asked.ip)
    if not await ctx.members.exists(who.tenant, member_id):
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such member.")
    await ctx.activity.flush()
    await ctx.folds.flush()
    await ctx.operators.exported(who.tenant, who.actor, member_id, ip=ip, reason=asked.reason, now_ms=ctx.now_ms())
    name = f"member-{hashlib.sha256(member_id.encode()).hexdigest()[:8]}.zip"
    headers = {"Content-Type": ZIP, "Content-Disposition": f'attachment; filename="{name}"', **SAFE_HEADERS}
    response = web.StreamResponse(headers=headers)
    tables = await ctx.archive.tables(of_address=ip is not None)
    await response.prepare(request)
    archive = Archive()
    for table in tables:
        async for part in archive.as_json(table, ctx.archive.pages(table, who.tenant, member_id, ip=ip)):
            await response.write(part)
        async for part in archive.as_csv(table, ctx.archive.pages(table, who.tenant, member_id, ip=ip)):
            await response.write(part)
    await response.write(archive.end(member_id=member_id, ip=ip, made=time_text(from_ms(ctx.now_ms()))))
    await response.write_eof()
    return response


async def notice(request: web.Request) -> web.Response:
    """Keep that a member was shown a version of the notice on monitoring; the first time of a version stands."""
    asked = await body(request, NoticeRequest)
    ctx, who, member_id = context(request), asking(request), path_text(request, "member_id")
    kept = await ctx.notices.shown(who.tenant, member_id, Notice(version=asked.version, shown_at=asked.shown_at))
    if kept is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such member.")
    return reply(kept)


async def notices(request: web.Request) -> web.Response:
    """List the notices on monitoring that a member was shown."""
    ctx, who, member_id = context(request), asking(request), path_text(request, "member_id")
    if not await ctx.members.exists(who.tenant, member_id):
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such member.")
    return reply(NoticesReply(items=tuple(await ctx.notices.of_member(who.tenant, member_id))))


def _address(text: str | None) -> str | None:
    """The address as it is stored. Raises GuardError(INVALID)."""
    if text is None:
        return None
    found = address(text)
    if found is None:
        raise GuardError(
            ErrorCode.INVALID, "The query is not valid.", Problem(pointer="/ip", detail="is no address of one host")
        )
    return found.text
