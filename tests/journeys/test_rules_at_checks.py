"""Every kind of rule that a check is decided by, through the running service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from accessguard.policies.params import ACTIONS
from accessguard.rules.model import Kind
from tests.mmdb import city, mmdb
from tests.service import CHROME, FIREFOX, LAPTOP, Answer, Service, Tenant, items, running

LISBON, MILAN, NOWHERE = "198.51.100.7", LAPTOP, "192.0.2.1"
HOUR_MS = 3_600_000
MINUTE_MS = 60_000


@pytest.fixture(scope="module")
async def placed(database_url: str, redis_url: str, service: Service, tmp_path_factory: Any) -> AsyncIterator[Service]:
    """A worker that knows where two networks are."""
    path: Path = tmp_path_factory.mktemp("geo") / "places.mmdb"
    operator = {"autonomous_system_number": 64500}
    networks = {
        "203.0.113.0/24": city("IT", "Milan", 45.46, 9.19) | operator,
        "198.51.100.0/24": city("PT", "Lisbon", 38.72, -9.14) | {"autonomous_system_number": 64501},
    }
    path.write_bytes(mmdb(networks))
    async with running(database_url, redis_url, str(path)) as worker:
        while not worker.context.changes._memory.trusted:
            await asyncio.sleep(0.01)
        yield worker


@pytest.fixture(autouse=True)
def _in_time(placed: Service, service: Service) -> Iterator[None]:
    """The clocks are put back after each test."""
    yield
    for worker in (placed, service):
        worker.clock.ahead_ms = 0


@pytest.fixture(params=["fast lane", "ordinary lane"])
def lane(request: pytest.FixtureRequest) -> Callable[[Service], Tenant]:
    """A fresh tenant of a worker, by either of its lanes."""
    ordinary = request.param == "ordinary lane"
    return lambda worker: replace(worker, url=worker.plain_url if ordinary else worker.url).tenant()


@pytest.fixture
def at(placed: Service, lane: Callable[[Service], Tenant]) -> Tenant:
    """A fresh tenant of the worker that knows places."""
    return lane(placed)


@pytest.fixture
def tenant(service: Service, lane: Callable[[Service], Tenant]) -> Tenant:
    """A fresh tenant of the run's worker."""
    return lane(service)


def code(answer: Answer) -> str | None:
    """Why it was refused; None when it was not."""
    found: str | None = (answer["reason"] or {}).get("code")
    return found


def later(tenant: Tenant, **span: float) -> str:
    """A time so long after the service's."""
    now = datetime.fromtimestamp(tenant.service.clock() / 1000, UTC)
    return (now + timedelta(**span)).isoformat()


async def test_a_country_is_denied_while_the_session_is_there(at):
    """And another answer comes as soon as it is elsewhere."""
    await at.rule("country_deny", countries=["PT"])
    login = await at.login()

    answers = [await at.check(login, ip=ip) for ip in (MILAN, LISBON, LISBON, MILAN)]

    assert [code(each) for each in answers] == [None, "country_denied", "country_denied", None]
    assert not any(each["degraded"] for each in answers)


async def test_an_unknown_place_fails_open_and_says_so(at, tenant):
    """Without geographic files as with an address that they do not know; other rules are not degraded by it."""
    await at.rule("country_allow_only", countries=["IT"])
    await tenant.rule("asn_deny", asns=[64500])
    there, nowhere = await at.login(), await tenant.login()

    answers = [await at.check(there, ip=NOWHERE), await tenant.check(nowhere), await at.check(there)]

    assert [(each["decision"], each["degraded"]) for each in answers] == [
        ("allow", True),
        ("allow", True),
        ("allow", False),
    ]


