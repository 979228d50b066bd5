"""Parameters of every kind, windows, contradictions, presets."""

from datetime import timedelta
from pathlib import Path

import pytest

from accessguard.errors import GuardError
from accessguard.policies.contradictions import contradicted, contradictions
from accessguard.policies.model import normalised, parse
from accessguard.policies.params import ACTIONS, PARAMS
from accessguard.policies.presets import FIRST, preset, presets
from accessguard.policies.windows import Ledger, longest_window, looks
from accessguard.rules.model import (
    EVERYBODY,
    Action,
    Activity,
    CopiedSession,
    DeviceChurn,
    EnrolmentNeeded,
    Escalation,
    FailurePer,
    ImpossibleTravel,
    Kind,
    LoginFailures,
    Mode,
    NetworkLimit,
    SessionLimit,
    Signal,
    Swaps,
    Unit,
)
from tests.build import number, rule
from tests.policies.test_model import body

LEAST = {
    Kind.IP_DENY: {"networks": ["192.0.2.1"]},
    Kind.IP_ALLOW_ONLY: {"networks": ["192.0.2.1"]},
    Kind.COUNTRY_DENY: {"countries": ["it"]},
    Kind.COUNTRY_ALLOW_ONLY: {"countries": ["IT"]},
    Kind.ASN_DENY: {"asns": [64500]},
    Kind.SESSION_LIMIT: {"max": 1},
    Kind.DEVICE_LIMIT: {"max": 1},
    Kind.DEVICE_CHURN: {"max_new": 1},
    Kind.NETWORK_LIMIT: {"max": 1},
    Kind.LOGIN_FAILURES: {"max": 1},
}


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_parameters_and_actions_and_keeps_them(kind):
    """What is stored reads as the same rule; each of its actions is taken, no other."""
    params = LEAST.get(kind, {})

    full = normalised(body(kind=kind, params=params))

    assert isinstance(full.params, dict)
    assert normalised(full) == full
    assert parse(full, id=number(1), version=1) == parse(body(kind=kind, params=params), id=number(1), version=1)
    assert kind in PARAMS
    for action in Action:
        if action in ACTIONS[kind]:
            assert normalised(body(kind=kind, params=params, action=action)).action is action
        else:
            with pytest.raises(GuardError):
                normalised(body(kind=kind, params=params, action=action))


@pytest.mark.parametrize(
    ("kind", "params", "expected"),
    [
        (
            "session_limit",
            {"max": 1, "activities": ["video_watch"]},
            SessionLimit(max=1, activities=frozenset({Activity.VIDEO_WATCH})),
        ),
        ("device_churn", {"max_new": 2, "window_days": 7}, DeviceChurn(max_new=2, window=timedelta(days=7))),
        (
            "network_limit",
            {"max": 2, "window_s": 60, "unit": "asn"},
            NetworkLimit(max=2, window=timedelta(seconds=60), unit=Unit.ASN),
        ),
        (
            "impossible_travel",
            {"max_speed_kmh": 800, "min_distance_km": 50},
            ImpossibleTravel(max_speed_kmh=800, min_distance_km=50),
        ),
        ("copied_session", {"signal": "both"}, CopiedSession(signal=Signal.BOTH)),
        (
            "login_failures",
            {"max": 5, "window_s": 60, "lock_s": 90, "per": "ip"},
            LoginFailures(max=5, window=timedelta(seconds=60), lock=timedelta(seconds=90), per=FailurePer.IP),
        ),
        ("enrolment", {"products": ["p"]}, EnrolmentNeeded(products=frozenset({"p"}))),
        ("enrolment", {}, EnrolmentNeeded(products=None)),
    ],
)
def test_parameters_become_what_the_engine_counts_with(kind, params, expected):
    """Seconds and days become durations, lists become sets."""
    made = rule(kind, params=params)

    assert made.params == expected
    assert made.scope is EVERYBODY


