"""Every kind of rule that a login is decided by, through the running service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.mmdb import city, mmdb
from tests.service import CHROME, FIREFOX, LAPTOP, Answer, Service, Tenant, items, running

MILAN, LISBON, NOWHERE = LAPTOP, "198.51.100.7", "192.0.2.1"
DAY_MS = 86_400_000
MINUTE_MS = 60_000


@pytest.fixture(scope="module")
async def placed(database_url: str, redis_url: str, service: Service, tmp_path_factory: Any) -> AsyncIterator[Service]:
    """A worker that knows where two networks are, with a clock of its own."""
    path: Path = tmp_path_factory.mktemp("geo") / "places.mmdb"
    networks = {
        "203.0.113.0/24": city("IT", "Milan", 45.46, 9.19) | {"autonomous_system_number": 64500},
        "198.51.100.0/24": city("PT", "Lisbon", 38.72, -9.14) | {"autonomous_system_number": 64501},
    }
    path.write_bytes(mmdb(networks))
    async with running(database_url, redis_url, str(path)) as worker:
        yield worker


@pytest.fixture
def at(placed: Service) -> Iterator[Tenant]:
    """A fresh tenant of that worker, whose clock is put back afterwards."""
    yield placed.tenant()
    placed.clock.ahead_ms, placed.clock._stopped_ms = 0, None


def code(answer: Answer) -> str | None:
    """Why a login was refused; None when it was not."""
    assert answer.status == 200, answer.body
    return (answer["reason"] or {}).get("code")


def later(tenant: Tenant, **span: float) -> str:
    """A time so long after the service's."""
    return (datetime.fromtimestamp(tenant.service.clock() / 1000, UTC) + timedelta(**span)).isoformat()


async def settle(tenant: Tenant, challenged: Answer, outcome: str = "passed", **freed: str) -> Answer:
    """Settle the challenge of an answer."""
    path = f"/v1/challenges/{challenged['reason']['challenge_id']}"
    return await tenant.call("POST", path, {"outcome": outcome} | freed)


@pytest.mark.parametrize(
    ("kind", "params", "reason"),
    [
        pytest.param("country_deny", {"countries": ["PT"]}, "country_denied", id="denied"),
        pytest.param("country_allow_only", {"countries": ["IT"]}, "country_denied", id="not allowed"),
        pytest.param("asn_deny", {"asns": [64501]}, "asn_denied", id="operator"),
    ],
)
async def test_a_place_refuses_logins_right_or_wrong(at, kind, params, reason):
    """What is not known of an address refuses nobody, and the answer says that it was not seen."""
    await at.rule(kind, "deny", **params)

    answers = [await at.login(ip=ip) for ip in (MILAN, LISBON, NOWHERE)]
    failed = await at.login(ip=LISBON, outcome="failure")

    assert [code(each) for each in (*answers, failed)] == [None, reason, None, reason]
    assert [each["degraded"] for each in answers] == [False, False, True]


async def test_the_access_log_keeps_the_place(at):
    """As it was at that time."""
    await at.login(ip=LISBON)

    db = at.service.context.sessions._db
    row = await db.row("SELECT country, asn, city FROM login_attempt WHERE tenant = $1", at.name)

    assert (row["country"], row["asn"], row["city"]) == ("PT", 64501, "Lisbon")


async def test_a_challenged_operator_is_passed_for_good(at):
    """The same member from the same operator is not asked again while it holds."""
    await at.rule("asn_deny", "challenge", asns=[64501])
    first = await at.login(ip=LISBON)

    passed = await settle(at, first)
    again = await at.login(ip=LISBON, device_token=passed["device"]["token"])

    assert (first["decision"], passed["decision"], again["decision"]) == ("challenge", "allow", "allow")
    assert passed["device"]["new"] is True
    assert (await at.login("ben", ip=LISBON))["decision"] == "challenge"


async def test_a_wrong_password_is_no_challenge(at):
    """There is nothing to lift."""
    await at.rule("asn_deny", "challenge", asns=[64501])

    failed = await at.login(ip=LISBON, outcome="failure")

    assert (failed["decision"], failed["reason"]) == ("allow", None)


async def test_an_enrolment_opens_and_closes_the_door(at):
    """Without one, before it begins, while it lasts, and after it was taken away."""
    await at.rule("enrolment", products=["course-1"])
    path = "/v1/members/ana/enrolments/course-1"
    none = await at.login()
    await at.call("PUT", path, {"starts_at": later(at, hours=1), "status": "active"})
    early = await at.login()
    await at.call("PUT", path, {"starts_at": later(at, hours=-1), "status": "active"})
    active = await at.login()
    await at.call("DELETE", path)
    gone = await at.login()

    closed = "no_active_enrolment"
    assert [code(each) for each in (none, early, active, gone)] == [closed, closed, None, closed]
    assert early["reason"]["retry_at"] is not None


async def test_the_networks_admitted_first_keep_their_places(at):
    """A refused one holds none, and one that left the window gives its place."""
    at.service.clock.stop()
    await at.rule("network_limit", "deny_new", max=2, window_s=3600)

    answers = [await at.login(ip=ip) for ip in (MILAN, LISBON, NOWHERE, MILAN, NOWHERE)]
    at.service.clock.forward(61 * MINUTE_MS)
    late = await at.login(ip=NOWHERE)

    assert [code(each) for each in answers] == [None, None, "network_limit", None, "network_limit"]
    assert code(late) is None


