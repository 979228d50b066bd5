"""A rule tried on history before it is switched on."""

from __future__ import annotations

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.read import body
from accessguard.api.reply import reply
from accessguard.api.speech import reading
from accessguard.api.wire import SimulateRequest
from accessguard.jobs.model import Job


async def simulate(request: web.Request) -> web.Response:
    """Try a rule on history: who would have been stopped, how often, on which day.

    The rule is played alone, as if enforced, whatever its mode; nothing is
    changed. What takes longer than two seconds goes on as a job, whose result
    is the same. Raises INVALID (400) for a rule or a period that is none, CONFLICT (409) when two are going on already.
    """
    asked = await body(request, SimulateRequest)
    ctx, who = context(request), asking(request)
    found = await ctx.simulations.simulate(
        who.tenant, asked.rule.body(), since=asked.since, until=asked.until, language=reading(request)
    )
    return reply(found, status=202 if isinstance(found, Job) else 200)
