"""Rules on the client's address."""

import pytest

from accessguard.rules.address import address_not_allowed, denied_address
from accessguard.rules.engine import judge
from accessguard.rules.model import AddressList, Code, Outcome, Stage
from accessguard.rules.networks import networks
from tests.build import facts, host, place, rule, rules

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


@pytest.mark.parametrize(
    ("kind", "params", "stage"),
    [
        pytest.param("ip_deny", {"networks": ["203.0.113.9"]}, Stage.CHECK, id="ip_deny"),
        pytest.param("ip_allow_only", {"networks": ["203.0.113.9"]}, Stage.CHECK, id="ip_allow_only"),
        pytest.param("country_deny", {"countries": ["IT"]}, Stage.CHECK, id="country_deny"),
        pytest.param("country_allow_only", {"countries": ["FR"]}, Stage.CHECK, id="country_allow_only"),
        pytest.param("asn_deny", {"asns": [64500]}, Stage.CHECK, id="asn_deny"),
        pytest.param("network_limit", {"max": 1, "unit": "ip"}, Stage.CHECK, id="network_limit by address"),
        pytest.param("network_limit", {"max": 1, "unit": "prefix"}, Stage.CHECK, id="network_limit by prefix"),
        pytest.param("network_limit", {"max": 1, "unit": "asn"}, Stage.CHECK, id="network_limit by operator"),
        pytest.param("network_limit", {"max": 1, "unit": "city"}, Stage.CHECK, id="network_limit by city"),
        pytest.param("impossible_travel", {}, Stage.CHECK, id="impossible_travel"),
        pytest.param("copied_session", {"signal": "network"}, Stage.CHECK, id="copied_session by network"),
        pytest.param("copied_session", {"signal": "both"}, Stage.CHECK, id="copied_session by both"),
        pytest.param(
            "login_failures",
            {"max": 1, "window_s": 60, "lock_s": 60, "per": "ip"},
            Stage.LOGIN,
            id="login_failures by address",
        ),
        pytest.param(
            "login_failures",
            {"max": 1, "window_s": 60, "lock_s": 60, "per": "device"},
            Stage.LOGIN,
            id="login_failures by device, of a stranger",
        ),
    ],
)
def test_every_rule_on_addresses_lets_an_unknown_one_pass_and_says_so(kind, params, stage):
    """Unknown is a value; known, the same rule has nothing to hide."""
    asked = rules(rule(kind, params=params))
    known = facts(stage=stage, place=place(), device=None)
    unknown = facts(stage=stage, address=None, place=None, device=None)

    assert not judge(asked, known).degraded
    assert (judge(asked, unknown).outcome, judge(asked, unknown).degraded) == (Outcome.ALLOW, True)


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        pytest.param("session_limit", {"max": 1}, id="session_limit"),
        pytest.param("device_limit", {"max": 1}, id="device_limit"),
        pytest.param("device_churn", {"max_new": 1, "window_days": 30}, id="device_churn"),
        pytest.param("copied_session", {"signal": "browser"}, id="copied_session by browser"),
        pytest.param(
            "login_failures", {"max": 1, "window_s": 60, "lock_s": 60, "per": "member"}, id="login_failures by member"
        ),
    ],
)
def test_rules_on_something_else_do_not_mind_an_unknown_address(kind, params):
    """They see all they look at."""
    assert not judge(rules(rule(kind, params=params)), facts(address=None, place=None)).degraded


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
