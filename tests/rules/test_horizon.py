"""How long a decision holds; and that explaining changes none."""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.rules.engine import explain, judge
from accessguard.rules.horizon import holds_until
from accessguard.rules.model import CaseFact, EnrolmentStatus, Facts, Settled, Stage
from tests.build import NOW, device, enrolment, facts, failure, network, number, place, rule, rules, session

FAR = place(country="PT", city="Lisbon", latitude=38.72, longitude=-9.14)
MINUTE = timedelta(minutes=1)


def at(minutes):
    """So many minutes after NOW."""
    return NOW + timedelta(minutes=minutes)


EVERY = rules(
    rule("ip_deny", params={"networks": ["192.0.2.66"]}, number_of_rule=1),
    rule("country_deny", params={"countries": ["FR"]}, number_of_rule=2),
    rule("asn_deny", params={"asns": [666]}, number_of_rule=3),
    rule("enrolment", number_of_rule=4),
    rule("session_limit", params={"max": 1, "window_s": 1800}, number_of_rule=5),
    rule("device_limit", "challenge", params={"max": 1, "window_days": 1}, number_of_rule=6),
    rule("device_churn", "log", params={"max_new": 1, "window_days": 1}, number_of_rule=7),
    rule("network_limit", params={"max": 1, "window_s": 3600}, number_of_rule=8),
    rule("impossible_travel", params={"max_speed_kmh": 1000}, number_of_rule=9),
    rule("copied_session", params={"signal": "both"}, number_of_rule=10),
    rule("session_limit", "log", params={"max": 1, "escalation": {"days": 1, "deny_after": 1}}, number_of_rule=11),
    rule("login_failures", params={"max": 2, "window_s": 600, "lock_s": 300}, number_of_rule=12),
)
SITUATIONS = st.builds(
    lambda idle, seen, used, back, starts, ends, settled, case, failed, stage, away: facts(
        stage=stage,
        session=session("a", started=5, idle=idle),
        others=(session("b", started=1, idle=idle / 2), session("c", started=9, idle=29)),
        device=device(1, admitted=100, seen=seen / 1440),
        other_devices=(device(2, first_admitted_at=at(-seen), seen=seen / 1440), device(3, admitted=99)),
        place=FAR if away else place(),
        browser="Chrome",
        os="Windows",
        networks=(
            network("203.0.113.9", admitted=back, used=min(back, 1)),
            network("192.0.2.1", admitted=90, used=used),
        ),
        enrolments=(enrolment(starts=starts / 1440, ends=ends / 1440),),
        settled=(Settled(rule_id=number(5), subject=str(number(1)), until=at(settled)),),
        cases=(CaseFact(rule_id=number(11), at=at(-case)),),
        failures=tuple(failure(60 * each) for each in failed),
        changes_at=at(50),
        extra_sessions=0,
    ),
    st.sampled_from([0, 5, 29, 31]),
    st.sampled_from([1, 1439, 1441]),
    st.sampled_from([0.5, 20, 59, 61]),
    st.sampled_from([0.5, 1, 90]),
    st.sampled_from([-10, 10]),
    st.sampled_from([-5, 15, 40]),
    st.sampled_from([-1, 3, 100]),
    st.sampled_from([1, 1435, 1441]),
    st.lists(st.sampled_from([1, 2, 4, 6, 9, 11]), max_size=4),
    st.sampled_from(Stage),
    st.booleans(),
)


def _verdict(asked: Facts):
    """What a caller sees of a decision, less the times that it tells."""
    decision = judge(EVERY, asked)
    return (decision.outcome, decision.code, [(step.effect, step.skipped) for step in decision.steps])


@given(SITUATIONS, st.floats(min_value=0, max_value=1, exclude_max=True))
def test_nothing_changes_by_time_alone_before_a_decision_ends(asked, part):
    """At any moment until then the same facts make the same decision, rule by rule."""
    until = holds_until(EVERY, asked)
    later = NOW + (until - NOW - timedelta(milliseconds=1)) * part if until else NOW + timedelta(days=3)

    moved = msgspec.structs.replace(asked, now=max(NOW, later))

    assert until is None or until > NOW
    assert _verdict(moved) == _verdict(asked)


