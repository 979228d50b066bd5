"""Sessions that rest: given again as they were, and never what a change has undone."""

import random
from typing import Any
from uuid import UUID

import msgspec
import pytest

from accessguard.guard import cold as shelf
from accessguard.guard import memory as room
from accessguard.guard.cold import Cold, Rested
from accessguard.guard.memory import BEATEN, DEAD, EXEMPT, SEEN, STEADY, Held, Memory, Other
from accessguard.guard.model import Verdict
from accessguard.rules.model import Outcome
from tests.build import hold, number, policy, snapshot, stored_session

POLICY = policy()
BEGIN_MS = 1_795_314_521_000
DEVICE = msgspec.json.encode(UUID("0192b4f0-7c1d-7e55-9a53-3f0d9f2e8a11"))
REFUSAL = Other(verdict=Verdict(outcome=Outcome.DENY, session_id="s1"))


@pytest.fixture(autouse=True)
def one_hot(monkeypatch):
    """The session that was held last is an object, every other one rests."""
    monkeypatch.setattr(room, "MOST_HOT", 1)


def learned(memory: Memory, session_id: str, member: str = "ana", *, generation: int = 1, **more: Any) -> Held:
    """A verdict that is held, under the same policy as all others."""
    seen = snapshot(member, sessions=(stored_session(session_id),), generation=generation)
    given: dict[str, Any] = {"policy": POLICY, "until": BEGIN_MS}
    held = hold(memory, seen, session_id, **given | more)
    assert held is not None
    return held


def others(memory: Memory, count: int = 1) -> None:
    """Come between, so that whatever was held rests."""
    for each in range(count):
        learned(memory, f"other-{each}", f"somebody {each}")


def rested(member: str = "ana", *, until: int = BEGIN_MS) -> Rested:
    """A plain allow at rest."""
    return Rested(
        member_id=member, generation=1, open=1, policy=POLICY, asked=1, until=until, device=DEVICE, flags=0, rest=0
    )


@pytest.mark.parametrize("member", ["stu-1", 'a"b\\c', "Анна 🙂", "x" * 128])
@pytest.mark.parametrize("device", [DEVICE, b"null", msgspec.json.encode(number(0))])
@pytest.mark.parametrize("flags", [0, BEATEN | STEADY | EXEMPT | SEEN])
def test_a_session_that_rested_is_given_again_as_it_was(member, device, flags):
    """Nothing that an answer or a beat is made of is lost or altered."""
    memory = Memory()
    asked, until = -(2**63), BEGIN_MS + 17
    seen = snapshot(member, sessions=(stored_session("s/1"), stored_session("s2")), generation=2**40)
    hold(memory, seen, "s/1", policy=POLICY, asked=asked, until=until, device=device, flags=flags, rest=120)

    others(memory)
    again = memory.verdict("t", "s/1")

    assert again is not None
    assert again.policy is POLICY
    assert (again.asked, again.until, again.device, again.flags, again.rest) == (asked, until, device, flags, 120)
    assert (again.member.id, again.member.generation, again.member.open) == (member, 2**40, 2)
    assert again.other is None


def test_whoever_still_refers_to_a_session_that_rests_is_told():
    """A question known by its bytes, or a beat under way, must not use what can no longer be taken from it."""
    memory = Memory()
    before = learned(memory, "s1")

    others(memory)

    assert before.flags & DEAD
    assert memory.verdict("t", "s1") is not before


def test_a_refusal_does_not_rest():
    """It stands for half a minute at most; then PostgreSQL is asked in any case."""
    memory = Memory()
    learned(memory, "s1", other=REFUSAL)

    others(memory)

    assert memory.verdict("t", "s1") is None


def test_a_session_is_in_one_tier_only():
    """What rested before a newer verdict was made never comes back after it."""
    memory = Memory()
    learned(memory, "s1")
    others(memory)
    learned(memory, "s1", other=REFUSAL)

    others(memory, 2)

    assert memory.verdict("t", "s1") is None
    assert memory.size == 2


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda memory: memory.drop("t", "ana"), id="pushed"),
        pytest.param(lambda memory: memory.drop_older("t", "ana", 2), id="found by its generation"),
        pytest.param(lambda memory: memory.drop_all(), id="everything"),
    ],
)
def test_what_changed_while_a_session_rested_is_honoured(change):
    """The verdict is not given, and not later either."""
    memory = Memory()
    learned(memory, "s1")
    others(memory)

    change(memory)

    assert memory.verdict("t", "s1") is None
    assert memory.verdict("t", "s1") is None


def test_under_a_policy_that_was_replaced_nothing_is_found():
    """Until one of the new policy rests, a verdict names its own, which is compared when it is given."""
    memory = Memory()
    learned(memory, "s1")
    learned(memory, "s2", "ben", policy=policy())

    others(memory)
    learned(memory, "s3", "cem", policy=policy())

    assert memory.verdict("t", "s1") is None


def test_a_change_before_it_rested_is_none_after_it():
    """The member was read after that change."""
    memory = Memory()
    memory.drop("t", "ana")
    learned(memory, "s1", generation=2)

    others(memory)

    assert memory.verdict("t", "s1") is not None


def test_a_lost_message_is_found_even_where_another_session_of_the_member_is_newer():
    """The poll says a generation that one session has; the one that rests is older."""
    memory = Memory()
    learned(memory, "s1", generation=1)
    others(memory)
    learned(memory, "s2", generation=2)

    memory.drop_older("t", "ana", 2)
    others(memory)

    assert memory.verdict("t", "s1") is None


