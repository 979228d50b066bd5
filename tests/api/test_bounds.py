"""What one caller may have of a worker: calls, connections, patience; and that others are none the worse for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from accessguard.api import bounds, read
from accessguard.api.bounds import BURST_S, MOST_WAIT_S, Bounds, Rates
from accessguard.api.connections import Patience
from accessguard.api.fastlane import FastLane
from accessguard.api.keys import Caller, Role
from accessguard.api.routes import ROUTES
from accessguard.app import service as application
from accessguard.config import Limits
from accessguard.errors import GuardError
from accessguard.policies.params import PARAMS
from accessguard.serving import lane_protocol
from tests.console.test_console import signed_in
from tests.fuzz import examples
from tests.migrations.databases import connected
from tests.service import LAPTOP, Answer, Service, Tenant, config, configured, token

MOST = 16
SOON_S = 0.4
GUESSES = 20
OTHERWISE = {
    "Login.user_agent": "cut at 512 bytes",
    "Login.client_hints": "only those that are known are read, and cut",
    "Login.device_token": "read as unknown when it is longer than one can be",
    "Check.user_agent": "cut at 512 bytes",
    "Check.device_token": "read as unknown when it is longer than one can be",
    "EvaluationContext.user_agent": "cut at 512 bytes",
    "EvaluationContext.device_token": "read as unknown when it is longer than one can be",
    "PreferenceRequest.value": "8 KiB in all",
    "RuleRequest.params": "by the struct of its kind, which is looked at here as well",
    "RuleRequest.summary": "ignored",
    "SettingsRequest.messages": "by the closed sets of codes and languages",
    "JwtIdentity.keys": "16 keys, each of which has to be one",
    "Entity.properties": "ignored, but for what is checked as a `Check` has it",
    "NamedAction.properties": "ignored, but for what is checked as a `Check` has it",
}
"""Where a field has no bound of its own, and what bounds it beside the whole body's 1 MiB."""
DEEP = {depth: "[" * depth + "]" * depth for depth in (900, 5_000, 200_000)}


