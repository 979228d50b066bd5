"""The clients, asynchronous and blocking, against the service, and against one with every fault there is."""

import asyncio
import contextlib
import json
import random
from itertools import count
from threading import Barrier, Thread
from time import monotonic
from typing import Any

import pytest

from accessguard.client import AccessGuard, BlockingAccessGuard, ClientError, Login, OnUnknown, Settings, holding, pool
from accessguard.client.events import Event, Events
from accessguard.client.front import Desk, Front, Seen
from accessguard.client.model import Decision, Tally, Verdict
from accessguard.client.wire import Chunks, Reader, WireError
from tests.client.stub import allow, http, stub, verdicts
from tests.service import CHROME, LAPTOP, token

PATIENT: dict[str, Any] = {"deadline_ms": 20_000, "login_deadline_ms": 20_000}
HOSTILE = ["a/b%2F?c#d", "😀" * 64, "x" * 128, "\u202e\u0622\u0646\u0627", 'q"\\\r\n', "ação"]
LATE_S = 0.5


class Threaded:
    """The blocking twin, as a test on a loop can use it."""

    def __init__(self, settings):
        self.twin = BlockingAccessGuard(settings)
        self.tally = self.twin.tally

    def __getattr__(self, name):
        """The twin's method, in a thread."""
        return lambda *args, **more: asyncio.to_thread(getattr(self.twin, name), *args, **more)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await asyncio.to_thread(self.twin.close)


BOTH = pytest.mark.parametrize("kind", [AccessGuard, Threaded], ids=["asynchronous", "blocking"])


def plain(path, body):
    """Everybody is allowed."""
    return verdicts(path, body, allow)


async def until(met):
    """Wait for what must come."""
    while not met():
        await asyncio.sleep(0.005)


@BOTH
@pytest.mark.parametrize("name", HOSTILE)
async def test_any_name_goes_there_and_back(service, tenant, kind, name):
    """Login, check, end: ids with slashes, percent signs, quotes, emoji, right-to-left text."""
    settings = Settings(address=service.url, token=token(tenant.name, "platform"), follow=False, **PATIENT)
    async with kind(settings) as guard:
        login = Login(outcome="success", ip=LAPTOP, member_id=name, session_id=name, user_agent=CHROME.format(142))
        answer = await guard.login(login)
        first, held = [await guard.check(name, LAPTOP, user_agent=CHROME.format(142)) for _ in range(2)]
        await guard.end(name)
        last = await guard.check(name, LAPTOP, user_agent=CHROME.format(142))

    assert answer.allowed
    assert answer.device.cookie.header.startswith("__Host-ag_device=")
    assert (first.allowed, first.member_id, first.unknown) == (True, name, False)
    assert (held is first, guard.tally.held) == (True, 1)
    assert (last.allowed, last.reason.code) == (False, "session_ended")


async def test_the_checks_of_one_turn_leave_together_and_one_bad_one_harms_no_other(service, tenant):
    """Forty questions are one request; the same question is asked once; nonsense is denied, not unknown."""
    told: list[Any] = []
    settings = Settings(
        address=service.url, token=token(tenant.name, "platform"), follow=False, told=told.append, **PATIENT
    )
    session = (await tenant.login())["session"]["id"]
    async with AccessGuard(settings) as guard:
        asked = [guard.check(session, LAPTOP, resource=f"lesson:{number % 40}") for number in range(80)]
        good = await asyncio.gather(*asked)
        mixed = await asyncio.gather(*(guard.check(each, LAPTOP, resource="b") for each in (session, "", "x" * 129)))

    assert {each.allowed for each in good} == {True}
    assert [(each.call, each.checks, each.status) for each in told][:2] == [
        ("/v1/checks", 40, 200),
        ("/v1/checks", 3, 400),
    ]
    assert [(each.allowed, each.unknown) for each in mixed] == [(True, False), (False, False), (False, False)]


