"""Passes: something extra for one member, given by operators or taken on its own budget, until a time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.grants import month_of
from accessguard.members.model import PassKind
from accessguard.policies.model import Settings
from tests.service import Answer, Tenant, items


def later(tenant: Tenant, **ahead: float) -> datetime:
    """A time ahead of the service's clock."""
    return datetime.fromtimestamp(tenant.service.clock() / 1000, UTC) + timedelta(**ahead)


async def give(tenant: Tenant, member: str = "ana", **fields: Any) -> Answer:
    """A supervisor gives a pass for a week."""
    headers = fields.pop("headers", {})
    asked = {"kind": "extra_device", "until": later(tenant, days=7).isoformat(), "reason": "new laptop"} | fields
    return await tenant.call("POST", f"/v1/members/{member}/passes", asked, role="supervisor", headers=headers)


async def test_a_pass_stands_on_the_card_until_it_ends(tenant: Tenant):
    """It ends by itself."""
    await tenant.login()
    made = await give(tenant, until=later(tenant, seconds=60).isoformat())
    during = await tenant.see("/v1/members/ana")
    tenant.service.clock.forward(60_000)

    after = await tenant.see("/v1/members/ana")
    tenant.service.clock.forward(-60_000)

    assert (made.status, made["own"], made["created_by"]) == (201, False, f"supervisor@{tenant.name}")
    assert (during["passes"], after["passes"]) == ([made.body], [])


async def test_an_attendant_sees_no_passes(tenant: Tenant):
    """A pass tells of devices and restrictions."""
    await tenant.login()
    await give(tenant)

    card = await tenant.call("GET", "/v1/members/ana", role="attendant")

    assert card["passes"] == []


async def test_a_retry_gives_one_pass(tenant: Tenant):
    """The same key and body, at once or later."""
    await tenant.login()
    fields: dict[str, Any] = {"until": later(tenant, days=7).isoformat(), "headers": {"Idempotency-Key": "k"}}

    made = await asyncio.gather(*(give(tenant, **fields) for _ in range(5)))
    other = await give(tenant, kind="extra_session", headers={"Idempotency-Key": "k"})

    assert {each.status for each in made} == {201}
    assert len({each["id"] for each in made}) == 1
    assert other.status == 422
    assert len((await tenant.see("/v1/members/ana"))["passes"]) == 1
    assert len(list(items(await tenant.call("GET", "/v1/audit", role="administrator")))) == 1


async def test_a_pass_lands_in_the_audit_log(tenant: Tenant):
    """Who gave what to whom, until when and why."""
    await tenant.login()
    made = await give(tenant)

    (line,) = items(await tenant.call("GET", "/v1/audit", role="administrator"))

    assert (line["action"], line["target_kind"], line["target_id"]) == ("pass.give", "pass", made["id"])
    assert (line["reason"], line["before"]) == ("new laptop", None)
    assert (line["after"]["member_id"], line["after"]["kind"]) == ("ana", "extra_device")


@pytest.mark.parametrize(
    ("ahead", "status"),
    [
        pytest.param({"seconds": -1}, 400, id="over already"),
        pytest.param({"days": 366, "seconds": -60}, 201, id="a year"),
        pytest.param({"days": 367}, 400, id="longer than a year"),
    ],
)
async def test_a_pass_ends_within_a_year(tenant: Tenant, ahead, status):
    """What has no end is a rule's exception, not a pass."""
    await tenant.login()

    made = await give(tenant, until=later(tenant, **ahead).isoformat())

    assert made.status == status
    if status == 400:
        assert made["errors"][0]["pointer"] == "/until"


async def test_nobody_holds_more_than_twenty(tenant: Tenant):
    """Those that ended do not count."""
    await tenant.login()
    short = {"until": later(tenant, seconds=30).isoformat()}
    made = [(await give(tenant, **(short if number == 0 else {}))).status for number in range(21)]
    tenant.service.clock.forward(30_000)

    again = await give(tenant)
    tenant.service.clock.forward(-30_000)

    assert made == [201] * 20 + [409]
    assert again.status == 201


async def test_an_unknown_member_gets_no_pass(tenant: Tenant):
    """Nor one of another tenant."""
    await tenant.login()

    made = await give(tenant, member="nobody")

    assert made.status == 404


async def test_a_member_takes_passes_within_the_budget_of_a_month(tenant: Tenant):
    """A day each, and never a suspension of the checks; at the same instant too."""
    await tenant.login()
    grants, now_ms = tenant.service.context.grants, tenant.service.clock()
    settings = Settings(passes_per_month=2)

    async def take(kind: PassKind) -> Any:
        try:
            return await grants.take_pass(
                tenant.name, "ana", kind, settings=settings, until=later(tenant, days=9), now_ms=now_ms
            )
        except GuardError as error:
            return error.code

    suspended = await take(PassKind.SUSPEND_CHECKS)
    taken = await asyncio.gather(*(take(PassKind.EXTRA_DEVICE) for _ in range(4)))

    passes = [each for each in taken if not isinstance(each, ErrorCode)]
    assert suspended is ErrorCode.FORBIDDEN
    assert [each for each in taken if isinstance(each, ErrorCode)] == [ErrorCode.CONFLICT] * 2
    assert {each.until - each.created_at for each in passes} == {timedelta(days=1)}
    assert {each.own for each in passes} == {True}


async def test_without_a_budget_a_member_takes_none(tenant: Tenant):
    """The default: operators give them."""
    await tenant.login()
    grants = tenant.service.context.grants

    with pytest.raises(GuardError) as refused:
        await grants.take_pass(
            tenant.name,
            "ana",
            PassKind.EXTRA_SESSION,
            settings=Settings(),
            until=later(tenant, hours=1),
            now_ms=tenant.service.clock(),
        )

    assert refused.value.code is ErrorCode.CONFLICT


@pytest.mark.parametrize(
    ("zone", "began"),
    [
        pytest.param("UTC", datetime(2026, 11, 1, tzinfo=UTC), id="UTC"),
        pytest.param(
            "Pacific/Auckland", datetime(2026, 11, 30, 11, tzinfo=UTC), id="where the month has begun already"
        ),
        pytest.param("No/Where", datetime(2026, 11, 1, tzinfo=UTC), id="no such zone"),
        pytest.param("../etc/passwd", datetime(2026, 11, 1, tzinfo=UTC), id="no zone at all"),
        pytest.param("", datetime(2026, 11, 1, tzinfo=UTC), id="empty"),
    ],
)
def test_a_month_is_one_of_the_school_s_calendar(zone, began):
    """It begins at midnight where the school is."""
    assert month_of(datetime(2026, 11, 30, 18, tzinfo=UTC), zone) == began