def test_escalation_and_swaps_stand_inside_the_parameters():
    """Left out, they are not written out either."""
    grown = rule(
        "device_limit",
        "log",
        params={"max": 1, "escalation": {"days": 7, "challenge_after": 2}, "swaps": {"max": 2, "window_days": 10}},
    )
    plain = normalised(body(kind="device_limit", params={"max": 1}))

    assert grown.escalation == Escalation(within=timedelta(days=7), challenge_after=2)
    assert grown.swaps == Swaps(max=2, window=timedelta(days=10))
    assert set(plain.params) == {"max", "window_days", "per"}


@pytest.mark.parametrize(
    ("kind", "params", "pointer"),
    [
        ("country_deny", {"countries": ["IT", "XX"]}, "/params/countries/1"),
        ("country_deny", {"countries": []}, "/params/countries"),
        ("asn_deny", {"asns": [0]}, "/params/asns/0"),
        ("asn_deny", {"asns": [2**32]}, "/params/asns/0"),
        ("device_churn", {"max_new": 0}, "/params/max_new"),
        ("device_churn", {"max_new": 1, "window_days": 0}, "/params/window_days"),
        ("network_limit", {"max": 0}, "/params/max"),
        ("network_limit", {"max": 1, "window_s": 30}, "/params/window_s"),
        ("network_limit", {"max": 1, "unit": "planet"}, "/params/unit"),
        ("impossible_travel", {"max_speed_kmh": 0}, "/params/max_speed_kmh"),
        ("impossible_travel", {"min_distance_km": 0}, "/params/min_distance_km"),
        ("copied_session", {"signal": "smell"}, "/params/signal"),
        ("login_failures", {"max": 0}, "/params/max"),
        ("login_failures", {"max": 1, "window_s": 30}, "/params/window_s"),
        ("login_failures", {"max": 1, "lock_s": 0}, "/params/lock_s"),
        ("enrolment", {"products": []}, "/params/products"),
        ("session_limit", {"max": 1, "activities": []}, "/params/activities"),
        ("session_limit", {"max": 1, "activities": ["logout"]}, "/params/activities/0"),
        ("session_limit", {"max": 1, "escalation": {}}, "/params/escalation"),
        ("session_limit", {"max": 1, "escalation": {"challenge_after": 0}}, "/params/escalation/challenge_after"),
        (
            "session_limit",
            {"max": 1, "escalation": {"challenge_after": 3, "deny_after": 3}},
            "/params/escalation/deny_after",
        ),
        (
            "country_deny",
            {"countries": ["IT"], "escalation": {"challenge_after": 1}},
            "/params/escalation/challenge_after",
        ),
        ("ip_deny", {"networks": ["192.0.2.1"], "escalation": {"deny_after": 1}}, "/params"),
        ("session_limit", {"max": 1, "swaps": {"max": 0}}, "/params/swaps/max"),
        ("network_limit", {"max": 1, "swaps": {"max": 1}}, "/params"),
    ],
)
def test_what_a_rule_cannot_mean_is_refused_where_it_stands(kind, params, pointer):
    """The pointer leads to the field (product research, e3 and e10)."""
    with pytest.raises(GuardError) as refused:
        normalised(body(kind=kind, params=params))

    assert [problem.pointer for problem in refused.value.problems] == [pointer]


def test_a_rule_says_how_far_back_it_looks():
    """Product research, e27: a window longer than what is kept would under-count."""
    grown = rule(
        "device_limit", "log", params={"max": 1, "window_days": 7, "escalation": {"days": 60, "deny_after": 2}}
    )
    guessed = rule("login_failures", params={"max": 1, "window_s": 60, "lock_s": 40})

    assert [(each.pointer, each.ledger) for each in looks(grown)] == [
        ("/params/window_days", Ledger.DEVICES),
        ("/params/escalation/days", Ledger.VIOLATIONS),
    ]
    assert longest_window(grown) == timedelta(days=60)
    assert longest_window(guessed) == timedelta(seconds=400)
    assert longest_window(rule("device_limit", params={"max": 1, "window_days": None})) == timedelta(0)
    assert longest_window(rule("enrolment")) == timedelta(0)


def pair(one, other):
    """Two enforced rules, 1 and 2."""
    return (rule(**{"number_of_rule": 1} | one), rule(**{"number_of_rule": 2} | other))