def test_a_session_that_rests_is_not_given_beside_a_newer_one_of_its_member():
    """They cannot both be true."""
    memory = Memory()
    learned(memory, "s1", generation=1)
    others(memory)

    learned(memory, "s2", generation=2)

    assert memory.verdict("t", "s1") is None


def test_a_session_that_is_used_does_not_rest_before_one_that_is_not(monkeypatch):
    """Its time has moved since it was held."""
    monkeypatch.setattr(room, "MOST_HOT", 2)
    memory = Memory()
    used, silent = learned(memory, "s1", "ana"), learned(memory, "s2", "ben")
    used.until += 30_000

    others(memory)

    assert not used.flags & DEAD
    assert silent.flags & DEAD


def test_when_all_sessions_are_used_the_oldest_rests(monkeypatch):
    """However many they are, few are looked at for one question."""
    monkeypatch.setattr(room, "MOST_HOT", 100)
    memory = Memory()
    held = [learned(memory, f"s{each}", f"m{each}") for each in range(100)]
    for each in held:
        each.until += 30_000

    others(memory)

    assert memory.hot == 100
    assert sum(bool(each.flags & DEAD) for each in held) == 1


def test_of_a_session_that_rests_no_member_is_known():
    """When no store answers, there is nothing to judge on: the tenant's choice decides. Its verdict is there."""
    memory = Memory()
    learned(memory, "s1")

    others(memory)

    assert memory.stale("t", "s1") is None
    assert memory.verdict("t", "s1") is not None


def test_a_session_that_rested_shares_its_member_with_the_others():
    """One that was looked at lately has the member for all of them."""
    memory = Memory()
    learned(memory, "s1")
    others(memory)
    seen = snapshot("ana", sessions=(stored_session("s1"), stored_session("s2")))
    hold(memory, seen, "s2")

    known = memory.stale("t", "s1")

    assert known == seen


def test_the_same_session_of_another_tenant_is_another():
    """Neither is its name."""
    cold = Cold()
    cold.put("a", "bc", rested())

    assert cold.take("ab", "c") is None
    assert cold.take("b", "bc") is None
    assert cold.take("a", "bc") == rested()


def test_what_rests_is_bounded_in_bytes_and_the_oldest_goes(monkeypatch):
    """However long the ids are."""
    monkeypatch.setattr(shelf, "PAGES", 4)
    cold = Cold()

    for each in range(1_000):
        cold.put("t", f"s{each}", rested("Ж" * 128))

    assert cold.size * 256 < 4 * shelf.MOST_OF_A_PAGE
    assert cold.take("t", "s0") is None
    assert cold.take("t", "s999") is not None


def test_what_was_silent_for_too_long_makes_way(monkeypatch):
    """It would be made anew if it were asked for."""
    monkeypatch.setattr(shelf, "PAGES", 1)
    cold = Cold()
    cold.put("t", "old", rested())
    cold.put("t", "young", rested(until=BEGIN_MS + 1))

    cold.put("t", "new", rested(until=BEGIN_MS + shelf.USEFUL_MS + 1))

    assert [cold.take("t", each) is None for each in ("old", "young", "new")] == [True, False, False]


def test_letting_go_takes_one_at_a_time():
    """From one page after the other."""
    cold = Cold()
    for each in range(10):
        cold.put("t", f"s{each}", rested())

    for _ in range(4):
        cold.shed()

    assert cold.size == 6
    assert sum(cold.take("t", f"s{each}") is not None for each in range(10)) == 6


def test_when_changes_can_be_numbered_no_further_all_is_forgotten(monkeypatch):
    """A number that begins again must not make an old verdict young."""
    monkeypatch.setattr(shelf, "MOST_CHANGES", 3)
    cold = Cold()
    for each in range(3):
        cold.drop("t", f"m{each}")
    cold.put("t", "s1", rested())

    cold.drop("t", "somebody else")

    assert cold.take("t", "s1") is None


def test_a_verdict_of_unusual_size_is_not_kept():
    """It is read anew, that is all."""
    cold = Cold()

    cold.put("t", "s1", msgspec.structs.replace(rested(), rest=1_000))

    assert cold.size == 0


@pytest.mark.parametrize("hot", [1, 2, 5])
@pytest.mark.parametrize("seed", range(20))
def test_no_verdict_outlives_what_it_depends_on(monkeypatch, hot, seed):
    """Whatever comes in whatever order: each verdict given is the last one made, of a member as last told of."""
    monkeypatch.setattr(room, "MOST_HOT", hot)
    monkeypatch.setattr(shelf, "BUCKETS", 8)
    chance, memory, given = random.Random(seed), Memory(), 0
    truth = dict.fromkeys("abc", 1)  # generation by member
    told = dict.fromkeys("abc", 1)  # the last that memory was told
    made: dict[str, int] = {}  # what was last asked, by session
    for step in range(600):
        member = chance.choice("abc")
        session_id = f"{member}{chance.randrange(3)}"
        act = chance.randrange(10)
        if act < 4:
            learned(memory, session_id, member, generation=truth[member], asked=step)
            made[session_id] = step
        elif act < 8:
            held = memory.verdict("t", session_id)
            given += held is not None
            assert held is None or (held.asked == made[session_id] and held.member.generation >= told[member])
        elif act == 8 and chance.random() < 0.3:
            truth[member] += 1
            if chance.random() < 0.5:
                memory.drop("t", member)
                told[member] = truth[member]
        elif act == 9:
            memory.drop_older("t", member, truth[member])
            told[member] = truth[member]
    assert given > 50
    assert memory.hot == sum(len(each.held) for each in memory.rooms.values()) <= hot
