"""Whatever a fuzzer makes of good and broken pieces, both lanes say and do the same."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.lanes import LAST, Lanes, Talk, lanes, question, same
from tests.fuzz import examples
from tests.service import LAPTOP, Service, token

pytestmark = pytest.mark.timeout(1200)
QUIET_S = 0.05


class Ground:
    """Both lanes, and what there is to ask of them."""

    def __init__(self, both: Lanes, words: dict[bytes, bytes]) -> None:
        self.both = both
        self.words = words

    def fill(self, plan: bytes) -> bytes:
        """A plan's words replaced by tokens and ids, which no strategy can know."""
        for word, meaning in self.words.items():
            plan = plan.replace(word, meaning)
        return plan


@pytest.fixture(scope="module")
async def ground(service: Service) -> AsyncIterator[Ground]:
    """A tenant with a session whose verdict is held, and every kind of caller."""
    tenant = service.tenant()
    login = await tenant.login()
    await tenant.check(login, user_agent=None)
    await tenant.check(login, user_agent=None, ip="127.0.0.1")
    callers = {
        b"@GOOD": token(tenant.name, "platform"),
        b"@ROLE": token(tenant.name, "supervisor"),
        b"@OLD": token(tenant.name, "platform", exp=1),
        b"@ALL": token("*", "platform"),
        b"@TENANT": tenant.name,
        b"@SESSION": login["session"]["id"],
        b"@COOKIE": login["session"]["token"],
    }
    async with lanes(service.context) as both:
        yield Ground(both, {word: meaning.encode() for word, meaning in callers.items()})


# Bodies: with the words of `ground`, so their length is only known once they are filled.

# The same attempt each time: whichever lane records it, all the others are answered as it was.
LOGIN: dict[str, object] = {
    "attempt_id": "018f2b3c-0000-7000-8000-00000000f022",
    "member_id": "fuzzed",
    "outcome": "success",
    "method": "password",
    "ip": LAPTOP,
}
ASKED: list[object] = [
    question("@SESSION"),
    question("@SESSION", user_agent="x"),
    question("@SESSION", explain=True),
    question("@SESSION", ip="nonsense"),
    question("nobody"),
    question(""),
    {"ip": LAPTOP},
    {"checks": [question("@SESSION"), question("nobody")]},
    {"checks": [question("@SESSION")] * 3},
    {"checks": []},
    {"outcome": "failure"},
    LOGIN,
    LOGIN | {"member_id": None},
    LOGIN | {"method": "none"},
    [],
    None,
]
bodies = st.one_of(
    st.just(msgspec.json.encode(question("@SESSION"))),
    st.sampled_from([msgspec.json.encode(asked) for asked in ASKED]),
    st.sampled_from([b"", b"{", b"x" * 3000, b"\xff", b'{"session_id":"\\u0000","ip":"b"}', b"GET / HTTP/1.1\r\n\r\n"]),
)
starts = st.one_of(
    st.sampled_from([b"POST /v1/check HTTP/1.1", b"POST /v1/checks HTTP/1.1", b"POST /v1/logins HTTP/1.1"]),
    st.sampled_from(
        [
            b"GET /healthz HTTP/1.1",
            b"GET /auth/nginx HTTP/1.1",
            b"GET /auth/envoy/a/b?c HTTP/1.1",
            b"GET /auth/envoy/%2e/ HTTP/1.1",
            b"GET /auth/caddy?x HTTP/1.1",
            b"GET /v1/check HTTP/1.1",
            b"OPTIONS /v1/check HTTP/1.1",
            b"POST /v1/logins HTTP/1.0",
            b"POST /v1/check HTTP/1.0",
            b"POST /v1/check?a=b HTTP/1.1",
            b"PUT /nothing HTTP/1.1",
            b"POST /v1/check  HTTP/1.1",
            b"POST /v1/check",
        ]
    ),
)
callers = st.one_of(
    st.just(b"Authorization: Bearer @GOOD"),
    st.sampled_from(
        [
            b"authorization: bearer @GOOD",
            b"Authorization: Bearer @ROLE",
            b"Authorization: Bearer @OLD",
            b"Authorization: Bearer @ALL",
            b"Authorization: Bearer @ALL\r\nAccessGuard-Tenant: @TENANT",
            b"Authorization: Bearer @GOOD\r\nACCESSGUARD-TENANT: other",
            b"Authorization: Bearer @GOODx",
            b"X: y",
        ]
    ),
)
lengths = st.one_of(
    st.just(b"Content-Length: @LENGTH"),
    st.sampled_from(
        [
            b"content-length:  @LENGTH ",
            b"Content-Length: 00@LENGTH",
            b"Content-Length: @LENGTH\r\nContent-Length: @LENGTH",
            b"Content-Length: 3",
            b"Content-Length: -1",
            b"Content-Length: 99999",
            b"Transfer-Encoding: chunked",
            b"X: y",
        ]
    ),
)
others = st.lists(
    st.sampled_from(
        [
            b"Content-Type: application/json",
            b"Content-Type: application/json; charset=UTF-8",
            b"Content-Type: text/html",
            b"User-Agent: a",
            b"X-Request-ID: 1",
            b"X-Request-ID: 22",
            b"Idempotency-Key: k",
            b"Connection: keep-alive",
            b"Connection: close",
            b"Expect: 100-continue",
            b"TE: trailers",
            b"Cookie: a=b; c=d",
            b"Cookie: __Host-ag_session=@COOKIE",
            b"AccessGuard-Token: @GOOD",
            b"AccessGuard-Token: @ROLE",
            b"X-Forwarded-For: 203.0.113.9",
            b"X-Original-URI: /courses/1",
            b"X-Envoy-External-Address: 203.0.113.9",
            b"Accept: */*",
            b"X:",
            b"X: \x80",
            b"X: a\x00b",
            b"X : y",
            b" folded",
        ]
    ),
    max_size=4,
)


