"""The fast lane answers exactly what aiohttp and the handlers behind it would, whatever the bytes and however they come."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from accessguard.api.fastlane import FastLane
from accessguard.errors import ErrorCode, GuardError
from accessguard.metrics import HTTP
from tests.api.lanes import LAST, LIMIT, Lanes, head, lanes, one, question, replies, request, same
from tests.service import LAPTOP, Service, Tenant, token


@pytest.fixture(scope="module")
async def both(service: Service) -> AsyncIterator[Lanes]:
    """Both lanes in front of the run's worker."""
    while not service.context.checks.memory.trusted:
        await asyncio.sleep(0.01)
    async with lanes(service.context) as found:
        yield found


@dataclass
class Known:
    """A session whose verdict is held, and good bytes that ask for it."""

    tenant: Tenant
    id: str

    @property
    def bearer(self) -> tuple[str, str]:
        """The caller's token as a field."""
        return ("Authorization", f"Bearer {token(self.tenant.name, 'platform')}")

    def check(self, **fields: Any) -> bytes:
        """A good check."""
        return request(self.tenant.name, question(self.id) | fields)

    def checks(self, number: int, **fields: Any) -> bytes:
        """A good batch, every third of a session that is unknown."""
        several = [question(self.id if n % 3 else f"no-{n}") | fields for n in range(number)]
        return request(self.tenant.name, {"checks": several}, path="/v1/checks")

    def raw(self, body: bytes, *fields: tuple[str, str], start: str = "POST /v1/check HTTP/1.1") -> bytes:
        """Any head with these fields and the token, its length right."""
        return head(start, [("Host", "h"), self.bearer, *fields, ("Content-Length", str(len(body)))]) + body

    @property
    def body(self) -> bytes:
        """The body of a good check."""
        return b'{"session_id":"%s","ip":"%s"}' % (self.id.encode(), LAPTOP.encode())


@pytest.fixture
async def known(tenant: Tenant, both: Lanes) -> Known:
    """A fresh one."""
    login = await tenant.login()
    found = Known(tenant, login["session"]["id"])
    primed = await both.talk(both.plain, found.check() + LAST)
    assert primed.statuses == [200, 200]
    return found


def fast(both: Lanes) -> int:
    """How many answers the fast lane itself has given."""
    return both.context.checks.tally.answers


# What is asked.


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="plain"),
        pytest.param({"activity": "lesson_open", "resource": "course:1", "product_id": "p"}, id="activity"),
        pytest.param({"explain": True}, id="explain"),
        pytest.param({"ip": "no address"}, id="no address"),
        pytest.param({"ip": "::ffff:203.0.113.9"}, id="mapped address"),
        pytest.param({"user_agent": "x" * 3000, "device_token": "forged"}, id="long and forged"),
        pytest.param({"session_id": "unknown"}, id="unknown session"),
        pytest.param({"session_id": "ünï\u2028\U0001f600"}, id="a session named in all of Unicode"),
        pytest.param({"session_id": ""}, id="empty id"),
        pytest.param({"session_id": "x" * 129}, id="long id"),
        pytest.param({"session_id": 5}, id="wrong type"),
        pytest.param({"session_id": "a\0b"}, id="NUL"),
        pytest.param({"user_agent": "a\0b"}, id="NUL where it is forgiven"),
        pytest.param({"activity": "sleeping"}, id="unknown activity"),
        pytest.param({"more": 1}, id="unknown field"),
        pytest.param({"ip": None}, id="null"),
    ],
)
async def test_every_question_has_one_answer(both, known, fields):
    """Held, made, refused: twice on one connection, then among others."""
    asked = known.check(**fields)

    talk = await both.both(asked, asked, known.check(), LAST)

    assert len(talk.replies) == 4


@pytest.mark.parametrize("number", [0, 1, 2, 31, 500, 501])
async def test_batches_have_one_answer(both, known, number):
    """From none, which is refused, to one too many."""
    talk = await both.both(known.checks(number), known.check(), known.checks(number, explain=True), LAST)

    assert talk.statuses == [200 if 1 <= number <= 500 else 400, 200, 200 if 1 <= number <= 500 else 400, 200]


