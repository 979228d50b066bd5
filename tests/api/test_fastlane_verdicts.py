"""What the fast lane knows by heart is worth what the verdict behind it is worth, and not a request longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.api.asking import ELSEWHERE, FAR_S, PUSHED_S, asking, block, deny, end, end_all, evict, forget
from tests.api.lanes import question, request
from tests.service import CHROME, FIREFOX, Answer, Tenant, items

CHANGES = [
    pytest.param(block, "device_blocked", id="block"),
    pytest.param(deny, "ip_denied", id="rule"),
    pytest.param(end, "session_ended", id="end"),
    pytest.param(end_all, "session_ended", id="end all"),
    pytest.param(forget, "session_ended", id="forgotten device"),
    pytest.param(evict, "session_ended", id="evicted"),
]
Change = Callable[[Tenant, Answer], Awaitable[Answer]]


@pytest.mark.parametrize(("change", "code"), CHANGES)
async def test_a_change_is_honoured_by_the_next_batch(asker, change: Change, code):
    """Though each of its questions was known by its bytes; the other one is answered as it would be alone."""
    login, other = await asker.tenant.login(), await asker.tenant.login("bo")
    for _ in range(4):
        assert await asker.batch(login, other) == [None, None]
    known = len(asker.both.context.checks.memory.bodies)

    await change(asker.tenant, login)

    assert known >= 2, "no question of it was known"
    assert await asker.batch(login, other) == [code, await asker.code(other)]


async def test_a_batch_that_is_known_records_its_interactions_as_ever(asker):
    """When their beats are due, whatever is known of their bytes; each counts as a check."""
    login, other = await asker.tenant.login(), await asker.tenant.login("bo")
    clock, tally = asker.tenant.service.clock, asker.both.context.checks.tally
    for _ in range(4):
        await asker.batch(login, other, activity="lesson_open")
    moved, plain = tally.moved, tally.plain

    await asker.batch(login, other, activity="lesson_open")
    early = tally.moved
    clock.forward(30_000)
    await asker.batch(login, other, activity="lesson_open")

    assert (early, tally.moved) == (moved, moved + 2)
    assert tally.plain == plain + 4


@pytest.mark.parametrize(("change", "code"), CHANGES)
async def test_a_change_is_honoured_by_the_next_check(asker, change: Change, code):
    """Though the same bytes were allowed a moment ago; and the refusal stays."""
    login = await asker.tenant.login()
    await asker.by_heart(login)

    answer = await change(asker.tenant, login)

    assert answer.status in {200, 201, 204}, answer.body
    assert [await asker.code(login) for _ in range(3)] == [code] * 3


@pytest.mark.parametrize(("change", "code"), CHANGES)
async def test_a_change_on_another_worker_is_honoured_as_soon_as_it_is_pushed(asker, second, change: Change, code):
    """Long before anything would be asked anew by itself."""
    login = await asker.tenant.login()
    await asker.by_heart(login)

    await change(Tenant(second, asker.tenant.name), login)

    deadline = time.monotonic() + PUSHED_S
    while await asker.code(login) != code:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def test_what_was_refused_is_allowed_at_the_next_check_after_its_cause_is_gone(asker):
    """A rule in each of its versions, a block, the switch of a member."""
    tenant = asker.tenant
    login = await tenant.login()
    rule = await deny(tenant, login)
    path, body = f"/v1/rules/{rule['id']}", {"kind": "ip_deny", "params": {"networks": ["203.0.113.0/24"]}}
    seen = [await asker.ask(login)]

    async def then(*call: Any, role: str) -> None:
        assert (await tenant.call(*call, role=role)).status < 300
        seen.extend([await asker.ask(login), await asker.ask(login)])

    await then("PUT", path, body | {"mode": "observe"}, role="administrator")
    await then("PUT", path, body | {"mode": "enforce"}, role="administrator")
    await then("PATCH", "/v1/members/ana", {"checks_enabled": False}, role="supervisor")
    await then("PATCH", "/v1/members/ana", {"checks_enabled": True}, role="supervisor")
    await then("DELETE", path, role="administrator")
    await then("PATCH", f"/v1/members/ana/devices/{login['device']['id']}", {"access": "blocked"}, role="supervisor")
    await then("PATCH", f"/v1/members/ana/devices/{login['device']['id']}", {"access": "default"}, role="supervisor")

    no, yes = ("deny", "ip_denied", False), ("allow", None, False)
    exempt, blocked = ("allow", None, True), ("deny", "device_blocked", False)
    assert seen == [no, yes, yes, no, no, exempt, exempt, no, no, yes, yes, blocked, blocked, yes, yes]


async def test_another_address_browser_or_device_token_is_another_question(asker):
    """Each asked in turn, again and again: none gets the answer of another."""
    tenant = asker.tenant
    await tenant.rule("ip_deny", networks=[f"{ELSEWHERE}/32"])
    login = await tenant.login()
    other = await tenant.login(user_agent=FIREFOX)
    await tenant.device("ana", other["device"]["id"], access="blocked")
    token = other["device"]["token"]

    for _ in range(4):
        assert await asker.code(login) is None
        assert await asker.code(login, ip=ELSEWHERE) == "ip_denied"
        assert await asker.code(login, device_token=token) == "device_blocked"
        assert await asker.code(login, user_agent=FIREFOX) is None
        assert await asker.code(login, device_token="forged") is None
        assert await asker.code(login, ip="no address") is None


async def test_a_body_is_known_for_its_own_tenant_alone(asker, service):
    """The same session id elsewhere is another session, or none."""
    login = await asker.tenant.login(session_id="platform-1")
    await asker.by_heart(login)
    stranger = service.tenant()
    await stranger.login()

    async with asking(stranger) as other:
        assert [await other.code("platform-1") for _ in range(3)] == ["unknown_session"] * 3
    assert await asker.code("platform-1") is None


async def test_what_is_counted_is_what_was_answered(asker):
    """A refused client that asks by the same bytes a hundred times is one case with its hits."""
    login = await asker.tenant.login()
    await deny(asker.tenant, login)

    codes = {await asker.code(login) for _ in range(100)}
    await asker.both.context.folds.flush()

    (case,) = items(await asker.tenant.see("/v1/violations"))
    assert (codes, case["hits"]) == ({"ip_denied"}, 100)


async def test_the_bytes_of_a_body_alone_are_no_request(asker):
    """On a connection whose head never varies, too, and whoever's body it was."""
    login = await asker.tenant.login()
    asked = question(login["session"]["id"], user_agent=CHROME.format(142))
    whole = request(asker.tenant.name, asked, exp=FAR_S)
    start, _, body = whole.partition(b"\r\n\r\n")
    answers = [await asker.raw(whole) for _ in range(4)]
    varied = [b"%b\r\nX-Mark: %d\r\n\r\n%b" % (start, number, body) for number in range(4)]
    await asker.both.talk(asker.both.fast, *varied)

    assert body in asker.both.context.checks.memory.bodies
    assert whole in asker.both.context.checks.memory.requests
    assert await asker.raw(whole) == 200
    bare = await asker.raw(body)

    assert answers == [200] * 4
    assert bare == 400


class Gone:
    """A connection that was lost while its answer was being made."""

    def write(self, _: bytes) -> None:
        """What uvloop says of it."""
        raise RuntimeError("the handler is closed")


class There:
    """A connection that takes what it is given."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def write(self, answer: bytes) -> None:
        """Keep it."""
        self.given.append(answer)


async def test_a_connection_that_is_gone_takes_nobody_elses_answer(asker):
    """The others of its turn of the loop still get theirs."""
    there = There()

    for each in (Gone(), there):
        asker.both.lane.allow(each, b"{}")
    asker.both.lane.flush()

    assert len(there.given) == 1
