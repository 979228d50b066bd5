"""A rule from what an operator writes to what the engine judges by."""

from datetime import timedelta

import msgspec
import pytest

from accessguard.errors import ErrorCode, GuardError
from accessguard.policies.model import RuleBody, Settings, normalised, parse, policy
from accessguard.policies.store import settings_of
from accessguard.rules.model import Action, AddressList, DeviceLimit, Kind, Mode, Per, SessionLimit
from tests.build import NOW, host, number, rule


def body(**fields):
    """A rule as an operator writes it."""
    return msgspec.convert(fields, RuleBody)


@pytest.mark.parametrize(
    ("kind", "params", "action", "written"),
    [
        pytest.param(
            "session_limit",
            {"max": 1},
            Action.DENY_NEW,
            {"max": 1, "window_s": 1800, "per": "member", "activities": None},
            id="sessions",
        ),
        pytest.param(
            "device_limit",
            {"max": 2, "window_days": None},
            Action.DENY_NEW,
            {"max": 2, "window_days": None, "per": "member"},
            id="devices",
        ),
        pytest.param(
            "ip_deny", {"networks": ["203.0.113.*"]}, Action.DENY, {"networks": ("203.0.113.*",)}, id="networks"
        ),
    ],
)
def test_a_stored_rule_says_all_of_what_it_does(kind, params, action, written):
    """Every default is written out, and what is written out reads as the same rule."""
    asked = body(kind=kind, params=params)

    full = normalised(asked)

    assert (full.action, full.params) == (action, written)
    assert full.mode is Mode.OBSERVE
    assert normalised(full) == full
    assert parse(full, id=number(1), version=1) == parse(asked, id=number(1), version=1)


def test_parameters_become_what_the_engine_counts_with():
    """Seconds and days become durations, texts become networks."""
    sessions = rule("session_limit", params={"max": 3, "window_s": 31, "per": "app"})
    devices = rule("device_limit", params={"max": 3, "window_days": 7})
    for_ever = rule("device_limit", params={"max": 3, "window_days": None})
    denied = rule("ip_deny", params={"networks": ["10.0.0.0/8"]})

    assert sessions.params == SessionLimit(max=3, window=timedelta(seconds=31), per=Per.APP)
    assert devices.params == DeviceLimit(max=3, window=timedelta(days=7))
    assert for_ever.params == DeviceLimit(max=3, window=None)
    assert isinstance(denied.params, AddressList)
    assert host("10.1.2.3") in denied.params.networks


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        pytest.param({"kind": "session_limit"}, "/params", id="no parameters"),
        pytest.param({"kind": "session_limit", "params": {"max": 0}}, "/params/max", id="a limit of 0"),
        pytest.param({"kind": "session_limit", "params": {"max": -1}}, "/params/max", id="a negative limit"),
        pytest.param({"kind": "session_limit", "params": {"max": None}}, "/params/max", id="no limit"),
        pytest.param({"kind": "session_limit", "params": {"max": "2"}}, "/params/max", id="a text"),
        pytest.param({"kind": "session_limit", "params": {"max": True}}, "/params/max", id="a truth"),
        pytest.param({"kind": "session_limit", "params": {"max": 10**30}}, "/params/max", id="a huge limit"),
        pytest.param(
            {"kind": "session_limit", "params": {"max": 1, "window_s": 30}}, "/params/window_s", id="a window of 30 s"
        ),
        pytest.param({"kind": "session_limit", "params": {"max": 1, "windows": 60}}, "/params", id="an unknown name"),
        pytest.param({"kind": "session_limit", "params": {"max": 1, "per": "ip"}}, "/params/per", id="an unknown unit"),
        pytest.param({"kind": "device_limit", "params": {"max": 1, "per": "app"}}, "/params/per", id="devices per app"),
        pytest.param(
            {"kind": "session_limit", "params": {"max": 1}, "action": "deny"}, "/action", id="an action of other kinds"
        ),
        pytest.param({"kind": "ip_deny", "params": {"networks": []}}, "/params/networks", id="no networks"),
        pytest.param(
            {"kind": "ip_deny", "params": {"networks": ["10.0.0.1", "10.0.0.256"]}},
            "/params/networks/1",
            id="no address",
        ),
        pytest.param(
            {"kind": "ip_deny", "params": {"networks": ["10.0.0.1", 7]}}, "/params/networks/1", id="a number for one"
        ),
    ],
)
def test_what_a_rule_cannot_mean_is_refused_where_it_stands(fields, pointer):
    """The pointer leads to the field."""
    with pytest.raises(GuardError) as refused:
        normalised(body(**fields))

    assert refused.value.code is ErrorCode.INVALID
    assert [problem.pointer for problem in refused.value.problems] == [pointer]


def test_a_policy_is_in_order_and_without_what_is_off():
    """The engine judges what it is given, in that order."""
    from accessguard.policies.model import RuleRecord

    bodies = [
        body(kind="device_limit", mode="enforce", params={"max": 1}),
        body(kind="session_limit", mode="off", params={"max": 1}),
        body(kind="ip_deny", mode="observe", params={"networks": ["10.0.0.1"]}, applies_to={"products": ["p"]}),
    ]
    records = [RuleRecord(id=number(i), version=1, body=each, updated_at=NOW) for i, each in enumerate(bodies)]

    made = policy("t", 7, Settings(), records)

    assert [each.kind for each in made.rules] == [Kind.IP_DENY, Kind.DEVICE_LIMIT]
    assert made.by_product is True
    assert policy("t", 7, Settings(), records[:1]).by_product is False


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        pytest.param({}, Settings(), id="nothing"),
        pytest.param({"name": "School", "colour": "red"}, Settings(name="School"), id="unknown"),
        pytest.param({"session": {"idle_ttl_s": 60, "grace_s": 5}, "cookie": {"flavour": "oat"}}, None, id="nested"),
    ],
)
def test_settings_of_a_later_release_are_read_as_far_as_they_are_known(stored, expected):
    """Two releases run side by side during an update; neither stumbles over the other."""
    found = settings_of(msgspec.Raw(msgspec.json.encode(stored)))

    assert found == (expected or msgspec.convert({"session": {"idle_ttl_s": 60}}, Settings))
