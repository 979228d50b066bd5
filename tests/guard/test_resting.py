"""Sessions that rest, asked of a whole service: nobody can tell them from the others."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from accessguard.guard import memory
from tests.service import LAPTOP, Service, Tenant, running


@pytest.fixture
async def here(
    service: Service, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Tenant]:
    """A new tenant on a worker that keeps one session as an object, and for which time stands still."""
    monkeypatch.setattr(memory, "MOST_HOT", 1)
    async with running(database_url, redis_url) as worker:
        worker.clock.stop()
        yield worker.tenant()


def looks(tenant: Tenant) -> int:
    """How often a member was judged anew or read."""
    tally = tenant.service.context.checks.tally
    return tally.evaluated + tally.loaded


async def test_answers_and_beats_of_sessions_that_rest_go_on(here):
    """Three take turns for five beats: the same answers as at first, and nobody is judged or read again."""
    logins = [await here.login(f"student-{each}") for each in range(3)]
    first = [(await here.check(login, activity="lesson_open")).body for login in logins]
    before, moved = looks(here), here.service.context.checks.tally.moved

    for _ in range(5):
        here.service.clock.forward(30_000)
        beaten = [(await here.check(login, activity="lesson_open")).body for login in logins]
        waiting = [(await here.check(login)).body for login in logins]
        assert beaten == waiting == first

    assert looks(here) == before
    assert here.service.context.checks.tally.moved == moved + 15


async def test_a_device_that_is_blocked_while_its_session_rests_is_refused(here):
    """The next check says so, and the other member's goes on."""
    ana, ben = await here.login("ana"), await here.login("ben")
    await here.check(ana)
    await here.check(ben)

    await here.device("ana", ana["device"]["id"], access="blocked")

    assert (await here.check(ana))["decision"] == "deny"
    assert (await here.check(ben))["decision"] == "allow"


async def test_a_rule_that_is_made_while_a_session_rests_is_honoured(here):
    """Its verdict was made under the policy before."""
    ana, ben = await here.login("ana"), await here.login("ben")
    await here.check(ana)
    await here.check(ben)

    await here.rule("ip_deny", networks=[LAPTOP])

    assert [(await here.check(each))["decision"] for each in (ana, ben, ana)] == ["deny"] * 3


async def test_another_address_is_another_question_also_after_a_rest(here):
    """What the verdict depends on rests with it."""
    await here.rule("ip_deny", networks=["198.51.100.0/24"])
    ana, ben = await here.login("ana"), await here.login("ben")
    await here.check(ana)
    await here.check(ben)

    elsewhere = await here.check(ana, ip="198.51.100.7")

    assert (elsewhere["decision"], elsewhere["reason"]["code"]) == ("deny", "ip_denied")
