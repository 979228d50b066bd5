"""The limit on networks."""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.rules.model import NetworkLimit, Unit
from accessguard.rules.network import admitted_since, too_many_networks, unit_of
from tests.build import NOW, facts, host, network, place, rule

HOUR = timedelta(hours=1)
TWO = NetworkLimit(max=2, window=HOUR)
HERE = "203.0.113.9"


@pytest.mark.parametrize(
    ("networks", "refused"),
    [
        pytest.param([], False, id="none before"),
        pytest.param([network("192.0.2.1")], False, id="one other"),
        pytest.param([network("192.0.2.1"), network("192.0.2.2")], True, id="two others, this one new"),
        pytest.param([network("192.0.2.1"), network("192.0.2.1", session_id="b")], False, id="one in two sessions"),
        pytest.param([network("192.0.2.1"), network("192.0.2.2", used=60)], False, id="one left the window"),
        pytest.param([network("192.0.2.1"), network("192.0.2.2", admitted=None)], False, id="one was refused (L15)"),
        pytest.param(
            [network("192.0.2.1"), network("192.0.2.2"), network(HERE, admitted=90)], False, id="here the longest"
        ),
        pytest.param(
            [network("192.0.2.1"), network("192.0.2.2"), network(HERE, admitted=5)], True, id="here the last of three"
        ),
        pytest.param(
            [network("192.0.2.1"), network("192.0.2.2"), network(HERE, admitted=90, used=60)],
            True,
            id="back after the window",
        ),
    ],
)
def test_the_networks_admitted_first_keep_their_place(networks, refused):
    """With two allowed, a third within the window is refused; one that was refused holds no place."""
    finding = too_many_networks(facts(networks=tuple(networks)), TWO)

    assert (finding is not None) is refused


@pytest.mark.parametrize(
    ("text", "unit", "name"),
    [
        ("203.0.113.9", Unit.IP, "203.0.113.9"),
        ("203.0.113.9", Unit.PREFIX, "203.0.113.0/24"),
        ("2001:db8:1:2:3::4", Unit.IP, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:3::4", Unit.PREFIX, "2001:db8:1::/48"),
        ("::ffff:203.0.113.9", Unit.IP, "203.0.113.9"),
        ("203.0.113.9", Unit.ASN, "AS64500"),
        ("203.0.113.9", Unit.CITY, "IT/Turin"),
    ],
)
def test_a_network_is_what_its_unit_says(text, unit, name):
    """L36: mapped IPv4 is unwrapped, IPv6 is compared by /64, and wider by choice."""
    assert unit_of(host(text), place(), unit) == name


def test_a_refusal_says_when_the_oldest_network_leaves():
    """Rolling, not calendar (product research, e21): exactly then a place is free."""
    asked = facts(networks=(network("192.0.2.1", used=20), network("192.0.2.2", used=50)))

    finding = too_many_networks(asked, TWO)

    assert finding is not None
    assert (finding.limit, finding.counted, finding.networks) == (2, 3, ("192.0.2.1", "192.0.2.2"))
    assert finding.retry_at == NOW + timedelta(minutes=10)
    assert too_many_networks(msgspec.structs.replace(asked, now=finding.retry_at), TWO) is None


@pytest.mark.parametrize(
    ("held", "used", "since"),
    [
        pytest.param(None, 0, 0, id="never admitted"),
        pytest.param(90, 5, 90, id="still in use"),
        pytest.param(90, 60, 0, id="left the window"),
    ],
)
def test_a_network_keeps_its_place_while_it_is_in_use(held, used, since):
    """One that left the shortest window takes a new place, as a device does."""
    limits = [rule("network_limit", params={"max": 1, "window_s": seconds}) for seconds in (3600, 86_400)]
    before = None if held is None else NOW - timedelta(minutes=held)

    taken = admitted_since(before, NOW - timedelta(minutes=used), limits, NOW)

    assert taken == NOW - timedelta(minutes=since)


NETWORKS = st.lists(
    st.builds(
        lambda last, admitted, used, sid: network(f"192.0.2.{last}", admitted=admitted, used=used, session_id=sid),
        st.integers(min_value=1, max_value=6),
        st.none() | st.integers(min_value=60, max_value=63),
        st.sampled_from([0, 30, 59, 60]),
        st.sampled_from(["a", "b"]),
    ),
    max_size=10,
    unique_by=lambda each: (each.address.text, each.session_id),
)


def _allowed(networks, most):
    held = {each.address for each in networks if each.admitted_at and each.last_at > NOW - HOUR}
    limit = NetworkLimit(max=most, window=HOUR)
    asked = {each: facts(address=each, networks=tuple(networks)) for each in held}
    return held, {each for each in held if too_many_networks(asked[each], limit) is None}


@given(NETWORKS, st.integers(min_value=1, max_value=4))
def test_as_many_networks_are_allowed_as_the_limit_says(networks, most):
    """Neither more nor less, whatever times and ties; and a lower limit admits no network more."""
    held, allowed = _allowed(networks, most)

    assert len(allowed) == min(most, len(held))
    assert allowed <= _allowed(networks, most + 1)[1]


@given(NETWORKS, st.randoms(), st.integers(min_value=1, max_value=3), st.integers(min_value=1, max_value=7))
def test_the_order_of_the_networks_does_not_matter(networks, random, most, last):
    """What a store answers first decides nothing."""
    shuffled = networks[:]
    random.shuffle(shuffled)
    limit, here = NetworkLimit(max=most, window=HOUR), host(f"192.0.2.{last}")

    findings = [too_many_networks(facts(address=here, networks=tuple(each)), limit) for each in (networks, shuffled)]

    assert findings[0] == findings[1]
