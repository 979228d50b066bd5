"""What a worker holds, and how it forgets."""

import pytest

from accessguard.guard import memory as room
from accessguard.guard.memory import Held, Memory
from accessguard.guard.model import Check, Verdict
from accessguard.rules.model import Activity, Outcome
from tests.build import policy, rule, snapshot, stored_session

POLICY = policy()
ASKED = Check(session_id="s1", ip="203.0.113.9", user_agent="x", device_token="d")


def held(asked: Check = ASKED, *, of=POLICY, beat_at: int = 40, until: int = 100) -> Held:
    """A verdict on `asked`; times in ms."""
    return Held.of(Verdict(outcome=Outcome.ALLOW, session_id="s1"), of, asked, beat_at=beat_at, until=until)


def learned(memory: Memory, name: str = "ana", *sessions: str, generation: int = 1):
    """A member in memory, with these sessions or `s1`."""
    made = tuple(stored_session(each) for each in sessions or ("s1",))
    return memory.learn(snapshot(name, sessions=made, generation=generation), memory.moment() + 1)


@pytest.mark.parametrize(
    ("asked", "now", "fits"),
    [
        pytest.param(ASKED, 99, True, id="the same"),
        pytest.param(ASKED, 100, False, id="over"),
        pytest.param(
            Check(session_id="s1", ip="203.0.113.8", user_agent="x", device_token="d"), 0, False, id="address"
        ),
        pytest.param(
            Check(session_id="s1", ip="203.0.113.9", user_agent="y", device_token="d"), 0, False, id="browser"
        ),
        pytest.param(Check(session_id="s1", ip="203.0.113.9", user_agent="x"), 0, False, id="no device token"),
        pytest.param(
            Check(session_id="s1", ip="203.0.113.9", user_agent="x", device_token="d", activity=Activity.LESSON_OPEN),
            39,
            True,
            id="an interaction before the beat",
        ),
        pytest.param(
            Check(session_id="s1", ip="203.0.113.9", user_agent="x", device_token="d", activity=Activity.LESSON_OPEN),
            40,
            False,
            id="an interaction at the beat",
        ),
        pytest.param(
            Check(session_id="s1", ip="203.0.113.9", user_agent="x", device_token="d", product_id="p"),
            0,
            True,
            id="a product nobody looks at",
        ),
    ],
)
def test_a_verdict_holds_for_the_same_question_only(asked, now, fits):
    """Whatever it depends on ends it."""
    assert held().fits(asked, now) is fits


def test_a_product_matters_where_a_rule_looks_at_it():
    """The verdict then holds for one product alone."""
    scoped = policy(rule("session_limit", params={"max": 1}, applies_to={"products": ["p"]}))
    other = Check(session_id="s1", ip="203.0.113.9", user_agent="x", device_token="d", product_id="p")

    assert held(of=scoped).fits(other, 0) is False


def test_a_drop_forgets_the_member_its_verdicts_and_nothing_else():
    """The next check of one of its sessions starts anew; another member's does not."""
    memory = Memory()
    ana, ben = learned(memory, "ana", "s1", "s2"), learned(memory, "ben", "s3")
    kept = held()
    memory.hold("t", ana, "s1", kept)
    memory.hold("t", ben, "s3", held())

    memory.drop("t", "ana")

    assert [memory.verdict("t", each) is None for each in ("s1", "s2", "s3")] == [True, True, False]
    assert [memory.known("t", each) is None for each in ("s1", "s2", "s3")] == [True, True, False]
    assert kept.alive is False


def test_the_same_member_of_another_tenant_is_somebody_else():
    """Nothing is shared between two tenants."""
    memory = Memory()
    known = learned(memory)
    memory.hold("t", known, "s1", held())

    memory.drop("other", "ana")

    assert memory.verdict("t", "s1") is not None
    assert memory.verdict("other", "s1") is None