async def test_an_operator_s_network_is_challenged_once(at):
    """The challenge that is open is answered again, from memory and when it is decided anew; it can be passed."""
    rule = await at.rule("asn_deny", "challenge", asns=[64501])
    login = await at.login()

    answers = [await at.check(login, ip=LISBON), await at.check(login, ip=LISBON)]
    answers.append(await at.check(login, ip=LISBON, explain=True))

    assert [(each["decision"], code(each)) for each in answers] == [("challenge", "asn_denied")] * 3
    (challenge_id,) = {each["reason"]["challenge_id"] for each in answers}
    assert (
        answers[2]["trace"][0] | {"rule_id": rule["id"], "effect": "challenged", "seen": "AS64501"}
        == answers[2]["trace"][0]
    )
    settled = await at.call("POST", f"/v1/challenges/{challenge_id}", {"outcome": "passed"})
    assert (settled["decision"], (await at.check(login, ip=LISBON))["decision"]) == ("allow", "allow")
    explained = await at.check(login, ip=LISBON, explain=True)
    assert (explained["trace"][0]["settled"], explained["trace"][0]["effect"]) == (True, "logged")


async def test_a_passed_challenge_holds_for_the_rule_s_window(tenant):
    """Then the student is asked again."""
    await tenant.rule("network_limit", "challenge", max=1, window_s=600)
    login = await tenant.login()
    await tenant.check(login)
    challenge = await tenant.check(login, ip=LISBON)

    await tenant.call("POST", f"/v1/challenges/{challenge['reason']['challenge_id']}", {"outcome": "passed"})
    passed = [await tenant.check(login, ip=ip) for ip in (LISBON, LAPTOP)]
    tenant.service.clock.forward(9 * MINUTE_MS)
    kept = [await tenant.check(login, ip=ip) for ip in (LAPTOP, LISBON)]
    tenant.service.clock.forward(2 * MINUTE_MS)
    over = await tenant.check(login, ip=LISBON)

    assert [each["decision"] for each in (challenge, *passed, *kept)] == ["challenge"] + ["allow"] * 4
    assert over["decision"] == "challenge"


async def test_a_student_frees_a_place_when_asked_at_a_check(tenant):
    """Within the budget; the session that he closed says why it ended."""
    first, second = await tenant.login(), await tenant.login(user_agent=FIREFOX)
    await tenant.rule("session_limit", "challenge", max=1, swaps={"max": 1, "window_days": 30})
    asked = await tenant.check(second)
    path, old = f"/v1/challenges/{asked['reason']['challenge_id']}", first["session"]["id"]

    settled = await tenant.call("POST", path, {"outcome": "passed", "end_session_id": old})

    assert [each["id"] for each in asked["reason"]["choices"]] == [old]
    assert settled["decision"] == "allow"
    assert [code(await tenant.check(each)) for each in (second, first)] == [None, "session_ended"]


SCENES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "country_deny": ({"countries": ["PT"]}, {"ip": LISBON}),
    "country_allow_only": ({"countries": ["IT"]}, {"ip": LISBON}),
    "asn_deny": ({"asns": [64501]}, {"ip": LISBON}),
    "session_limit": ({"max": 1}, {}),
    "device_limit": ({"max": 1}, {}),
    "device_churn": ({"max_new": 1, "window_days": 30}, {}),
    "network_limit": ({"max": 1, "unit": "asn"}, {"ip": LISBON}),
    "impossible_travel": ({"max_speed_kmh": 900, "min_distance_km": 100}, {"ip": LISBON}),
    "copied_session": ({"signal": "both"}, {"user_agent": CHROME.format(142)}),
}
"""Each kind with its parameters, and how the second of two sessions in Milan, on Firefox, offends against it."""

DECISIONS = {"log": "allow", "challenge": "challenge"}
EFFECTS = {"log": "logged", "challenge": "challenged", "end_session": "ended"}
EVICTING = {"evict_oldest", "evict_idle", "evict_others"}


@pytest.mark.parametrize(
    ("kind", "action"),
    [(kind, str(each)) for kind in SCENES for each in ACTIONS[Kind(kind)] if str(each) not in EVICTING],
)
async def test_every_kind_does_what_its_action_says(at, kind, action):
    """The answer from memory is the one that was decided; the case says what became of it."""
    params, offence = SCENES[kind]
    first, second = await at.login(), await at.login(user_agent=FIREFOX)
    await at.rule(kind, action, **params)
    honest = [await at.check(first, activity="lesson_open"), await at.check(second, user_agent=FIREFOX)]

    answer, again = [await at.check(second, **{"user_agent": FIREFOX} | offence) for _ in range(2)]

    assert honest[0]["decision"] == "allow"
    assert answer["decision"] == DECISIONS.get(action, "deny")
    if action == "end_session":
        assert again["reason"]["end_reason"] == "copied_session"
    else:
        assert again.body == answer.body
    if action == "challenge":
        assert answer["reason"]["challenge_id"] is not None
    cases = list(items(await at.see("/v1/members/ana/violations")))
    assert {each["effect"] for each in cases} == {EFFECTS.get(action, "denied")}
    assert not answer["degraded"]