async def test_a_body_that_is_known_as_a_check_is_no_batch(both, known):
    """Which of the two is asked is in the first line alone."""
    batch = known.raw(known.body, start="POST /v1/checks HTTP/1.1")
    for _ in range(3):
        await both.both(known.raw(known.body), known.raw(known.body), LAST)

    talk = await both.both(batch, LAST)

    assert talk.statuses == [400, 200]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b'{"session_id":"a","ip":"b"}x', id="more behind it"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(b"[" * 50_000, id="deep"),
        pytest.param(b'{"checks":[' + b"[" * 2000 + b"]}", id="deep batch"),
        pytest.param(b'{"session_id":"\\ud800","ip":"b"}', id="surrogate"),
        pytest.param(b'{"session_id":"a","session_id":"b","ip":"c"}', id="a field twice"),
        pytest.param(b" \n" + b'{"session_id":"a","ip":"b"}' + b" \t\r\n", id="spaces around it"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param(
            b'{"checks":[{"session_id":"a","ip":"b"},{"session_id":7,"ip":"b"}]}', id="one of a batch is wrong"
        ),
        pytest.param(b'{"checks":{}}', id="no list"),
        pytest.param(b"null", id="null"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/check", "/v1/checks"])
async def test_every_body_has_one_answer(both, known, path, body):
    """And the connection goes on after it."""
    asked = known.raw(body, ("Content-Type", "application/json"), start=f"POST {path} HTTP/1.1")

    talk = await both.both(asked, known.check(), LAST)

    assert talk.statuses[1:] == [200, 200]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([("Content-Type", "application/json")], id="JSON"),
        pytest.param([("content-type", "APPLICATION/JSON; Charset=UTF-8")], id="capitals"),
        pytest.param([("CONTENT-TYPE", 'application/json;charset="utf-8"')], id="quoted"),
        pytest.param([("Content-Type", "application/json; charset=latin-1")], id="another charset"),
        pytest.param([("Content-Type", "text/plain")], id="text"),
        pytest.param([("Content-Type", "")], id="empty kind"),
        pytest.param([], id="no kind"),
        pytest.param([("Content-Type", "application/problem+json")], id="some JSON"),
        pytest.param([("Content-Type", "application/json")] * 2, id="kind twice"),
        pytest.param([("User-Agent", "a"), ("user-agent", "a")], id="user agent twice"),
        pytest.param([("host", "h")], id="host twice"),
        pytest.param([("ETag", "a"), ("etag", "b")], id="etag twice"),
        pytest.param([("Server", "a"), ("Server", "b")], id="server twice"),
        pytest.param([("Max-Forwards", "1")], id="max-forwards once"),
        pytest.param([("X", "a"), ("X", "b")], id="any other twice"),
        pytest.param([("Authorization", "Bearer nonsense")], id="token twice"),
        pytest.param([("Content-Length", "5")], id="length twice"),
        pytest.param([("Connection", "keep-alive")], id="keep-alive"),
        pytest.param([("Connection", "close")], id="close"),
        pytest.param([("Connection", "Keep-Alive, X")], id="connection list"),
        pytest.param([("TE", "trailers")], id="TE"),
        pytest.param([("Expect", "nonsense")], id="unknown expectation"),
        pytest.param([("Upgrade", "h2c"), ("Connection", "upgrade")], id="upgrade"),
        pytest.param([("Content-Encoding", "gzip")], id="gzip that is none"),
        pytest.param([("Content-Encoding", "identity")], id="identity"),
        pytest.param(
            [("Cookie", "a=b; c"), ("Accept", "text/csv"), ("Range", "bytes=0-1")], id="more that says nothing"
        ),
        pytest.param([("Idempotency-Key", "k")], id="idempotency key"),
        pytest.param([(f"X-{n}", "1") for n in range(124)], id="many fields"),
        pytest.param([(f"X-{n}", "1") for n in range(125)], id="as many as there may be"),
        pytest.param([(f"X-{n}", "1") for n in range(126)], id="one field too many"),
        pytest.param([("X", "x" * 7000)], id="long field"),
        pytest.param([("X", "x" * 8300)], id="too long field"),
        pytest.param([("X" * 8300, "")], id="too long name"),
        pytest.param([(f"X-{n}", "x" * 4000) for n in range(10)], id="huge head"),
        pytest.param([("X", "a\0b")], id="NUL"),
        pytest.param([("X", "a\x7fb")], id="DEL"),
        pytest.param([("X", "\xe9\u20ac")], id="not ASCII"),
        pytest.param([("X", "a\tb \t")], id="tabs"),
        pytest.param([("X Y", "a")], id="space in a name"),
        pytest.param([("X ", "a")], id="space before the colon"),
        pytest.param([("", "a")], id="no name"),
        pytest.param([("X", "a\r\n b")], id="folded"),
        pytest.param([("X", "a\nY: b")], id="bare LF"),
        pytest.param([("X", "a\rY: b")], id="bare CR"),
        pytest.param([("Sec-WebSocket-Key1", "a")], id="old web socket"),
        pytest.param([("AccessGuard-Tenant", "")], id="empty tenant"),
        pytest.param([("AccessGuard-Tenant", "other")], id="another tenant"),
        pytest.param([("AccessGuard-Tenant", "a"), ("AccessGuard-Tenant", "b")], id="two tenants"),
    ],
)
async def test_every_head_has_one_answer(both, known, fields):
    """The first time, and once it is known; what is no HTTP ends the connection."""
    asked = known.raw(known.body, *fields)

    with structlog.testing.capture_logs():
        for _ in range(3):
            await both.both(asked, known.check(), LAST)


