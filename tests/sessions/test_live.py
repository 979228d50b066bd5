"""Live state in Valkey: the heartbeat's script, and what brings it up to date."""

from __future__ import annotations

import asyncio

import pytest

from accessguard.errors import ErrorCode, GuardError
from accessguard.sessions.live import KEY_LIFE_S, RENEWED_MS, TICK, Live, Ticked, key
from tests.sessions.topology import own_cluster

T0 = 1_795_000_000_000


@pytest.fixture(scope="module")
async def cluster_url(tmp_path_factory):
    """The address of a cluster of three nodes."""
    async with own_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made.url


@pytest.fixture(params=["server", "cluster"])
async def live(request, redis_url, cluster_url):
    """A client of the run's Valkey, and one of a cluster."""
    made = Live.connect(redis_url if request.param == "server" else cluster_url, timeout_s=2)
    await made.ping()
    yield made
    await made.close()


@pytest.fixture
def member(tenant):
    """A tenant that is nobody else's, and one of its members."""
    return tenant.name, "ana"


async def moves(live, member, *steps, known=0):
    """Whether each pulse at T0 plus so many ms moved last activity."""
    return [(await live.pulse(*member, "s1", now_ms=T0 + step, known_ms=known)).moved for step in steps]


@pytest.mark.parametrize(
    ("steps", "moved"),
    [
        pytest.param([0], [True], id="first"),
        pytest.param([0, 29_999], [True, False], id="29.999 s later"),
        pytest.param([0, 30_000], [True, True], id="exactly 30 s later"),
        pytest.param([0, 29_999, 30_000], [True, False, True], id="a suppressed one does not stretch the window"),
        pytest.param([60_000, 0, 89_999, 90_000], [True, False, False, True], id="never back"),
    ],
)
async def test_the_beat_moves_at_most_once_in_thirty_seconds(live, member, steps, moved):
    """To the millisecond, and only forward."""
    assert await moves(live, member, *steps) == moved


async def test_what_the_caller_knows_counts_too(live, member):
    """After a flush of Valkey the 30 s go on from what PostgreSQL has."""
    moved = await moves(live, member, 29_999, 30_000, known=T0)

    assert moved == [False, True]


async def test_a_beat_tells_what_was_before_and_who_else_is_there(live, member):
    """The first one finds nothing, so the caller knows that this is not all there is."""
    first = await live.pulse(*member, "s1", now_ms=T0, known_ms=0)
    second = await live.pulse(*member, "s2", now_ms=T0 + 5, known_ms=T0 - 60_000)
    third = await live.pulse(*member, "s1", now_ms=0, known_ms=0)

    assert (first.cold, first.before_ms, first.live) == (True, 0, {})
    assert (second.cold, second.before_ms, second.live) == (False, T0 - 60_000, {"s1": T0})
    assert (third.moved, third.cold, third.before_ms) == (False, False, T0)
    assert third.live == {"s1": T0, "s2": T0 + 5}


async def test_a_look_moves_nothing(live, member):
    """However late it comes."""
    look = await live.pulse(*member, "s1", now_ms=0, known_ms=0)

    assert (look.moved, look.cold) == (False, True)
    assert (await live.pulse(*member, "s1", now_ms=T0, known_ms=0)).moved is True


async def test_of_many_at_one_instant_one_moves(live, member):
    """Fifty workers with the same interaction."""
    pulses = await asyncio.gather(*(live.pulse(*member, "s1", now_ms=T0, known_ms=0) for _ in range(50)))

    assert sum(pulse.moved for pulse in pulses) == 1


async def test_a_seed_goes_forward_only_and_takes_the_ended_away(live, member):
    """Whatever PostgreSQL had when it was asked, a beat since then stays."""
    for session in ("s1", "s2", "s3"):
        await live.pulse(*member, session, now_ms=T0, known_ms=0)

    await live.seed(*member, {"s1": T0 - 1, "s2": T0 + 1, "s4": 5}, ended=["s3", "never"])

    look = await live.pulse(*member, "s1", now_ms=0, known_ms=0)
    assert look.live == {"s1": T0, "s2": T0 + 1, "s4": 5}


@pytest.mark.parametrize(
    ("before", "left"), [pytest.param(T0 - 40_000, {"s1": T0 - 40_000}, id="some"), pytest.param(0, {}, id="none")]
)
async def test_a_beat_that_was_refused_is_taken_back(live, member, before, left):
    """The next one that is allowed is due at once."""
    pulse = await live.pulse(*member, "s1", now_ms=T0, known_ms=before)

    await live.take_back(*member, "s1", pulse.before_ms)

    look = await live.pulse(*member, "s1", now_ms=0, known_ms=0)
    assert look.live == left


