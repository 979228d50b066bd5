"""One action on many members."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.idempotency import new_id
from accessguard.api.keys import Role
from accessguard.api.read import body
from accessguard.api.reply import reply
from accessguard.api.wire import BulkRequest, ErasureRequest
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.bulk import BulkAction, ErasureMode, Order
from accessguard.guard.selecting import Preview, Selection
from accessguard.jobs.model import Job
from accessguard.members.model import MemberFilter

ADMINISTRATORS: Final = frozenset({Role.ADMINISTRATOR, Role.ROOT})
OF_ADMINISTRATORS: Final = frozenset({BulkAction.DEACTIVATE, BulkAction.ERASE})
TAGGING: Final = frozenset({BulkAction.TAG, BulkAction.UNTAG})

# The fields that an action takes besides `reason`; another one is a misunderstanding that may cost something.
TAKES: Final = {
    "tags": TAGGING,
    "until": frozenset({BulkAction.EXEMPT}),
    "product_id": frozenset({BulkAction.DEACTIVATE}),
    "mode": frozenset({BulkAction.ERASE}),
}


async def bulk(request: web.Request) -> web.Response:
    """Do one thing to many members, chosen by their ids or by a filter of the list of members.

    What cannot be undone (`end_sessions`, `deactivate`, `erase`) is asked twice:
    the first call changes nothing, and answers whom it would be done to and a
    `confirmation`; the same call with it, by the same operator within five
    minutes, does it to exactly those. Deactivating and erasing is the
    administrators'. At most 100,000 members. Raises INVALID (400) for a choice
    that fits nobody or a field that means nothing to the action, CONFLICT (409) when four jobs are going on already.
    """
    return await _answered(request, await body(request, BulkRequest))


async def erase(request: web.Request) -> web.Response:
    """Erase many members for good, or keep their counts without a name.

    Asked twice: the first call changes nothing, and answers how many there are
    and a `confirmation`; the same call with it erases exactly those, as a job.
    The same as the action `erase` of `POST /v1/members/bulk`. Raises INVALID (400)
    for a choice that fits nobody, CONFLICT (409) when four jobs are going on already.
    """
    asked = await body(request, ErasureRequest)
    said = {name: getattr(asked, name) for name in ErasureRequest.__struct_fields__}
    return await _answered(request, BulkRequest(action=BulkAction.ERASE, **said))


async def _answered(request: web.Request, asked: BulkRequest) -> web.Response:
    job_id = await new_id(request) if asked.confirmation is None else context(request).new_id()
    found = await begun(request, asked, job_id)
    return reply(found, status=200 if isinstance(found, Preview) else 202)


async def begun(request: web.Request, asked: BulkRequest, job_id: UUID) -> Job | Preview:
    """Begin it, for who asks, or say what it would do where it is asked twice; a page of the console does the same.

    Raises GuardError: FORBIDDEN, INVALID, CONFLICT.
    """
    ctx, who = context(request), asking(request)
    if asked.action in OF_ADMINISTRATORS and who.caller.role not in ADMINISTRATORS:
        raise GuardError(ErrorCode.FORBIDDEN, "Your role does not allow this action.")
    order, selection = _order(asked), _selection(asked)
    if asked.confirmation is not None:
        return await ctx.bulk.confirm(who.tenant, who.actor, order, selection, asked.confirmation)
    return await ctx.bulk.ask(who.tenant, who.actor, job_id, order, selection)


def _order(asked: BulkRequest) -> Order:
    """What is asked for, if it has what it takes and nothing else. Raises GuardError(INVALID)."""
    for name, actions in TAKES.items():
        if getattr(asked, name) and asked.action not in actions:
            raise _refused(f"/{name}", f"means nothing to {asked.action}")
    if asked.action in TAGGING and not asked.tags:
        raise _refused("/tags", "is what it is about")
    mode = (asked.mode or ErasureMode.ERASE) if asked.action is BulkAction.ERASE else None
    return Order(
        action=asked.action,
        tags=tuple(dict.fromkeys(asked.tags)),
        until=asked.until,
        product_id=asked.product_id,
        mode=mode,
        reason=asked.reason,
    )


def _selection(asked: BulkRequest) -> Selection:
    """Whom it is about. Raises GuardError(INVALID) for neither and for both."""
    if (asked.ids is None) == (asked.filter is None):
        raise _refused("/ids", "either ids or a filter says who")
    if asked.ids is not None:
        return Selection(ids=tuple(sorted(set(asked.ids))))
    found = {name: getattr(asked.filter, name) for name in MemberFilter.__struct_fields__}
    return Selection(filter=MemberFilter(**found))


def _refused(pointer: str, detail: str) -> GuardError:
    return GuardError(ErrorCode.INVALID, "The body was refused.", Problem(pointer=pointer, detail=detail))
