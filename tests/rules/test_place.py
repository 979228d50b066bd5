"""Rules on country and network operator."""

import pytest

from accessguard.rules.engine import judge
from accessguard.rules.model import Code, Outcome
from tests.build import facts, place, rule, rules

NOWHERE = place(country=None, asn=None, city=None, latitude=None, longitude=None)


@pytest.mark.parametrize(
    ("kind", "params", "code"),
    [
        pytest.param("country_deny", {"countries": ["IT", "FR"]}, Code.COUNTRY_DENIED, id="a denied country"),
        pytest.param("country_deny", {"countries": ["fr"]}, None, id="another country"),
        pytest.param("country_allow_only", {"countries": ["it"]}, None, id="an allowed country, in lower case"),
        pytest.param("country_allow_only", {"countries": ["FR"]}, Code.COUNTRY_DENIED, id="not an allowed country"),
        pytest.param("asn_deny", {"asns": [64499, 64500]}, Code.ASN_DENIED, id="a denied operator"),
        pytest.param("asn_deny", {"asns": [64501]}, None, id="another operator"),
    ],
)
def test_a_place_is_judged_by_its_country_and_operator(kind, params, code):
    """By the lists of the rule; the case says which one it was."""
    decision = judge(rules(rule(kind, params=params)), facts(place=place()))

    assert decision.code is code
    assert decision.degraded is False
    if decision.step is not None and decision.step.finding is not None:
        assert decision.step.finding.subject in {"IT", "AS64500"}


@pytest.mark.parametrize("where", [None, NOWHERE])
@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("country_deny", {"countries": ["IT"]}),
        ("country_allow_only", {"countries": ["FR"]}),
        ("asn_deny", {"asns": [1]}),
        ("network_limit", {"max": 1, "unit": "city"}),
        ("network_limit", {"max": 1, "unit": "asn"}),
        ("impossible_travel", {}),
    ],
)
def test_an_unknown_place_lets_pass_and_says_so(kind, params, where):
    """Rules on places fail open, degraded."""
    decision = judge(rules(rule(kind, params=params)), facts(place=where))

    assert (decision.outcome, decision.degraded) == (Outcome.ALLOW, True)
