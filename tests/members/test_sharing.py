"""Evidence of shared accounts: what is gathered, what it weighs, and what lowers it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from accessguard.guard.facts import from_ms
from accessguard.guard.sharing import Sharing
from accessguard.rules.model import Code, Effect, Mode
from accessguard.violations.model import Found
from tests.service import FIREFOX, Answer, Service, Tenant, items

HOUR_MS = 3_600_000
REPORT = "/v1/reports/sharing"


@pytest.fixture(autouse=True)
def time_goes_back(service: Service) -> Iterator[None]:
    """What a test lets pass is over with it: the worker is everybody's."""
    ahead_ms = service.clock.ahead_ms
    yield
    service.clock.ahead_ms = ahead_ms


async def watch(tenant: Tenant, *sessions: Answer, times: int = 3) -> None:
    """All of these sessions are active, every ten minutes."""
    for _ in range(times):
        for each in sessions:
            checked = await tenant.check(each, activity="video_watch")
            assert checked["decision"] == "allow"
        tenant.service.clock.forward(600_000)


async def gathered(tenant: Tenant) -> None:
    """The evidence is gathered as it is every quarter of an hour, when all of it has settled."""
    context = tenant.service.context
    await context.activity.flush()
    tenant.service.clock.forward(600_000)
    sharing = Sharing(db=context.sharing._db, now_ms=tenant.service.clock)
    while await sharing.step(tenant.name):
        pass


async def report(tenant: Tenant, query: str = "") -> dict[str, dict[str, Any]]:
    """The report by member, in its order."""
    return {row["member_id"]: row for row in items(await tenant.see(REPORT + query))}


async def case(tenant: Tenant, member: str, code: Code, **more: Any) -> str:
    """A case of that code, an hour ago; its id."""
    context = tenant.service.context
    found = Found(
        id=context.new_id(),
        cause=str(code),
        subject=str(context.new_id()),
        code=code,
        rule_id=None,
        rule_version=None,
        mode=Mode.OBSERVE,
        effect=Effect.LOGGED,
        member_id=member,
        session_id=None,
        device_id=None,
        ip=None,
        at=from_ms(context.now_ms() - HOUR_MS),
        hits=1,
        details={},
    )
    await context.tenancy.provision(tenant.name, now_ms=context.now_ms())
    await context.members.ensure(tenant.name, member, at=found.at)
    (violation_id,) = await context.violations.record(tenant.name, [found])
    return str(violation_id)


async def test_two_laptops_at_once_say_more_than_a_laptop_and_then_another(tenant: Tenant):
    """What was seen is told with how often, on how many days, and what it weighs."""
    await watch(tenant, await tenant.login("two"), await tenant.login("two", user_agent=FIREFOX))
    await watch(tenant, await tenant.login("one"))
    await gathered(tenant)

    found = await report(tenant)

    assert list(found) == ["two"]
    two = found["two"]
    kinds = {point["kind"]: (point["amount"], point["weight"]) for point in two["points"]}
    assert kinds["parallel_activity"] == (3, 6)
    assert kinds["parallel_devices"][1] >= 1
    assert two["score"] == sum(point["weight"] for point in two["points"])
    assert two["points"][0]["explanation"].startswith("3 stretches of ten minutes")
    assert two["as_of"] is not None


async def test_a_merge_takes_back_what_two_devices_seemed_to_show(tenant: Tenant):
    """They are one device, and were."""
    one, other = await tenant.login(), await tenant.login()
    await watch(tenant, one, other)
    await gathered(tenant)
    before = await report(tenant)
    path = f"/v1/members/ana/devices/{other['device']['id']}/merge"

    await tenant.call("POST", path, {"into": one["device"]["id"]}, role="supervisor")

    assert list(before) == ["ana"]
    assert await report(tenant) == {}


async def test_copied_tokens_count_at_once_and_false_alarms_lower_the_score(tenant: Tenant):
    """Without waiting for anything to be gathered; the false alarm is a point of its own."""
    await tenant.login("ana")
    first = await case(tenant, "ana", Code.COPIED_SESSION)
    await case(tenant, "ana", Code.COPIED_SESSION)
    await case(tenant, "ana", Code.IMPOSSIBLE_TRAVEL)
    before = await report(tenant)

    await tenant.call("PATCH", f"/v1/violations/{first}", {"resolution": "false_alarm"}, role="supervisor")
    after = await report(tenant)

    assert [(p["kind"], p["weight"]) for p in before["ana"]["points"]] == [("copied_tokens", 20), ("travel", 5)]
    assert (before["ana"]["score"], after["ana"]["score"]) == (25, 5)
    assert [(p["kind"], p["weight"]) for p in after["ana"]["points"]] == [
        ("copied_tokens", 10),
        ("travel", 5),
        ("false_alarms", -10),
    ]


async def test_each_kind_of_evidence_has_its_limit(tenant: Tenant):
    """A hundred cases of one kind are no more than that one kind can say."""
    for _ in range(5):
        await case(tenant, "ana", Code.COPIED_SESSION)

    found = await report(tenant)

    assert (found["ana"]["score"], found["ana"]["points"][0]["amount"]) == (20, 5)


