"""The fast lane answers exactly what aiohttp and the handlers behind it would, whatever is asked and whoever asks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog

from accessguard.errors import ErrorCode, GuardError
from accessguard.metrics import HTTP
from tests.api.lanes import LAST, head, one, question, request
from tests.service import token

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
async def test_batches_have_one_answer(both, known, monkeypatch, number):
    """From none, which is refused, to one too many; of a machine that is busy neither is `degraded`."""
    monkeypatch.setattr(both.context.checks, "deadline_s", 10.0)
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
