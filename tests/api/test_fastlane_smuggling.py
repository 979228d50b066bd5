"""No request that one reader sees and the other does not: known tricks, each alone and among good checks, however its bytes come."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from tests.api.lanes import LAST, Lanes, Talk, lanes, question, request, same
from tests.api.smuggling import (
    CHUNKS,
    CODINGS,
    ELSEWHERE,
    GOOD_CHUNKS,
    GOOD_CODINGS,
    GOOD_LENGTHS,
    HEADS,
    LENGTHS,
    NAMES,
    NOTHING,
    OTHER_NAMES,
    STARTS,
    Trick,
    Words,
    corpus,
)
from tests.fuzz import examples
from tests.service import Service, token

QUIET_S = 0.03
TURNS = "turns: "
"""How the names of those begin that ask for another protocol."""
BORDER = re.compile(rb"\r\n\r\n|\r|\n|[:;, ]")
"""Where one reader or another begins anew."""


class Ground:
    """Both lanes, the tricks, and a check that is known by heart."""

    def __init__(self, both: Lanes, words: Words) -> None:
        self.both = both
        self.words = words
        self.check = words.check
        self.tricks = corpus(words)

    async def says(self, port: int, pieces: Sequence[bytes], *, half_close: bool = False) -> Talk:
        """What one lane says."""
        with structlog.testing.capture_logs():
            return await self.both.talk(port, *pieces, half_close=half_close, quiet_s=QUIET_S)

    async def both_say(self, pieces: Sequence[bytes]) -> tuple[Talk, Talk]:
        """What the fast lane and aiohttp say."""
        return await self.says(self.both.fast, pieces), await self.says(self.both.plain, pieces)


@pytest.fixture(scope="module")
async def ground(service: Service) -> AsyncIterator[Ground]:
    """A tenant with a session whose verdict is held."""
    tenant = service.tenant()
    login = await tenant.login()
    asked = question(login["session"]["id"])
    check = request(tenant.name, asked)
    async with lanes(service.context) as both:
        for port in (both.plain, both.fast):
            assert (await both.talk(port, check * 3 + LAST)).statuses == [200] * 4
        words = Words(token(tenant.name, "platform").encode(), check.partition(b"\r\n\r\n")[2], check)
        yield Ground(both, words)


def seen(trick: Trick) -> int:
    """How many checks are to be seen of one before a trick, the trick itself, and one behind it."""
    return 1 + trick.seen + trick.goes_on


def cut(whole: bytes, places: Sequence[int]) -> list[bytes]:
    """The pieces between these of its borders; each byte by itself where none is named."""
    borders = [found.end() for found in BORDER.finditer(whole)]
    chosen = {borders[place % len(borders)] for place in places} if places else set(range(len(whole)))
    return [whole[start:end] for start, end in itertools.pairwise(sorted({0, len(whole), *chosen}))]


def alike(one: Talk, other: Talk) -> bool:
    """Whether both talks are the same."""
    try:
        same(one, other)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
async def test_a_trick_hides_no_request_and_makes_none(ground: Ground, name: str):
    """Behind a good check and before one, request by request and in one packet: what is refused ends the connection."""
    trick = ground.tricks[name]
    several = [ground.check, trick.raw, ground.check, LAST]

    fast, plain = await ground.both_say(several)
    packet = await ground.says(ground.both.fast, [b"".join(several)])

    if not name.startswith(TURNS):
        same(fast, plain, several)
    assert fast.decided == seen(trick), fast.statuses
    assert packet.decided == seen(trick) or (trick.last and packet.decided == 1), packet.statuses
    assert packet.statuses == fast.statuses or trick.last


@pytest.mark.timeout(1200)
@examples(60, 10_000)
@example(name="turns: h2c", places=[], first=False)
@example(name="turns: h2c, in chunks", places=[], first=False)
@given(name=st.sampled_from(NAMES), places=st.lists(st.integers(0, 1_000), max_size=8), first=st.booleans())
async def test_wherever_a_trick_is_cut_it_is_the_same(ground: Ground, name: str, places: list[int], first: bool):
    """At any border, at several, at every byte; behind a good check or as the first.

    Of one packet that breaks HTTP somewhere aiohttp forgets what was good
    before; so does the fast lane, where it has left the connection to it.
    Behind a request to turn to another protocol the service closes where
    aiohttp alone goes on, unless it came whole.
    """
    trick = ground.tricks[name]
    before = [] if first else [ground.check]
    several = [*before, *cut(trick.raw, places), ground.check, LAST]

    fast, plain = await ground.both_say(several)

    most, turning = seen(trick) - first, name.startswith(TURNS)
    fewer = fast.decided < most and (turning or not trick.goes_on)
    assert fast.decided == most or fewer, (fast.statuses, plain.statuses)
    if not alike(fast, plain):
        by_request = await ground.says(ground.both.plain, [*before, trick.raw, ground.check, LAST])
        if turning and len(fast.replies) == len(before) + 1:
            assert fast.closed
            assert fast.statuses == by_request.statuses[: len(fast.replies)]
        else:
            same(fast, by_request, several)


@pytest.mark.timeout(1200)
@examples(30, 5_000)
@given(name=st.sampled_from(NAMES), place=st.integers(0, 1_000), whole=st.booleans())
async def test_a_trick_that_breaks_off_is_not_more_than_what_came_whole(
    ground: Ground, name: str, place: int, whole: bool
):
    """Cut at any border, the client half-closed behind it: what came before is answered, nothing is made of the rest."""
    trick = ground.tricks[name]
    begun, _ = (trick.raw, b"") if whole else _halves(trick.raw, place)
    open_, closed = [
        await ground.says(ground.both.fast, [ground.check, begun], half_close=half) for half in (False, True)
    ]

    assert closed.decided == open_.decided <= 1 + trick.seen
    assert closed.statuses == open_.statuses
    assert closed.closed


def _halves(raw: bytes, place: int) -> tuple[bytes, bytes]:
    borders = [found.end() for found in BORDER.finditer(raw)][:-1]
    at = borders[place % len(borders)]
    return raw[:at], raw[at:]


# Requests that are put together from all parts of the tricks.

number = st.just(b"Content-Length: @")
chunks = st.sampled_from([*CHUNKS.values(), *GOOD_CHUNKS.values()])
fields = st.one_of(
    number,
    st.just(GOOD_CODINGS["plain"]),
    st.sampled_from([*LENGTHS.values(), *GOOD_LENGTHS.values()]),
    st.sampled_from([*CODINGS.values(), *GOOD_CODINGS.values(), *OTHER_NAMES.values()]),
    st.sampled_from(
        [*HEADS.values(), b"X: y", b"Connection: close", b"Connection: keep-alive", b"Expect: 100-continue"]
    ),
)
starts = st.one_of(
    st.just(b"POST /v1/check HTTP/1.1"),
    st.sampled_from([b"GET /auth/nginx HTTP/1.1", b"GET /healthz HTTP/1.1", b"POST /v1/checks HTTP/1.1"]),
    st.sampled_from([*STARTS, *ELSEWHERE, b"POST /v1/check HTTP/1.0"]),
)
bodies = st.one_of(st.just(b"@"), st.sampled_from([b"", b"@ ", NOTHING, NOTHING + b"!", b"!"]), chunks)
"""`@` is a question, `!` a whole check."""
plans = st.lists(st.tuples(starts, st.lists(fields, min_size=1, max_size=3), bodies), min_size=1, max_size=3)


def built(words: Words, plan: tuple[bytes, list[bytes], bytes]) -> bytes:
    """A request as it is sent."""
    start, lines, said = plan
    size = b"%x" % len(words.body)
    body = said.replace(b"%x", size).replace(b"@", words.body).replace(b"!", words.check)
    length = b"%d" % len(body)
    return words.post(*(line.replace(b"@", length) for line in lines), body=body, start=start)


@pytest.mark.timeout(1200)
@examples(60, 20_000)
@given(plans=plans, places=st.lists(st.integers(0, 2_000), min_size=1, max_size=6))
async def test_both_lanes_see_the_same_requests_in_whatever_is_made_of_tricks(
    ground: Ground, plans: list[tuple[bytes, list[bytes], bytes]], places: list[int]
):
    """Request by request, in one packet, and cut somewhere: as aiohttp sees them when they come in one of these ways."""
    several = [*(built(ground.words, plan) for plan in plans), ground.check, LAST]
    whole = b"".join(several)
    known: dict[tuple[bytes, ...], Talk] = {}

    for pieces in (several, [whole], cut(whole, places)):
        fast = await ground.says(ground.both.fast, pieces)
        for way in ways(several, pieces):
            known[way] = known.get(way) or await ground.says(ground.both.plain, way)
            if alike(fast, known[way]):
                break
        else:
            plain = {(*talk.statuses, talk.closed, talk.decided) for talk in known.values()}
            pytest.fail(f"{fast.statuses} {fast.closed} {fast.decided} is none of {plain} for {pieces!r}")


def ways(several: Sequence[bytes], pieces: Sequence[bytes]) -> Iterator[tuple[bytes, ...]]:
    """As it came; with the first few requests by themselves, and the rest as it came, or at once; and head by head."""
    whole = b"".join(several)
    edges = list(itertools.accumulate(map(len, pieces)))
    yield tuple(pieces)
    for number in range(len(several), -1, -1):
        done = sum(map(len, several[:number]))
        places = sorted({done, len(whole), *(edge for edge in edges if edge > done)})
        yield (*several[:number], *(whole[start:end] for start, end in itertools.pairwise(places)))
        yield (*several[:number], whole[done:])
    yield tuple(each + b"\r\n\r\n" for each in whole.split(b"\r\n\r\n"))[:-1]
