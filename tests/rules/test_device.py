"""The limit on devices."""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.rules.device import too_many_devices, too_many_new_devices
from accessguard.rules.model import Access, DeviceChurn, DeviceLimit, Per
from tests.build import NOW, device, facts, number

TWO = DeviceLimit(max=2)


@pytest.mark.parametrize(
    ("mine", "others", "refused"),
    [
        pytest.param(device(1), [], False, id="alone"),
        pytest.param(device(3, admitted=3), [device(1), device(2)], True, id="two admitted before"),
        pytest.param(device(3, admitted=3), [device(1), device(2, admitted=5)], False, id="one admitted before"),
        pytest.param(device(3, admitted=None), [device(1)], False, id="new, one place left"),
        pytest.param(device(3, admitted=None), [device(1), device(2)], True, id="new, none left"),
        pytest.param(device(3, admitted=None), [device(1), device(2, seen=30)], False, id="one left the window"),
        pytest.param(device(3, admitted=None), [device(1), device(2, seen=29.9)], True, id="one is about to leave"),
        pytest.param(
            device(3, admitted=None), [device(1), device(2, admitted=None)], False, id="one was refused itself"
        ),
        pytest.param(
            device(3, admitted=None), [device(1), device(2, access=Access.BLOCKED)], False, id="one is blocked"
        ),
        pytest.param(
            device(3, admitted=None),
            [device(1), device(2, access=Access.ALLOWED)],
            False,
            id="one is expressly allowed",
        ),
        pytest.param(
            device(3, admitted=1, seen=31), [device(1, admitted=2), device(2, admitted=3)], True, id="back from outside"
        ),
        pytest.param(device(1), [device(2), device(3)], False, id="first of three of one instant"),
        pytest.param(device(3), [device(1), device(2)], True, id="last of three of one instant"),
        pytest.param(None, [device(1), device(2)], False, id="no device"),
    ],
)
def test_the_devices_admitted_first_keep_their_place(mine, others, refused):
    """With two allowed, a device yields to two that hold a place longer; one that was refused holds none."""
    finding = too_many_devices(facts(device=mine, other_devices=tuple(others)), TWO)

    assert (finding is not None) is refused


def test_a_limit_for_ever_forgets_no_device():
    """Without a window a device of years ago counts, and no place frees by itself."""
    ever = DeviceLimit(max=1, window=None)
    asked = facts(device=device(2, admitted=None), other_devices=(device(1, seen=800),))

    finding = too_many_devices(asked, ever)

    assert finding is not None
    assert (finding.counted, finding.devices, finding.retry_at) == (2, (number(1),), None)


def test_phones_and_laptops_may_be_counted_apart():
    """Per device class, a second device of another class is the first of its own."""
    asked = facts(
        device=device(2, admitted=None, device_class="mobile"), other_devices=(device(1, device_class="desktop"),)
    )

    together = too_many_devices(asked, DeviceLimit(max=1))
    apart = too_many_devices(asked, DeviceLimit(max=1, per=Per.DEVICE_CLASS))

    assert together is not None
    assert apart is None


@pytest.mark.parametrize(
    ("seen", "most", "frees_in"),
    [
        pytest.param([10], 1, 20, id="the only one"),
        pytest.param([10, 25], 2, 5, id="the one seen longest ago"),
        pytest.param([10, 25], 1, 20, id="both"),
    ],
)
def test_a_refusal_says_when_a_place_frees_by_itself(seen, most, frees_in):
    """When so many have not been seen for the window that the device fits, and not a moment before."""
    others = tuple(device(i + 1, seen=days) for i, days in enumerate(seen))
    asked = facts(device=device(9, admitted=None), other_devices=others)

    finding = too_many_devices(asked, DeviceLimit(max=most))

    assert finding is not None
    assert finding.retry_at == NOW + timedelta(days=frees_in)
    later = msgspec.structs.replace(asked, now=finding.retry_at)
    just_before = msgspec.structs.replace(asked, now=finding.retry_at - timedelta(milliseconds=1))
    assert too_many_devices(later, DeviceLimit(max=most)) is None
    assert too_many_devices(just_before, DeviceLimit(max=most)) is not None


