"""POST /v1/rules/simulate: what it answers, to whom, and how a long one goes on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.service import FIREFOX, Answer, Tenant

ONE_SESSION = {"kind": "session_limit", "action": "deny_new", "params": {"max": 1, "window_s": 1800}}
HOUR = timedelta(hours=1)


def text(at: datetime) -> str:
    """A time as callers write it."""
    return at.isoformat().replace("+00:00", "Z")


async def simulate(tenant: Tenant, rule: Any = None, *, role: str = "administrator", **more: Any) -> Answer:
    """Try a rule on the last hour."""
    now = datetime.fromtimestamp(tenant.service.clock() / 1000, UTC)
    asked = {"rule": rule or ONE_SESSION, "from": text(now - HOUR), "to": text(now + HOUR)} | more
    return await tenant.call("POST", "/v1/rules/simulate", asked, role=role)


async def two_sessions(tenant: Tenant) -> None:
    """Ana logs in on two browsers, Bob on one."""
    await tenant.login("ana", session_id="first")
    await tenant.login("ana", user_agent=FIREFOX, session_id="second")
    await tenant.login("bob")


async def test_it_says_who_would_have_been_stopped_how_often_and_why(tenant):
    """One refusal of one member of two, with its day, and an example in words."""
    await two_sessions(tenant)

    answer = await simulate(tenant)

    assert answer.status == 200
    counted = {name: answer[name] for name in ("members_affected", "members_total", "denials", "ended_sessions")}
    assert counted == {"members_affected": 1, "members_total": 2, "denials": 1, "ended_sessions": 0}
    assert [(day["denials"], day["members"]) for day in answer["by_day"]] == [(1, 1)]
    example = answer["examples"][0]
    assert (example["member_id"], example["code"], example["sessions"]) == ("ana", "session_limit", ["first"])
    assert example["explanation"] == "2 sessions in use, 1 allowed"
    assert example["retry_at"] is not None


async def test_it_counts_the_sessions_that_would_have_been_ended(tenant):
    """A rule that evicts refuses nobody, and still ends somebody's session."""
    await two_sessions(tenant)

    answer = await simulate(tenant, ONE_SESSION | {"action": "evict_oldest"})

    assert (answer["denials"], answer["ended_sessions"], answer["members_affected"]) == (0, 1, 1)
    assert answer["examples"][0]["would_end"] == ["first"]


@pytest.mark.parametrize("mode", ["off", "observe", "enforce"])
async def test_a_rule_is_played_as_if_enforced_whatever_its_mode(tenant, mode):
    """That is the question."""
    await two_sessions(tenant)

    answer = await simulate(tenant, ONE_SESSION | {"mode": mode})

    assert answer["denials"] == 1


async def test_trying_a_rule_changes_nothing(tenant):
    """No rule, no case, and both sessions go on."""
    await two_sessions(tenant)

    await simulate(tenant)

    assert (await tenant.call("GET", "/v1/rules", role="administrator"))["items"] == []
    assert (await tenant.see("/v1/violations"))["items"] == []
    assert [(await tenant.check(each, user_agent=FIREFOX))["decision"] for each in ("first", "second")] == ["allow"] * 2


async def test_members_without_checks_are_not_stopped_and_staff_is_not_counted(tenant):
    """What it would have noted of an exempt member is told apart."""
    await two_sessions(tenant)
    await tenant.call("PUT", "/v1/members/bob", {"name": "Bob", "staff": True})
    await tenant.call("PATCH", "/v1/members/ana", {"checks_enabled": False, "reason": "travels"}, role="supervisor")

    answer = await simulate(tenant)

    assert [answer[name] for name in ("members_affected", "members_total", "denials", "logged")] == [0, 1, 0, 1]


async def test_nobody_is_there_before_the_first_login(tenant):
    """A period without history is answered with zeros."""
    await two_sessions(tenant)

    answer = await simulate(tenant, **{"from": "2020-01-01T00:00:00Z", "to": "2020-02-01T00:00:00Z"})

    assert (answer.status, answer["members_total"], answer["by_day"], answer["examples"]) == (200, 0, [], [])


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        pytest.param({"rule": ONE_SESSION | {"params": {"max": 0}}}, "/rule/params/max", id="a limit of 0"),
        pytest.param({"rule": ONE_SESSION | {"action": "deny"}}, "/rule/action", id="an action of another kind"),
        pytest.param({"rule": {"kind": "nonsense"}}, "/rule/kind", id="no kind"),
        pytest.param({"to": "2020-01-01T00:00:00Z"}, "/to", id="a period that ends before it begins"),
        pytest.param({"from": "2020-01-01T00:00:00Z"}, "/to", id="a period of more than three years"),
        pytest.param({"from": "yesterday"}, "/from", id="no time"),
        pytest.param({"from": "0001-01-01T00:00:00+14:00"}, "/from", id="a beginning before the calendar"),
        pytest.param({"to": "9999-12-31T23:59:59-12:00"}, "/to", id="an end after the calendar"),
    ],
)
async def test_what_cannot_be_tried_is_refused_with_a_pointer(tenant, change, pointer):
    """To the field that is wrong."""
    await two_sessions(tenant)

    answer = await simulate(tenant, **change)

    assert answer.status == 400
    assert answer["errors"][0]["pointer"] == pointer


async def test_only_administrators_try_rules(tenant):
    """As only they save them."""
    await two_sessions(tenant)

    answers = [(await simulate(tenant, role=role)).status for role in ("platform", "attendant", "supervisor")]

    assert answers == [403, 403, 403]


async def test_another_tenant_is_never_looked_at(tenant, service):
    """The same ids elsewhere change nothing."""
    other = service.tenant()
    await two_sessions(tenant)
    await other.login("ana")

    answer = await simulate(other)

    assert (answer["members_total"], answer["denials"]) == (1, 0)


async def test_what_takes_long_goes_on_as_a_job_with_the_same_answer(tenant, service, monkeypatch):
    """202 with the job; its result is what a short one answers."""
    await two_sessions(tenant)
    short = await simulate(tenant)
    monkeypatch.setattr(service.context.simulations, "_at_once_s", 0)

    answer = await simulate(tenant)

    assert (answer.status, answer["kind"]) == (202, "simulate")
    job = await finished(tenant, answer["id"])
    assert (job["state"], job["progress"], job["total"]) == ("done", 2, 2)
    assert job["result"] == short.body


async def test_two_simulations_of_a_worker_go_on_at_a_time(tenant, service, monkeypatch):
    """A third is refused, so that checks are answered meanwhile."""
    await two_sessions(tenant)
    busy = {asyncio.create_task(asyncio.sleep(60)) for _ in range(2)}
    monkeypatch.setattr(service.context.simulations, "_running", busy)

    answer = await simulate(tenant)

    assert answer.status == 409
    for task in busy:
        task.cancel()


async def finished(tenant: Tenant, job_id: str) -> Answer:
    """The job once it has come to its end."""
    while True:
        job = await tenant.call("GET", f"/v1/jobs/{job_id}", role="administrator")
        assert job.status == 200
        if job["state"] in {"done", "failed"}:
            return job
        await asyncio.sleep(0.01)