async def test_a_verdict_does_not_outlive_an_enrolment(tenant):
    """It ends with it, to the second; and says when the next one begins."""
    tenant.service.clock.stop()
    login = await tenant.login()
    await tenant.rule("enrolment")
    path = "/v1/members/ana/enrolments/"
    begin, end = later(tenant, days=-1), later(tenant, seconds=20)
    await tenant.call("PUT", path + "course-1", {"starts_at": begin, "ends_at": end})
    await tenant.call("PUT", path + "course-2", {"starts_at": (again := later(tenant, hours=1))})

    before = await tenant.check(login, activity="lesson_open")
    tenant.service.clock.forward(17_000)
    short = await tenant.check(login)
    tenant.service.clock.forward(4_000)
    after = await tenant.check(login)

    assert (code(before), before["ttl_ms"], code(short)) == (None, 5_000, None)
    assert 0 < short["ttl_ms"] <= 3_000
    assert code(after) == "no_active_enrolment"
    assert after["reason"]["retry_at"][:19] == again[:19]
    tenant.service.clock.forward(HOUR_MS)
    assert code(await tenant.check(login)) is None


async def test_an_enrolment_is_one_of_the_product_that_is_asked_for(tenant):
    """A verdict on one product is none on another."""
    await tenant.call("PUT", "/v1/members/ana", {})
    enrolled = await tenant.call("PUT", "/v1/members/ana/enrolments/p1", {"starts_at": later(tenant, days=-1)})
    login = await tenant.login()
    await tenant.rule("enrolment")

    answers = [await tenant.check(login, product_id=product) for product in ("p1", "p2", "p1", None)]

    assert enrolled.status in (200, 201)
    assert [code(each) for each in answers] == [None, "no_active_enrolment", None, None]


async def test_many_may_log_in_and_one_may_watch(tenant):
    """A session that does something else takes no place, and is not refused."""
    await tenant.rule("session_limit", max=1, window_s=600, activities=["video_watch"])
    one, two = await tenant.login(), await tenant.login(user_agent=FIREFOX)

    read = [await tenant.check(each, activity="lesson_open") for each in (one, two)]
    tenant.service.clock.forward(31_000)
    watched = [await tenant.check(each, activity="video_watch") for each in (one, two, one)]
    reads = await tenant.check(two, activity="lesson_open")
    tenant.service.clock.forward(31_000)
    stopped = await tenant.check(one, activity="lesson_open")
    now = await tenant.check(two, activity="video_watch")

    assert [code(each) for each in read] == [None, None]
    assert [code(each) for each in watched] == [None, "session_limit", None]
    assert watched[1]["reason"]["choices"][0]["id"] == one["session"]["id"]
    assert [code(each) for each in (reads, stopped, now)] == [None, None, None]


async def test_a_network_too_many_is_refused_and_takes_no_place(tenant):
    """The first ones stay; when one has left the window there is room again, and the answer said when."""
    await tenant.rule("network_limit", max=2, window_s=600)
    login = await tenant.login()

    first = [await tenant.check(login, ip=ip) for ip in (LAPTOP, LISBON, NOWHERE, LISBON, NOWHERE)]
    tenant.service.clock.forward(5 * MINUTE_MS)
    kept = await tenant.check(login)
    tenant.service.clock.forward(5 * MINUTE_MS + 1_000)
    freed = await tenant.check(login, ip=NOWHERE)
    full = await tenant.check(login, ip=LISBON)

    assert [code(each) for each in first] == [None, None, "network_limit", None, "network_limit"]
    assert (first[2]["reason"]["limit"], first[2]["reason"]["counted"]) == (2, 3)
    assert first[2]["reason"]["retry_at"] is not None
    assert [code(each) for each in (kept, freed, full)] == [None, None, "network_limit"]


