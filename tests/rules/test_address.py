"""Rules on the client's address."""

import pytest

from accessguard.rules.address import address_not_allowed, denied_address
from accessguard.rules.model import AddressList, Code
from accessguard.rules.networks import networks
from tests.build import facts, host

LIST = AddressList(networks=networks(["203.0.113.0/28", "2001:db8:1::/48"]))


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        pytest.param("203.0.113.0", True, id="first"),
        pytest.param("203.0.113.15", True, id="last"),
        pytest.param("203.0.113.16", False, id="behind"),
        pytest.param("203.0.112.255", False, id="before"),
        pytest.param("::ffff:203.0.113.9", True, id="mapped"),
        pytest.param("2001:db8:1:ffff::1", True, id="IPv6"),
        pytest.param("2001:db8:2::", False, id="IPv6 behind"),
    ],
)
def test_the_two_lists_are_each_others_opposite(text, inside):
    """What one refuses is exactly what the other lets in."""
    asked = facts(address=host(text))

    denied, not_allowed = denied_address(asked, LIST), address_not_allowed(asked, LIST)

    assert (denied is not None, not_allowed is not None) == (inside, not inside)
    assert {each.code for each in (denied, not_allowed) if each} == {Code.IP_DENIED if inside else Code.IP_NOT_ALLOWED}


def test_an_unknown_address_finds_nothing():
    """Neither list can say anything about it."""
    asked = facts(address=None)

    assert denied_address(asked, LIST) is None
    assert address_not_allowed(asked, LIST) is None


def test_an_empty_list_denies_nobody_and_allows_nobody():
    """Both rules take the list at its word."""
    nobody = AddressList(networks=networks([]))

    assert denied_address(facts(), nobody) is None
    assert address_not_allowed(facts(), nobody) is not None


def test_a_case_is_about_a_place():
    """Who holds a /64 changes its address at will and stays one case."""
    one, other, elsewhere = (
        denied_address(facts(address=host(text)), LIST)
        for text in ("2001:db8:1:2::1", "2001:db8:1:2:ffff::1", "2001:db8:1:3::1")
    )

    assert one is not None
    assert other is not None
    assert elsewhere is not None
    assert one.subject == other.subject == "2001:db8:1:2::/64"
    assert elsewhere.subject != one.subject