DEVICES = st.lists(
    st.builds(
        lambda value, admitted, seen, access: device(value, admitted=admitted, seen=seen, access=access),
        st.integers(min_value=1, max_value=9),
        st.none() | st.integers(min_value=0, max_value=3),
        st.sampled_from([0, 10, 30, 31]),
        st.sampled_from([Access.DEFAULT, Access.DEFAULT, Access.ALLOWED]),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda each: each.id,
)


def _holding(devices, limit):
    return [
        each
        for each in devices
        if each.access is Access.DEFAULT and each.admitted_at and each.last_seen > NOW - limit.window
    ]


def _allowed(devices, limit):
    return {
        each.id
        for each in _holding(devices, limit)
        if too_many_devices(
            facts(device=each, other_devices=tuple(other for other in devices if other is not each)), limit
        )
        is None
    }


@given(DEVICES, st.integers(min_value=1, max_value=4))
def test_as_many_devices_that_hold_a_place_are_allowed_as_the_limit_says(devices, most):
    """Neither more nor less, whatever their times and ties."""
    limit = DeviceLimit(max=most)

    assert len(_allowed(devices, limit)) == min(most, len(_holding(devices, limit)))


@given(DEVICES, st.integers(min_value=1, max_value=4))
def test_a_lower_limit_admits_no_device_more(devices, most):
    """Whichever is in with one place less was in before."""
    assert _allowed(devices, DeviceLimit(max=most)) <= _allowed(devices, DeviceLimit(max=most + 1))


@given(DEVICES, st.randoms(), st.integers(min_value=1, max_value=3))
def test_the_order_of_the_other_devices_does_not_matter(devices, random, most):
    """What a store answers first decides nothing."""
    mine, *others = devices
    shuffled = others[:]
    random.shuffle(shuffled)

    findings = [
        too_many_devices(facts(device=mine, other_devices=tuple(each)), DeviceLimit(max=most))
        for each in (others, shuffled)
    ]

    assert findings[0] == findings[1]


CHURN = DeviceChurn(max_new=2, window=timedelta(days=30))


def fresh(value, ago, **more):
    """A device first admitted `ago` days before NOW."""
    return device(value, first_admitted_at=NOW - timedelta(days=ago), **more)


@pytest.mark.parametrize(
    ("mine", "others", "refused"),
    [
        pytest.param(device(9, admitted=None), [fresh(1, 5)], False, id="the second"),
        pytest.param(device(9, admitted=None), [fresh(1, 5), fresh(2, 6)], True, id="the third"),
        pytest.param(device(9, admitted=None), [fresh(1, 5), fresh(2, 30)], False, id="one is new no more"),
        pytest.param(device(9, admitted=None), [fresh(1, 5), fresh(2, 6, forgotten=True)], True, id="one forgotten"),
        pytest.param(
            device(9, admitted=None), [fresh(1, 5), fresh(2, 6, access=Access.BLOCKED)], True, id="one blocked"
        ),
        pytest.param(
            device(9, admitted=None), [fresh(1, 5), fresh(2, 6, access=Access.ALLOWED)], False, id="one vouched for"
        ),
        pytest.param(fresh(9, 40), [fresh(1, 5), fresh(2, 6), fresh(3, 7)], False, id="known before the window"),
        pytest.param(fresh(9, 8), [fresh(1, 5), fresh(2, 6), fresh(3, 7)], False, id="the first of four"),
        pytest.param(fresh(9, 4), [fresh(1, 5), fresh(2, 6)], True, id="the last of three"),
        pytest.param(None, [fresh(1, 5), fresh(2, 6)], False, id="no device"),
    ],
)
def test_the_first_new_devices_of_a_window_stay(mine, others, refused):
    """L14: a cap on new devices; forgetting or blocking one does not give another for free."""
    finding = too_many_new_devices(facts(device=mine, other_devices=tuple(others)), CHURN)

    assert (finding is not None) is refused


def test_a_refused_newcomer_is_told_when_the_oldest_is_new_no_more():
    """Rolling (e21); and a pass adds a place."""
    asked = facts(device=device(9, admitted=None), other_devices=(fresh(1, 5), fresh(2, 20)))

    finding = too_many_new_devices(asked, CHURN)

    assert finding is not None
    assert (finding.counted, finding.devices) == (3, (number(2), number(1)))
    assert finding.retry_at == NOW + timedelta(days=10)
    assert too_many_new_devices(msgspec.structs.replace(asked, now=finding.retry_at), CHURN) is None
    assert too_many_new_devices(msgspec.structs.replace(asked, extra_devices=1), CHURN) is None


def test_a_forgotten_device_holds_no_place():
    """It is told of for churn alone."""
    asked = facts(device=device(9, admitted=None), other_devices=(device(1, forgotten=True),))

    assert too_many_devices(asked, DeviceLimit(max=1)) is None


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 35)), min_size=1, max_size=8, unique_by=lambda each: each[0]),
    st.integers(min_value=1, max_value=4),
)
def test_as_many_new_devices_are_allowed_as_the_limit_says(pairs, most):
    """Neither more nor less, with ties; what was known before always is; lowering the limit admits none more."""
    devices = [fresh(value, ago) for value, ago in pairs]
    new = {each.id for each in devices if each.first and each.first > NOW - CHURN.window}

    def allowed(limit):
        return {
            each.id
            for each in devices
            if too_many_new_devices(
                facts(device=each, other_devices=tuple(other for other in devices if other is not each)), limit
            )
            is None
        }

    one, more = (allowed(DeviceChurn(max_new=limit, window=CHURN.window)) for limit in (most, most + 1))

    assert len(one & new) == min(most, len(new))
    assert {each.id for each in devices} - new <= one <= more
