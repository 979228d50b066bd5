"""Judging: modes, actions, precedence, exemptions."""

from __future__ import annotations

from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.rules.engine import judge
from accessguard.rules.model import Access, Action, Code, Effect, Mode, Outcome, Stage
from tests.build import device, facts, host, number, rule, rules, session

HERE = {"networks": ["203.0.113.0/24"]}
ELSEWHERE = {"networks": ["192.0.2.0/24"]}
CROWD = (session("b", started=1), session("c", started=2))
DEVICES = (device(2), device(3))

IP_DENY = rule("ip_deny", params=HERE, number_of_rule=1)
IP_ALLOW = rule("ip_allow_only", params=ELSEWHERE, number_of_rule=2)
SESSIONS = rule("session_limit", "deny_new", params={"max": 1}, number_of_rule=3)
DEVICE = rule("device_limit", "deny_new", params={"max": 1}, number_of_rule=4)
ALL = (IP_DENY, IP_ALLOW, SESSIONS, DEVICE)

# Everything about it is wrong at once.
WRONG = facts(session=session("a", started=9), others=CROWD, device=device(9, admitted=100), other_devices=DEVICES)


@pytest.mark.parametrize(
    ("given_rules", "code"),
    [
        pytest.param(ALL, Code.IP_DENIED, id="a denied address before all"),
        pytest.param(ALL[1:], Code.IP_NOT_ALLOWED, id="a list of allowed ones next"),
        pytest.param(ALL[2:], Code.SESSION_LIMIT, id="then sessions"),
        pytest.param(ALL[3:], Code.DEVICE_LIMIT, id="then devices"),
    ],
)
def test_the_first_denial_in_the_order_of_precedence_decides(given_rules, code):
    """In whatever order the rules were saved."""
    decisions = [judge(rules(*order), WRONG) for order in permutations(given_rules)]

    assert {(decision.outcome, decision.code) for decision in decisions} == {(Outcome.DENY, code)}


def test_every_rule_that_fired_is_recorded():
    """The first denial decides, the others are found all the same."""
    decision = judge(rules(*ALL), WRONG)

    assert [step.rule.kind for step in decision.fired] == [each.kind for each in ALL]
    assert [step.effect for step in decision.fired] == [Effect.DENIED] * 4
    assert decision.step is decision.steps[0]


def test_a_blocked_device_comes_before_staff_exemption_and_rules():
    """What an operator blocked by hand stays blocked."""
    blocked = facts(device=device(1, access=Access.BLOCKED), staff=True, exempt=True)

    decision = judge(rules(IP_DENY), blocked)

    assert (decision.outcome, decision.code, decision.steps) == (Outcome.DENY, Code.DEVICE_BLOCKED, ())


def test_staff_is_never_looked_at():
    """No rule is tried, and the answer says so."""
    decision = judge(rules(*ALL), msgspec.structs.replace(WRONG, staff=True))

    assert (decision.outcome, decision.exempt, decision.steps) == (Outcome.ALLOW, True, ())


def test_an_exempt_member_is_let_in_and_recorded():
    """Every rule is tried, none is enforced, and no session is ended."""
    evicting = rule("session_limit", "evict_oldest", params={"max": 1}, number_of_rule=5)
    login = msgspec.structs.replace(WRONG, exempt=True, stage=Stage.LOGIN)

    decision = judge(rules(*ALL, evicting), login)

    assert (decision.outcome, decision.exempt, decision.evict) == (Outcome.ALLOW, True, ())
    assert {step.effect for step in decision.fired} == {Effect.EXEMPT}
    assert len(decision.fired) == 5


def test_a_device_that_an_operator_allowed_skips_device_rules_only():
    """It still counts where sessions are counted."""
    allowed = msgspec.structs.replace(WRONG, device=device(9, admitted=100, access=Access.ALLOWED))

    decision = judge(rules(SESSIONS, DEVICE), allowed)

    assert decision.code is Code.SESSION_LIMIT
    assert [(step.skipped, step.finding is None) for step in decision.steps] == [
        (None, False),
        ("device_allowed", True),
    ]


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(rule("ip_deny", params=HERE, mode=Mode.OBSERVE), id="observed"),
        pytest.param(rule("device_limit", "log", params={"max": 1}), id="logged"),
        pytest.param(rule("session_limit", "log", params={"max": 1}), id="logged sessions"),
    ],
)
def test_what_is_only_watched_is_logged_and_never_refused(made):
    """As if, with its effect saying so."""
    decision = judge(rules(made), WRONG)

    assert decision.outcome is Outcome.ALLOW
    assert [step.effect for step in decision.fired] == [Effect.LOGGED]


