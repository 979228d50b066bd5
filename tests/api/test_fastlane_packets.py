"""However the bytes of requests come, cut and pipelined and bounded, the fast lane answers as aiohttp would."""

from __future__ import annotations

import asyncio

import pytest

from accessguard.api.fastlane import FastLane
from tests.api.lanes import LAST, LIMIT, Known, Lanes, fast, head, lanes, one, question, request, same
from tests.service import LAPTOP


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