@BOTH
async def test_a_held_answer_goes_when_something_changes_and_the_stream_goes_on_where_it_broke(
    tmp_path, kind, monkeypatch
):
    """Events drop what they are about and nothing else; a lost stream comes back with the id of its last word."""
    monkeypatch.setattr(holding, "DOUBT_S", 0.0)
    async with (
        stub(tmp_path, plain) as there,
        kind(Settings(address=f"unix:{there.path}", token="t", **PATIENT)) as guard,
    ):

        async def asks(session="s1"):
            before = len(there.seen)
            assert (await guard.check(session, "1.1.1.1")).allowed
            return len(there.seen) - before

        async def after(*lines):
            heard = guard.tally.events
            await there.push(*lines)
            await until(lambda: guard.tally.events > heard)
            return await asks(), await asks("s2")

        await asks()
        await there.listening.wait()
        await after("event: reset", "data: {}")

        assert await asks() == 0
        assert await after("event: violation", 'data: {"member_id": "ana"}') == (0, 0)
        assert await after("event: device_changed", 'data: {"member_id": "ana", "change": "new"}') == (0, 0)
        assert await after("event: session_ended", 'data: {"session_id": "s1", "member_id": "ana"}') == (1, 0)
        assert await after("event: member_changed", 'data: {"member_id": "bob"}') == (0, 0)
        assert await after("event: member_changed", 'data: {"member_id": "ana"}') == (1, 1)
        assert await after("event: policy_changed", "id: 10-4", "data: {}") == (1, 1)
        there.break_off()
        assert await asks() == 0
        await there.listening.wait()
        assert b"Last-Event-ID: 10-4\r\n" in there.heads[-1]


@pytest.mark.parametrize(
    ("kind", "said", "again"),
    [
        ("session_ended", {"session_id": "s", "member_id": "ana"}, ["other", "else"]),
        ("member_changed", {"member_id": "ana"}, ["else"]),
        ("policy_changed", {}, []),
    ],
)
def test_what_changed_is_asked_about_each_time_until_every_worker_knows(monkeypatch, kind, said, again):
    """For five seconds another worker may still allow; then answers are held again, and too many names are everybody."""
    monkeypatch.setattr(holding, "MOST_DOUBTED", 3)
    now = [100.0]
    held = holding.Holding(100, lambda: now[0], Tally())
    asked = {name: (name, "1.1.1.1", None, None, None, None, None) for name in ("s", "other", "else")}

    def kept(since):
        for name, each in asked.items():
            found = Verdict(decision=Decision.ALLOW, ttl_ms=60_000, member_id="bob" if name == "else" else "ana")
            held.keep(each, found, since=since, epoch=held.epoch)
        return [name for name, each in asked.items() if each in held.answers]

    held.heard(Event(kind=kind, data=json.dumps(said), id=None))
    early = kept(now[0] + 4.9)
    late = kept(now[0] + 5.0)
    for number in range(4):
        held.heard(Event(kind="member_changed", data=json.dumps({"member_id": f"m{number}"}), id=None))
    held.drop_all()

    assert early == again
    assert late == ["s", "other", "else"]
    assert kept(now[0]) == []
    assert len(held._doubts) <= 3


async def test_a_connection_that_nobody_answers_keeps_its_place_no_longer_than_a_moment(monkeypatch):
    """A packet that is dropped is no refusal: the place is free for another try, and who waits is told."""
    tried = []

    async def dropped(*where):
        tried.append(where[1:])
        await asyncio.Event().wait()

    monkeypatch.setattr(pool, "CONNECT_S", 0.01)
    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", dropped)
    settings = Settings(address="http://127.0.0.1:1", token="t", follow=False, connections=1, **PATIENT)

    async with AccessGuard(settings) as guard:
        found = [await guard.check("s", "1.1.1.1") for _ in range(2)]

    assert [each.unknown for each in found] == [True, True]
    assert tried == [("127.0.0.1", 1)] * 2


@pytest.mark.parametrize(
    ("path", "query", "back"),
    [
        ("/courses/1", "a=b", "/courses/1%3Fa%3Db"),
        ("//evil.example/", "", "/"),
        ("/\\evil.example/", "", "/"),
        ("/\t/evil.example/", "", "/"),
        ("https://evil.example/", "", "/"),
    ],
)
def test_a_browser_comes_back_from_the_login_to_this_platform_and_nowhere_else(path, query, back):
    """What a login page may follow is a path of this host."""
    seen = Seen(
        method="GET",
        path=path,
        query=query,
        peer="1.1.1.1",
        host="learn.example",
        accept="text/html",
        cookies="",
        user_agent="",
        forwarded_for="",
    )

    answer = Desk(Front(login_url="/enter")).refusal(seen, None)

    assert dict(answer.headers)["Location"] == f"/enter?next={back}"


@pytest.mark.parametrize(
    ("login_url", "public"),
    [
        ("/admin", True),
        ("https://id.example/admin", False),
        ("//id.example/admin", False),
        ("https://id.example", False),
    ],
)
def test_the_login_page_of_another_host_opens_no_path_of_this_one(login_url, public):
    """What is called the same here may be anything."""
    assert Desk(Front(login_url=login_url)).public("/admin") is public