async def test_new_devices_count_from_the_third_on(tenant: Tenant):
    """A new phone and a new laptop are what people have."""
    for many, member in ((2, "few"), (5, "many")):
        logins = [await tenant.login(member) for _ in range(many)]
        await tenant.check(logins[-1], activity="lesson_open")
    await gathered(tenant)

    found = await report(tenant)

    assert list(found) == ["many"]
    assert [(p["kind"], p["amount"], p["weight"]) for p in found["many"]["points"]] == [("churn", 5, 6)]


async def test_what_is_gathered_again_is_not_counted_twice(tenant: Tenant):
    """And a member who was active again is looked at again."""
    one, other = await tenant.login(), await tenant.login(user_agent=FIREFOX)
    await watch(tenant, one, other)
    await gathered(tenant)
    await gathered(tenant)
    before = await report(tenant)
    await watch(tenant, one, other, times=2)
    await gathered(tenant)

    after = await report(tenant)

    amounts = [each["ana"]["points"][0]["amount"] for each in (before, after)]
    assert amounts == [3, 5]


async def test_the_report_is_in_order_by_pages_and_as_csv(tenant: Tenant):
    """By score or by time, both ways; a period that holds nothing is empty, one that is too long is refused."""
    for many, member in ((1, "a"), (2, "b"), (1, "c")):
        for _ in range(many):
            await case(tenant, member, Code.COPIED_SESSION)
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await tenant.see(f"{REPORT}?limit=1{cursor}")
        seen += [row["member_id"] for row in items(page)]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"

    table = await tenant.see(REPORT, headers={"Accept": "text/csv"})
    past = from_ms(tenant.service.clock()) - timedelta(days=10)

    assert seen == ["b", "c", "a"]
    assert list(await report(tenant, "?order=asc")) == ["a", "c", "b"]
    assert set(await report(tenant, "?sort=last_at&limit=200")) == {"a", "b", "c"}
    assert await report(tenant, f"?to={past.isoformat().replace('+00:00', 'Z')}") == {}
    assert [line.partition(",")[0] for line in table.body.decode().splitlines()] == ["member_id", "b", "c", "a"]
    refused = await tenant.see(f"{REPORT}?from=2020-01-01T00:00:00Z")
    assert (refused.status, refused["errors"][0]["pointer"]) == (400, "/from")
    for odd in (
        "from=0001-01-01T00:00:00Z",
        "to=0001-01-01T00:00:00Z",
        "to=9999-12-31T23:59:59Z",
        "cursor=WzEsIlx1MDAwMCJd",
    ):
        assert (await tenant.see(f"{REPORT}?{odd}")).status in (200, 400), odd
    for role in ("attendant", "platform"):
        assert (await tenant.call("GET", REPORT, role=role)).status == 403


async def test_a_round_of_several_steps_looks_back_to_where_it_began(tenant: Tenant, monkeypatch: pytest.MonkeyPatch):
    """Whoever was active yesterday, and again today before their turn came, loses nothing of yesterday."""
    monkeypatch.setattr("accessguard.guard.sharing.AT_ONCE", 1)
    clock = tenant.service.clock
    one, other = await tenant.login(), await tenant.login(user_agent=FIREFOX)
    early = await tenant.login("aaa")
    await gathered(tenant)
    await watch(tenant, one, other)
    clock.forward(30 * HOUR_MS)
    try:
        await watch(tenant, early, times=1)
        await watch(tenant, one, times=1)
        await gathered(tenant)
        found = await report(tenant)
    finally:
        clock.forward(-30 * HOUR_MS)

    assert next((p["kind"], p["amount"]) for p in found["ana"]["points"]) == ("parallel_activity", 3)


async def test_the_first_of_a_long_ranking_are_held_for_a_while(tenant: Tenant, monkeypatch: pytest.MonkeyPatch):
    """Whoever asks again for the usual period is shown them, page by page to the end; a period that is named is ranked as it is."""
    monkeypatch.setattr("accessguard.members.sharing.MANY", 4)
    monkeypatch.setattr("accessguard.members.ranking.HELD", 3)
    for member in ("ana", "ben", "cleo", "dan"):
        await tenant.login(member)
        await case(tenant, member, Code.COPIED_SESSION)
    context = tenant.service.context
    since = from_ms(context.now_ms()) - timedelta(days=20)

    await tenant.see(f"{REPORT}?limit=2")
    while context.sharing._rankings._ranking:
        await asyncio.sleep(0.01)
    for _ in range(2):
        await case(tenant, "zoe", Code.COPIED_SESSION)
    held = await tenant.see(f"{REPORT}?limit=2")
    further = await tenant.see(f"{REPORT}?limit=2&cursor={held['next_cursor']}")
    named = await tenant.see(f"{REPORT}?limit=2&from={since:%Y-%m-%dT%H:%M:%SZ}")

    assert [[each["member_id"] for each in items(page)] for page in (held, further, named)] == [
        ["dan", "cleo"],
        ["ben", "ana"],
        ["zoe", "dan"],
    ]
