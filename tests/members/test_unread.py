"""Who has cases that a reader has not read: told from an index, and always as the cases and marks themselves say."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from accessguard.members.erasure import ErasureStore
from accessguard.members.model import MemberSort
from tests.service import Service, Tenant, items

HOSTILE = ("anna/1%2F?", "\u202eאבג", "🦊", "x" * 128, "o'hara")
"""Ids with slashes and percent signs, from right to left, of one character, of all that are allowed."""
TRUTH = """
    SELECT v.member_id, count(*) AS unread FROM violation v
     WHERE v.tenant = $1 AND v.effect <> 'exempt'
       AND NOT EXISTS (SELECT FROM read_mark r WHERE r.tenant = $1 AND r.violation_id = v.id AND r.reader = $2 AND r.hits >= v.hits)
     GROUP BY v.member_id
"""
FOUND: dict[str, Any] = {"code": "device_limit", "mode": "enforce", "effect": "denied", "details": {}}
NUMBERS = count(1)


async def happen(service: Service, tenant: Tenant, member_id: str, cause: str, *, effect: str = "denied") -> None:
    """A case of the member opens, or happens once more."""
    db = service.context.members._db
    number = next(NUMBERS)
    found = FOUND | {
        "id": f"00000000-0000-7000-8000-{number:012x}",
        "cause": cause,
        "subject": "",
        "effect": effect,
        "member_id": member_id,
        "at": service.clock().isoformat(),
        "hits": 1,
    }
    await db.fetch("SELECT * FROM record_violations($1, $2, $3)", tenant.name, [found], timedelta(hours=1))


async def told(tenant: Tenant, query: str = "sort=unread&unread=true") -> dict[str, int]:
    """Members with unread cases, in the order in which they are listed."""
    answer = await tenant.see(f"/v1/members?{query}")
    assert answer.status == 200, answer.body
    return {each["member_id"]: each["unread_violations"] for each in items(answer)}
