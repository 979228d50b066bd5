"""What a worker holds, and how it forgets."""

import msgspec
import pytest

from accessguard.api.checks import plainly
from accessguard.api.wire import check_reply
from accessguard.guard import memory as room
from accessguard.guard import recent
from accessguard.guard.memory import EXEMPT, Memory, asked_of
from accessguard.guard.model import Check, Verdict
from accessguard.rules.model import Activity, Outcome
from tests.build import hold, policy, rule, snapshot, stored_session

ASKED = Check(session_id="s1", ip="203.0.113.9", user_agent="x", device_token="d")


@pytest.fixture(autouse=True, params=[pytest.param(room.MOST_HOT, id="all hot"), 3, 1])
def hot(request, monkeypatch):
    """How many sessions are objects; the others rest, and nobody may notice."""
    monkeypatch.setattr(room, "MOST_HOT", request.param)
    return request.param


def learned(memory: Memory, name: str = "ana", *sessions: str, generation: int = 1, since: int | None = None):
    """A member in memory with a verdict on each of these sessions, or on `s1`."""
    ids = sessions or ("s1",)
    seen = snapshot(name, sessions=tuple(stored_session(each) for each in ids), generation=generation)
    return [hold(memory, seen, each, since=since) for each in ids]


@pytest.mark.parametrize(
    ("more", "same"),
    [
        pytest.param({}, True, id="the same"),
        pytest.param({"ip": "203.0.113.8"}, False, id="address"),
        pytest.param({"user_agent": "y"}, False, id="browser"),
        pytest.param({"device_token": None}, False, id="no device token"),
        pytest.param({"activity": Activity.LESSON_OPEN}, True, id="what is only recorded"),
        pytest.param({"resource": "course:1"}, True, id="a resource"),
        pytest.param({"product_id": "p"}, True, id="a product nobody looks at"),
    ],
)
def test_a_verdict_is_about_the_same_question_only(more, same):
    """Whatever it depends on makes it another."""
    other = msgspec.structs.replace(ASKED, **more)

    assert (asked_of(other, policy()) == asked_of(ASKED, policy())) is same


def test_a_product_matters_where_a_rule_looks_at_it():
    """The verdict then holds for one product alone."""
    scoped = policy(rule("session_limit", params={"max": 1}, applies_to={"products": ["p"]}))
    other = msgspec.structs.replace(ASKED, product_id="p")

    assert asked_of(other, scoped) != asked_of(ASKED, scoped)


@pytest.mark.parametrize("name", ["stu-1", 'a"b\\c', "Анна 🙂", "\u2028/%"])
@pytest.mark.parametrize("exempt", [False, True])
def test_a_plain_allow_reads_as_the_whole_answer_would(name, exempt):
    """Its bytes are put together from three ids, and are those of the encoder."""
    memory = Memory()
    seen = snapshot(name, sessions=(stored_session("s/1"),))
    device = seen.sessions[0].device_id
    held = hold(memory, seen, "s/1", device=msgspec.json.encode(device), flags=EXEMPT if exempt else 0)
    assert held is not None

    verdict = Verdict(
        outcome=Outcome.ALLOW, session_id="s/1", member_id=name, device_id=device, exempt=exempt, ttl_ms=5_000
    )

    assert plainly(held, "s/1") == msgspec.json.encode(check_reply(verdict, explain=False))


def test_a_drop_forgets_the_member_its_verdicts_and_nothing_else():
    """The next check of one of its sessions starts anew; another member's does not."""
    memory = Memory()
    learned(memory, "ana", "s1", "s2")
    learned(memory, "ben", "s3")

    memory.drop("t", "ana")

    assert [memory.verdict("t", each) is None for each in ("s1", "s2", "s3")] == [True, True, False]
    assert [memory.known("t", each) is None for each in ("s1", "s2", "s3")] == [True, True, False]
    assert memory.size == 1


def test_the_same_member_of_another_tenant_is_somebody_else():
    """Nothing is shared between two tenants."""
    memory = Memory()
    learned(memory)

    memory.drop("other", "ana")

    assert memory.verdict("t", "s1") is not None
    assert memory.verdict("other", "s1") is None


def test_what_was_read_before_a_drop_is_not_held_after_it():
    """The snapshot may be older than the change."""
    memory = Memory()
    since = memory.moment()
    memory.drop("t", "ana")

    (late,) = learned(memory, since=since)
    (again,) = learned(memory)

    assert late is None
    assert again is not None
    assert memory.verdict("t", "s1") is again


def test_what_was_read_before_everything_was_dropped_is_not_held_after_it():
    """Nobody knows which change was missed while the channel was away, so every load under way may be old."""
    memory = Memory()
    since = memory.moment()
    memory.drop_all()

    assert learned(memory, since=since) == [None]