@st.composite
def requests(draw: Callable[..., object]) -> tuple[bytes, bytes]:
    """The plans of a head (in which @LENGTH stands for the body's) and of its body."""
    fields = [b"Host: h", draw(callers), draw(lengths), *draw(others)]  # type: ignore[misc] # draw is generic
    if draw(st.booleans()):
        fields = draw(st.permutations(fields))  # type: ignore[assignment] # as above
    return b"\r\n".join([draw(starts), *fields]) + b"\r\n\r\n", draw(bodies)  # type: ignore[list-item,return-value] # as above


good = st.tuples(
    st.sampled_from([b"POST /v1/check HTTP/1.1", b"POST /v1/checks HTTP/1.1"]).map(
        lambda start: start + b"\r\nHost: h\r\nAuthorization: Bearer @GOOD\r\nContent-Length: @LENGTH\r\n\r\n"
    ),
    bodies,
)
several = st.lists(st.one_of(requests(), good), min_size=1, max_size=4)
scars = st.lists(
    st.tuples(
        st.integers(0, 500),
        st.integers(0, 3),
        st.sampled_from([b"\r", b"\n", b"\0", b" ", b":", b"\r\n", b"A", b"\xff"]),
    ),
    max_size=3,
)


def written(ground: Ground, plans: list[tuple[bytes, bytes]]) -> list[bytes]:
    """The requests as bytes."""
    found = []
    for head, body in plans:
        filled = ground.fill(body)
        found.append(ground.fill(head).replace(b"@LENGTH", str(len(filled)).encode()) + filled)
    return found


def scarred(request: bytes, marks: list[tuple[int, int, bytes]]) -> bytes:
    """A request with bytes put in, or put in place of others."""
    for at, instead_of, mark in marks:
        request = request[:at] + mark + request[at + instead_of :]
    return request


async def agree(ground: Ground, sent: list[bytes]) -> None:
    """Assert that both lanes answer alike, each request by itself and all at once.

    Of one packet that breaks HTTP somewhere aiohttp forgets what was good
    before, so its answer depends on where packets end. The fast lane's has to
    be its answer for one way to cut the same bytes.
    """
    requests = [*sent, LAST]
    whole = b"".join(requests)
    known: dict[tuple[bytes, ...], Talk] = {}
    for mine in (requests, [whole]):
        fast = await ground.both.talk(ground.both.fast, *mine, quiet_s=QUIET_S)
        for pieces in ways(requests):
            if pieces not in known:
                known[pieces] = await ground.both.talk(ground.both.plain, *pieces, quiet_s=QUIET_S)
            if alike(fast, known[pieces]):
                break
        else:
            plain = [talk.statuses for talk in known.values()]
            pytest.fail(f"{fast.statuses} {fast.closed} {fast.decided} is none of {plain} for {whole!r}")


def ways(requests: list[bytes]) -> Iterator[tuple[bytes, ...]]:
    """By request; wherever a message may end; and with the first few by themselves."""
    whole = b"".join(requests)
    yield tuple(requests)
    ends = [found.end() for found in re.finditer(rb"\r\n\r\n", whole)]
    sizes = {int(found[1]) for found in re.finditer(rb"(?i)length:[ \t]*(\d{1,9})", whole)}
    yield cut(whole, [end + size for end in ends for size in (0, *sizes)])
    for number in range(len(requests)):
        yield (*requests[:number], b"".join(requests[number:]))


