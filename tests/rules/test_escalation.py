"""Actions that grow with the cases they open, challenges, and what was settled."""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.rules.engine import judge
from accessguard.rules.model import Action, CaseFact, Effect, Mode, Outcome, Settled, Stage
from tests.build import NOW, device, facts, number, rule, rules, session

CROWD = (session("b", started=-1), session("c", started=-2))
FULL = facts(others=CROWD)
STEPS = {"days": 30, "challenge_after": 2, "deny_after": 4}


def limit(action="log", **params):
    """A limit of one session, as rule 1."""
    return rule("session_limit", action, params={"max": 1} | params)


def cases(*days, of=1):
    """Cases opened so many days ago."""
    return tuple(CaseFact(rule_id=number(of), at=NOW - timedelta(days=each)) for each in days)


@pytest.mark.parametrize(
    ("opened", "outcome", "action"),
    [
        pytest.param(cases(), Outcome.ALLOW, Action.LOG, id="none"),
        pytest.param(cases(1), Outcome.ALLOW, Action.LOG, id="one"),
        pytest.param(cases(1, 2), Outcome.CHALLENGE, Action.CHALLENGE, id="two"),
        pytest.param(cases(1, 2, 3, 4), Outcome.DENY, Action.DENY_NEW, id="four"),
        pytest.param(cases(1, 2, 3, 30), Outcome.CHALLENGE, Action.CHALLENGE, id="calmed down by a step"),
        pytest.param(cases(30, 31, 32, 33), Outcome.ALLOW, Action.LOG, id="calmed down"),
        pytest.param(cases(1, 2, 3, 4, of=2), Outcome.ALLOW, Action.LOG, id="cases of another rule"),
    ],
)
def test_an_action_grows_with_the_cases_and_calms_down_with_them(opened, outcome, action):
    """From a note to a challenge to a refusal, and back by itself."""
    decision = judge(rules(limit(escalation=STEPS)), msgspec.structs.replace(FULL, cases=opened))

    assert (decision.outcome, decision.steps[0].action) == (outcome, action)


def test_escalation_never_makes_a_rule_milder():
    """What refuses already goes on refusing."""
    strict = limit("deny_new", escalation={"challenge_after": 1})

    decision = judge(rules(strict), msgspec.structs.replace(FULL, cases=cases(1, 2)))

    assert (decision.outcome, decision.steps[0].action) == (Outcome.DENY, Action.DENY_NEW)


def test_an_observed_rule_stays_a_note_however_many_cases_it_opens():
    """L43: observe never denies."""
    watched = rule("session_limit", "log", params={"max": 1, "escalation": STEPS}, mode=Mode.OBSERVE)

    decision = judge(rules(watched), msgspec.structs.replace(FULL, cases=cases(*range(1, 9))))

    assert (decision.outcome, [step.effect for step in decision.fired]) == (Outcome.ALLOW, [Effect.LOGGED])


def test_a_challenge_says_what_passing_it_settles():
    """The rule and the subject; and how often the member may still free a place by himself."""
    asked = msgspec.structs.replace(FULL, device=device(7), swaps_used=((number(1), 1), (number(2), 9)))

    decision = judge(rules(limit("challenge", swaps={"max": 3})), asked)

    assert (decision.outcome, decision.code) == (Outcome.CHALLENGE, "session_limit")
    assert decision.settles == (number(1), str(number(7)))
    assert decision.swaps_left == 2
    assert judge(rules(limit("challenge")), asked).swaps_left == 0


@pytest.mark.parametrize(
    ("settled", "outcome"),
    [
        pytest.param(Settled(rule_id=number(1), subject="a", until=NOW + timedelta(1)), Outcome.ALLOW, id="passed"),
        pytest.param(Settled(rule_id=number(1), subject="a", until=NOW), Outcome.CHALLENGE, id="no longer good"),
        pytest.param(
            Settled(rule_id=number(1), subject="z", until=NOW + timedelta(1)), Outcome.CHALLENGE, id="another"
        ),
        pytest.param(Settled(rule_id=number(2), subject="a", until=NOW + timedelta(1)), Outcome.CHALLENGE, id="rule 2"),
    ],
)
def test_a_passed_challenge_is_not_asked_again_while_it_is_good(settled, outcome):
    """It is recorded all the same."""
    decision = judge(rules(limit("challenge")), msgspec.structs.replace(FULL, settled=(settled,)))

    (step,) = decision.fired
    assert decision.outcome is outcome
    assert step.settled is (outcome is Outcome.ALLOW)
    assert step.effect is (Effect.LOGGED if step.settled else Effect.CHALLENGED)


def test_a_login_that_is_challenged_ends_nobodys_session():
    """Who has not passed yet must not throw out who is in."""
    evicting = rule("session_limit", "evict_oldest", params={"max": 1}, number_of_rule=2)
    device_rule = rule("device_limit", "challenge", params={"max": 1}, number_of_rule=3)
    login = msgspec.structs.replace(
        FULL, stage=Stage.LOGIN, device=device(9, admitted=None), other_devices=(device(1),)
    )

    decision = judge(rules(evicting, device_rule), login)

    assert (decision.outcome, decision.evict) == (Outcome.CHALLENGE, ())


ACTIONS = st.sampled_from(["log", "challenge", "deny_new", "evict_oldest", "evict_idle"])


@given(st.lists(ACTIONS, min_size=1, max_size=3), st.integers(1, 3), st.sampled_from(Stage), st.booleans())
def test_a_settled_challenge_is_never_stricter_than_without(actions, settles, stage, mine):
    """Who was let in still is, and every other rule does what it did: at most one step has become a note."""
    made = rules(
        *(rule("session_limit", each, params={"max": 1}, number_of_rule=at + 1) for at, each in enumerate(actions))
    )
    asked = msgspec.structs.replace(FULL, stage=stage)
    passed = Settled(rule_id=number(settles), subject="a" if mine else "z", until=NOW + timedelta(days=1))

    before, after = judge(made, asked), judge(made, msgspec.structs.replace(asked, settled=(passed,)))

    assert before.outcome is not Outcome.ALLOW or after.outcome is Outcome.ALLOW
    for one, other in zip(before.steps, after.steps, strict=True):
        assert one.finding == other.finding
        ended = {Effect.EVICTED, Effect.LOGGED}  # whether evictions are carried out depends on the outcome
        assert one.effect == other.effect or other.settled or {one.effect, other.effect} == ended