def test_what_was_asked_for_before_a_drop_is_not_learned_after_it():
    """The snapshot may be older than the change."""
    memory = Memory()
    since = memory.moment() + 1
    memory.drop("t", "ana")

    late = memory.learn(snapshot(sessions=(stored_session(),)), since)
    again = memory.learn(snapshot(sessions=(stored_session(),)), memory.moment() + 1)

    assert late is None
    assert again is not None
    assert memory.known("t", "s1") is again


def test_what_was_asked_for_before_everything_was_dropped_is_not_learned_after_it():
    """Nobody knows which change was missed while the channel was away, so every load under way may be old."""
    memory = Memory()
    since = memory.moment() + 1
    memory.drop_all()

    assert memory.learn(snapshot(sessions=(stored_session(),)), since) is None


def test_a_drop_is_remembered_however_many_come_after_it(monkeypatch):
    """A slow load is refused even when the list of drops has overflowed meanwhile."""
    monkeypatch.setattr(room, "MOST_UNKNOWN", 100)
    memory = Memory()
    since = memory.moment() + 1
    memory.drop("t", "ana")
    for each in range(500):
        memory.drop("t", f"somebody {each}")

    assert memory.learn(snapshot(sessions=(stored_session(),)), since) is None


def test_a_verdict_made_on_what_was_dropped_is_not_kept():
    """The member was changed while its check was judged."""
    memory = Memory()
    known = learned(memory)
    memory.drop("t", "ana")

    memory.hold("t", known, "s1", held())

    assert memory.verdict("t", "s1") is None


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
    since = memory.moment() + 1

    memory.drop_older("t", "ana", 5)

    assert memory.learn(snapshot(sessions=(stored_session(),), generation=4), since) is None


def test_without_the_channel_nothing_is_trusted_but_all_is_there_for_an_emergency():
    """Verdicts and members are asked for anew; the last state serves when no store answers."""
    memory = Memory()
    known = learned(memory)
    memory.hold("t", known, "s1", held())
    memory.learn_unknown("t", "nobody", 0)

    memory.trusted = False

    assert memory.verdict("t", "s1") is None
    assert memory.known("t", "s1") is None
    assert memory.unknown("t", "nobody", 1) is False
    assert memory.stale("t", "s1") is known


def test_an_unknown_session_is_remembered_for_two_seconds_unless_it_begins():
    """A login that opens it takes the memory away at once."""
    memory = Memory()
    memory.learn_unknown("t", "s1", 1_000)
    memory.learn_unknown("t", "s2", 1_000)

    memory.drop("t", "ana", ["s1"])

    assert memory.unknown("t", "s1", 1_001) is False
    assert [memory.unknown("t", "s2", now) for now in (2_999, 3_000)] == [True, False]


def test_memory_is_bounded_and_forgets_the_oldest(monkeypatch):
    """However many members, verdicts and unknown sessions come by."""
    for name in ("MOST_SESSIONS", "MOST_MEMBERS", "MOST_UNKNOWN"):
        monkeypatch.setattr(room, name, 100)
    memory = Memory()

    for each in range(1_000):
        known = learned(memory, f"m{each}", f"s{each}")
        memory.hold("t", known, f"s{each}", held())
        memory.learn_unknown("t", f"u{each}", 0)
        memory.drop("t", f"d{each}")

    assert memory.size <= 100
    assert all(len(each) <= 100 for each in (memory._members, memory._owners, memory._unknown, memory._drops))
    assert memory.verdict("t", "s999") is not None
    assert memory.known("t", "s0") is None


def test_a_member_learned_again_loses_its_old_verdicts():
    """They were made on the snapshot before."""
    memory = Memory()
    memory.hold("t", learned(memory), "s1", held())

    learned(memory, generation=2)

    assert memory.verdict("t", "s1") is None
    known = memory.known("t", "s1")
    assert known is not None
    assert known.snapshot.generation == 2


def test_a_session_that_has_left_its_member_is_no_longer_found():
    """What the newer snapshot does not hold, memory does not either."""
    memory = Memory()
    learned(memory, "ana", "s1", "s2")

    learned(memory, "ana", "s2", generation=2)

    assert memory.known("t", "s1") is None
    assert memory.known("t", "s2") is not None