def test_a_drop_is_remembered_however_many_come_after_it(monkeypatch):
    """A slow load is refused even when the list of drops has overflowed meanwhile."""
    monkeypatch.setattr(recent, "MOST_UNKNOWN", 100)
    memory = Memory()
    since = memory.moment()
    memory.drop("t", "ana")
    for each in range(500):
        memory.drop("t", f"somebody {each}")

    assert learned(memory, since=since) == [None]


@pytest.mark.parametrize(
    ("generation", "gone"),
    [pytest.param(5, True, id="newer"), pytest.param(4, False, id="the one held"), pytest.param(3, False, id="older")],
)
def test_a_member_is_dropped_for_a_newer_generation_only(generation, gone):
    """What is held already is not loaded again."""
    memory = Memory()
    learned(memory, generation=4)

    forgot = memory.drop_older("t", "ana", generation)

    assert forgot is gone
    assert (memory.known("t", "s1") is None) is gone


def test_a_generation_heard_of_during_a_load_makes_it_old():
    """The poll may come before the snapshot that it is about."""
    memory = Memory()
    since = memory.moment()

    memory.drop_older("t", "ana", 5)

    assert learned(memory, generation=4, since=since) == [None]


def test_without_the_channel_nothing_is_trusted_but_all_is_there_for_an_emergency():
    """Verdicts and members are asked for anew; the last state serves when no store answers."""
    memory = Memory()
    learned(memory)
    memory.learn_unknown("t", "nobody", 0)

    memory.trusted = False

    assert memory.verdict("t", "s1") is None
    assert memory.known("t", "s1") is None
    assert memory.unknown("t", "nobody", 1) is False
    stale = memory.stale("t", "s1")
    assert stale is not None
    assert stale.member_id == "ana"


def test_an_unknown_session_is_remembered_for_two_seconds_unless_it_begins():
    """A login that opens it takes the memory away at once."""
    memory = Memory()
    memory.learn_unknown("t", "s1", 1_000)
    memory.learn_unknown("t", "s2", 1_000)

    memory.drop("t", "ana", ["s1"])

    assert memory.unknown("t", "s1", 1_001) is False
    assert [memory.unknown("t", "s2", now) for now in (2_999, 3_000)] == [True, False]


@pytest.mark.parametrize("tenants", [pytest.param(1, id="one tenant"), pytest.param(7, id="seven tenants")])
def test_memory_is_bounded_and_forgets_the_oldest(monkeypatch, tenants, hot):
    """However many members, verdicts and unknown sessions come by."""
    for name in ("MOST_SESSIONS", "MOST_SNAPSHOTS", "MOST_UNKNOWN"):
        monkeypatch.setattr(room, name, 100)
    monkeypatch.setattr(recent, "MOST_UNKNOWN", 100)
    monkeypatch.setattr(room, "MOST_HOT", min(hot, 50))
    memory = Memory()

    for each in range(1_000):
        seen = snapshot(f"m{each}", sessions=(stored_session(f"s{each}"),), tenant=f"t{each % tenants}")
        hold(memory, seen, f"s{each}")
        memory.learn_unknown("t0", f"u{each}", 0)
        memory.drop("t0", f"d{each}")

    rooms = memory.rooms.values()
    assert memory.size == 100
    assert memory.hot == sum(len(each.held) for each in rooms) <= hot
    assert sum(len(each.members) for each in rooms) <= hot
    assert sum(each.packed is not None for place in rooms for each in place.members.values()) <= hot
    assert len(memory._unknown) <= 100
    assert len(memory._drops) <= 100
    assert memory.verdict(f"t{999 % tenants}", "s999") is not None
    assert memory.known("t0", "s0") is None


def test_a_snapshot_goes_before_its_verdict(monkeypatch):
    """The verdict serves on; where it no longer does, PostgreSQL is asked."""
    monkeypatch.setattr(room, "MOST_SNAPSHOTS", 10)
    monkeypatch.setattr(room, "MOST_HOT", 20)
    memory = Memory()

    for each in range(20):
        learned(memory, f"m{each}", f"s{each}")

    assert memory.verdict("t", "s0") is not None
    assert memory.known("t", "s0") is None
    assert memory.known("t", "s19") is not None


def test_a_member_seen_again_at_a_newer_generation_loses_its_old_verdicts():
    """They were made on the snapshot before."""
    memory = Memory()
    learned(memory, "ana", "s1", "s2")

    learned(memory, "ana", "s2", generation=2)

    assert memory.verdict("t", "s1") is None
    known = memory.known("t", "s2")
    assert known is not None
    assert known.generation == 2