async def test_nobody_is_in_lisbon_minutes_after_milan(at):
    """But hours later one may be."""
    at.service.clock.stop()
    await at.rule("impossible_travel", "deny_new", max_speed_kmh=900, min_distance_km=100)
    await at.login()
    at.service.clock.forward(10 * MINUTE_MS)

    soon = await at.login(ip=LISBON)
    at.service.clock.forward(180 * MINUTE_MS)
    later_on = await at.login(ip=LISBON)

    assert [code(each) for each in (soon, later_on)] == ["impossible_travel", None]


async def test_forgetting_a_device_gives_no_new_one_for_free(at):
    """New devices count for the whole window, forgotten or not; a known one never does."""
    at.service.clock.stop()
    await at.rule("device_churn", "deny_new", max_new=2, window_days=7)
    first, second = await at.login(), await at.login(user_agent=FIREFOX)
    await at.call("DELETE", f"/v1/members/ana/devices/{first['device']['id']}", role="supervisor")

    third = await at.login()
    known = await at.login(user_agent=FIREFOX, device_token=second["device"]["token"])
    at.service.clock.forward(8 * DAY_MS)
    free = await at.login()

    assert [code(each) for each in (third, known, free)] == ["device_churn", None, None]
    assert third["reason"]["retry_at"] is not None


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        pytest.param("session_limit", "extra_session", id="session"),
        pytest.param("device_limit", "extra_device", id="device"),
        pytest.param("session_limit", "suspend_checks", id="checks"),
    ],
)
async def test_a_pass_lets_one_more_in_and_ends_by_itself(at, rule, kind):
    """Before, during, after."""
    at.service.clock.stop()
    await at.rule(rule, "deny_new", max=1)
    await at.login(session_id=f"first-{kind}")
    before = await at.login(user_agent=FIREFOX)
    body = {"kind": kind, "until": later(at, minutes=10)}
    await at.call("POST", "/v1/members/ana/passes", body, role="supervisor")
    during = await at.login(user_agent=FIREFOX)
    at.service.clock.forward(11 * MINUTE_MS)
    after = await at.login(user_agent=CHROME.format(120))

    assert [code(each) for each in (before, during, after)] == [rule, None, rule]
    assert during["exempt"] is (kind == "suspend_checks")


async def test_a_rule_grows_stricter_with_its_cases_and_calms_down(at):
    """Logged, then challenged, then denied; and logged again when the cases are old."""
    at.service.clock.stop()
    steps = {"days": 5, "challenge_after": 1, "deny_after": 2}
    await at.rule("device_limit", "log", max=1, window_days=None, escalation=steps)
    await at.login()

    answers = []
    for _ in range(3):
        answers.append(await at.login(user_agent=FIREFOX))
        at.service.clock.forward(2 * DAY_MS)
    at.service.clock.forward(9 * DAY_MS)
    calm = await at.login(user_agent=FIREFOX)

    assert [each["decision"] for each in (*answers, calm)] == ["allow", "challenge", "deny", "allow"]


async def test_a_copy_is_only_noted_at_a_login(at):
    """There is no session to end yet, and the password was just shown."""
    await at.rule("copied_session", "end_session", signal="browser")
    first = await at.login()

    other = await at.login(user_agent=FIREFOX, device_token=first["device"]["token"])

    assert other["decision"] == "allow"
    (case,) = items(await at.see("/v1/violations"))
    assert (case["code"], case["effect"]) == ("copied_session", "logged")


@pytest.mark.parametrize("who", ["staff", "impersonation"])
async def test_staff_and_impersonation_are_never_restricted(at, who):
    """By no kind of rule."""
    await at.rule("country_deny", "deny", countries=["PT"])
    await at.rule("asn_deny", "challenge", asns=[64501])
    await at.rule("enrolment", products=None)
    await at.rule("network_limit", "deny_new", max=1)
    await at.rule("session_limit", "challenge", max=1)
    await at.call("PUT", "/v1/members/tea", {"staff": True})
    member, method = ("tea", "password") if who == "staff" else ("ana", "impersonation")

    answers = [await at.login(member, ip=ip, method=method) for ip in (LISBON, MILAN, LISBON)]

    assert [(each["decision"], each["exempt"]) for each in answers] == [("allow", True)] * 3


async def test_a_challenge_at_a_check_is_settled_the_same_way(at):
    """Passed, the session goes on; a place that is freed counts as it is; the answer carries the session."""
    first, second = await at.login(), await at.login(user_agent=FIREFOX)
    third = await at.login(user_agent=CHROME.format(1))
    await at.rule("session_limit", "challenge", max=1, swaps={"max": 1, "window_days": 30})

    one = await at.check(second, user_agent=FIREFOX)
    passed = await settle(at, one)
    other = await at.check(third)
    freed = await settle(at, other, end_session_id=first["session"]["id"])
    repeated = await settle(at, other, end_session_id=first["session"]["id"])

    assert (one["decision"], passed["decision"]) == ("challenge", "allow")
    assert passed["session"] == second["session"]
    assert (await at.check(second, user_agent=FIREFOX))["decision"] == "allow"
    assert (freed["decision"], [each["id"] for each in freed["ended_sessions"]]) == (
        "challenge",
        [first["session"]["id"]],
    )
    assert freed["reason"]["challenge_id"] != other["reason"]["challenge_id"]
    assert repeated.body == freed.body
    assert (await at.check(first))["reason"]["end_reason"] == "freed_by_member"


async def test_a_failed_challenge_at_a_check_denies(at):
    """With the code of its rule."""
    await at.login()
    second = await at.login(user_agent=FIREFOX)
    await at.rule("session_limit", "challenge", max=1)

    failed = await settle(at, await at.check(second, user_agent=FIREFOX), "failed")

    assert (failed["decision"], failed["session"], failed["reason"]["code"]) == ("deny", None, "session_limit")