@pytest.mark.parametrize(
    "start",
    [
        "POST /v1/check HTTP/1.0",
        "POST /v1/check HTTP/1.2",
        "POST /v1/check HTTP/2.0",
        "POST /v1/check",
        "POST  /v1/check HTTP/1.1",
        "POST /v1/check HTTP/1.1 ",
        "post /v1/check HTTP/1.1",
        "POST /v1/check?x=1 HTTP/1.1",
        "POST /v1/check#x HTTP/1.1",
        "POST /v1/check/ HTTP/1.1",
        "POST //v1/check HTTP/1.1",
        "POST /v1/%63heck HTTP/1.1",
        "POST http://h/v1/check HTTP/1.1",
        "POST * HTTP/1.1",
        "GET /v1/check HTTP/1.1",
        "HEAD /v1/check HTTP/1.1",
        "OPTIONS /v1/check HTTP/1.1",
        "PUT /v1/checks HTTP/1.1",
        "DELETE /v1/check HTTP/1.1",
        "CONNECT h:1 HTTP/1.1",
        "PRI * HTTP/2.0",
        "NONSENSE",
        "\r\nPOST /v1/check HTTP/1.1",
        "\x16\x03\x01",
        "POST /v1/chéck HTTP/1.1",
        "POST /v1/\x00check HTTP/1.1",
        "POST /" + "x" * 9000 + " HTTP/1.1",
    ],
)
async def test_every_first_line_has_one_answer(both, known, start):
    """Other methods, other versions, other paths, other protocols."""
    await both.both(known.raw(known.body, start=start), known.check(), LAST)


@pytest.mark.parametrize(
    "length",
    ["", "-1", "+72", "7 2", "0x48", "1e2", "00072", "72 ", "72\t", "\t72", "72, 72", "72;", "9" * 30, "٧٢", "none"],
)
async def test_every_length_has_one_answer(both, known, length):
    """What does not say clearly where the next request begins is refused, and the connection ends."""
    size = len(known.body)
    value = length.replace("72", str(size)).encode()
    missing = b"" if length == "none" else b"Content-Length: %b\r\n" % value
    name, bearer = known.bearer
    asked = b"POST /v1/check HTTP/1.1\r\nHost: h\r\n%b: %b\r\n%b\r\n" % (name.encode(), bearer.encode(), missing)

    await both.both(asked, known.body + known.check() + LAST, quiet_s=0.1)


async def test_a_head_without_a_host_is_refused(both, known):
    """HTTP/1.1 wants one (RFC 9112, 3.2)."""
    asked = head("POST /v1/check HTTP/1.1", [known.bearer, ("Content-Length", str(len(known.body)))]) + known.body

    talk = await both.both(asked, LAST)

    assert (talk.statuses, talk.closed) == ([400], True)


# Who asks.


