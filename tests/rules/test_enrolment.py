"""The rule that a member must be enrolled."""

from datetime import timedelta

import pytest

from accessguard.rules.engine import judge
from accessguard.rules.enrolment import not_enrolled
from accessguard.rules.model import EnrolmentNeeded, EnrolmentStatus, Lapse, Outcome
from tests.build import NOW, enrolment, facts, rule, rules

ANY = EnrolmentNeeded()
ONE = EnrolmentNeeded(products=frozenset({"p", "q"}))
FROZEN = EnrolmentStatus.FROZEN
OFF = EnrolmentStatus.DEACTIVATED


def days(number):
    """So many days from NOW."""
    return NOW + timedelta(days=number)


@pytest.mark.parametrize(
    ("held", "lapse", "again"),
    [
        pytest.param([enrolment()], None, None, id="active"),
        pytest.param([enrolment(ends=1)], None, None, id="active until tomorrow"),
        pytest.param([], Lapse.NEVER_ENROLLED, None, id="never"),
        pytest.param([enrolment(ends=0)], Lapse.EXPIRED, None, id="ended this instant"),
        pytest.param([enrolment(starts=3)], Lapse.NOT_STARTED, 3, id="starts later"),
        pytest.param([enrolment(starts=0)], None, None, id="starts this instant"),
        pytest.param([enrolment(status=OFF)], Lapse.DEACTIVATED, None, id="deactivated"),
        pytest.param([enrolment(status=FROZEN)], Lapse.FROZEN, None, id="frozen for good"),
        pytest.param([enrolment(status=FROZEN, reopens_at=days(2))], Lapse.FROZEN, 2, id="frozen (e30)"),
        pytest.param([enrolment(status=FROZEN, reopens_at=days(0))], None, None, id="thawed by itself"),
        pytest.param([enrolment(ends=-1), enrolment("q")], None, None, id="one of two is active"),
        pytest.param(
            [enrolment(ends=-1), enrolment("q", starts=5), enrolment("r", status=FROZEN, reopens_at=days(9))],
            Lapse.FROZEN,
            5,
            id="what is nearest to opening explains",
        ),
    ],
)
def test_a_member_must_be_enrolled_now(held, lapse, again):
    """The refusal says why, and when access begins by itself."""
    finding = not_enrolled(facts(enrolments=tuple(held)), ANY)

    assert (finding.lapse if finding else None) == lapse
    assert (finding.retry_at if finding else None) == (None if again is None else days(again))


@pytest.mark.parametrize(
    ("asked", "params", "refused"),
    [
        pytest.param("p", ANY, False, id="the product he is enrolled in"),
        pytest.param("q", ANY, True, id="another one"),
        pytest.param("q", ONE, True, id="another one of the rule's"),
        pytest.param("z", ONE, False, id="one that the rule is not about: any of the rule's"),
        pytest.param(None, ONE, False, id="no product named"),
        pytest.param(
            "p", EnrolmentNeeded(products=frozenset({"q"})), True, id="only in one that the rule is not about"
        ),
    ],
)
def test_the_product_asked_for_is_the_one_needed(asked, params, refused):
    """Where the rule is about it."""
    question = facts(product_id=asked, enrolments=(enrolment("p"),))

    assert (not_enrolled(question, params) is not None) is refused


def test_enrolments_that_were_not_read_let_pass():
    """Degraded, and never as if there were none."""
    decision = judge(rules(rule("enrolment")), facts())

    assert (decision.outcome, decision.degraded) == (Outcome.ALLOW, True)