async def test_an_answer_under_way_when_something_changes_is_not_held(tmp_path):
    """What was decided before a change is neither kept nor given to whoever asks after it."""
    async with contextlib.AsyncExitStack() as stack:
        there = await stack.enter_async_context(stub(tmp_path, lambda *_: None))
        guard = await stack.enter_async_context(
            AccessGuard(Settings(address=f"unix:{there.path}", token="t", **PATIENT))
        )
        early = asyncio.create_task(guard.check("s", "1.1.1.1"))
        await there.listening.wait()
        await until(lambda: there.seen)
        owed = there.writers - set(there.streams)
        await there.push("event: policy_changed", "data: {}")
        await until(lambda: guard.tally.events)
        there.answer = lambda _, asked: http(allow(asked, ttl_ms=0))
        late = await guard.check("s", "1.1.1.1")
        was_waiting = not early.done()
        for each in owed:
            each.write(http(allow({"session_id": "s"})))
        assert (await early).ttl_ms == 5_000
        again = await guard.check("s", "1.1.1.1")

    assert was_waiting
    assert (late.ttl_ms, again.ttl_ms) == (0, 0)
    assert len(there.seen) == 3


@BOTH
async def test_a_lost_answer_is_asked_for_again_and_a_login_keeps_its_attempt(tmp_path, kind):
    """A connection that is closed after an answer costs nobody theirs; the same attempt is not a second one."""
    turns = count()

    def answer(path, body):
        if path == "/v1/logins":
            return b"" if next(turns) == 0 else http({"decision": "allow"})
        return plain(path, body)

    async with stub(tmp_path, answer) as there:
        settings = Settings(address=f"unix:{there.path}", token="t", follow=False, hold=False, **PATIENT)
        async with kind(settings) as guard:
            assert (await guard.check("s", "1.1.1.1")).allowed
            for writer in there.writers:
                writer.close()
            assert not (await guard.check("s", "1.1.1.1")).unknown
            assert not (await guard.login(Login(outcome="success", ip="1.1.1.1"))).unknown

    attempts = [body["attempt_id"] for path, body in there.seen if path == "/v1/logins"]
    assert len(attempts) == 2
    assert len(set(attempts)) == 1