def test_a_rule_that_is_off_is_not_looked_at():
    """It leaves no step."""
    off = rule("ip_deny", params=HERE, mode=Mode.OFF)

    assert judge(rules(off), WRONG).steps == ()


def test_an_unknown_address_makes_the_answer_degraded_where_an_address_rule_stands():
    """Such rules fail open; without one nothing is missing."""
    unknown = facts(address=None)

    with_rule, without = judge(rules(IP_DENY), unknown), judge(rules(SESSIONS), unknown)

    assert (with_rule.outcome, with_rule.degraded) == (Outcome.ALLOW, True)
    assert without.degraded is False


@pytest.mark.parametrize(
    ("applies_to", "asked", "skipped"),
    [
        pytest.param({"tags": ["vip"]}, {}, "tags", id="other tag"),
        pytest.param({"tags": ["vip"]}, {"tags": frozenset({"vip"})}, None, id="tag"),
        pytest.param({"except_tags": ["vip"]}, {"tags": frozenset({"vip", "x"})}, "tags", id="excepted tag"),
        pytest.param(
            {"tags": ["x"], "except_tags": ["vip"]}, {"tags": frozenset({"vip", "x"})}, "tags", id="both tags"
        ),
        pytest.param({"products": ["p"]}, {}, "products", id="no product"),
        pytest.param({"products": ["p"]}, {"product_id": "p"}, None, id="product"),
        pytest.param({"apps": ["courses"]}, {}, "apps", id="no app"),
        pytest.param({"apps": ["courses"]}, {"session": session(app="courses")}, None, id="app"),
        pytest.param({"device_classes": ["mobile"]}, {}, "device_classes", id="other class"),
        pytest.param(
            {"device_classes": ["mobile"]}, {"session": session(device_class="mobile")}, None, id="device class"
        ),
    ],
)
def test_a_rule_is_about_those_it_applies_to(applies_to, asked, skipped):
    """Others are skipped, and the trace says by what."""
    scoped = rule("ip_deny", params=HERE, applies_to=applies_to)

    (step,) = judge(rules(scoped), facts(**asked)).steps

    assert step.skipped == skipped
    assert (step.finding is None) is (skipped is not None)


def test_two_evicting_rules_end_each_session_once():
    """What the first one ended, the second no longer counts."""
    first = rule("session_limit", "evict_oldest", params={"max": 2}, number_of_rule=1)
    second = rule("session_limit", "evict_oldest", params={"max": 1}, number_of_rule=2)
    login = facts(stage=Stage.LOGIN, session=session("new", started=60), others=(session("b"), *CROWD[1:]))

    decision = judge(rules(first, second), login)

    assert decision.outcome is Outcome.ALLOW
    assert decision.evict == ("b", "c")


def test_a_refused_login_ends_nobodys_session():
    """Somebody who is not let in must not throw out who is."""
    evicting = rule("session_limit", "evict_oldest", params={"max": 1}, number_of_rule=1)
    login = facts(
        stage=Stage.LOGIN,
        session=session("new", started=60),
        others=CROWD,
        device=device(9, admitted=None),
        other_devices=DEVICES,
    )

    decision = judge(rules(evicting, DEVICE), login)

    assert (decision.outcome, decision.code, decision.evict) == (Outcome.DENY, Code.DEVICE_LIMIT, ())
    assert [step.effect for step in decision.steps] == [Effect.LOGGED, Effect.DENIED]