@pytest.mark.parametrize(
    ("made", "asked", "until"),
    [
        pytest.param(rule("ip_deny", params={"networks": ["192.0.2.1"]}), facts(), None, id="nothing ends"),
        pytest.param(
            rule("session_limit", params={"max": 1}),
            facts(session=session(idle=10), others=(session("b", idle=25),)),
            at(5),
            id="another session leaves the window",
        ),
        pytest.param(
            rule("session_limit", params={"max": 2}), facts(others=(session("b", idle=25),)), None, id="room for all"
        ),
        pytest.param(
            rule("enrolment"),
            facts(enrolments=(enrolment(status=EnrolmentStatus.FROZEN, reopens_at=at(7)),)),
            at(7),
            id="a frozen enrolment thaws",
        ),
        pytest.param(rule("enrolment"), facts(enrolments=(), changes_at=at(3)), at(3), id="a pass ends"),
        pytest.param(
            rule("network_limit", params={"max": 1, "window_s": 3600}),
            facts(networks=(network("192.0.2.1", used=50),)),
            at(10),
            id="a network leaves the window",
        ),
        pytest.param(
            rule("session_limit", "log", params={"max": 9, "escalation": {"days": 1, "deny_after": 1}}),
            facts(cases=(CaseFact(rule_id=number(1), at=at(-1430)), CaseFact(rule_id=number(2), at=at(-1439)))),
            at(10),
            id="a case calms down",
        ),
        pytest.param(
            rule("login_failures", params={"max": 1, "window_s": 3600, "lock_s": 300}),
            facts(stage=Stage.LOGIN, failures=(failure(60),)),
            at(4),
            id="a lock ends",
        ),
        pytest.param(
            rule("copied_session", params={"signal": "network"}),
            facts(networks=(network(admitted=9, used=0.5),)),
            at(1.5),
            id="a turn is too long ago",
        ),
    ],
)
def test_a_decision_holds_until_the_first_thing_that_ends(made, asked, until):
    """None where time alone changes nothing."""
    assert holds_until(rules(made), asked) == until


def test_a_journey_becomes_possible_at_the_moment_that_the_refusal_told():
    """The verdict is held no longer."""
    made = rules(rule("impossible_travel"))
    asked = facts(place=FAR, networks=(network("192.0.2.1", used=10),))

    refused = judge(made, asked)

    assert refused.step is not None
    assert refused.step.finding is not None
    assert holds_until(made, asked) == refused.step.finding.retry_at


@given(SITUATIONS)
def test_explaining_changes_no_decision(asked):
    """It adds what each rule counted, to those that found nothing too."""
    plain, told = judge(EVERY, asked), explain(EVERY, asked)

    assert told.outcome is plain.outcome
    assert [msgspec.structs.replace(each, count=None) for each in told.steps] == list(plain.steps)
    assert all((each.count is None) == (each.skipped is not None) for each in told.steps)
    for step in told.steps:
        if step.finding is not None and step.count is not None and step.finding.counted is not None:
            assert step.count.counted is None or step.count.counted >= 0


@given(SITUATIONS, st.randoms())
def test_the_order_of_all_facts_changes_no_decision(asked, random):
    """Neither of sessions nor devices, networks, failures, cases: what a store answers first decides nothing."""
    shuffled = {}
    for name in ("others", "other_devices", "networks", "failures", "cases", "settled"):
        items = list(getattr(asked, name))
        random.shuffle(items)
        shuffled[name] = tuple(items)

    assert judge(EVERY, msgspec.structs.replace(asked, **shuffled)) == judge(EVERY, asked)


@given(SITUATIONS)
def test_an_exempt_member_and_staff_are_never_refused(asked):
    """L45: an exempt member is looked at, staff is not."""
    exempt = judge(EVERY, msgspec.structs.replace(asked, exempt=True))
    staff = judge(EVERY, msgspec.structs.replace(asked, staff=True))

    assert (exempt.outcome, exempt.exempt) == ("allow", True)
    assert (staff.outcome, staff.steps) == ("allow", ())
