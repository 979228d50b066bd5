"""A small school with something on every page: names in several scripts, refusals, notes, a rule with two versions."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, urlsplit

from tests.service import FIREFOX, Answer, Tenant

PHONE: Final = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36"
)
MAC: Final = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15"
PEOPLE: Final = {
    "ana": ("Ana Lima", "ana@example.com", ["2026", "evening class"]),
    "shalom": ("\u202e\u05e9\u05dc\u05d5\u05dd \U0001f469\u200d\U0001f393", "shalom@example.com", []),
    "a/ü %2F?": ("Anne-Marie van der Westhuizen-Featherstonehaugh of the Northern Territories", None, ["x" * 60]),
    "m" * 128: ("", "a.very.long.address.of.somebody.who.has.no.name@subdomain.university.example", []),
}


@dataclass
class School:
    """Who is there, the ids by which its pages are found, and where a refused student reads why."""

    tenant: Tenant
    ids: dict[str, str]
    restricted: str

    def path(self, pattern: str) -> str:
        """A path of the table of pages with its ids filled in. KeyError for an id that this school has none of."""
        return pattern.format_map({name: quote(value, safe="") for name, value in self.ids.items()})


async def furnished(tenant: Tenant) -> School:
    """The school, through the API alone."""
    for member, (name, email, tags) in PEOPLE.items():
        said = {"name": name, "email": email, "tags": tags, "locale": "pt-BR", "time_zone": "America/Recife"}
        await _done(tenant, "PUT", f"/v1/members/{quote(member, safe='')}", said)
        await _done(
            tenant,
            "PUT",
            f"/v1/members/{quote(member, safe='')}/enrolments/course-1",
            {"starts_at": "2026-01-01T00:00:00Z"},
        )
    rule = await tenant.rule("device_limit", "deny_new", max=1)
    first = await tenant.login("ana")
    for member in PEOPLE:
        await tenant.login(member)
        await tenant.login(member, user_agent=FIREFOX, ip="198.51.100.7")
        await tenant.login(member, user_agent=PHONE, outcome="failure", failure_reason="password", ip="2001:db8::7")
    await tenant.check(first, activity="lesson_open", resource="course:42/lesson:" + "7" * 90)
    there = "/v1/members/ana"
    await _done(tenant, "PATCH", there, {"note": "Shares with her sister."}, role="supervisor")
    await _done(tenant, "POST", f"{there}/comments", {"text": "Called on Monday. " * 20}, role="supervisor")
    soon = datetime.fromtimestamp(tenant.service.clock() / 1000, tz=UTC) + timedelta(days=30)
    given = {"kind": "extra_device", "until": soon.isoformat(), "reason": "a new telephone"}
    await _done(tenant, "POST", f"{there}/passes", given, role="supervisor")
    changed = {
        "kind": "device_limit",
        "mode": "enforce",
        "action": "deny_new",
        "params": {"max": 2},
        "reason": "families",
    }
    await _done(tenant, "PUT", f"/v1/rules/{rule['id']}", changed, role="administrator")
    job = await _done(
        tenant, "POST", "/v1/members/bulk", {"action": "tag", "tags": ["all"], "filter": {}}, role="supervisor"
    )
    told = {"url": "https://hooks.school.example/accessguard", "events": ["violation", "device_new"]}
    hook = await _done(tenant, "POST", "/v1/webhooks", told, role="administrator")
    case = (await tenant.see("/v1/violations"))["items"][0]
    ids = {
        "member_id": "ana",
        "rule_id": rule["id"],
        "violation_id": case["id"],
        "job_id": job["id"],
        "version": "1",
        "webhook_id": hook["id"],
    }
    ids |= {"device_id": first["device"]["id"], "session_id": first["session"]["id"]}
    ids |= {"code": "device_limit", "language": "pt-BR", "name": "household", "at": "0"}
    tried = [await tenant.login("ana", user_agent=agent, ip="192.0.2.99") for agent in (FIREFOX, PHONE, MAC)]
    return School(tenant, ids, urlsplit(tried[-1]["reason"]["page_url"])._replace(scheme="", netloc="").geturl())


async def _done(tenant: Tenant, method: str, path: str, said: Any, *, role: str = "platform") -> Answer:
    """A call that is to be taken; again where a store was out of breath."""
    answer, tries = await tenant.call(method, path, said, role=role), 1
    while answer.status == 503 and tries < 10:
        await asyncio.sleep(1)
        answer, tries = await tenant.call(method, path, said, role=role), tries + 1
    assert answer.status < 300, (path, answer.body)
    return answer
