"""Copied sessions."""

from datetime import timedelta

import msgspec
import pytest

from accessguard.rules.copy import copied_session
from accessguard.rules.engine import judge
from accessguard.rules.model import CopiedSession, Effect, Outcome, Signal, Stage
from tests.build import NOW, device, facts, host, network, number, rule, rules, session

CHROME = device(1, browser="Chrome", os="Windows")
BROWSER = CopiedSession(signal=Signal.BROWSER)
NETWORK = CopiedSession(signal=Signal.NETWORK)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("browser", "os", "found"),
    [
        pytest.param("Chrome", "Windows", False, id="the same"),
        pytest.param("Firefox", "Windows", True, id="another browser"),
        pytest.param("Chrome", "Linux", True, id="another system"),
        pytest.param(None, None, False, id="unknown now"),
        pytest.param("Other", "Windows", False, id="browser not recognised"),
    ],
)
def test_one_session_in_two_browsers_is_copied(browser, os, found):
    """L38: families of browser and system are compared, never a version, and what is unknown never differs."""
    asked = facts(device=CHROME, session=session(device_id=number(1)), browser=browser, os=os)

    assert (copied_session(asked, BROWSER) is not None) is found
    assert copied_session(asked, NETWORK) is None


@pytest.mark.parametrize(("stored", "now"), [("Android", "Linux"), ("Mac OS X", "iOS")])
def test_a_phone_that_asks_for_desktop_pages_is_no_copy(stored, now):
    """It then says that it is the system its maker's desktops have."""
    asked = facts(device=device(1, browser="Chrome", os=stored), browser="Chrome", os=now)

    assert copied_session(asked, BROWSER) is None


def seen(text, first, last):
    """An address of this session, first and last used so many seconds ago."""
    at = {"first_at": NOW - timedelta(seconds=first), "last_at": NOW - timedelta(seconds=last)}
    return msgspec.structs.replace(network(text), **at)


HERE = "203.0.113.9"
THERE = "192.0.2.1"


@pytest.mark.parametrize(
    ("networks", "found"),
    [
        pytest.param([seen(THERE, 900, 30), seen(HERE, 60, 40)], True, id="two take turns"),
        pytest.param([seen(THERE, 900, 70), seen(HERE, 60, 40)], False, id="moved once from wifi to 4G"),
        pytest.param([seen(THERE, 900, 30)], False, id="just moved"),
        pytest.param([seen(THERE, 900, 30), seen(HERE, 800, 40)], False, id="back home, where it was before"),
        pytest.param([seen(THERE, 900, 130), seen(HERE, 200, 140)], False, id="long ago"),
        pytest.param(
            [msgspec.structs.replace(seen(THERE, 900, 30), session_id="b"), seen(HERE, 60, 40)],
            False,
            id="another session of the member",
        ),
        pytest.param(
            [seen("2001:db8::1", 900, 30), seen(HERE, 60, 40)], False, id="one machine with both versions of IP"
        ),
    ],
)
def test_one_session_from_two_networks_in_turns_is_copied(networks, found):
    """L37: a change of address alone is no wrong; two machines that take turns are."""
    asked = facts(address=host(HERE), networks=tuple(networks), device=CHROME, browser="Chrome", os="Windows")

    assert (copied_session(asked, NETWORK) is not None) is found
    assert (copied_session(asked, CopiedSession(signal=Signal.BOTH)) is not None) is found
    assert copied_session(asked, BROWSER) is None


def test_addresses_of_one_household_are_one_network():
    """Its machines change theirs within their /64 as they like; another /64 is another network."""
    here, same, other = "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"
    back, now = seen(same, 900, 30), seen(here, 60, 40)

    asked = facts(address=host(here), networks=(back, now))
    elsewhere = facts(address=host(here), networks=(msgspec.structs.replace(back, address=host(other)), now))

    assert copied_session(asked, NETWORK) is None
    assert copied_session(elsewhere, NETWORK) is not None


@pytest.mark.parametrize(
    ("stage", "outcome", "effect", "ends", "subject"),
    [
        pytest.param(Stage.CHECK, Outcome.DENY, Effect.ENDED, True, "a", id="check"),
        pytest.param(Stage.LOGIN, Outcome.ALLOW, Effect.LOGGED, False, str(number(1)), id="login"),
    ],
)
def test_a_copied_session_is_ended_and_a_login_only_noted(stage, outcome, effect, ends, subject):
    """A login has no session yet, and has just shown the password."""
    asked = facts(stage=stage, device=CHROME, browser="Firefox", os="Windows")

    decision = judge(rules(rule("copied_session")), asked)

    (step,) = decision.fired
    assert (decision.outcome, decision.ends, step.effect) == (outcome, ends, effect)
    assert step.finding is not None
    assert step.finding.subject == subject


def test_a_session_is_not_ended_where_another_rule_refused_first():
    """The first finding in precedence decides; what comes after it is only logged."""
    denied = rule("ip_deny", params={"networks": [HERE]}, number_of_rule=2)
    asked = facts(device=CHROME, browser="Firefox", os="Windows")

    decision = judge(rules(denied, rule("copied_session")), asked)

    assert (decision.outcome, decision.ends) == (Outcome.DENY, False)
    assert [step.effect for step in decision.fired] == [Effect.DENIED, Effect.LOGGED]
