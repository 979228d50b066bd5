"""Logins that share a statement: each stands or falls alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

from accessguard.database import Database
from accessguard.guard.gathering import Gathering
from accessguard.sessions.logins import LoginStore
from accessguard.sessions.model import Knock, LoginRows, Reading
from accessguard.violations.model import QUIET
from tests.service import CHROME, FIREFOX, LAPTOP, Answer, Service, Tenant, items, running


@pytest.fixture
async def db(database_url) -> AsyncIterator[Database]:
    """Connections of the test's own."""
    db = await Database.connect(database_url, size=2)
    yield db
    await db.close()


@contextlib.contextmanager
def together(service: Service, tenant: Tenant, count: int) -> Iterator[list[Sequence[LoginRows]]]:
    """Hold the writes of that tenant back until `count` logins are decided, so that they share; yields the batches."""
    records: Gathering[LoginRows, Any] = service.context.logins._together._records
    carry, batches = records._carry, []

    async def slow(logins: Sequence[LoginRows]) -> Sequence[Any]:
        if logins[0].tenant == tenant.name:
            batches.append(logins)
            while sum(map(len, batches)) + len(records._waiting) < count:
                await asyncio.sleep(0.001)
        return await carry(logins)

    records._carry = slow
    try:
        yield batches
    finally:
        records._carry = carry


async def crowd(tenant: Tenant, members: list[str], **fields: dict[str, Any]) -> dict[str, Answer]:
    """All of them log in at once; `fields` by member."""
    answers = await asyncio.gather(*(tenant.login(each, **fields.get(each, {})) for each in members))
    return dict(zip(members, answers, strict=True))


async def sessions(tenant: Tenant, member: str) -> list[str]:
    """The member's open sessions."""
    found = items(await tenant.see(f"/v1/members/{member}/sessions"))
    return [each["id"] for each in found if each["ended_at"] is None]


async def knocked(db: Database, tenant: Tenant, *members: str) -> list[Reading]:
    """What a login of each would be decided on."""
    knocks = [
        Knock(tenant=tenant.name, member_id=each, device_id=None, session_id=None, attempt_id=None) for each in members
    ]
    return list(await LoginStore(db, quiet=QUIET).read_all(knocks))


async def test_what_is_read_for_many_is_what_is_read_for_one(tenant, db):
    """In the order of asking; a stranger has nothing, and takes nothing from the others."""
    await crowd(tenant, ["ana", "bob"])

    many = await knocked(db, tenant, "bob", "nobody", "ana", "bob")

    assert many == [(await knocked(db, tenant, each))[0] for each in ("bob", "nobody", "ana", "bob")]
    assert [each.opening.snapshot.member_id if each.opening else None for each in many] == ["bob", None, "ana", "bob"]


async def test_logins_of_many_share_statements(tenant, service):
    """Each has its session, its device and its line in the log afterwards."""
    members = [f"m{each}" for each in range(20)]
    await crowd(tenant, members)

    with together(service, tenant, 20) as batches:
        answers = await crowd(tenant, members, **{each: {"user_agent": FIREFOX} for each in members})

    assert (len(batches) <= 8, sum(map(len, batches))) == (True, 20)
    for member, answer in answers.items():
        assert answer["session"]["id"] in await sessions(tenant, member)
        lines = list(items(await tenant.see(f"/v1/members/{member}/logins")))
        assert [line["id"] for line in lines].count(answer["attempt_id"]) == 1


async def test_a_member_whom_somebody_else_holds_holds_up_nobody_but_itself(tenant, service, db):
    """The others are answered while its row is locked; it is recorded once the lock is gone."""
    members = [f"m{each}" for each in range(8)]
    await crowd(tenant, members)

    with together(service, tenant, 8):
        async with db.transaction() as holder:
            await LoginStore(holder, quiet=QUIET).lock(tenant.name, "m3")
            held = asyncio.create_task(tenant.login("m3"))
            others = await crowd(tenant, [each for each in members if each != "m3"])
            waiting = not held.done()
        answer = await held

    assert waiting
    assert {each.status for each in (*others.values(), answer)} == {200}
    assert answer["session"]["id"] in await sessions(tenant, "m3")