async def test_a_beat_keeps_its_kind_where_that_matters(live, member):
    """The last one's, whose the beat was; an interaction within the 30 s changes nothing, a look tells."""
    steps = [("s1", 0, "lesson_open"), ("s2", 1, "video_watch"), ("s1", 5, "video_watch"), ("s1", 30_000, "offer_open")]

    pulses = [await live.pulse(*member, name, now_ms=T0 + at, known_ms=0, kind=kind) for name, at, kind in steps]
    look = await live.pulse(*member, "s1", now_ms=0, known_ms=0, kind="")

    assert [pulse.moved for pulse in pulses] == [True, True, False, True]
    assert [pulse.kinds.get("s1") for pulse in pulses] == [None, "lesson_open", "lesson_open", "lesson_open"]
    assert look.kinds == {"s1": "offer_open", "s2": "video_watch"}


@pytest.mark.parametrize("before", ["lesson_open", ""])
async def test_a_refused_beat_gives_its_kind_back(live, member, before):
    """The one before, or none."""
    if before:
        await live.pulse(*member, "s1", now_ms=T0, known_ms=0, kind=before)
    pulse = await live.pulse(*member, "s1", now_ms=T0 + 30_000, known_ms=0, kind="video_watch")

    await live.take_back(*member, "s1", pulse.before_ms, kind=before)

    look = await live.pulse(*member, "s1", now_ms=0, known_ms=0, kind="")
    assert look.kinds == ({"s1": before} if before else {})


async def test_the_kind_of_an_ended_session_goes_with_the_next_beat(live, member):
    """And both keys with the member."""
    for name in ("s1", "s2"):
        await live.pulse(*member, name, now_ms=T0, known_ms=0, kind="video_watch")
    live.forget(*member, ("s1",))

    await live.pulse(*member, "s2", now_ms=T0 + 30_000, known_ms=0, kind="video_watch")

    look = await live.pulse(*member, "s2", now_ms=0, known_ms=0, kind="")
    assert (look.live, look.kinds) == ({"s2": T0 + 30_000}, {"s2": "video_watch"})
    assert 0 < await live._call("TTL", key(*member).removesuffix("live") + "kinds") <= KEY_LIFE_S


async def test_a_member_that_stays_away_is_forgotten(live, member):
    """Each key lives for a day after its last beat."""
    await live.pulse(*member, "s1", now_ms=T0, known_ms=0)

    left = await live._call("TTL", key(*member))

    assert KEY_LIFE_S - 60 < left <= KEY_LIFE_S


@pytest.mark.parametrize(
    ("later_ms", "renewed"),
    [
        pytest.param(30_000, False, id="in the same hour"),
        pytest.param(RENEWED_MS, True, id="in the next one"),
    ],
)
async def test_a_beat_of_each_hour_begins_the_life_of_its_key_anew(live, member, later_ms, renewed):
    """The first one does, and so does the first of every session; the others save Valkey the command."""
    hour = T0 - T0 % RENEWED_MS
    await ticked(live, member, hour)
    await live._call("EXPIRE", key(*member), 100)

    await ticked(live, member, hour + later_ms)

    left = await live._call("TTL", key(*member))
    assert (left > KEY_LIFE_S - 60) is renewed


async def test_the_first_beat_of_a_key_gives_it_a_life(live, member):
    """So that no key stays for ever."""
    await ticked(live, member, T0)

    assert KEY_LIFE_S - 60 < await live._call("TTL", key(*member)) <= KEY_LIFE_S


async def ticked(live, member, now_ms):
    """A beat of the member's only session that moved last activity."""
    heard = asyncio.get_running_loop().create_future()
    await live._call("SCRIPT", "LOAD", TICK.text)
    live.tick(*member, "s1", (now_ms, 0, 1), heard.set_result)
    assert live.ticked(await heard)[0] is Ticked.MOVED


async def test_scripts_come_back_after_valkey_has_forgotten_them(live, member):
    """A restart, or somebody's SCRIPT FLUSH, costs one more call."""
    await live.pulse(*member, "s1", now_ms=T0, known_ms=0)
    await live._call("SCRIPT", "FLUSH")

    pulse = await live.pulse(*member, "s1", now_ms=T0 + 30_000, known_ms=0)
    await live.seed(*member, {"s2": T0})

    assert (pulse.moved, pulse.before_ms) == (True, T0)


async def test_two_members_never_share_a_key(live):
    """Whatever their ids are made of; all keys of one are on one node of a cluster."""
    keys = {key(*pair) for pair in [("a:b", "c"), ("a", "b:c"), ("1:a", "b"), ("1", "1:a:b")]}

    assert len(keys) == 4
    assert all(each.startswith("ag:{") and each.endswith("}:live") for each in keys)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda live: live.pulse("t", "m", "s", now_ms=1, known_ms=0), id="pulse"),
        pytest.param(lambda live: live.seed("t", "m", {"s": 1}), id="seed"),
        pytest.param(lambda live: live.take_back("t", "m", "s", 0), id="take back"),
        pytest.param(lambda live: live.ping(), id="ping"),
    ],
)
async def test_without_valkey_every_call_says_so_soon(call, tmp_path):
    """In the time it was given, and as something a caller can act on."""
    nowhere = Live.connect(f"unix://{tmp_path}/nothing.sock", timeout_s=0.1)

    async with asyncio.timeout(2):
        with pytest.raises(GuardError) as refused:
            await call(nowhere)
    await nowhere.close()

    assert refused.value.code is ErrorCode.UNAVAILABLE