@pytest.mark.parametrize(
    ("claims", "fields", "status"),
    [
        pytest.param({}, [], 200, id="platform"),
        pytest.param({"role": "supervisor"}, [], 403, id="another role"),
        pytest.param({"exp": 1}, [], 401, id="expired"),
        pytest.param({"aud": "another"}, [], 401, id="for another service"),
        pytest.param({"nbf": 4_000_000_000}, [], 401, id="not yet"),
        pytest.param({"exp": None}, [], 401, id="for ever"),
        pytest.param({"tenant": "*"}, [], 400, id="all tenants, none named"),
        pytest.param({"tenant": "*"}, [("AccessGuard-Tenant", "SELF")], 200, id="all tenants, one named"),
        pytest.param({"tenant": "*"}, [("accessguard-tenant", " SELF ")], 200, id="all tenants, one named with spaces"),
        pytest.param({"tenant": "*"}, [("AccessGuard-Tenant", "nobody")], 404, id="all tenants, an unknown one"),
        pytest.param({"tenant": "*"}, [("AccessGuard-Tenant", "")], 400, id="all tenants, an empty one"),
        pytest.param({"tenant": "*"}, [("AccessGuard-Tenant", "x" * 129)], 400, id="all tenants, a long one"),
        pytest.param({}, [("AccessGuard-Tenant", "SELF")], 200, id="its own tenant named"),
        pytest.param({}, [("AccessGuard-Tenant", "*")], 403, id="another tenant named"),
        pytest.param({}, [("AccessGuard-Tenant", "")], 403, id="an empty tenant named"),
    ],
)
async def test_every_caller_has_one_answer(both, known, claims, fields, status):
    """Also when the head is known by heart."""
    said = {"tenant": known.tenant.name, "role": "platform"} | claims
    bearer = token(said.pop("tenant"), said.pop("role"), **said)
    named = [(name, value.replace("SELF", known.tenant.name)) for name, value in fields]
    asked = head(
        "POST /v1/check HTTP/1.1",
        [("Host", "h"), ("Authorization", f"Bearer {bearer}"), *named, ("Content-Length", str(len(known.body)))],
    )

    talks = [await both.both(asked + known.body, asked + known.body, LAST) for _ in range(3)]

    assert [talk.statuses for talk in talks] == [[status, status, 200]] * 3


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "bearer GOOD", "BEARER  GOOD ", "Basic GOOD", "Bearer GOODx", "GOOD"],
)
async def test_every_way_to_show_a_token_has_one_answer(both, known, authorization):
    """The scheme in any case, nothing else."""
    good = token(known.tenant.name, "platform")
    shown = [] if authorization is None else [("Authorization", authorization.replace("GOOD", good))]
    fields = [("Host", "h"), *shown, ("Content-Length", str(len(known.body)))]

    asked = head("POST /v1/check HTTP/1.1", fields) + known.body

    await both.both(asked, asked, LAST)


async def test_a_token_that_expires_while_its_head_is_known_is_refused(service, both, known):
    """To the second (and the 5 s that clocks may differ by), on a connection that it was good for before."""
    now = service.clock() // 1000
    bearer = token(known.tenant.name, "platform", exp=now + 60)
    fields = [("Host", "h"), ("Authorization", f"Bearer {bearer}"), ("Content-Length", str(len(known.body)))]
    asked = head("POST /v1/check HTTP/1.1", fields) + known.body
    statuses = []
    for port in (both.fast, both.plain):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for ahead_ms in (0, 0, 0, 59_000, 63_000, 65_000, 66_000, 0):
            service.clock.forward(ahead_ms)
            writer.write(asked)
            statuses.append((await one(reader)).status)
            service.clock.forward(-ahead_ms)
        writer.close()

    assert statuses == [200, 200, 200, 200, 200, 401, 401, 200] * 2


# How the bytes come.


async def test_a_request_may_be_cut_anywhere(both, known):
    """In two at every byte: one answer, by the fast lane itself, and the connection goes on."""
    asked = known.check(user_agent="a browser")
    expected = await both.both(asked, LAST)
    before = fast(both)

    for at in range(1, len(asked)):
        talk = await both.talk(both.fast, asked[:at], asked[at:] + LAST)
        same(talk, expected)

    assert fast(both) - before == len(asked) - 1


async def test_two_requests_may_be_cut_anywhere(both, known):
    """A check and a batch behind it, in three pieces."""
    asked = known.check() + known.checks(3)
    expected = await both.both(asked, LAST)

    for at in range(1, len(asked), 7):
        end = at + (len(asked) - at) // 2
        same(await both.talk(both.fast, asked[:at], asked[at:end], asked[end:] + LAST), expected)


@pytest.mark.parametrize("kind", ["check", "checks"])
async def test_a_request_may_come_byte_by_byte(both, known, kind):
    """Sooner or later it is aiohttp's, which answers the same."""
    asked = known.check() if kind == "check" else known.checks(2)
    at = asked.index(b"\r\n\r\n") + 4
    slow_body = (asked[:at], *(asked[n : n + 1] for n in range(at, len(asked))), LAST)
    slow_head = (*(asked[n : n + 1] for n in range(at)), asked[at:] + LAST)

    for pieces in (slow_body, slow_head):
        talk = await both.both(*pieces)

        assert (talk.statuses, talk.closed) == ([200, 200], True)


async def test_after_a_slow_body_the_lane_is_fast_again(both, known):
    """The body was aiohttp's; where the next request begins was known all along."""
    asked = known.check()
    at = asked.index(b"\r\n\r\n") + 4
    pieces = [asked[n : n + 1] for n in range(at, len(asked))]
    before = fast(both)

    talk = await both.talk(both.fast, asked[:at], *pieces, known.check(), known.check())

    assert (talk.statuses, talk.closed) == ([200, 200, 200], False)
    assert fast(both) - before == 2


