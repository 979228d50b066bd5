"""Challenges: put once, settled once, and what they hold off and use up."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from accessguard.challenges.model import Answer, Challenge, Freed, Settlement
from accessguard.challenges.store import ChallengeStore
from accessguard.rules.model import Settled, Stage
from tests.build import NOW
from tests.service import Service, Tenant

MINUTE = timedelta(minutes=1)
RULE = UUID(int=7)


@pytest.fixture
async def store(service: Service, tenant: Tenant) -> ChallengeStore:
    """The challenges of the run's PostgreSQL; the tenant has the members ana and ben."""
    await tenant.login("ana", session_id="s1")
    await tenant.login("ben")
    return ChallengeStore(service.context.sessions._db)


def challenge(**more: Any) -> Challenge:
    """One of ana's at a check, for ten minutes from NOW on."""
    given: dict[str, Any] = {
        "id": uuid4(),
        "member_id": "ana",
        "session_id": "s1",
        "device_id": None,
        "rule_id": RULE,
        "rule_version": 3,
        "subject": "AS64500",
        "violation_id": uuid4(),
        "stage": Stage.CHECK,
        "asked": None,
        "created_at": NOW,
        "expires_at": NOW + 10 * MINUTE,
    }
    return Challenge(**given | more)


def passed(minutes: float = 1, **more: Any) -> Settlement:
    """Passed so many minutes after NOW, good for an hour."""
    at = NOW + minutes * MINUTE
    given: dict[str, Any] = {"outcome": Answer.PASSED, "at": at, "by": "platform", "good_until": at + 60 * MINUTE}
    return Settlement(**given | more)


async def test_a_challenge_is_kept_as_it_was_put(store, tenant):
    """With what a login needs to be finished."""
    asked = msgspec.Raw(b'{"method": "password", "app": null}')
    made = await store.make(tenant.name, challenge(stage=Stage.LOGIN, asked=asked, session_id=None))

    found = await store.one(tenant.name, made.id)

    assert found == msgspec.structs.replace(made, asked=found.asked)
    assert msgspec.json.decode(found.asked) == {"method": "password", "app": None}
    assert found.open(NOW)
    assert not found.open(NOW + 10 * MINUTE)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        pytest.param({}, True, id="the same finding"),
        pytest.param({"created_at": NOW + 9 * MINUTE, "expires_at": NOW + 19 * MINUTE}, True, id="later"),
        pytest.param({"created_at": NOW + 10 * MINUTE, "expires_at": NOW + 20 * MINUTE}, False, id="after it expired"),
        pytest.param({"subject": "AS64501"}, False, id="another subject"),
        pytest.param({"rule_id": UUID(int=8)}, False, id="another rule"),
        pytest.param({"session_id": "s2"}, False, id="another session"),
        pytest.param({"member_id": "ben"}, False, id="another member"),
        pytest.param({"stage": Stage.LOGIN}, False, id="a login"),
    ],
)
async def test_a_check_that_is_asked_again_meets_the_challenge_that_is_open(store, tenant, other, same):
    """A client that hammers makes one challenge, not one for each request."""
    first = await store.make(tenant.name, challenge())

    again = await store.make(tenant.name, challenge(**other))

    assert (again.id == first.id) is same


async def test_a_challenge_is_settled_once(store, tenant):
    """Of many at one instant the first one counts; all read the same."""
    made = await store.make(tenant.name, challenge())
    tries = [passed(by=f"worker-{number}") for number in range(10)]

    settled = await asyncio.gather(*(store.settle(tenant.name, made.id, each) for each in tries))
    failed = await store.settle(tenant.name, made.id, passed(2, outcome=Answer.FAILED))

    found = await store.one(tenant.name, made.id)
    assert (sorted(settled), failed) == ([False] * 9 + [True], False)
    assert (found.outcome, found.settled_by) == (Answer.PASSED, f"worker-{settled.index(True)}")
    assert not found.open(NOW)


async def test_settling_takes_the_next_generation_of_the_member(store, tenant):
    """So that a refusal that is held anywhere is not given again."""
    sessions = tenant.service.context.sessions
    before = await sessions.snapshot(tenant.name, "s1", timeout_s=5)
    made = await store.make(tenant.name, challenge())

    await store.settle(tenant.name, made.id, passed())

    after = await sessions.snapshot(tenant.name, "s1", timeout_s=5)
    assert after.generation > before.generation


async def test_what_expired_cannot_be_settled(store, tenant):
    """Nor what belongs to another tenant, or to nobody."""
    made = await store.make(tenant.name, challenge())

    late = await store.settle(tenant.name, made.id, passed(10))
    foreign = await store.settle(f"{tenant.name}-other", made.id, passed())
    unknown = await store.settle(tenant.name, uuid4(), passed())

    assert (late, foreign, unknown) == (False, False, False)
    assert await store.one(f"{tenant.name}-other", made.id) is None


async def test_a_passed_challenge_holds_off_its_finding_for_a_while(store, tenant):
    """The longest of one rule and subject; a failed one holds off nothing."""
    for subject, settlement in (
        ("a", passed(1)),
        ("a", passed(2)),
        ("b", passed(1, outcome=Answer.FAILED, good_until=None)),
        ("c", passed(1, good_until=NOW + 2 * MINUTE)),
    ):
        made = await store.make(tenant.name, challenge(subject=subject))
        await store.settle(tenant.name, made.id, settlement)

    found = {
        minutes: [
            (each.subject, each.until) for each in await store.good(tenant.name, "ana", now=NOW + minutes * MINUTE)
        ]
        for minutes in (1, 2, 62)
    }

    assert found == {
        1: [("a", NOW + 62 * MINUTE), ("c", NOW + 2 * MINUTE)],
        2: [("a", NOW + 62 * MINUTE)],
        62: [],
    }
    assert await store.good(tenant.name, "ben", now=NOW) == []
    assert isinstance((await store.good(tenant.name, "ana", now=NOW))[0], Settled)


async def test_swaps_are_counted_by_the_rule_that_asked(store, tenant):
    """Only what freed a place, only within the window."""
    freed = Freed(device_id=UUID(int=1))
    for number, more in enumerate(({"freed": freed}, {"freed": Freed(session_id="s9")}, {})):
        made = await store.make(tenant.name, challenge(subject=str(number)))
        await store.settle(tenant.name, made.id, passed(number + 1, **more))

    swaps = {minutes: await store.swaps(tenant.name, "ana", since=NOW + minutes * MINUTE) for minutes in (0, 1, 2)}

    assert swaps == {
        0: {RULE: (NOW + 2 * MINUTE, NOW + MINUTE)},
        1: {RULE: (NOW + 2 * MINUTE,)},
        2: {},
    }