async def test_a_conflict_of_one_is_decided_again_and_the_others_are_not(tenant, service, db):
    """A login that was decided on a member as it no longer is leaves nothing at all; its companions are written."""
    await crowd(tenant, ["ana", "bob", "eve"])
    with together(service, tenant, 3) as batches:
        await crowd(tenant, ["ana", "bob", "eve"])
    openings = [each.opening for each in await knocked(db, tenant, "ana", "bob") if each.opening]
    present = {each.snapshot.member_id: each.snapshot.generation for each in openings}
    again = [_anew(rows, present.get(rows.member_id or "")) for batch in batches for rows in batch]

    written = await LoginStore(db, quiet=QUIET).record_all(again)

    kept = {rows.member_id: result is not None for rows, result in zip(again, written, strict=True)}
    assert kept == {"ana": True, "bob": True, "eve": False}
    for rows in again:
        lines = [line["id"] for line in items(await tenant.see(f"/v1/members/{rows.member_id}/logins"))]
        assert (str(rows.attempt.id) in lines) is kept[rows.member_id]


def _anew(rows: LoginRows, generation: int | None) -> LoginRows:
    """The same login under ids of its own, decided at that generation; None leaves it as it was."""
    session = rows.session and replace(rows.session, id=str(uuid4()))
    attempt = replace(rows.attempt, id=uuid4(), session_id=session and session.id)
    return replace(rows, generation=generation or rows.generation, attempt=attempt, session=session)


async def test_a_row_that_is_refused_fails_its_own_login_alone(tenant, service):
    """Two members want one session id in one statement: one has it, the other hears why, the others notice nothing."""
    members = [f"m{each}" for each in range(8)]
    await crowd(tenant, members)
    wanted = {each: {"session_id": "one-for-two"} for each in ("m2", "m5")}

    with together(service, tenant, 8):
        answers = await crowd(tenant, members, **wanted)

    assert Counter(answer.status for answer in answers.values()) == {200: 7, 409: 1}
    assert {answers[each].status for each in ("m2", "m5")} == {200, 409}
    assert {len(await sessions(tenant, each)) for each in members if each not in wanted} == {2}


async def test_failures_and_refusals_share_the_statement_too(tenant, service):
    """An attempt that the platform refused, one that a rule refuses, and one that is let in."""
    await crowd(tenant, ["ana", "bob", "eve"])
    await tenant.rule("ip_deny", networks=["198.51.100.0/24"])
    fields = {"ana": {"outcome": "failure"}, "bob": {"ip": "198.51.100.7"}, "eve": {"ip": LAPTOP}}

    with together(service, tenant, 3):
        answers = await crowd(tenant, ["ana", "bob", "eve"], **fields)

    assert (answers["ana"]["session"], answers["ana"]["decision"]) == (None, "allow")
    assert (answers["bob"]["decision"], len(answers["bob"]["violations"])) == ("deny", 1)
    assert (answers["eve"]["decision"], answers["eve"]["violations"]) == ("allow", [])
    assert [len(await sessions(tenant, each)) for each in ("ana", "bob", "eve")] == [1, 1, 2]


@pytest.mark.slow
async def test_hundreds_of_logins_of_few_members_on_two_workers_are_all_answered(
    tenant, service, database_url, redis_url
):
    """Batches that name the same members in any order neither wait for each other in a ring nor let one in too many."""
    members = [f"m{each}" for each in range(12)]
    await tenant.rule("session_limit", "evict_oldest", max=2)
    async with running(database_url, redis_url) as second:
        there = Tenant(second, tenant.name)
        order = [(where, each) for where in (tenant, there) for each in members * 15]
        Random(4).shuffle(order)
        answers = await asyncio.gather(
            *(where.login(each, user_agent=CHROME.format(number % 40)) for number, (where, each) in enumerate(order))
        )

    assert Counter(answer.status for answer in answers) == {200: 360}
    assert {answer["decision"] for answer in answers} == {"allow"}
    assert {len(await sessions(tenant, each)) for each in members} == {2}