@BOTH
@pytest.mark.parametrize("on", OnUnknown)
@pytest.mark.parametrize(
    "fault",
    [
        None,
        b"",
        b"SSH-2.0-x\r\n\r\n",
        http({"no": "verdict"}),
        http({}, 503),
        http({}, 401),
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
    ids=["hangs", "closes", "not http", "no verdict", "503", "wrong token", "no end"],
)
async def test_whatever_the_service_does_there_is_an_answer(tmp_path, kind, on, fault):
    """What is to be done then is the platform's choice; the breaker spares a service that is down."""
    async with stub(tmp_path, lambda *_: fault) as there:
        settings = Settings(
            address=f"unix:{there.path}",
            token="t",
            on_unknown=on,
            follow=False,
            deadline_ms=40,
            login_deadline_ms=40,
            failures=2,
            pause_ms=60_000,
        )
        async with kind(settings) as guard:
            found = [await guard.check(f"s{number}", "1.1.1.1") for number in range(6)]
            login = await guard.login(Login(outcome="success", ip="1.1.1.1"))
            with pytest.raises(ClientError):
                await guard.end("s")

    assert {(each.allowed, each.unknown) for each in [*found, login]} == {(on is OnUnknown.ALLOW, True)}
    assert len(there.seen) <= 5  # two that failed, each perhaps twice; a thread may have been on its way


async def test_nobody_is_allowed_for_longer_than_an_answer_lasts(tmp_path):
    """Through two seconds of random faults, without a stream: an allow is never older than the time it was given.

    Or than the call that it came with, which may have been under way when the student was blocked, for as long as a busy
    machine stands still.
    """
    rolled, ttl_ms = random.Random(7), 60
    blocked: dict[str, float] = {}
    wrong: list[str] = []

    def decide(asked):
        return {"decision": "deny", "ttl_ms": 0} if asked["session_id"] in blocked else allow(asked, ttl_ms)

    def answer(path, body):
        fault = rolled.random()
        faults = [None, b"", http({}, 503), b"garbage\r\n\r\n"]
        return faults[int(fault * 20)] if fault < 0.2 else verdicts(path, body, decide)

    async def student(guard, session):
        while monotonic() < end:
            began = monotonic()
            found = await guard.check(session, "1.1.1.1")
            if found.allowed and blocked.get(session, began) < began - ttl_ms / 1000 - LATE_S:
                wrong.append(session)
            await asyncio.sleep(0)

    async with stub(tmp_path, answer) as there:
        settings = Settings(
            address=f"unix:{there.path}",
            token="t",
            on_unknown=OnUnknown.DENY,
            follow=False,
            deadline_ms=100,
            pause_ms=10,
        )
        async with AccessGuard(settings) as guard:
            end = monotonic() + 2
            students = [asyncio.create_task(student(guard, f"s{number}")) for number in range(20)]
            for number in range(10):
                await asyncio.sleep(0.1)
                blocked[f"s{number}"] = monotonic()
                there.break_off() if number % 3 == 0 else None
            await asyncio.gather(*students)

    assert wrong == []
    assert guard.tally.held > 0
    assert guard.tally.unknown > 0


async def test_threads_that_ask_the_same_ask_once(tmp_path):
    """One call for one question at a time, and everybody has its answer."""
    async with stub(tmp_path, plain) as there:
        with BlockingAccessGuard(Settings(address=f"unix:{there.path}", token="t", follow=False, **PATIENT)) as guard:
            found, begin = [], Barrier(8)

            def ask():
                begin.wait()
                found.append(guard.check("s", "1.1.1.1"))

            threads = [Thread(target=ask) for _ in range(8)]
            for each in threads:
                each.start()
            for each in threads:
                await asyncio.to_thread(each.join)

    assert [each.allowed for each in found] == [True] * 8
    assert len(there.seen) == 1


def test_answers_and_events_are_read_in_any_pieces():
    """A byte at a time says the same as all at once; what is no answer is refused."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    sized = b"HTTP/1.1 404 No\r\ncontent-length: 2\r\nConnection: close\r\n\r\nhi"
    said = "﻿: hello\r\nid: 7\r\nevent: reset\r\ndata: é\r\ndata: b\r\n\r\nid: 8\n\n".encode()[3:]

    for whole, status, body, keep in ((chunked, 200, b"abcde", True), (sized, 404, b"hi", False)):
        reader = Reader()
        replies = [reply for place in range(len(whole)) if (reply := reader.feed(whole[place : place + 1]))]
        assert [(each.status, each.body, each.keep) for each in replies] == [(status, body, keep)]
        assert Reader().feed(whole) is not None

    events = Events()
    found = [event for place in range(len(said)) for event in events.feed(said[place : place + 1])]
    assert [(each.kind, each.data, each.id) for each in found] == [("reset", "é\nb", "7")]
    assert events.last == "8"
    for nonsense in (b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"):
        with pytest.raises(WireError):
            Reader().feed(nonsense)
    with pytest.raises(WireError):
        Chunks().feed(b"zz\r\n")


async def test_a_client_is_of_one_loop_at_a_time_and_of_the_next_when_that_has_ended(tmp_path):
    """On a second loop beside the first it says so at once; nobody's answer is lost to another thread."""
    async with stub(tmp_path, plain) as there:
        guard = AccessGuard(Settings(address=f"unix:{there.path}", token="t", follow=False, hold=False, **PATIENT))

        async def once():
            return (await guard.check("s", "1.1.1.1")).unknown

        async def once_and_close():
            async with guard:
                return await once()

        ended = [await asyncio.to_thread(asyncio.run, once_and_close()) for _ in range(2)]
        here = await once()
        with pytest.raises(RuntimeError, match="one loop"):
            await asyncio.to_thread(asyncio.run, once())
        still = await once()
        await guard.close()

    assert (ended, here, still) == ([False, False], False, False)


async def test_what_is_garbage_or_about_somebody_else_is_no_answer_and_its_connection_is_closed(tmp_path):
    """Bytes that are no text, a length without end, a verdict about another session: unknown, and never raised."""
    body = b'{"decision":"allow","session_id":"\x90\xff"}'
    sick = [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
        b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % (b"9" * 5_000),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        http(allow({"session_id": "another"})),
    ]
    for answer in sick:
        async with stub(tmp_path, lambda *_, answer=answer: answer) as there:
            settings = Settings(address=f"unix:{there.path}", token="t", follow=False, deadline_ms=300)
            async with AccessGuard(settings) as guard:
                found = await guard.check("s", "1.1.1.1")
                with BlockingAccessGuard(settings) as twin:
                    other = await asyncio.to_thread(twin.check, "s", "1.1.1.1")
                there.answer = plain
                well = await guard.check("s", "1.1.1.1")
        assert (found.unknown, other.unknown, well.unknown, well.session_id) == (True, True, False, "s"), answer
