"""A login through the fast lane is answered exactly as aiohttp and the handler behind it would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from accessguard.api.encoding import encode
from accessguard.api.logins import admitted
from accessguard.api.speech import ANYBODY
from accessguard.api.wire import login_reply
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.model import CookieParts, EndedSession, LoginDevice, LoginVerdict, OpenedSession
from accessguard.rules.model import Outcome
from tests.api.lanes import LAST, Lanes, head, lanes, request
from tests.service import LAPTOP, Service, Tenant, token


@pytest.fixture(scope="module")
async def both(service: Service) -> AsyncIterator[Lanes]:
    """Both lanes in front of the run's worker."""
    async with lanes(service.context) as found:
        yield found


@pytest.fixture
async def held(tenant: Tenant) -> Tenant:
    """A tenant whose policy the worker holds."""
    await tenant.login("somebody")
    return tenant


def said(**fields: Any) -> dict[str, Any]:
    """The body of a login under an attempt id of its own, so that whoever asks again is answered the same."""
    return {
        "attempt_id": str(uuid4()),
        "member_id": "ana",
        "outcome": "success",
        "method": "password",
        "ip": LAPTOP,
    } | fields


def login(tenant: Tenant, body: Any, **more: Any) -> bytes:
    """A good request."""
    return request(tenant.name, body, path="/v1/logins", **more)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param({}, 200, id="plain"),
        pytest.param({"session_id": "ünï\u2028"}, 200, id="a session named in all of Unicode"),
        pytest.param({"user_agent": "x" * 3000, "device_token": "forged"}, 200, id="long and forged"),
        pytest.param({"user_agent": "a\0b"}, 200, id="NUL where it is forgiven"),
        pytest.param({"outcome": "failure", "failure_reason": "bad_password"}, 200, id="failed"),
        pytest.param({"outcome": "failure", "member_id": None, "identifier": "x"}, 200, id="failed by nobody"),
        pytest.param({"member_id": None}, 400, id="a success of nobody"),
        pytest.param({"member_id": "a\0b"}, 400, id="NUL"),
        pytest.param({"member_id": 5}, 400, id="wrong type"),
        pytest.param({"more": 1}, None, id="unknown field"),
        pytest.param({"method": "sleeping"}, 400, id="unknown method"),
    ],
)
async def test_every_login_has_one_answer(both, held, fields, status):
    """Recorded by the fast lane, and asked again of both."""
    asked = login(held, said(**fields))
    first = await both.talk(both.fast, asked + LAST)

    talk = await both.both(asked, asked, LAST)

    assert first.replies[0] == talk.replies[0]
    assert status in (None, first.statuses[0])


async def test_a_login_is_answered_by_the_fast_lane_itself(both, held):
    """And what it opens is there."""
    before = both.context.checks.tally.answers

    talk = await both.talk(both.fast, login(held, said()))

    assert both.context.checks.tally.answers == before + 1
    assert talk.statuses == [200]
    assert (await held.check(talk.replies[0].body["session"]["id"]))["decision"] == "allow"


async def test_a_refused_login_speaks_the_language_that_was_asked_for(both, held):
    """As through the other lane."""
    await held.rule("session_limit", "deny_new", max=1)
    await held.login("ana")
    body = said(user_agent="another browser")
    bearer = ("Authorization", f"Bearer {token(held.name, 'platform')}")
    asked = request(held.name, body, path="/v1/logins").partition(b"\r\n\r\n")[2]
    fields = [("Host", "h"), bearer, ("Accept-Language", "es"), ("Content-Length", str(len(asked)))]

    talk = await both.both(head("POST /v1/logins HTTP/1.1", fields) + asked, LAST)

    assert talk.replies[0].body["decision"] == "deny"
    assert talk.replies[0].body["reason"]["language"] == "es"


async def test_a_session_of_another_member_is_in_conflict(both, held):
    """Nothing is recorded, and the connection goes on."""
    await held.login("ben", session_id="bens")

    talk = await both.both(login(held, said(session_id="bens")), login(held, said()), LAST)

    assert talk.statuses == [409, 200, 200]


async def test_a_login_under_a_key_is_recorded_once(both, held):
    """However often it comes: the fast lane leaves it to aiohttp, whole."""
    body = login(held, said(attempt_id=None)).partition(b"\r\n\r\n")[2]
    bearer = ("Authorization", f"Bearer {token(held.name, 'platform')}")
    fields = [("Host", "h"), bearer, ("Idempotency-Key", "k"), ("Content-Length", str(len(body)))]
    asked = head("POST /v1/logins HTTP/1.1", fields) + body

    talk = await both.both(asked, asked, LAST)

    assert talk.replies[0].body == talk.replies[1].body


@pytest.mark.parametrize("role", ["supervisor", "administrator"])
async def test_only_a_platform_logs_in(both, held, role):
    """Whoever else asks is refused in the same words."""
    talk = await both.both(login(held, said(), role=role), LAST)

    assert talk.statuses == [403, 200]


async def test_logins_in_one_packet_are_answered_in_their_order(both, held):
    """Each waits for the one before, in either lane."""
    several = [login(held, said(member_id=f"m{n}", session_id=f"s{n}")) for n in range(5)]

    talk = await both.talk(both.fast, b"".join(several) + LAST, quiet_s=2)

    assert [reply.body["session"]["id"] for reply in talk.replies[:5]] == [f"s{n}" for n in range(5)]


async def test_a_login_whose_caller_is_gone_is_recorded_all_the_same(service, both, held):
    """A platform that hangs up has asked."""
    _, writer = await asyncio.open_connection("127.0.0.1", both.fast)
    writer.write(login(held, said(session_id="kept")))
    await writer.drain()
    await asyncio.sleep(0.001)
    writer.transport.abort()

    while (await held.check("kept")).body.get("decision") != "allow":
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "error",
    [pytest.param(GuardError(ErrorCode.UNAVAILABLE, "Later."), id="503"), pytest.param(KeyError("x"), id="500")],
)
async def test_a_failure_behind_it_has_one_answer(service, both, held, monkeypatch, error):
    """With its headers, and the connection goes on."""

    async def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(service.context.logins, "login", fail)

    talk = await both.both(login(held, said()), LAST)

    assert talk.statuses == [503 if isinstance(error, GuardError) else 500, 200]


def verdict(**fields: Any) -> LoginVerdict:
    """An answer with everything in it that one without a refusal may have."""
    cookie = CookieParts(name="c", value="v", max_age_s=3, header="c=v")
    said = LoginVerdict(
        outcome=Outcome.ALLOW,
        attempt_id=uuid4(),
        exempt=True,
        degraded=True,
        session=OpenedSession(id="ünï", token="t", expires_at=datetime(2026, 2, 3, 4, 5, 6, 789_999, tzinfo=UTC)),
        device=LoginDevice(id=uuid4(), new=True, token="t", cookie=cookie),
        ended_sessions=(EndedSession(id="e", reason="replaced"),),
        violations=(uuid4(),),
        refusal=None,
    )
    return msgspec.structs.replace(said, **fields)


@pytest.mark.parametrize("fields", [{}, {"session": None}, {"session": None, "device": None}])
def test_an_admitted_login_is_written_as_any_other_answer(fields):
    """Byte for byte."""
    said = verdict(**fields)

    assert admitted(said) == encode(login_reply(said, ANYBODY))