async def test_nobody_travels_a_thousand_miles_in_a_minute(at):
    """In two hours one does; who was there first stays."""
    await at.rule("impossible_travel", max_speed_kmh=900, min_distance_km=100)
    login = await at.login()
    other = await at.login(user_agent=FIREFOX)
    await at.check(login)
    at.service.clock.forward(MINUTE_MS)

    answers = [await at.check(other, ip=LISBON, user_agent=FIREFOX), await at.check(login, ip=MILAN)]
    at.service.clock.forward(2 * HOUR_MS)
    flown = await at.check(other, ip=LISBON, user_agent=FIREFOX)

    assert [code(each) for each in answers] == ["impossible_travel", None]
    assert code(flown) is None
    (case,) = items(await at.see("/v1/members/ana/violations"))
    assert (case["details"]["seen"], case["details"]["before"]) == ("PT/Lisbon", "IT/Milan")
    assert 1_600 < case["details"]["distance_km"] < 1_800


@pytest.mark.parametrize("mode", ["enforce", "observe"])
async def test_a_session_in_another_browser_is_ended(tenant, mode):
    """Its version may change; an unknown browser is none. Observed, it is only logged."""
    await tenant.rule("copied_session", signal="browser", mode=mode)
    login = await tenant.login()

    honest = [await tenant.check(login, user_agent=agent) for agent in (None, CHROME_NEXT, "x")]
    copied = await tenant.check(login, user_agent=FIREFOX)
    after = await tenant.check(login)

    assert [code(each) for each in honest] == [None] * 3
    if mode == "observe":
        assert (code(copied), code(after)) == (None, None)
    else:
        assert (code(copied), code(after)) == ("copied_session", "session_ended")
        assert after["reason"]["end_reason"] == "copied_session"
    cases = list(items(await tenant.see("/v1/members/ana/violations")))
    assert {each["effect"] for each in cases} == {"ended" if mode == "enforce" else "logged"}


CHROME_NEXT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/199.0.0.0 Safari/537.36"
)


async def test_two_machines_that_take_turns_are_a_copy(tenant):
    """A phone that moves from one network to another and stays is none."""
    await tenant.rule("copied_session", signal="network")
    phone, copied = await tenant.login("phone"), await tenant.login()

    moved = [await tenant.check(phone, ip=ip) for ip in (LAPTOP, LISBON, LISBON)]
    turns = []
    for ip in (LAPTOP, LISBON, LAPTOP, LISBON, LAPTOP):
        tenant.service.clock.forward(2_000)
        turns.append(await tenant.check(copied, ip=ip))

    assert [code(each) for each in moved] == [None] * 3
    assert [code(each) for each in turns] == [None, None, None, "copied_session", "session_ended"]


async def test_new_devices_are_counted_when_they_were_forgotten_too(tenant):
    """Forgetting one does not make the next one free; the first stays."""
    first, second = await tenant.login(), await tenant.login(user_agent=FIREFOX)
    await tenant.rule("device_churn", max_new=1, window_days=30)
    answers = [await tenant.check(first), await tenant.check(second, user_agent=FIREFOX)]

    path = f"/v1/members/ana/devices/{first['device']['id']}"
    await tenant.call("DELETE", path, role="supervisor")
    still = await tenant.check(second, user_agent=FIREFOX)

    assert [code(each) for each in answers] == [None, "device_churn"]
    assert code(still) == "device_churn"


async def test_a_pass_gives_a_place_until_it_ends(tenant):
    """A verdict does not outlive it."""
    await tenant.login()
    second = await tenant.login(user_agent=FIREFOX)
    await tenant.rule("session_limit", "deny_new", max=1)
    refused = await tenant.check(second)
    body = {"kind": "extra_session", "until": later(tenant, seconds=20), "reason": "exam week"}
    await tenant.call("POST", "/v1/members/ana/passes", body, role="supervisor")

    allowed = await tenant.check(second, activity="lesson_open")
    tenant.service.clock.forward(21_000)
    over = await tenant.check(second)

    assert [code(each) for each in (refused, allowed, over)] == ["session_limit", None, "session_limit"]


