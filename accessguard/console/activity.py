"""What operators did: who, what, when, why, and what was changed by it."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from aiohttp import web

from accessguard.api.paging import portion
from accessguard.api.rules import entries
from accessguard.api.wire import AuditQuery
from accessguard.console.entries import line
from accessguard.console.lists import asked, between, file, link
from accessguard.console.pen import page
from accessguard.events.audit import Entry

KINDS: Final = (
    "member", "members", "device", "session", "sessions", "pass", "comment", "violation", "rule", "settings", "webhook",
    "console", "bulk",
)  # fmt: skip
"""Of things that operators change."""


async def listed(request: web.Request) -> web.StreamResponse:
    """The newest acts first, narrowed by who, what and when."""
    wanted = asked(request, AuditQuery, **between(request))
    found, further = await portion(wanted, tuple[datetime, UUID], await entries(request, wanted))
    shown = {
        "asked": wanted,
        "lines": [line(each) for each in found],
        "kinds": KINDS,
        "said": {name: request.query.get(name, "") for name in ("from", "to")},
        "further": None if further is None else link(request, cursor=further),
        "first": link(request) if wanted.cursor else None,
        "export": link(request).replace("/console/activity", "/console/activity.csv", 1),
    }
    return page(request, "activity.html", shown)


async def exported(request: web.Request) -> web.StreamResponse:
    """All of them as a file."""
    wanted = asked(request, AuditQuery, **between(request))
    return await file(request, "activity.csv", Entry, await entries(request, wanted))