def test_a_lowered_limit_applies_at_the_next_check():
    """An evicting rule refuses at a check whoever no longer has a place, and ends nothing."""
    evicting = rule("session_limit", "evict_oldest", params={"max": 1})

    decision = judge(rules(evicting), facts(others=CROWD))

    assert (decision.outcome, decision.code, decision.evict) == (Outcome.DENY, Code.SESSION_LIMIT, ())


def test_among_rules_of_one_kind_priority_then_the_narrower_then_the_id_decides():
    """The order is the same wherever they are judged."""
    made = [
        rule("session_limit", "deny_new", params={"max": 2}, priority=5, number_of_rule=1),
        rule("session_limit", "deny_new", params={"max": 9}, priority=-1, number_of_rule=2),
        rule("session_limit", "deny_new", params={"max": 1}, priority=5, number_of_rule=4),
        rule("session_limit", "deny_new", params={"max": 1}, priority=5, number_of_rule=3),
    ]

    orders = {tuple(each.id.int for each in rules(*order)) for order in permutations(made)}

    assert orders == {(2, 3, 4, 1)}


KINDS = st.sampled_from(
    [
        lambda mode, i: rule("ip_deny", params=HERE, mode=mode, number_of_rule=i),
        lambda mode, i: rule("ip_allow_only", params=ELSEWHERE, mode=mode, number_of_rule=i),
        lambda mode, i: rule("session_limit", "deny_new", params={"max": 1}, mode=mode, number_of_rule=i),
        lambda mode, i: rule("session_limit", "evict_oldest", params={"max": 1}, mode=mode, number_of_rule=i),
        lambda mode, i: rule("session_limit", "evict_idle", params={"max": 2}, mode=mode, number_of_rule=i),
        lambda mode, i: rule("device_limit", "deny_new", params={"max": 1}, mode=mode, number_of_rule=i),
    ]
)
RULES = st.lists(st.tuples(KINDS, st.sampled_from([Mode.OBSERVE, Mode.ENFORCE])), max_size=6).map(
    lambda pairs: [make(mode, i + 1) for i, (make, mode) in enumerate(pairs)]
)
SITUATIONS = st.builds(
    lambda others, devices, here, stage: facts(
        stage=stage,
        session=session("a", started=5),
        others=tuple(others),
        device=device(9, admitted=100),
        other_devices=tuple(devices),
        address=host("203.0.113.9" if here else "192.0.2.1"),
    ),
    st.lists(st.sampled_from([session("b", started=1), session("c", started=9, idle=2), session("d")]), unique=True),
    st.lists(st.sampled_from(DEVICES), unique=True),
    st.booleans(),
    st.sampled_from(Stage),
)


@given(RULES, SITUATIONS)
def test_observing_changes_no_decision(made, asked):
    """With every observed rule taken away, the outcome and what is ended are the same."""
    enforced = [each for each in made if each.mode is Mode.ENFORCE]

    all_of_them, without = judge(rules(*made), asked), judge(rules(*enforced), asked)

    assert (all_of_them.outcome, all_of_them.code, all_of_them.evict) == (without.outcome, without.code, without.evict)


@given(RULES, SITUATIONS, st.randoms())
def test_the_order_of_rules_and_facts_changes_no_decision(made, asked, random):
    """Neither the order of saving nor that of a store's rows."""
    shuffled, others, devices = list(made), list(asked.others), list(asked.other_devices)
    for each in (shuffled, others, devices):
        random.shuffle(each)
    again = msgspec.structs.replace(asked, others=tuple(others), other_devices=tuple(devices))

    assert judge(rules(*made), asked) == judge(rules(*shuffled), again)


@given(RULES, SITUATIONS)
def test_nobody_exempt_is_ever_refused(made, asked):
    """Whatever the rules say, unless a device was blocked by hand."""
    decision = judge(rules(*made), msgspec.structs.replace(asked, exempt=True))

    assert (decision.outcome, decision.evict) == (Outcome.ALLOW, ())


def test_a_violation_tells_the_version_of_its_rule():
    """The step keeps the rule as it was judged by."""
    decision = judge(rules(SESSIONS), WRONG)

    assert decision.step is not None
    assert (decision.step.rule.id, decision.step.rule.version, decision.step.rule.action) == (
        number(3),
        1,
        Action.DENY_NEW,
    )