@pytest.mark.parametrize("number", [2, 5, 20, 100])
@pytest.mark.parametrize("pieces", [2, 5])
async def test_pipelined_requests_are_answered_in_their_order(both, known, number, pieces):
    """Held ones, such that ask a store, other paths and refusals among each other."""
    kinds = [
        known.check(),
        request(known.tenant.name, question("nobody")),
        known.checks(4),
        request(known.tenant.name, None, path="/healthz", method="GET"),
        request(known.tenant.name, {"outcome": "failure"}, path="/v1/logins"),
        known.check(explain=True),
        request(known.tenant.name, question("x" * 200)),
        request(known.tenant.name, question(known.id), role="attendant"),
        request(known.tenant.name, None, path="/nothing", method="DELETE"),
    ]
    several = [*(kinds[n % len(kinds)] for n in range(number)), LAST]
    whole = b"".join(several)
    step = len(whole) // pieces + 1

    talk = await both.both(*several)
    same(await both.talk(both.fast, *(whole[at : at + step] for at in range(0, len(whole), step))), talk)

    assert talk.statuses == [(200, 200, 200, 200, 400, 200, 400, 403, 404)[n % 9] for n in range(number)] + [200]


async def test_a_connection_stays_on_the_fast_lane_whatever_else_is_asked_on_it(both, known):
    """Check, login, reading, refusal, and check again, one after the other."""
    name = known.tenant.name
    others = {
        request(name, {"member_id": "ana", "outcome": "success", "ip": LAPTOP}, path="/v1/logins"): 1,
        request(name, None, path="/v1/members/ana", method="GET", role="supervisor"): 0,
        request(name, None, path="/nothing", method="GET"): 0,
        request(name, b"{", path="/v1/check"): 0,
        request(name, b"x" * 3000, path="/v1/logins"): 0,
    }
    reader, writer = await asyncio.open_connection("127.0.0.1", both.fast)
    for other, its_lane in others.items():
        for asked, by_lane in ((other, its_lane), (known.check(), 1), (known.checks(2), 1)):
            before = fast(both)
            writer.write(asked)
            await one(reader)
            assert fast(both) - before == by_lane, asked
    assert both.connections[-1]._surrendered is False
    writer.close()


def gate(both: Lanes, known: Known) -> bytes:
    """A proxy's question about a request of the session, from where the connection comes."""
    cookie = both.context.session_tokens.issue(known.tenant.name, known.id)
    return head("GET /auth/nginx HTTP/1.1", [("Host", "h"), known.bearer, ("Cookie", f"__Host-ag_session={cookie}")])


@pytest.mark.parametrize(("by_proxy", "status"), [(False, 200), (True, 204)])
async def test_a_caller_that_asks_again_at_once_is_back_on_the_fast_lane(both, known, monkeypatch, by_proxy, status):
    """What is there before aiohttp's task has put its last answer away waits for it, and does not follow it."""
    finish, asked = FastLane.finish_response, gate(both, known) if by_proxy else known.check()
    await both.talk(both.plain, known.check(ip="127.0.0.1") if by_proxy else asked, LAST)

    async def quick(self, *answer):
        done = await finish(self, *answer)
        self._loop.call_soon(self.data_received, asked)
        return done

    monkeypatch.setattr(FastLane, "finish_response", quick)
    reader, writer = await asyncio.open_connection("127.0.0.1", both.fast)
    before = fast(both)
    writer.write(request(known.tenant.name, None, path="/nothing", method="GET"))

    first, second = await one(reader), await one(reader)

    assert (first.status, second.status, fast(both) - before) == (404, status, 1)
    writer.close()


@pytest.mark.parametrize(("by_proxy", "status"), [(False, 200), (True, 204)])
async def test_the_first_question_of_a_connection_is_on_the_fast_lane(both, known, monkeypatch, by_proxy, status):
    """Also when it is there before aiohttp's task has begun."""
    made, asked = FastLane.connection_made, gate(both, known) if by_proxy else known.check()
    await both.talk(both.plain, known.check(ip="127.0.0.1") if by_proxy else asked, LAST)

    def full(self, transport):
        made(self, transport)
        self.data_received(asked)

    monkeypatch.setattr(FastLane, "connection_made", full)
    before = fast(both)
    reader, writer = await asyncio.open_connection("127.0.0.1", both.fast)

    answer = await one(reader)

    assert (answer.status, fast(both) - before) == (status, 1)
    writer.close()