def nets(kind, *networks):
    """A rule on addresses."""
    return {"kind": kind, "params": {"networks": list(networks)}}


def lands(kind, *countries, **more):
    """A rule on countries."""
    return {"kind": kind, "params": {"countries": list(countries)}} | more


def limit(action, **params):
    """A limit on sessions."""
    return {"kind": "session_limit", "action": action, "params": {"max": 2} | params}


@pytest.mark.parametrize(
    ("one", "other", "contradict"),
    [
        (nets("ip_allow_only", "192.0.2.0/25"), nets("ip_deny", "192.0.2.0/24", "10.0.0.0/8"), True),
        (nets("ip_allow_only", "192.0.2.0/24"), nets("ip_deny", "192.0.2.0/25"), False),
        (nets("ip_allow_only", "192.0.2.0/24", "2001:db8::/32"), nets("ip_deny", "0.0.0.0/0"), False),
        (nets("ip_allow_only", "2001:db8::/32"), nets("ip_deny", "::/0"), True),
        (nets("ip_allow_only", "192.0.2.1"), nets("ip_allow_only", "192.0.2.2"), True),
        (nets("ip_allow_only", "192.0.2.1-9"), nets("ip_allow_only", "192.0.2.9-20"), False),
        (nets("ip_deny", "192.0.2.1"), nets("ip_deny", "192.0.2.2"), False),
        (lands("country_allow_only", "IT", "FR"), lands("country_deny", "FR"), True),
        (lands("country_allow_only", "IT"), lands("country_deny", "FR"), False),
        (lands("country_allow_only", "IT"), lands("country_allow_only", "FR"), True),
        (lands("country_allow_only", "IT"), lands("country_deny", "IT", mode=Mode.OBSERVE), False),
        (lands("country_allow_only", "IT"), lands("country_deny", "IT", applies_to={"tags": ["x"]}), False),
        (limit("deny_new"), limit("evict_oldest"), True),
        (limit("deny_new"), limit("deny_new", max=9), False),
        (limit("evict_oldest"), limit("evict_idle"), True),
        (limit("evict_oldest"), limit("evict_others"), False),
        (limit("deny_new"), limit("log"), False),
        (limit("deny_new"), limit("evict_oldest", per="app"), False),
        (limit("deny_new"), limit("evict_oldest", activities=["video_watch"]), False),
        (
            {"kind": "enrolment", "params": {"products": ["p"]}},
            {"kind": "enrolment", "params": {"products": ["q"]}},
            True,
        ),
        ({"kind": "enrolment", "params": {"products": ["p"]}}, {"kind": "enrolment"}, False),
    ],
)
def test_rules_that_cannot_both_be_meant_are_named(one, other, contradict):
    """Whichever was saved first; enforced ones of the same scope alone."""
    first, second = pair(one, other)

    found = contradictions((second, first))

    assert [(each.one, each.other) for each in found] == ([(number(1), number(2))] if contradict else [])
    assert bool(contradicted(second, (first, second))) is contradict
    assert all(each.detail for each in found)


def test_a_new_version_of_a_rule_does_not_contradict_the_one_before():
    """It takes its place."""
    before, after = pair(limit("deny_new"), limit("evict_oldest") | {"number_of_rule": 1})

    assert contradicted(after, (before,)) == ()


NAMES = {"observe-only", "kwiga-like", "getcourse-like", "household", "one-may-watch", "strict-exam"}


def test_every_preset_is_valid_and_says_all_of_what_it_does():
    """Each rule reads, no two contradict each other, and what a new tenant starts with refuses nobody."""
    first = preset(FIRST)

    assert {each.name for each in presets()} == NAMES
    assert all(normalised(each) == each for one in presets() for each in one.rules)
    assert first is not None
    assert {each.mode for each in first.rules} == {Mode.OBSERVE}
    assert preset("no-such") is None


def test_the_presets_stand_beside_the_configuration_too():
    """Where operators look for them; one copy, not two."""
    shown = Path(__file__).parents[2] / "config" / "presets"

    assert {each.stem for each in shown.glob("*.json")} == NAMES
    assert shown.is_symlink()
