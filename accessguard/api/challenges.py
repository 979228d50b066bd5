"""Challenges, settled by the platform."""

from __future__ import annotations

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.read import body, path_id
from accessguard.api.reply import reply
from accessguard.api.speech import listening
from accessguard.api.wire import SettleRequest, login_reply
from accessguard.challenges.model import Freed
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.challenges import Settle


async def settle(request: web.Request) -> web.Response:
    """Settle a challenge: the code was right or wrong, or the student picked what to close. Answers as a login does.

    Once only; the same outcome again gets the same answer. Raises INVALID
    (400) for what cannot be closed or not with this outcome, NOT_FOUND (404), CONFLICT (409), UNAVAILABLE (503).
    """
    asked = await body(request, SettleRequest)
    ctx, who = context(request), asking(request)
    said = Settle(outcome=asked.outcome, freed=_freed(asked))
    verdict = await ctx.challenges.settle(who.tenant, who.actor, path_id(request, "challenge_id"), said, ctx.now_ms())
    return reply(login_reply(verdict, listening(ctx, who.tenant, request.headers.get("Accept-Language"))))


def _freed(asked: SettleRequest) -> Freed | None:
    given = {
        "end_session_id": asked.end_session_id,
        "forget_device_id": asked.forget_device_id,
        "merge_device_id": asked.merge_device_id,
    }
    chosen = [name for name, value in given.items() if value is not None]
    if not chosen:
        return None
    if len(chosen) > 1:
        raise _refused(f"/{chosen[1]}", "one place is freed, not two")
    if asked.outcome != "passed":
        raise _refused("/outcome", "a place is freed only to pass")
    return Freed(session_id=asked.end_session_id, device_id=asked.forget_device_id, merged_id=asked.merge_device_id)


def _refused(pointer: str, detail: str) -> GuardError:
    return GuardError(ErrorCode.INVALID, "The body was refused.", Problem(pointer=pointer, detail=detail))