async def test_a_suspension_of_checks_exempts_until_it_ends(tenant):
    """The answer says so, and what would have been found is recorded."""
    login = await tenant.login()
    await tenant.rule("ip_deny", networks=["203.0.113.0/24"])
    body = {"kind": "suspend_checks", "until": later(tenant, seconds=20), "reason": "a call"}
    await tenant.call("POST", "/v1/members/ana/passes", body, role="supervisor")

    exempt = [await tenant.check(login, activity="lesson_open"), await tenant.check(login)]
    tenant.service.clock.forward(21_000)
    over = await tenant.check(login)

    assert [(code(each), each["exempt"]) for each in exempt] == [(None, True)] * 2
    assert (code(over), over["exempt"]) == ("ip_denied", False)


async def test_an_action_grows_with_its_cases_and_calms_down(tenant):
    """From logging to a challenge to a refusal; and back, when the cases are old."""
    escalation = {"days": 2, "challenge_after": 1, "deny_after": 2}
    await tenant.rule("network_limit", "log", max=1, window_s=600, unit="prefix", escalation=escalation)
    login = await tenant.login()
    await tenant.check(login)

    seen = []
    for net in (1, 2, 3):
        seen.append(await tenant.check(login, ip=f"198.51.{net}.1"))
        await tenant.check(login)
    tenant.service.clock.forward(49 * HOUR_MS)
    await tenant.check(login)
    calm = await tenant.check(login, ip="198.51.9.1")

    assert [each["decision"] for each in (*seen, calm)] == ["allow", "challenge", "deny", "allow"]


async def test_a_rule_that_looks_further_than_those_before_it_is_told_more(tenant):
    """What this worker holds of the member is read anew, though nothing of the member has changed."""
    await tenant.rule("session_limit", max=5)
    login = await tenant.login()
    before = [await tenant.check(login) for _ in range(2)]

    await tenant.rule("enrolment")
    after = await tenant.check(login)

    assert [code(each) for each in before] == [None, None]
    assert (code(after), after["degraded"]) == ("no_active_enrolment", False)


async def test_who_may_not_go_on_holds_no_network(tenant):
    """A refusal by any rule takes no place, and shows in no other session's way."""
    await tenant.rule("ip_deny", networks=["192.0.2.0/24"])
    await tenant.rule("network_limit", max=2, window_s=600)
    login = await tenant.login()

    denied = [await tenant.check(login, ip=f"192.0.2.{last}") for last in (1, 2, 3)]
    others = [await tenant.check(login, ip=ip) for ip in (LAPTOP, LISBON)]
    explained = await tenant.check(login, explain=True)

    assert [code(each) for each in denied] == ["ip_denied"] * 3
    assert [code(each) for each in others] == [None, None]
    (limit,) = [each for each in explained["trace"] if each["kind"] == "network_limit"]
    assert (limit["counted"], limit["limit"], limit["networks"]) == (2, 2, [LISBON])
    assert len(limit["times"]) == 1


@pytest.mark.parametrize("who", ["staff", "impersonation"])
async def test_nobody_counts_who_is_no_student(at, who):
    """No rule looks at staff or at an operator in a member's account, and neither takes a network."""
    await at.call("PUT", "/v1/members/ana", {"staff": who == "staff"})
    login = await at.login(method=who if who == "impersonation" else "password")
    for kind in ("country_deny", "network_limit", "impossible_travel", "copied_session"):
        await at.rule(kind, **SCENES[kind][0])

    answers = [await at.check(login, ip=ip, user_agent=FIREFOX, activity="lesson_open") for ip in (MILAN, LISBON)]

    assert [(each["decision"], each["exempt"]) for each in answers] == [("allow", True)] * 2
    assert list(items(await at.see("/v1/members/ana/violations"))) == []


async def test_a_use_that_cannot_be_written_is_allowed_and_said(at):
    """Degraded, and asked again the next time; what is written again is as if nothing had been."""
    await at.rule("network_limit", max=2, window_s=600)
    login = await at.login()
    async with at.service.context.sessions._db.transaction() as elsewhere:
        await elsewhere.row("LOCK TABLE member_network IN EXCLUSIVE MODE")
        lost = await at.check(login, ip=LISBON)

    kept = [await at.check(login, ip=LISBON) for _ in range(2)]

    assert [(each["decision"], each["degraded"]) for each in (lost, *kept)] == [
        ("allow", True),
        ("allow", False),
        ("allow", False),
    ]