def cut(whole: bytes, places: Iterable[int]) -> tuple[bytes, ...]:
    """The pieces between the places that lie inside."""
    edges = sorted({0, len(whole), *(place for place in places if place < len(whole))})
    return tuple(whole[start:end] for start, end in itertools.pairwise(edges))


def alike(mine: Talk, other: Talk) -> bool:
    """Whether both talks are the same."""
    try:
        same(mine, other)
    except AssertionError:
        return False
    return True


fuzz = examples(200, 4_000)


@fuzz
@given(plans=several)
async def test_both_lanes_agree_on_every_stream(ground, plans):
    """Of requests built from good and bad pieces."""
    await agree(ground, written(ground, plans))


@fuzz
@given(plan=st.one_of(good, requests()), behind=good, marks=scars)
async def test_both_lanes_agree_on_every_broken_head(ground, plan, behind, marks):
    """With bytes changed anywhere in the first half kilobyte of a request."""
    first, second = written(ground, [plan, behind])

    await agree(ground, [scarred(first, marks), second])


@fuzz
@given(plans=several, places=st.lists(st.integers(0, 3000), max_size=12))
async def test_where_the_packets_end_makes_no_difference(ground, plans, places):
    """For every stream that is HTTP to its end, whatever is asked in it."""
    sent = written(ground, plans)
    both, whole = ground.both, b"".join([*sent, LAST])
    plain = await both.talk(both.plain, *sent, LAST, quiet_s=QUIET_S)
    final = [reply for reply in plain.replies if reply.status >= 200]
    if len(final) != len(sent) + 1 or b'"parts"' not in final[-1].raw:
        return
    pieces = cut(whole, places)

    same(await both.talk(both.fast, *pieces, quiet_s=QUIET_S), plain, pieces)


gates = st.tuples(
    st.sampled_from(
        [
            b"GET /auth/nginx HTTP/1.1",
            b"GET /auth/traefik HTTP/1.1",
            b"GET /auth/envoy/courses/1?a=b HTTP/1.1",
            b"GET /auth/envoy//x HTTP/1.1",
            b"POST /auth/envoy/x HTTP/1.1",
        ]
    ),
    st.sampled_from([b"", b"\r\nCookie: __Host-ag_session=@COOKIE", b"\r\nCookie: x=@COOKIE"]),
    others,
    st.sampled_from([b"\r\nAccessGuard-Token: @GOOD", b"\r\nAccessGuard-Token: @ALL", b""]),
).map(
    lambda made: (
        made[0] + b"\r\nHost: h" + made[3] + made[1] + b"".join(b"\r\n" + each for each in made[2]) + b"\r\n\r\n",
        b"",
    )
)


@fuzz
@given(plan=gates, again=st.integers(0, 3), behind=good)
async def test_both_lanes_agree_on_every_question_of_a_proxy(ground, plan, again, behind):
    """Asked once and over again, with a check behind it."""
    await agree(ground, written(ground, [*[plan] * (1 + again), behind]))


async def test_a_held_pass_is_given_by_the_fast_lane(ground):
    """With the very fields of the ordinary route, and counted as the check that it is."""
    head = (
        b"GET /auth/nginx HTTP/1.1\r\nHost: h\r\nAccessGuard-Token: @GOOD\r\nCookie: __Host-ag_session=@COOKIE\r\n\r\n"
    )
    (sent,) = written(ground, [(head, b"")])
    plain = await ground.both.talk(ground.both.plain, sent)
    before = ground.both.context.checks.tally.answers

    fast = await ground.both.talk(ground.both.fast, *[sent] * 5)
    await asyncio.sleep(0)

    assert ground.both.context.checks.tally.answers - before >= 4
    assert {reply.status for reply in fast.replies} == {204}
    assert [reply.headers for reply in fast.replies] == [plain.replies[0].headers] * 5


async def test_the_fuzzer_reaches_the_fast_lane(ground):
    """A good plan is answered there; otherwise the tests above would compare aiohttp with itself."""
    head = b"POST /v1/check HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer @GOOD\r\nContent-Length: @LENGTH\r\n\r\n"
    (sent,) = written(ground, [(head, msgspec.json.encode(question("@SESSION")))])
    before = ground.both.context.checks.tally.answers

    await ground.both.talk(ground.both.fast, *[sent] * 5)
    await asyncio.sleep(0)

    assert ground.both.context.checks.tally.answers - before >= 4
