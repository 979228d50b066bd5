"""What is noted of an address once a question is decided."""

from __future__ import annotations

from datetime import timedelta

import pytest

from accessguard.rules.sighting import sighting
from tests.build import NOW, facts, host, network, rule, rules

HERE, THERE = "203.0.113.9", "198.51.100.7"
LIMIT = rules(rule("network_limit", params={"max": 2, "window_s": 600}))


@pytest.mark.parametrize("admitted", [True, False])
def test_a_new_address_is_noted_in_any_case(admitted):
    """It holds a place only when it was let in, and only then others need to know."""
    noted = sighting(LIMIT, facts(), admitted=admitted)

    assert noted is not None
    assert noted.network.admitted_at == (NOW if admitted else None)
    assert (noted.network.first_at, noted.network.last_at, noted.news) == (NOW, NOW, admitted)


@pytest.mark.parametrize(
    ("used", "admitted", "moves"),
    [
        pytest.param(0.4, True, False, id="within the beat"),
        pytest.param(0.5, True, True, id="at the beat"),
        pytest.param(0.5, False, False, id="refused"),
    ],
)
def test_a_known_address_moves_once_in_thirty_seconds(used, admitted, moves):
    """And never when it is refused; where it was, its place is kept."""
    known = network(HERE, used=used)

    noted = sighting(LIMIT, facts(networks=(known,)), admitted=admitted)

    assert (noted is not None) is moves
    if noted is not None:
        assert (noted.network.last_at, noted.network.admitted_at, noted.news) == (NOW, known.admitted_at, False)


def test_an_address_that_left_the_window_takes_a_new_place():
    """Which is news to the others."""
    noted = sighting(LIMIT, facts(networks=(network(HERE, used=11),)), admitted=True)

    assert noted is not None
    assert (noted.network.admitted_at, noted.news) == (NOW, True)


def test_a_refused_address_that_is_let_in_takes_its_place_now():
    """Whenever it was first seen."""
    noted = sighting(LIMIT, facts(networks=(network(HERE, admitted=None),)), admitted=True)

    assert noted is not None
    assert (noted.network.admitted_at, noted.news) == (NOW, True)
    assert noted.network.first_at < NOW


@pytest.mark.parametrize(
    ("session", "news"), [pytest.param("a", True, id="this session"), pytest.param("b", False, id="another session")]
)
def test_a_return_is_noted_at_once(session, news):
    """Once for each new address in between, however short it is."""
    here = network(HERE, used=0.2)
    there = network(THERE, admitted=0.1, used=0.1, session_id=session)

    noted = sighting((), facts(networks=(here, there)), admitted=True)

    assert (noted is not None and noted.news) is news
    if noted is not None:
        again = facts(now=NOW + timedelta(seconds=1), networks=(noted.network, there))
        assert sighting((), again, admitted=True) is None


def test_nobody_s_address_is_noted_where_nobody_is_looked_at():
    """Staff, impersonation, an unknown address."""
    assert sighting(LIMIT, facts(staff=True), admitted=True) is None
    assert sighting(LIMIT, facts(address=None), admitted=True) is None


def test_the_same_address_in_another_session_is_a_network_of_its_own():
    """With the first use of its own."""
    noted = sighting(LIMIT, facts(address=host(HERE), networks=(network(HERE, session_id="b"),)), admitted=True)

    assert noted is not None
    assert (noted.network.session_id, noted.network.first_at) == ("a", NOW)