async def test_chunks_and_expectations_are_aiohttps(both, known):
    """Whole, cut, with a trailer, broken; a client that waits for 100 gets it."""
    fields = [("Host", "h"), known.bearer, ("Content-Type", "application/json")]
    chunked = head("POST /v1/check HTTP/1.1", [*fields, ("Transfer-Encoding", "chunked")])
    size = b"%x" % len(known.body)
    good = chunked + size + b"\r\n" + known.body + b"\r\n0\r\n\r\n"
    smuggled = [("Transfer-Encoding", "chunked"), ("Content-Length", "3")]
    expecting = head(
        "POST /v1/check HTTP/1.1", [*fields, ("Expect", "100-continue"), ("Content-Length", str(len(known.body)))]
    )

    for asked in (
        good,
        good.replace(b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n"),
        chunked + b"zz\r\n",
        head("POST /v1/check HTTP/1.1", [*fields, *smuggled]) + b"0\r\n\r\n",
        head("POST /v1/check HTTP/1.1", [*fields, ("Transfer-Encoding", "gzip, chunked")]) + b"0\r\n\r\n",
        head("POST /v1/check HTTP/1.0", [*fields, ("Transfer-Encoding", "chunked")]) + b"0\r\n\r\n",
    ):
        await both.both(known.check(), asked + known.check() + LAST)
    talk = await both.both(known.check(), expecting, known.body, LAST)

    assert talk.statuses == [200, 100, 200, 200]


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1])
@pytest.mark.parametrize("pieces", [1, 3, 20])
async def test_the_bound_of_a_body_is_the_same(both, known, size, pieces):
    """To the byte, in however many pieces; what is too large is 413."""
    body = known.body[:-1] + b" " * (size - len(known.body)) + b"}"
    whole = known.raw(body)
    step = len(whole) // pieces + 1

    talk = await both.both(*(whole[at : at + step] for at in range(0, len(whole), step)), LAST, quiet_s=0.5)

    assert talk.statuses == [200 if size <= LIMIT else 413, 200]


@pytest.mark.parametrize("constant", [True, False], ids=["constant heads", "varying heads"])
async def test_a_verdict_that_is_held_makes_no_body_smaller(service, known, constant):
    """With a bound that is less than a packet: what is known by heart is answered, what is too large is 413."""
    async with lanes(service.context, limit=len(known.body)) as found:
        marks = ("same",) * 4 if constant else ("one", "two", "three", "four")
        fitting = [known.raw(known.body, ("X-Mark", mark)) for mark in marks]
        larger = known.raw(known.body[:-1] + b" }", ("X-Mark", marks[-1]))

        talk = await found.both(*fitting, larger, LAST)

    assert talk.statuses == [200, 200, 200, 200, 413, 200]


async def test_a_body_near_its_bound_may_stop_anywhere_and_go_on(service, known):
    """A bound that is larger than what may wait, and a body that is cut where both meet."""
    async with lanes(service.context, limit=3 * LIMIT) as found:
        for size in (LIMIT, 2 * LIMIT):
            body = known.body[:-1] + b" " * (size - len(known.body)) + b"}"
            whole = known.raw(body)
            for at in (len(whole) - 1, len(whole) - 100, LIMIT + 1):
                talk = await found.talk(found.fast, whole[:at], whole[at:] + LAST, quiet_s=0.5)
                assert talk.statuses == [200, 200]


# How a connection ends.


@pytest.mark.parametrize("kind", ["held", "made", "batch", "reading", "login", "several", "other last"])
async def test_a_client_that_has_sent_all_it_will_is_answered(both, known, kind):
    """Half-closed right behind the request; then the server closes too, and nothing of the connection is left."""
    name = known.tenant.name
    reading = request(name, None, path="/v1/members/ana", method="GET", role="supervisor")
    made = request(name, question("not-known-yet"))
    asked = {
        "held": known.check(),
        "made": made,
        "batch": known.checks(30),
        "reading": reading,
        "login": request(name, {"member_id": "ana", "outcome": "success", "ip": LAPTOP}, path="/v1/logins"),
        "several": known.check() + made + known.check() + reading + known.checks(3) + known.check(),
        "other last": known.check() + made + reading + reading,
    }[kind]

    talk = await both.talk(both.fast, asked, half_close=True, quiet_s=0.5)

    assert talk.statuses == [200] * asked.count(b" HTTP/1.1\r\n")
    assert talk.closed
    assert both.connections[-1].transport is None


