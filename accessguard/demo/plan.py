"""From a seed to everything that is sent. Pure: the same seed and size give the same plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from accessguard.demo.model import DAY_S, Character, MarkRead, Person, Plan, Story
from accessguard.demo.people import dice, person
from accessguard.demo.places import UNWELCOME
from accessguard.demo.scribe import Scribe
from accessguard.demo.stories import TOLD, classroom, stranger, unknown_user

CLASS_SIZE: Final = 5
FEWEST: Final = 20  # one of each character, and a class
SHARED: Final = (Character.SHARED_ACCOUNT, Character.PRIVATE_WINDOWS, Character.EVICTED_RETURNS)

# How often each is met once there is one of each; most people are no story at all.
WEIGHTS: Final = {
    Character.ORDINARY: 50,
    Character.TWO_DEVICES: 22,
    Character.TWO_BROWSERS: 6,
    Character.OFFICE: 8,
    Character.TRAVELLER: 5,
    Character.SHARED_ACCOUNT: 3,
    Character.FORGETFUL: 6,
    Character.PRIVATE_WINDOWS: 2,
    Character.UPDATED_BROWSER: 5,
    Character.EVICTED_RETURNS: 3,
    Character.UNWELCOME_NETWORK: 2,
    Character.CLASSROOM: 2,
}

RULES: Final[tuple[dict[str, Any], ...]] = (
    {
        "kind": "ip_deny",
        "name": "Networks that are closed out",
        "mode": "enforce",
        "params": {"networks": list(UNWELCOME)},
    },
    {
        "kind": "session_limit",
        "name": "Two places at once",
        "mode": "enforce",
        "action": "evict_oldest",
        "params": {"max": 2, "window_s": 1800},
    },
    {
        "kind": "device_limit",
        "name": "Three devices in thirty days",
        "mode": "enforce",
        "action": "deny_new",
        "params": {"max": 3, "window_days": 30},
    },
    {
        "kind": "device_limit",
        "name": "Trying out: would two devices be enough?",
        "mode": "observe",
        "action": "deny_new",
        "params": {"max": 2, "window_days": 30},
    },
)


def make(*, members: int, seed: int) -> Plan:
    """Everything that a day with this many members (FEWEST or more) sends."""
    if members < FEWEST:
        raise ValueError(f"a day has {FEWEST} members or more")
    stories: list[Story] = []
    people: list[Person] = []
    for character, numbers in _cast(members, seed):
        crowd = [person(seed, number, staff=character is Character.STAFF) for number in numbers]
        people += crowd
        stories.append(_story(seed, character, crowd))
    stories += _outsiders(seed, people)
    return Plan(seed=seed, rules=RULES, people=tuple(people), stories=tuple(stories), evening=_evening(stories))


def _cast(members: int, seed: int) -> Iterator[tuple[Character, Sequence[int]]]:
    """Who plays what: each character once, then by weight; the numbers of the members it takes."""
    chance = dice(seed, "cast")
    firsts = [Character.CLASSROOM, *TOLD]
    left = range(1, members + 1)
    while left:
        drawn = firsts.pop(0) if firsts else chance.choices(list(WEIGHTS), weights=list(WEIGHTS.values()))[0]
        size = CLASS_SIZE if drawn is Character.CLASSROOM else 1
        yield drawn, left[:size]
        left = left[size:]


def _story(seed: int, character: Character, crowd: Sequence[Person]) -> Story:
    chance = dice(seed, "story", crowd[0].member_id)
    members = tuple(each.member_id for each in crowd)
    if character is Character.CLASSROOM:
        return Story(character=character, members=members, steps=classroom(chance, crowd))
    scribe = Scribe(chance, crowd[0])
    TOLD[character](scribe)
    return Story(character=character, members=members, steps=tuple(scribe.steps))


def _outsiders(seed: int, people: Sequence[Person]) -> Iterator[Story]:
    """People who are no members: visitors, and one who guesses passwords."""
    for number in range(1, 2 + len(people) // 60):
        steps = unknown_user(dice(seed, "visitor", number), number)
        yield Story(character=Character.UNKNOWN_USER, members=(), steps=steps)
    steps = stranger(dice(seed, "stranger"), people, tries=30 + len(people) // 10)
    yield Story(character=Character.STRANGER, members=(), steps=steps)


def _evening(stories: Sequence[Story]) -> tuple[MarkRead, ...]:
    """Support reads about every second one of the accounts with something to read."""
    found = [member for story in stories if story.character in SHARED for member in story.members]
    return tuple(MarkRead(at_s=DAY_S - 1, member_id=member) for member in found[::2])
