"""Failed logins."""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.rules.engine import judge, of_failure
from accessguard.rules.login import too_many_failures
from accessguard.rules.model import FailurePer, Kind, LoginFailures, Outcome, Stage
from tests.build import NOW, device, facts, failure, host, rule, rules

PER_MEMBER = LoginFailures(max=3, window=timedelta(seconds=600), lock=timedelta(seconds=300))
PER_IP = msgspec.structs.replace(PER_MEMBER, per=FailurePer.IP)
PER_DEVICE = msgspec.structs.replace(PER_MEMBER, per=FailurePer.DEVICE)
HERE, THERE = "203.0.113.9", "192.0.2.1"


def login(*failures, **more):
    """A login at NOW from 203.0.113.9, by a stranger unless a device is given."""
    return facts(stage=Stage.LOGIN, failures=failures, **more)


@pytest.mark.parametrize(
    ("ago", "locked_for"),
    [
        pytest.param([], None, id="none"),
        pytest.param([20, 10], None, id="two"),
        pytest.param([30, 20, 10], 290, id="three"),
        pytest.param([500, 200, 10], 290, id="three within the window"),
        pytest.param([610, 200, 10], None, id="the first has left the window"),
        pytest.param([700, 650, 301], None, id="the lock is over"),
        pytest.param([700, 650, 299], 1, id="the lock is about to end"),
        pytest.param([420, 410, 400, 20, 10], None, id="what a lock was put on for never counts again"),
        pytest.param([420, 410, 400, 30, 20, 10], 290, id="three more after the lock"),
    ],
)
def test_the_third_failure_locks_for_the_time_of_the_lock(ago, locked_for):
    """A lock ends by itself, and says when (product research, e20)."""
    finding = too_many_failures(login(*(failure(each) for each in ago)), PER_MEMBER)

    ends = None if finding is None else finding.retry_at
    assert ends == (None if locked_for is None else NOW + timedelta(seconds=locked_for))


@pytest.mark.parametrize("limit", [PER_MEMBER, PER_IP, PER_DEVICE])
def test_a_stranger_cannot_lock_a_member_out_of_his_own_device(limit):
    """L17: a device that the member is known by keeps its own counter, whatever the rule counts."""
    guesses = [failure(each) for each in (30, 20, 10)]

    stranger = too_many_failures(login(*guesses), limit)
    known = too_many_failures(login(*guesses, device=device(7)), limit)
    made_now = too_many_failures(login(*guesses, device=device(7, admitted=None, new=True)), limit)

    assert stranger is not None
    assert known is None
    assert made_now is not None


def test_a_known_device_that_fails_locks_itself_alone():
    """And neither the member's other devices nor strangers."""
    own = [failure(each, device=7) for each in (30, 20, 10)]

    assert too_many_failures(login(*own, device=device(7)), PER_MEMBER) is not None
    assert too_many_failures(login(*own, device=device(8)), PER_MEMBER) is None
    assert too_many_failures(login(*own), PER_MEMBER) is None


@pytest.mark.parametrize(
    ("failures", "limit", "found"),
    [
        pytest.param([failure(9, own=False)] * 3, PER_IP, True, id="per address: whoever's name was tried"),
        pytest.param([failure(9, own=False)] * 3, PER_MEMBER, False, id="per member: not those of others"),
        pytest.param([failure(9, ip=THERE)] * 3, PER_MEMBER, True, id="per member: from wherever"),
        pytest.param([failure(9, ip=THERE)] * 3, PER_IP, False, id="per address: not from elsewhere"),
        pytest.param([failure(9, ip=THERE)] * 3, PER_DEVICE, False, id="per device: an address stands for a stranger"),
        pytest.param([failure(9, ip=None)] * 3, PER_IP, False, id="per address: not from nowhere"),
    ],
)
def test_failures_are_counted_per_member_address_or_device(failures, limit, found):
    """Each rule has its own counter."""
    assert (too_many_failures(login(*failures), limit) is not None) is found


def test_an_ipv6_neighbour_is_the_same_address():
    """L36: whoever holds a /64 changes the rest at will."""
    guesses = [failure(each, ip=f"2001:db8::{each}") for each in (1, 2, 3)]

    assert too_many_failures(login(*guesses, address=host("2001:db8::ffff")), PER_IP) is not None


def test_a_success_clears_its_own_counter_and_never_an_address():
    """Or whoever guesses would sign in to an account of his own in between."""
    guesses = [failure(each) for each in (30, 20, 10)]
    after = login(*guesses, succeeded_at=NOW - timedelta(seconds=5))

    assert too_many_failures(after, PER_MEMBER) is None
    assert too_many_failures(after, PER_IP) is not None


def test_a_lock_is_looked_at_when_somebody_logs_in_and_only_then():
    """Whether the password was right or wrong; a session that is open goes on."""
    guessed = rule("login_failures", params={"max": 3, "window_s": 600, "lock_s": 300})
    asked = login(*(failure(each) for each in (30, 20, 10)))

    at_login = judge(rules(guessed), asked)
    at_check = judge(rules(guessed), msgspec.structs.replace(asked, stage=Stage.CHECK))

    assert (at_login.outcome, at_login.code) == (Outcome.DENY, "login_failures")
    assert (at_check.outcome, at_check.steps[0].skipped) == (Outcome.ALLOW, "stage")


def test_a_failed_login_is_judged_by_where_it_came_from_and_the_failures_before_it():
    """L17: neither sessions nor devices are its business."""
    made = rules(
        rule("ip_deny", params={"networks": [HERE]}),
        rule("login_failures", params={"max": 3}, number_of_rule=2),
        rule("session_limit", params={"max": 1}, number_of_rule=3),
        rule("enrolment", number_of_rule=4),
    )

    assert [each.kind for each in of_failure(made)] == [Kind.IP_DENY, Kind.LOGIN_FAILURES]


TIMES = st.lists(st.integers(min_value=0, max_value=900), max_size=12)


@given(TIMES, TIMES, st.integers(min_value=1, max_value=4))
def test_tries_during_a_lock_never_lengthen_it(before, during, most):
    """L17: however often it is tried, the end that was told first stays."""
    limit = msgspec.structs.replace(PER_MEMBER, max=most)
    told = too_many_failures(login(*(failure(each) for each in before)), limit)
    if told is None or told.retry_at is None:
        return
    left = (told.retry_at - NOW).total_seconds()
    later = NOW + timedelta(seconds=left / 2)
    tries = [failure(-left * each / 1800) for each in during]

    asked = msgspec.structs.replace(login(*(failure(each) for each in before), *tries), now=later)
    again = too_many_failures(asked, limit)

    assert again is not None
    assert again.retry_at == told.retry_at


@given(TIMES, st.randoms(), st.integers(min_value=1, max_value=4))
def test_the_order_of_the_failures_does_not_matter(before, random, most):
    """What a store answers first decides nothing."""
    limit = msgspec.structs.replace(PER_MEMBER, max=most)
    failures = [failure(each) for each in before]
    shuffled = failures[:]
    random.shuffle(shuffled)

    assert too_many_failures(login(*failures), limit) == too_many_failures(login(*shuffled), limit)