@pytest.mark.parametrize(
    "cut", [b"POST /v1/che", b"POST /v1/check HTTP/1.1\r\nHost: h\r\n", "half a body", "half a login"]
)
async def test_a_client_that_stops_in_the_middle_is_let_go(both, known, cut):
    """What came whole before is answered; nothing waits for the rest."""
    if isinstance(cut, str):
        login = {"member_id": "eve", "outcome": "success", "ip": LAPTOP}
        whole = known.check() if "body" in cut else request(known.tenant.name, login, path="/v1/logins")
        cut = whole[:-5]

    talk = await both.talk(both.fast, known.check() + cut, half_close=True, quiet_s=0.5)

    assert (talk.statuses, talk.closed, talk.decided) == ([200], True, 1)


async def test_a_check_whose_caller_is_gone_is_carried_out_all_the_same(service, both, known):
    """As in the other lane: a counted interaction is in Valkey and on its way to PostgreSQL, or in neither."""
    for port in (both.fast, both.plain):
        login = await known.tenant.login()
        session_id = login["session"]["id"]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(known.tenant.name, question(session_id, activity="lesson_open")))
        await asyncio.sleep(0.0005)
        writer.transport.abort()
        await asyncio.sleep(0.1)

        seen = await known.tenant.see(f"/v1/sessions/{session_id}")

        assert seen["last_activity_at"] is not None


async def test_an_idle_connection_is_closed_and_one_in_use_is_not(service, known):
    """The time runs from the last answer, in both lanes."""
    async with lanes(service.context, keepalive_timeout=0.3) as found:
        for port in (found.fast, found.plain):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(6):
                writer.write(known.check())
                assert (await one(reader)).status == 200
                await asyncio.sleep(0.15)
            began = time.monotonic()
            assert await reader.read() == b""
            assert 0.05 < time.monotonic() - began < 0.6
            writer.close()


async def test_a_connection_that_says_nothing_or_half_of_it_is_closed(service, known):
    """Nobody keeps a place by being slow with a head."""
    async with lanes(service.context, keepalive_timeout=0.2) as found:
        for begun in (b"", b"POST /v1/check HTTP/1.1\r\n", known.check()[:-3]):
            reader, writer = await asyncio.open_connection("127.0.0.1", found.fast)
            writer.write(begun)
            began = time.monotonic()
            assert await reader.read() == b""
            assert time.monotonic() - began < 0.8
            writer.close()


async def test_a_slow_body_is_not_cut_by_the_idle_time(service, known):
    """It begins anew with each piece of it."""
    asked = known.check()
    async with lanes(service.context, keepalive_timeout=0.3) as found:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.fast)
        for piece in (asked[:-30], asked[-30:-20], asked[-20:-10], asked[-10:]):
            await asyncio.sleep(0.2)
            writer.write(piece)

        assert (await one(reader)).status == 200
        writer.close()


async def test_a_stop_lets_the_answer_under_way_be_given(service, known, monkeypatch):
    """The connection is closed behind it; what was pipelined further is not begun for ever."""
    began = asyncio.Event()
    decide = service.context.checks.decide

    async def slowly(*asked: Any) -> Any:
        began.set()
        await asyncio.sleep(0.2)
        return await decide(*asked)

    monkeypatch.setattr(service.context.checks, "decide", slowly)
    async with lanes(service.context) as found:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.fast)
        idle, other = await asyncio.open_connection("127.0.0.1", found.fast)
        writer.write(request(known.tenant.name, question("not-known-yet")))
        await began.wait()
    answered, nothing = await reader.read(), await idle.read()
    writer.close()
    other.close()

    assert ([reply.status for reply in replies(answered)], nothing) == ([200], b"")
    assert all(each.transport is None for each in found.connections)


# A client that does not read.


async def test_a_client_that_does_not_read_costs_a_bounded_memory(both, known):
    """Its requests are left in the socket; when it reads at last, it is answered on, and nothing is lost."""
    asked, number = known.checks(20, user_agent="x" * 500), 2500  # 30 MB, more than the buffers of any kernel
    with contextlib.closing(_slow_client(both.fast)) as client:
        loop = asyncio.get_running_loop()
        sending = asyncio.ensure_future(loop.sock_sendall(client, asked * number))
        most = 0
        for _ in range(50):
            await asyncio.sleep(0.01)
            connection = both.connections[-1]
            waiting = len(connection._behind)
            unsent = connection.transport.get_write_buffer_size() if connection.transport else 0
            most = max(most, waiting + unsent)
        stuck = not sending.done()

        answered = await _answers(client, number)
        await sending

    assert stuck
    assert most < 8_000_000
    assert answered == number
    assert both.connections[-1]._surrendered is False


