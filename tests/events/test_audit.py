"""The audit log: every act of an operator with what it changed, by whom, when and why."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.service import Tenant, items

RULE = {"kind": "session_limit", "mode": "observe", "params": {"max": 3}}


async def log(tenant: Tenant, query: str = "") -> list[dict[str, Any]]:
    """The lines of the log, the newest first."""
    return list(items(await tenant.call("GET", f"/v1/audit{query}", role="administrator")))


async def test_a_change_of_a_device_is_logged_with_before_and_after(tenant: Tenant):
    """Only what it changed, and nothing when it failed."""
    login = await tenant.login()
    before = tenant.service.clock()

    await tenant.device("ana", login["device"]["id"], access="blocked", name="Phone", reason="shared")
    await tenant.device("ben", login["device"]["id"], access="blocked", reason="not his")

    (line,) = await log(tenant)
    assert (line["action"], line["target_kind"], line["target_id"]) == (
        "device.change",
        "device",
        login["device"]["id"],
    )
    assert line["before"] == {"access": "default", "name": None}
    assert line["after"] == {"access": "blocked", "name": "Phone"}
    assert (line["actor"], line["role"], line["reason"]) == (f"supervisor@{tenant.name}", "supervisor", "shared")
    assert before - 1 <= datetime.fromisoformat(line["at"]).timestamp() * 1000 <= tenant.service.clock()


async def test_the_switch_of_a_member_is_logged(tenant: Tenant):
    """Off, and on again."""
    await tenant.login()

    for enabled in (False, True):
        patch = {"checks_enabled": enabled, "reason": f"exam {enabled}"}
        await tenant.call("PATCH", "/v1/members/ana", patch, role="supervisor")

    lines = await log(tenant, "?order=asc")
    assert [(line["before"]["checks_enabled"], line["after"]["checks_enabled"]) for line in lines] == [
        (True, False),
        (False, True),
    ]
    assert [line["reason"] for line in lines] == ["exam False", "exam True"]


async def test_the_life_of_a_rule_is_logged_and_its_versions_are_kept(tenant: Tenant):
    """Made, replaced, deleted; each with the whole rule before and after."""
    made = await tenant.call("POST", "/v1/rules", RULE | {"reason": "a"}, role="administrator")
    path = f"/v1/rules/{made['id']}"
    await tenant.call("PUT", path, RULE | {"params": {"max": 2}, "reason": "b"}, role="administrator")
    await tenant.call("DELETE", f"{path}?reason=c", role="administrator")

    lines = await log(tenant, f"?target_id={made['id']}&order=asc")
    versions = list(items(await tenant.call("GET", f"{path}/versions", role="administrator")))

    assert [(line["action"], line["reason"]) for line in lines] == [
        ("rule.create", "a"),
        ("rule.replace", "b"),
        ("rule.delete", "c"),
    ]
    limits = [tuple(side and side["params"]["max"] for side in (line["before"], line["after"])) for line in lines]
    assert limits == [(None, 3), (3, 2), (2, None)]
    assert [(each["version"], each["deleted"], each["reason"]) for each in versions] == [
        (3, True, "c"),
        (2, False, "b"),
        (1, False, "a"),
    ]
    assert versions[2]["rule"]["params"] == made["params"]


async def test_forgetting_ending_and_resolving_are_logged(tenant: Tenant):
    """Each with its target."""
    login = await tenant.login()
    await tenant.rule("ip_deny", networks=["203.0.113.0/24"])
    await tenant.check(login)
    (case,) = items(await tenant.see("/v1/violations"))
    patch = {"resolution": "contacted", "note": "mail", "reason": "r"}

    await tenant.call("PATCH", f"/v1/violations/{case['id']}", patch, role="supervisor")
    await tenant.call("POST", "/v1/members/ana/sessions/end", {"reason": "password leaked"}, role="supervisor")
    await tenant.call("DELETE", f"/v1/members/ana/devices/{login['device']['id']}?reason=lost", role="supervisor")

    lines = {line["action"]: line for line in await log(tenant) if line["action"] != "rule.create"}
    assert set(lines) == {"violation.resolve", "sessions.end", "device.forget"}
    assert lines["violation.resolve"]["before"] == {"resolution": "open", "note": ""}
    assert lines["violation.resolve"]["after"] == {"resolution": "contacted", "note": "mail"}
    assert lines["sessions.end"]["after"] == {"ended": [login["session"]["id"]]}
    assert (lines["device.forget"]["target_id"], lines["device.forget"]["reason"]) == (login["device"]["id"], "lost")
    assert lines["device.forget"]["after"] is None


async def test_whoever_reads_what_is_sensitive_is_logged(tenant: Tenant):
    """A bundle, an address and an export; of an address no more than its network is kept, and what is not shown has no line."""
    await tenant.login()

    answers = [
        await tenant.see("/v1/members/ana/bundle"),
        await tenant.see("/v1/addresses/203.0.113.9"),
        await tenant.see("/v1/addresses/2001:db8:1:2:3:4:5:6"),
        await tenant.call("GET", "/v1/members/ana/export", role="administrator"),
        await tenant.see("/v1/members/nobody/bundle"),
        await tenant.call("GET", "/v1/addresses/203.0.113.9", role="attendant"),
    ]

    assert [answer.status for answer in answers] == [200, 200, 200, 200, 404, 403]
    lines = [(line["action"], line["target_id"], line["role"]) for line in await log(tenant, "?order=asc")]
    assert lines == [
        ("member.bundle", "ana", "supervisor"),
        ("address.read", "203.0.113.0/24", "supervisor"),
        ("address.read", "2001:db8:1:2::/64", "supervisor"),
        ("member.export", "ana", "administrator"),
    ]


async def test_settings_are_logged(tenant: Tenant):
    """As they were and as they are."""
    await tenant.login()

    await tenant.call("PUT", "/v1/settings", {"support_email": "help@school.example"}, role="administrator")

    (line,) = await log(tenant, "?action=settings.replace")
    assert (line["before"]["support_email"], line["after"]["support_email"]) == (None, "help@school.example")


async def test_a_refused_act_leaves_no_line(tenant: Tenant):
    """What was not done is not in the log of what was done."""
    await tenant.login()
    deny_all = {"kind": "ip_deny", "mode": "enforce", "params": {"networks": ["0.0.0.0/0", "::/0"]}}

    answers = [
        await tenant.call("POST", "/v1/rules", deny_all, role="administrator"),
        await tenant.call("PATCH", "/v1/members/nobody", {"note": "x"}, role="supervisor"),
        await tenant.call("PATCH", "/v1/members/ana", {"note": 1}, role="supervisor"),
        await tenant.call("PATCH", "/v1/members/ana", {"note": "x"}, role="attendant"),
    ]

    assert [answer.status for answer in answers] == [409, 404, 400, 403]
    assert await log(tenant) == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        pytest.param("?actor=kim", ["kim"], id="actor"),
        pytest.param("?action=member.change", ["lou", "kim"], id="action"),
        pytest.param("?action=member.change&actor=lou", ["lou"], id="two"),
        pytest.param("?target_kind=rule", ["root"], id="kind of target"),
        pytest.param("?target_id=ana", ["lou", "kim"], id="target"),
        pytest.param("?actor=nobody", [], id="nobody"),
        pytest.param("?to=2001-01-01T00:00:00Z", [], id="before all"),
        pytest.param("?from=2001-01-01T00:00:00Z&order=asc", ["kim", "lou", "root"], id="all, the oldest first"),
    ],
)
async def test_the_log_is_searched_by_who_what_and_when(tenant: Tenant, query, found):
    """Filters narrow; the newest comes first unless asked otherwise."""
    await tenant.login()
    for subject in ("kim", "lou"):
        await tenant.call("PATCH", "/v1/members/ana", {"note": subject}, role="supervisor", subject=subject)
    await tenant.call("POST", "/v1/rules", RULE, role="administrator", subject="root")

    assert [line["actor"] for line in await log(tenant, query)] == found


async def test_pages_of_the_log_hold_each_line_once(tenant: Tenant):
    """Also those of one millisecond."""
    await tenant.login()
    tenant.service.clock.stop()
    for each in range(8):
        await tenant.call("PATCH", "/v1/members/ana", {"note": str(each)}, role="supervisor")
    tenant.service.clock._stopped_ms = None
    notes: list[str] = []
    cursor, pages = "", 0
    while cursor or not pages:
        page = await tenant.call("GET", f"/v1/audit?limit=3{cursor}", role="administrator")
        notes += [line["after"]["note"] for line in items(page)]
        cursor, pages = page["next_cursor"] and f"&cursor={page['next_cursor']}", pages + 1

    assert sorted(notes) == [str(each) for each in range(8)]
    assert pages == 3
