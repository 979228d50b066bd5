"""OpenID AuthZEN Authorization API 1.0: the same checks, asked in the standard's words.

The subject is a session (`type` `session`), or a user whose `properties` name
one in `session_id`; the action may be one of the six interactions. `context`
of the answer holds what `POST /v1/check` would have said.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from aiohttp import web

from accessguard.api.authzen_wire import (
    Evaluation,
    EvaluationContext,
    EvaluationReply,
    EvaluationRequest,
    EvaluationsRequest,
    PdpMetadata,
    Semantic,
)
from accessguard.api.context import Context, asking, context
from accessguard.api.identity import Asked
from accessguard.api.proxy import judged
from accessguard.api.read import body, refused
from accessguard.api.reply import reply
from accessguard.api.speech import Listener, listening
from accessguard.api.wire import check_reply
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.model import Check, Verdict
from accessguard.rules.model import Activity, Code, Outcome
from accessguard.rules.networks import address

HOST: Final = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_.-]{0,253})|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII | re.IGNORECASE
)
ACTIVITIES: Final = frozenset(each.value for each in Activity)
STOPS: Final = {Semantic.DENY_ON_FIRST_DENY: False, Semantic.PERMIT_ON_FIRST_PERMIT: True}
"""The decision after which nothing more is evaluated."""
AT_ONCE: Final = 32


async def evaluation(request: web.Request) -> web.Response:
    """Evaluate one access request.

    Raises INVALID (400) when it names no subject, action or resource.
    """
    asked = await body(request, EvaluationRequest)
    ctx, who = context(request), asking(request)
    listener = listening(ctx, who.tenant, request.headers.get("Accept-Language"))
    found = await _evaluated(ctx, who.tenant, _whole(asked), listener)
    return reply(found)


async def evaluations(request: web.Request) -> web.Response:
    """Evaluate up to 500 access requests, by one of the three semantics.

    What an evaluation leaves out is taken from the top. Without `evaluations`
    it is one request. One that cannot be evaluated is denied, with `error` in its context.
    Raises INVALID (400) when there are no evaluations and it names no subject or action or resource itself.
    """
    asked = await body(request, EvaluationsRequest)
    ctx, who = context(request), asking(request)
    listener = listening(ctx, who.tenant, request.headers.get("Accept-Language"))
    if not asked.evaluations:
        return reply(await _evaluated(ctx, who.tenant, _whole(asked), listener))
    parts = [_merged(asked, each) for each in asked.evaluations]
    semantic = asked.options.evaluations_semantic if asked.options else Semantic.EXECUTE_ALL
    found = await _run(ctx, who.tenant, parts, listener, STOPS.get(semantic))
    return reply({"evaluations": found})


async def metadata(request: web.Request) -> web.Response:
    """Say where AuthZEN's endpoints are."""
    base = _base(request)
    return reply(
        PdpMetadata(
            policy_decision_point=base,
            access_evaluation_endpoint=f"{base}/access/v1/evaluation",
            access_evaluations_endpoint=f"{base}/access/v1/evaluations",
        )
    )


async def _run(
    ctx: Context,
    tenant: str,
    parts: Sequence[Evaluation],
    listener: Listener,
    stop: bool | None,  # noqa: FBT001 - a decision
) -> list[EvaluationReply]:
    if stop is None:
        found: list[EvaluationReply] = []
        for first in range(0, len(parts), AT_ONCE):
            some = (_tried(ctx, tenant, each, listener) for each in parts[first : first + AT_ONCE])
            found += await asyncio.gather(*some)
        return found
    found = []
    for each in parts:
        found.append(await _tried(ctx, tenant, each, listener))
        if found[-1].decision is stop:
            break
    return found


async def _tried(ctx: Context, tenant: str, asked: Evaluation, listener: Listener) -> EvaluationReply:
    try:
        return await _evaluated(ctx, tenant, _whole(asked), listener)
    except GuardError as error:
        status = 503 if error.code is ErrorCode.UNAVAILABLE else 400
        return EvaluationReply(decision=False, context={"error": {"status": status, "message": error.message}})


async def _evaluated(ctx: Context, tenant: str, asked: EvaluationRequest, listener: Listener) -> EvaluationReply:
    check, member_id = _check(asked)
    verdict = Verdict(outcome=Outcome.DENY, session_id=None, code=Code.UNKNOWN_SESSION)
    if check is not None:
        verdict = await judged(ctx, Asked(tenant=tenant, check=check, member_id=member_id))
    said = msgspec.to_builtins(check_reply(verdict, explain=False, listener=listener), builtin_types=(datetime,))
    return EvaluationReply(decision=verdict.outcome is Outcome.ALLOW, context=said)


def _check(asked: EvaluationRequest) -> tuple[Check | None, str | None]:
    """The check and the member whose session it has to be; no check where no session is named."""
    subject, given = asked.subject, asked.context or EvaluationContext()
    alone = subject.type == "session"
    session_id: object = subject.id if alone else subject.properties.get("session_id")
    if not isinstance(session_id, str) or not 0 < len(session_id) <= 128:
        return None, None
    product = asked.resource.properties.get("product_id")
    check = Check(
        session_id=session_id,
        ip=_text(given.ip),
        user_agent=given.user_agent,
        device_token=given.device_token,
        activity=Activity(asked.action.name) if asked.action.name in ACTIVITIES else None,
        resource=f"{asked.resource.type}:{asked.resource.id}"[:512],
        product_id=product if isinstance(product, str) and 0 < len(product) <= 128 else None,
    )
    return check, None if alone else subject.id


def _text(ip: str | None) -> str:
    found = address(ip)
    return found.text if found is not None else ""


def _whole(asked: Evaluation | EvaluationRequest | EvaluationsRequest) -> EvaluationRequest:
    """The request with its three parts. Raises GuardError(INVALID) when one is missing."""
    if asked.subject is None or asked.action is None or asked.resource is None:
        missing = next(name for name in ("subject", "action", "resource") if getattr(asked, name) is None)
        raise refused(
            f"Object missing required field `{missing}` - at `$.{missing}`", f"The request names no {missing}."
        )
    return EvaluationRequest(subject=asked.subject, action=asked.action, resource=asked.resource, context=asked.context)


def _merged(above: EvaluationsRequest, each: Evaluation) -> Evaluation:
    """An evaluation with what it leaves out taken from the top, part by part."""
    return Evaluation(
        subject=each.subject or above.subject,
        action=each.action or above.action,
        resource=each.resource or above.resource,
        context=each.context or above.context,
    )


def _base(request: web.Request) -> str:
    """Where the caller reached this service, by what its own proxies say. Raises GuardError(INVALID) for a host that is none."""
    ctx, scheme, host = context(request), request.scheme, request.host
    peer = address(request.remote)
    if peer in ctx.trusted if peer is not None else ctx.trust_unix:
        scheme = request.headers.get("X-Forwarded-Proto", scheme)
        host = request.headers.get("X-Forwarded-Host", host)
    if HOST.fullmatch(host) is None:
        raise GuardError(ErrorCode.INVALID, "The host is not a name or an address with a port.")
    return f"{'https' if scheme == 'https' else 'http'}://{host}"