async def test_a_client_that_does_not_read_and_sends_no_more_is_answered_in_the_end(both, known):
    """Half-closed with a thousand requests behind an answer that could not be sent."""
    asked, number = known.checks(50), 400
    with contextlib.closing(_slow_client(both.fast)) as client:
        await asyncio.get_running_loop().sock_sendall(client, asked * number)
        client.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.2)

        answered = await _answers(client, number)
        end = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1), 2)

    assert answered == number
    assert end == b""


def _slow_client(port: int) -> socket.socket:
    """A connection with a small buffer, that is read when the test says so."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    return client


async def _answers(client: socket.socket, number: int) -> int:
    """Read that many answers; how many were 200 and had a body of the right length."""
    loop, data, found = asyncio.get_running_loop(), b"", 0
    while found < number:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            data += await asyncio.wait_for(loop.sock_recv(client, 1 << 20), 5)
            continue
        lines = data[:end].split(b"\r\n")
        size = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"Content-Length"))
        while len(data) < end + 4 + size:
            data += await asyncio.wait_for(loop.sock_recv(client, 1 << 20), 5)
        assert lines[0] == b"HTTP/1.1 200 OK"
        data, found = data[end + 4 + size :], found + 1
    assert data == b""
    return found


async def test_a_client_that_disappears_takes_no_other_with_it(both, known):
    """Answers of one turn leave together; one that cannot be sent does not keep the others back."""
    opened = [await asyncio.open_connection("127.0.0.1", both.fast) for _ in range(40)]
    for number, (_, writer) in enumerate(opened):
        writer.write(known.check() * 3)
        if number % 2:
            writer.transport.abort()

    for reader, writer in opened[::2]:
        assert [(await one(reader)).status for _ in range(3)] == [200] * 3
        writer.close()


# What goes wrong, and what is counted.


@pytest.mark.parametrize(
    "error",
    [pytest.param(GuardError(ErrorCode.UNAVAILABLE, "Later."), id="503"), pytest.param(KeyError("x"), id="500")],
)
async def test_a_failure_behind_it_has_one_answer(service, both, known, monkeypatch, error):
    """With its headers, counted, and the connection goes on."""

    async def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(service.context.checks, "decide", fail)
    unknown = request(known.tenant.name, question("not-known-yet"))
    before = HTTP.labels("5xx")._value.get()

    with structlog.testing.capture_logs() as logged:
        talk = await both.both(known.check(), unknown, known.check(), LAST)

    errors = [each for each in logged if each["log_level"] == "error"]
    assert len(errors) == (0 if isinstance(error, GuardError) else 3)
    assert talk.statuses == [200, 503 if isinstance(error, GuardError) else 500, 200, 200]
    assert HTTP.labels("5xx")._value.get() - before == 3


async def test_only_a_plain_allow_is_known_by_its_bytes(both, known):
    """A refusal is counted as what it is, in both lanes."""
    await both.both(*[known.check()] * 3, LAST)
    await known.tenant.call("POST", f"/v1/sessions/{known.id}/end", {"reason": "logout"})
    tally = both.context.checks.tally
    await both.talk(both.fast, known.check() + LAST)
    before = (tally.plain, dict(tally._outcomes))

    talk = await both.both(*[known.check()] * 5, LAST)

    ended = ("deny", "session_ended")
    assert {reply.body["reason"]["code"] for reply in talk.replies[:5]} == {"session_ended"}
    assert tally.plain == before[0]
    assert tally._outcomes[ended] - before[1][ended] == 15


async def test_a_head_that_never_varies_is_known_whole_on_every_connection(both, known):
    """On the one that brought it first, too: of three equal requests, the third costs one lookup."""
    requests = both.context.checks.memory.requests
    whole = known.raw(known.body)

    for _ in range(2):
        requests.clear()
        await both.talk(both.fast, *[whole] * 6)

        assert whole in requests


async def test_what_is_known_is_bounded(both, known, monkeypatch):
    """Heads, lines: full memories are begun anew, and answers stay right."""
    monkeypatch.setattr("accessguard.api.head.MOST_HELD", 4)
    for number in range(30):
        asked = known.raw(known.body + b" " * number, ("X", str(number % 7)), (f"X-{number}", "1"))
        talk = await both.talk(both.fast, asked * 2 + LAST)

        assert talk.statuses == [200, 200, 200]
    assert len(both.lane.heads._heads) <= 4
    assert len(both.lane.heads._lines) <= 4