@pytest.fixture
async def port(service: Service) -> AsyncIterator[int]:
    """The fast lane with little patience and room for few."""
    runner = web.AppRunner(
        application(service.context, body_limit_bytes=1_048_576), access_log=None, shutdown_timeout=0.1
    )
    await runner.setup()
    patience = Patience(connections=MOST, request_s=SOON_S, write_s=SOON_S)
    fast = lane_protocol(runner, service.context, body_limit_bytes=1_048_576, patience=patience)
    server = await asyncio.get_running_loop().create_server(fast, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await runner.cleanup()


class Line:
    """A connection that says what it is told to, and no more."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def status(self) -> int:
        """Of the next answer; 0 when the other side closed without one."""
        try:
            head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await self.reader.readexactly(int(length.partition(b":")[2]))
        return int(head.split(b" ")[1])

    async def over(self) -> bool:
        """Whether the other side closes."""
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(self.reader.read(), 10)
        return self.reader.at_eof() or self.reader.exception() is not None


@contextlib.asynccontextmanager
async def lines(port: int, *said: bytes) -> AsyncIterator[list[Line]]:
    """A connection for each of these, which is the first that it says."""
    made: list[Line] = []
    try:
        for each in said:
            made.append(Line(*await asyncio.open_connection("127.0.0.1", port)))
            made[-1].writer.write(each)
            await made[-1].writer.drain()
        yield made
    finally:
        for one in made:
            one.writer.close()
        for one in made:
            with contextlib.suppress(ConnectionError):
                await one.writer.wait_closed()


def check(tenant: Tenant, session: str) -> bytes:
    """A whole check."""
    body = json.dumps({"session_id": session, "ip": LAPTOP}).encode()
    shown = token(tenant.name, "platform", "platform")
    return (
        f"POST /v1/check HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {shown}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


SLOW = {
    "no end of the head": b"POST /v1/check HTTP/1.1\r\nHost: h\r\nX-One: ",
    "a byte": b"P",
    "no end of a head that is aiohttp's": b"OPTIONS * HTTP/1.1\r\nHost: h\r\nX-One: ",
}


async def test_a_request_that_does_not_arrive_in_time_is_given_up(port, tenant):
    """In either lane and in the middle of head or body; who has not begun one may wait, and go on."""
    login = await tenant.login()
    whole = check(tenant, login["session"]["id"])
    async with lines(port, *SLOW.values(), whole[:-5], whole) as made:
        *late, quick = made
        assert await quick.status() == 200

        statuses = [await each.status() for each in late]
        ended = [await each.over() for each in late]
        quick.writer.write(whole)

        assert await quick.status() == 200
    assert statuses == [408] * len(late)
    assert ended == [True] * len(late)


async def test_a_body_that_a_handler_waits_for_comes_in_time_or_not_at_all(port, tenant, monkeypatch):
    """What is announced and never sent holds its caller's own connection alone, and not for long."""
    monkeypatch.setattr(read, "BODY_S", SOON_S)
    await tenant.login()
    shown = token(tenant.name, "administrator", "somebody")
    head = f"POST /v1/rules HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {shown}\r\nContent-Type: application/json\r\n"

    async with lines(port, f"{head}Transfer-Encoding: chunked\r\n\r\n5\r\n{{\r\n".encode()) as (one,):
        status = await one.status()

    assert status == 408


@pytest.mark.parametrize("path", ["/console/sign-in", "/restricted/words"])
async def test_a_form_that_is_waited_for_comes_in_time_or_not_at_all(port, monkeypatch, path):
    """Nobody has to say who they are to send one: without an end to it, all places could be held by half a form."""
    monkeypatch.setattr(read, "BODY_S", SOON_S)
    kind = "Content-Type: application/x-www-form-urlencoded"

    async with lines(port, f"POST {path} HTTP/1.1\r\nHost: h\r\n{kind}\r\nContent-Length: 9\r\n\r\nt=".encode()) as (
        one,
    ):
        status = await one.status()

    assert status == 408


async def test_who_is_parted_with_and_does_not_read_is_gone_all_the_same(service):
    """What is left to be sent would keep the socket open as long as its reader likes, and nobody would count it."""
    runner = web.AppRunner(
        application(service.context, body_limit_bytes=1_048_576), access_log=None, shutdown_timeout=0.1
    )
    await runner.setup()
    loop, patience = asyncio.get_running_loop(), Patience(connections=MOST, request_s=SOON_S, write_s=SOON_S)
    made: list[FastLane] = []
    fast = lane_protocol(runner, service.context, body_limit_bytes=1_048_576, patience=patience)

    def one() -> FastLane:
        made.append(fast())
        return made[-1]

    server = await loop.create_server(one, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with lines(port, b"", b"") as lazy:
        for each in lazy:
            each.reader._transport.pause_reading()  # type: ignore[attr-defined] # nothing else makes a reader lazy
        while len(made) < len(lazy):
            await asyncio.sleep(0.01)
        wires = [each.transport for each in made if each.transport is not None]
        for wire in wires:
            while not wire.get_write_buffer_size():
                wire.write(b"x" * 30_000)
                await asyncio.sleep(0)
        made[0].cut()
        made[1].force_close()

        until = time.monotonic() + 10
        while any(each._manager is not None for each in made) and time.monotonic() < until:
            await asyncio.sleep(0.02)

    assert [each._manager for each in made] == [None, None]
    server.close()
    await runner.cleanup()


async def test_an_answer_that_nobody_reads_is_let_go_of(port):
    """A reader that has gone to sleep, or is no longer there, is cut off."""
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n"
    async with lines(port, ask * 60) as (one,):
        one.reader._transport.pause_reading()  # type: ignore[attr-defined] # nothing else makes a reader lazy
        until = time.monotonic() + 10
        while not one.writer.transport.is_closing() and time.monotonic() < until:
            await asyncio.sleep(0.05)
            with contextlib.suppress(ConnectionError):
                one.writer.write(b"G")  # what crosses a closed connection tells
        assert one.writer.transport.is_closing()


async def test_when_all_places_are_taken_those_who_hold_them_for_nothing_make_room(port, tenant):
    """Slow and idle connections go first, whoever comes is answered."""
    login = await tenant.login()
    whole = check(tenant, login["session"]["id"])

    async with lines(port, *[SLOW["a byte"]] * MOST) as slow:
        statuses = []
        for _ in range(3 * MOST):
            async with lines(port, whole) as (one,):
                statuses.append(await one.status())
        left = sum(not each.reader.at_eof() for each in slow)

    assert set(statuses) == {200}
    assert left < MOST


async def test_when_every_place_is_taken_by_work_the_next_is_told_so(port, tenant):
    """503 with Retry-After and an end, rather than a queue."""
    await tenant.login()
    shown = token(tenant.name, "platform", "platform")
    stream = f"GET /v1/stream HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {shown}\r\n\r\n".encode()

    async with lines(port, *[stream] * MOST) as busy:
        for each in busy:
            await asyncio.wait_for(each.reader.readuntil(b"\r\n\r\n"), 10)
        async with lines(port, check(tenant, "s")) as (one,):
            status, ended = await one.status(), await one.over()

    assert (status, ended) == (503, True)


@pytest.fixture(scope="module")
async def tight(service: Service, database_url: str, redis_url: str) -> AsyncIterator[Service]:
    """A worker with tight bounds on everything."""
    limits = Limits(
        operator_calls_per_s=1,
        platform_calls_per_s=1,
        checks_per_s=2,
        concurrent=1,
        answer_s=1,
        attempts_per_member_per_h=GUESSES,
    )
    said = msgspec.structs.replace(config(database_url, redis_url), limits=limits)
    async with configured(said) as worker:
        yield worker


@pytest.fixture
def strict(tight: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The same, where nobody waits for a turn."""
    monkeypatch.setattr(bounds, "MOST_WAIT_S", 0.0)
    return tight


@pytest.mark.parametrize(
    ("role", "call", "body", "rate"),
    [
        pytest.param("supervisor", "GET /v1/members", None, 1, id="an operator's"),
        pytest.param("platform", "PUT /v1/members/ana", {}, 1, id="a platform's"),
        pytest.param(
            "platform",
            "POST /v1/logins",
            {"member_id": "ana", "outcome": "success", "ip": LAPTOP},
            1,
            id="a login, fast lane",
        ),
        pytest.param("platform", "POST /v1/check", {"session_id": "s", "ip": LAPTOP}, 2, id="a check, fast lane"),
    ],
)
async def test_a_caller_that_asks_too_often_is_told_when_to_come_again(strict, role, call, body, rate):
    """After ten seconds' worth; by the draft's fields, and nobody else waits for it."""
    tenant, (method, path) = strict.tenant(), call.split()
    answers = [await tenant.call(method, path, body, role=role) for _ in range(int(rate * BURST_S) + 4)]
    other = await tenant.call(method, path, body, role=role, subject="another of them")

    refused = [each for each in answers if each.status == 429]
    assert {each.status for each in answers[: int(rate * BURST_S)]} == {200}
    assert refused, "the last of them at least"
    assert refused[0]["type"] == "urn:accessguard:problem:throttled"
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert refused[0].headers["RateLimit-Policy"].endswith(f";q={int(rate * BURST_S)};w=10")
    assert refused[0].headers["RateLimit"].partition(";")[2].startswith("r=0;t=")
    assert other.status == 200


async def test_proxies_are_never_refused_for_their_number(strict):
    """Behind them stand all students at once."""
    tenant = strict.tenant()
    headers = {"AccessGuard-Token": token(tenant.name, "platform", "proxy")}

    statuses = set()
    for _ in range(60):
        async with strict.http.get(f"{strict.url}/auth/nginx", headers=headers) as answer:
            statuses.add(answer.status)

    assert statuses == {401}


async def test_calls_at_once_are_bounded_for_each_caller_by_itself(strict):
    """The second is refused while the first is under way, that of another caller is not, and afterwards all is as before."""
    tenant = strict.tenant()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        begun.set()
        await go_on.wait()
        yield b"}\n"

    shown = {
        "Authorization": f"Bearer {token(tenant.name, 'administrator', 'one')}",
        "Content-Type": "application/x-ndjson",
    }

    async def second(subject: str) -> Answer:
        found: Answer = await tenant.call("GET", "/v1/rules", role="administrator", subject=subject)
        return found

    async def first() -> int:
        async with strict.http.post(f"{strict.url}/v1/imports", data=slowly(), headers=shown) as answer:
            return int(answer.status)

    await second("two")  # the tenant is there
    under_way = asyncio.create_task(first())
    await begun.wait()
    async with asyncio.timeout(10):
        while not strict.context.bounds._under_way:
            await asyncio.sleep(0.01)
    refused, until = await second("one"), time.monotonic() + 10
    while refused.status != 429 and time.monotonic() < until:
        await asyncio.sleep(1)  # not faster than its rate
        refused = await second("one")
    other = await second("two")
    go_on.set()
    await under_way
    after = await second("one")

    assert "under way" in refused["detail"]
    assert (other.status, after.status) == (200, 200)


async def test_an_answer_that_is_long_in_the_making_is_503_and_what_has_begun_goes_on(strict, database_url):
    """A handler that waits is given up; a stream that was open before it is open after it."""
    tenant = strict.tenant()
    await tenant.call("PUT", "/v1/members/ana", {})
    shown = {"Authorization": f"Bearer {token(tenant.name, 'platform', 'stream')}"}
    async with strict.http.get(f"{strict.url}/v1/stream", headers=shown) as stream:
        async with connected(database_url) as holder, holder.transaction():
            await holder.execute("SELECT FROM member WHERE tenant = $1 FOR UPDATE", tenant.name)
            late = await tenant.call("PUT", "/v1/members/ana", {"name": "Ana"})
        again = await tenant.call("PUT", "/v1/members/ana", {"name": "Ana"})
        login = await tenant.login()
        await tenant.call("POST", f"/v1/sessions/{login['session']['id']}/end", {}, subject="a third")
        async with asyncio.timeout(10):
            while b"session" not in await stream.content.readline():
                pass

    assert (late.status, late["detail"]) == (503, "No answer within 1 s; try again shortly.")
    assert int(late.headers["Retry-After"]) >= 1
    assert again.status == 200


async def test_pages_of_the_console_count_among_the_calls_of_their_operator(strict):
    """Who reloads one without end is told so in a page; another operator is not."""
    tenant = strict.tenant()
    busy, other = await signed_in(tenant, subject="eva"), await signed_in(tenant, subject="kim")

    pages = [await busy.get("/console/account") for _ in range(int(BURST_S) + 4)]

    refused = [each for each in pages if each.status == 429]
    assert {each.status for each in pages[: int(BURST_S)]} == {200}
    assert refused
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert "<h1>" in refused[0].text
    assert (await other.get("/console/account")).status == 200


async def test_a_member_s_logins_in_an_hour_are_bounded_and_whoever_guesses_keeps_nobody_out(strict):
    """Whoever asks for it; failures are counted by themselves, so that the member still gets in, and all others do."""
    tenant = strict.tenant()

    async def login(number: int, outcome: str, member: str = "ana") -> Answer:
        asked = {"member_id": member, "outcome": outcome, "ip": LAPTOP}
        found: Answer = await tenant.call("POST", "/v1/logins", asked, subject=f"platform {number}")
        return found

    guesses = [await login(number, "failure") for number in range(GUESSES + 2)]
    right, other = await login(0, "success"), await login(1, "failure", "bob")

    assert [each.status for each in guesses] == [200] * GUESSES + [429] * 2
    assert int(guesses[-1].headers["Retry-After"]) > 60
    assert (right["decision"], other.status) == ("allow", 200)


def endless(kind: inspect.Type) -> bool:
    """Whether a text, a number, a list or a map may be of any size, or a value anything."""
    match kind:
        case inspect.StrType(max_length=None, pattern=pattern):
            return pattern is None or re.search(r"[*+]|,\}", pattern) is not None
        case inspect.IntType(le=most, lt=None) | inspect.DictType(max_length=most):
            return most is None
        case inspect.VarTupleType(max_length=most) | inspect.ListType(max_length=most):
            return most is None
    return isinstance(kind, (inspect.AnyType, inspect.RawType))


def inside(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    """What a type that is no struct is made of."""
    match kind:
        case inspect.Metadata(type=one) | inspect.VarTupleType(item_type=one) | inspect.ListType(item_type=one):
            return (one,)
        case inspect.DictType(key_type=key, value_type=value):
            return key, value
        case inspect.UnionType(types=types) | inspect.TupleType(item_types=types):
            return types
    return ()


def boundless(kind: inspect.Type, place: str, seen: set[type]) -> Iterator[str]:
    """The fields inside a type that have no bound."""
    if isinstance(kind, inspect.StructType):
        for named in () if kind.cls in seen else kind.fields:
            seen.add(kind.cls)
            yield from boundless(named.type, f"{kind.cls.__name__}.{named.encode_name}", seen)
    elif endless(kind):
        yield place
    for each in inside(kind):
        yield from boundless(each, place, seen)


def test_whatever_comes_in_has_a_bound_of_its_own():
    """Every text, number, list and map of every body, query, line of a file and rule; exceptions are named with what bounds them."""
    asked = [each for route in ROUTES for each in (route.body, route.query, route.stream) if each is not None]
    kinds = [kind for each in asked for kind in (each if isinstance(each, tuple) else (each,))]
    seen: set[type] = set()

    found = {place for kind in (*kinds, *PARAMS.values()) for place in boundless(inspect.type_info(kind), "", seen)}

    assert len(seen) > 60
    assert found == set(OTHERWISE)


@pytest.mark.parametrize("depth", DEEP)
@pytest.mark.parametrize(
    ("call", "body", "role"),
    [
        ("POST /v1/check", '{"session_id":"s","ip":"192.0.2.1","user_agent":<deep>}', "platform"),
        ("POST /v1/logins", '{"member_id":"ana","outcome":"success","client_hints":{"a":<deep>}}', "platform"),
        ("POST /v1/checks", '{"checks":<deep>}', "platform"),
        ("POST /v1/rules", '{"kind":"session_limit","params":{"max":<deep>}}', "administrator"),
        (
            "PUT /v1/settings",
            '{"proxy":{"identity":"jwt","jwt":{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","x":<deep>}]}}}',
            "administrator",
        ),
        ("PUT /v1/preferences/a", '{"value":{"a":<deep>}}', "supervisor"),
        (
            "POST /access/v1/evaluation",
            '{"subject":{"type":"user","id":"a","properties":{"a":<deep>}},"action":{"name":"a"},"resource":{"type":"a","id":"a"}}',
            "platform",
        ),
    ],
)
async def test_no_depth_of_a_body_is_too_much(tenant, call, body, role, depth):
    """It is refused, or taken for what it is; never a failure of ours."""
    method, path = call.split()
    kind = {"Content-Type": "application/json"}
    sent = body.replace("<deep>", DEEP[depth]).encode()

    answer = await tenant.call(method, path, role=role, headers=kind, data=sent)

    assert answer.status in ({200, 204, 400} if depth == 900 else {400})


@examples(30)
@given(st.lists(st.floats(min_value=0, max_value=3), max_size=80), st.integers(min_value=1, max_value=50))
def test_no_pattern_of_calls_gets_more_than_its_rate(pauses, rate):
    """Ten seconds' worth and then the rate, however they are spread."""
    now = [0.0]
    limits = Bounds(Rates(operators=rate), clock=lambda: now[0])
    caller = Caller(subject="s", role=Role.ROOT, tenant="t", expires_at=0, token_id=None)
    admitted = 0
    for pause in pauses:
        now[0] += pause / 10
        with contextlib.suppress(GuardError):
            limits.take(caller, check=False)
            admitted += 1

    assert admitted <= rate * (BURST_S + MOST_WAIT_S + now[0]) + 1


async def test_an_operator_that_asks_for_more_waits_for_its_turn(tight):
    """One call after the other, a script gets all that it asks for, where a platform is refused."""
    tenant, now = tight.tenant(), [0.0]
    limits = Bounds(Rates(operators=10, platform=10), clock=lambda: now[0])
    operator = Caller(subject="s", role=Role.SUPERVISOR, tenant="t", expires_at=0, token_id=None)
    platform = msgspec.structs.replace(operator, role=Role.PLATFORM)

    statuses = [(await tenant.see("/v1/members")).status for _ in range(int(BURST_S) + 1)]
    waits = [limits.take(operator, check=False) for _ in range(120)]
    at_once = [limits.take(platform, check=False) for _ in range(100)]

    assert set(statuses) == {200}
    assert waits == pytest.approx([0.0] * 100 + [each / 10 for each in range(1, 21)])
    assert set(at_once) == {0.0}
    for caller in (operator, platform):
        with pytest.raises(GuardError, match="More than 10 calls"):
            limits.take(caller, check=False)
    now[0] += 0.5
    assert limits.take(operator, check=False) == pytest.approx(1.6)


def test_who_floods_is_held_back_though_a_call_is_let_in_now_and_then():
    """As many as its rate allows; the others are held back. When it asks within its rate, it is told so at once again."""
    now = [0.0]
    limits = Bounds(Rates(operators=1), clock=lambda: now[0])
    caller = Caller(subject="s", role=Role.ROOT, tenant="t", expires_at=0, token_id=None)
    let_in, held_back = 0, 0
    for _ in range(1_000):
        now[0] += 0.1
        try:
            limits.take(caller, check=False)
            let_in += 1
        except GuardError:
            held_back += limits.penalty_s(caller, check=False) > 0

    now[0] += 60
    limits.take(caller, check=False)

    assert 100 <= let_in <= 115
    assert held_back > 800
    assert limits.penalty_s(caller, check=False) == 0.0


def test_whoever_does_not_heed_refusals_waits_for_each():
    """A flood is slowed down to what its connections times two are in a second; a pause makes it good."""
    now = [0.0]
    limits = Bounds(Rates(operators=1), clock=lambda: now[0])
    caller = Caller(subject="s", role=Role.ROOT, tenant="t", expires_at=0, token_id=None)

    def asked() -> float:
        with contextlib.suppress(GuardError):
            limits.take(caller, check=False)
        return limits.penalty_s(caller, check=False)

    flood: list[Any] = [asked() for _ in range(40)]
    now[0] += 60

    assert flood[0] == flood[25] == 0.0
    assert flood[-1] > 0
    assert asked() == 0.0
