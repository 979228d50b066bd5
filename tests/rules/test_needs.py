"""What a set of rules looks at."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from accessguard.rules.model import Kind
from accessguard.rules.needs import STORED, Need, needs_of, reach_of
from tests.build import rule

PARAMS: dict[str, dict[str, Any]] = {
    "ip_deny": {"networks": ["192.0.2.1"]},
    "ip_allow_only": {"networks": ["192.0.2.1"]},
    "country_deny": {"countries": ["IT"]},
    "country_allow_only": {"countries": ["IT"]},
    "asn_deny": {"asns": [64500]},
    "login_failures": {"max": 5},
    "enrolment": {},
    "session_limit": {"max": 1},
    "device_limit": {"max": 1},
    "device_churn": {"max_new": 1},
    "network_limit": {"max": 1},
    "impossible_travel": {},
    "copied_session": {"signal": "network"},
}


def test_plain_limits_look_at_passes_alone():
    """So a tenant of plain limits pays for nothing else."""
    plain = [rule(kind, params=PARAMS[kind]) for kind in ("session_limit", "device_limit", "ip_deny", "login_failures")]

    assert needs_of(plain) == needs_of([]) == Need.PASSES


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_says_what_it_looks_at(kind):
    """Places and networks for those that compare them, and so on; each kind stands here."""
    expected = {
        "country_deny": Need.PLACE,
        "country_allow_only": Need.PLACE,
        "asn_deny": Need.PLACE,
        "enrolment": Need.ENROLMENTS,
        "device_churn": Need.FORGOTTEN,
        "network_limit": Need.NETWORKS | Need.PLACE,
        "impossible_travel": Need.NETWORKS | Need.PLACE,
        "copied_session": Need.NETWORKS,
    }

    found = needs_of([rule(kind, params=PARAMS[kind])])

    assert found == Need.PASSES | expected.get(kind, Need(0))


def test_a_challenge_needs_what_was_settled_and_an_escalation_its_cases():
    """Whichever kind it is."""
    challenge = rule("asn_deny", "challenge", params={"asns": [1]})
    growing = rule("asn_deny", params={"asns": [1], "escalation": {"days": 1, "deny_after": 2}})

    assert needs_of([challenge]) & STORED == Need.PASSES | Need.SETTLED | Need.FREED
    assert needs_of([growing]) & STORED == Need.PASSES | Need.SETTLED | Need.FREED | Need.CASES


def test_a_rule_that_is_off_looks_at_nothing():
    """It is not looked at itself."""
    assert needs_of([rule("enrolment", mode="off")]) == Need.PASSES


def test_addresses_are_read_as_far_back_as_the_widest_rule_looks():
    """A limit looks at its window, travel at the time in which every place can be reached; none at less than a day."""
    short, wide = (rule("network_limit", params={"max": 1, "window_s": window}) for window in (600, 864_000))
    travel = rule("impossible_travel", params={"max_speed_kmh": 100, "min_distance_km": 100})

    spans = [reach_of(each) / timedelta(days=1) for each in ([], [short], [short, wide], [travel])]

    assert spans[:3] == [1, 1, 10]
    assert 8 < spans[3] < 9
