"""The plan of a day, before anything is sent."""

import ipaddress
from collections.abc import Iterator

import pytest

from accessguard.demo.model import Ask, AskTogether, Block, Browser, Character, Plan, SignIn, Step, SwitchOff
from accessguard.demo.people import languages
from accessguard.demo.plan import FEWEST, make

DOCUMENTATION = [
    ipaddress.ip_network(each) for each in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]


def each_step(plan: Plan) -> Iterator[Step]:
    """Every step, with what is asked together taken apart."""
    for story in plan.stories:
        for step in story.steps:
            yield from step.asks if isinstance(step, AskTogether) else (step,)


def told(plan: Plan, character: Character) -> tuple[Step, ...]:
    """The steps of the first story of that character."""
    return next(story.steps for story in plan.stories if story.character is character)


def browsers(steps: tuple[Step, ...]) -> list[Browser]:
    """The browsers of the sign-ins, in order."""
    return [step.browser for step in steps if isinstance(step, SignIn)]


def test_the_same_seed_makes_the_same_day():
    """Whoever reports what a day showed can be followed step by step."""
    assert make(members=60, seed=7) == make(members=60, seed=7)


def test_another_seed_makes_another_day():
    """Other people, other steps."""
    one, other = make(members=60, seed=7), make(members=60, seed=8)

    assert not {each.member_id for each in one.people} & {each.member_id for each in other.people}
    assert [story.steps for story in one.stories] != [story.steps for story in other.stories]


def test_more_members_leave_the_first_ones_as_they_are():
    """A larger day of the same seed only adds people."""
    small, large = make(members=40, seed=1), make(members=80, seed=1)

    assert large.people[:35] == small.people[:35]


@pytest.mark.parametrize("members", [pytest.param(FEWEST, id="the fewest"), pytest.param(300, id="the default")])
def test_every_character_appears(members):
    """The smallest day has somebody of each kind to look at."""
    plan = make(members=members, seed=1)

    assert {story.character for story in plan.stories} == set(Character)
    assert len(plan.people) == members
    assert len({each.member_id for each in plan.people}) == members


def test_addresses_are_of_documentation_networks_alone():
    """Nobody's real address is ever in a demonstration (RFC 5737, RFC 3849)."""
    plan = make(members=300, seed=3)

    found = {ipaddress.ip_address(step.ip) for step in each_step(plan) if isinstance(step, SignIn | Ask)}

    assert not [each for each in found if not any(each in network for network in DOCUMENTATION)]
    assert {each.version for each in found} == {4, 6}


def test_names_are_of_every_language_and_addresses_of_reserved_domains():
    """Accents and scripts of all sorts are there, and no mail could ever reach anybody (RFC 2606)."""
    plan = make(members=100, seed=1)

    assert {each.locale for each in plan.people} == {each.locale for each in languages()}
    assert all(each.email.isascii() for each in plan.people)
    assert {each.email.partition("@")[2] for each in plan.people} == {"example.com", "example.org", "example.net"}


def test_no_story_goes_back_in_time():
    """Steps are sent in the order they stand in, within one day."""
    for story in make(members=300, seed=2).stories:
        times = [step.at_s for step in story.steps]

        assert times == sorted(times), story.character
        assert times[-1] < 86_400


def test_an_updated_browser_keeps_its_cookies():
    """One jar, two versions: the service is to see one device."""
    before, after = browsers(told(make(members=FEWEST, seed=1), Character.UPDATED_BROWSER))

    assert before.key == after.key
    assert before.user_agent != after.user_agent


def test_every_private_window_has_cookies_of_its_own():
    """That is what makes each of them a new device."""
    windows = browsers(told(make(members=FEWEST, seed=1), Character.PRIVATE_WINDOWS))

    assert len({each.key for each in windows}) == len(windows) > 3
    assert all(each.private for each in windows)


def test_a_shared_account_is_more_people_than_it_may_be():
    """Four browsers in four places, against rules of two sessions and three devices."""
    steps = told(make(members=FEWEST, seed=1), Character.SHARED_ACCOUNT)

    assert len({each.key for each in browsers(steps)}) == 4
    assert len({step.ip for step in steps if isinstance(step, SignIn)}) == 4


def test_support_blocks_a_device_and_switches_checks_off():
    """What operators do is part of the day."""
    plan = make(members=FEWEST, seed=1)

    assert any(isinstance(step, Block) for step in told(plan, Character.STOLEN_LAPTOP))
    assert isinstance(told(plan, Character.CHECKS_OFF)[0], SwitchOff)
    assert plan.evening


def test_strangers_only_fail():
    """Nobody who guesses gets a session."""
    steps = told(make(members=FEWEST, seed=1), Character.STRANGER)

    assert all(isinstance(step, SignIn) and step.failure_reason for step in steps)
    assert {step.member_id is None for step in steps if isinstance(step, SignIn)} == {True, False}


def test_a_day_of_too_few_is_refused():
    """Below the number of characters there is no day."""
    with pytest.raises(ValueError, match="20 members"):
        make(members=FEWEST - 1, seed=1)
