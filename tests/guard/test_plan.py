"""What one login decides and writes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from accessguard.devices.browser import recognise
from accessguard.devices.cookie import Claim, secret_hash
from accessguard.guard.model import Login, LoginOutcome, Method
from accessguard.guard.plan import plan
from accessguard.guard.provisional import after, provisional
from accessguard.guard.visit import Visit, recognised
from accessguard.rules.model import Access, Code, Outcome
from accessguard.sessions.model import ClaimedDevice, Opening
from tests.build import BEGIN, NOW, host, number, policy, rule, snapshot, stored_device, stored_session
from tests.service import CHROME, FIREFOX

NEW_DEVICE, NEW_SESSION = number(100), "new"
TWO_DEVICES = policy(rule("device_limit", "deny_new", params={"max": 2}))
NOTHING = policy()


def visit(
    *, claims: UUID | None = None, user_agent: str = CHROME.format(142), now: datetime = NOW, **asked: Any
) -> Visit:
    """Ana logs in, with a device token (of `claims`) or without."""
    login = Login(outcome=LoginOutcome.SUCCESS, ip="203.0.113.9", member_id="ana", user_agent=user_agent, **asked)
    return Visit(
        asked=login,
        now=now,
        attempt_id=number(200),
        session_id=asked.get("session_id") or NEW_SESSION,
        device_id=NEW_DEVICE,
        secret=b"s" * 32,
        claim=None if claims is None else Claim(device_id=claims, secret=b"o" * 32),
        browser=recognise(user_agent),
        address=host("203.0.113.9"),
        user_agent=user_agent,
        identifier_hash=None,
        ids=tuple(number(300 + each) for each in range(10)),
        challenge_id=number(400),
    )


def opening(*devices, claimed: ClaimedDevice | None = None, sessions=(), **more: Any) -> Opening:
    """What is known of Ana, and of the device that the token names."""
    return Opening(snapshot=snapshot(devices=tuple(devices), sessions=tuple(sessions), **more), claimed=claimed)


def claim_of(value: int, *, member: str = "ana", browser: int | None = None, forgotten: bool = False) -> ClaimedDevice:
    """Whose device a token names."""
    return ClaimedDevice(
        id=number(value),
        member_id=member,
        browser_id=number(browser or value),
        forgotten=forgotten,
        secret_hash=secret_hash(b"o" * 32),
        previous_hash=secret_hash(b"b" * 32),
        rotated_at=NOW,
    )


@pytest.mark.parametrize(
    ("devices", "claimed", "expected"),
    [
        pytest.param([stored_device(1)], claim_of(1), 1, id="its own"),
        pytest.param([stored_device(1)], None, None, id="a token of nobody"),
        pytest.param([stored_device(1)], claim_of(1, forgotten=True), None, id="forgotten"),
        pytest.param([stored_device(1)], claim_of(7, member="ben"), None, id="somebody else's, on another browser"),
        pytest.param(
            [stored_device(1)], claim_of(7, member="ben", browser=1), 1, id="somebody else's, on this browser"
        ),
        pytest.param([], claim_of(7, member="ben"), None, id="somebody else's, first time here"),
    ],
)
def test_a_device_is_recognised_by_its_token_or_by_its_browser(devices, claimed, expected):
    """One browser may serve several members; each finds its own device again."""
    found = recognised(opening(*devices, claimed=claimed), visit(claims=number(1)))

    assert (found and found.id.int) == expected


def test_without_a_genuine_token_no_device_is_recognised():
    """A forged one has been read as none."""
    assert recognised(opening(stored_device(1), claimed=claim_of(1)), visit()) is None


def test_a_second_member_on_a_browser_gets_a_device_of_its_own_that_leads_back():
    """It has the browser's id, so that the first member is recognised by the second one's cookie."""
    made = plan(opening(claimed=claim_of(7, member="ben")), NOTHING, visit(claims=number(7)))

    assert (made.device_id, made.device_new) == (NEW_DEVICE, True)
    assert made.rows.device is not None
    assert made.rows.device.browser_id == number(7)


def test_a_forgotten_device_lends_nothing_to_its_successor():
    """What an operator forgot does not come back by its browser."""
    made = plan(opening(claimed=claim_of(7, forgotten=True)), NOTHING, visit(claims=number(7)))

    assert made.rows.device is not None
    assert (made.device_new, made.rows.device.browser_id) == (True, NEW_DEVICE)


def test_a_new_device_that_is_refused_is_kept_without_a_place():
    """So that its cookie leads to it later, and nobody is kept out by it."""
    full = opening(stored_device(1), stored_device(2))

    made = plan(full, TWO_DEVICES, visit())

    assert (made.decision.outcome, made.decision.code) == (Outcome.DENY, Code.DEVICE_LIMIT)
    assert made.rows.device is not None
    assert made.rows.device.admitted_at is None
    assert made.rows.session is None
    assert (made.rows.attempt.decision, made.rows.attempt.session_id) == ("deny", None)
    assert [each.subject for each in made.rows.violations] == [str(NEW_DEVICE)]
    assert made.refusal is not None
    assert {choice.id for choice in made.refusal.choices} == {str(number(1)), str(number(2))}


def test_a_device_refused_before_is_admitted_once_there_is_a_place():
    """Its place counts from now."""
    waiting = stored_device(3, admitted_at=None)

    made = plan(opening(stored_device(1), waiting, claimed=claim_of(3)), TWO_DEVICES, visit(claims=number(3)))

    assert made.decision.outcome is Outcome.ALLOW
    assert made.rows.device is not None
    assert (made.rows.device.id, made.rows.device.admitted_at) == (number(3), NOW)


@pytest.mark.parametrize(
    ("seen_days_ago", "taken", "allowed", "admitted"),
    [
        pytest.param(31, 0, True, NOW, id="outside, a place is free"),
        pytest.param(30, 1, True, NOW, id="outside by the day, a place is free"),
        pytest.param(29.9, 2, True, BEGIN - timedelta(days=90), id="inside: it keeps its place"),
        pytest.param(31, 2, False, BEGIN - timedelta(days=90), id="outside, all places are taken"),
    ],
)
def test_a_device_that_left_the_window_comes_back_as_a_newcomer(seen_days_ago, taken, allowed, admitted):
    """Within the window the place is its own, however many came after."""
    old = stored_device(9, admitted_at=BEGIN - timedelta(days=90), last_seen_at=NOW - timedelta(days=seen_days_ago))
    others = [stored_device(each + 1) for each in range(taken)]

    made = plan(opening(old, *others, claimed=claim_of(9)), TWO_DEVICES, visit(claims=number(9)))

    assert (made.decision.outcome is Outcome.ALLOW) is allowed
    assert made.rows.device is not None
    assert made.rows.device.admitted_at == admitted


def test_a_refused_device_does_not_count_as_seen():
    """Or it would keep itself in the window by trying."""
    seen = NOW - timedelta(days=40)
    back = stored_device(9, last_seen_at=seen)
    full = opening(back, stored_device(1), stored_device(2), claimed=claim_of(9))

    made = plan(full, TWO_DEVICES, visit(claims=number(9)))

    assert made.rows.device is not None
    assert made.rows.device.last_seen_at == seen


def test_logging_in_again_on_a_device_replaces_its_session():
    """It frees its place before the limit is counted, and ends nothing on other devices."""
    one = policy(rule("session_limit", "deny_new", params={"max": 2}))
    open_ones = [stored_session("here", device_id=number(1)), stored_session("there", device_id=number(2))]
    known = opening(stored_device(1), stored_device(2), sessions=open_ones, claimed=claim_of(1))

    made = plan(known, one, visit(claims=number(1)))

    assert made.decision.outcome is Outcome.ALLOW
    assert [(each.id, each.reason) for each in made.rows.ended] == [("here", "replaced")]


def test_a_refused_login_replaces_nothing():
    """Who is not let in must not lose what is open."""
    denied = policy(rule("ip_deny", params={"networks": ["203.0.113.0/24"]}))
    known = opening(stored_device(1), sessions=[stored_session("here", device_id=number(1))], claimed=claim_of(1))

    made = plan(known, denied, visit(claims=number(1)))

    assert (made.decision.code, made.rows.ended) == (Code.IP_DENIED, ())


def test_a_session_of_the_platform_that_begins_again_is_not_counted_twice():
    """The same id is the same session, started anew."""
    one = policy(rule("session_limit", "evict_oldest", params={"max": 1}))
    known = opening(sessions=[stored_session("platform-1", device_id=number(5))])

    made = plan(known, one, visit(session_id="platform-1"))

    assert made.decision.outcome is Outcome.ALLOW
    assert made.rows.ended == ()
    assert made.rows.session is not None
    assert made.rows.session.id == "platform-1"


def test_impersonation_leaves_no_device_and_is_never_restricted():
    """Support looks in as the student, from support's own browser."""
    denied = policy(rule("ip_deny", params={"networks": ["203.0.113.0/24"]}))

    made = plan(opening(claimed=claim_of(1)), denied, visit(claims=number(1), method=Method.IMPERSONATION))

    assert (made.decision.outcome, made.decision.exempt) == (Outcome.ALLOW, True)
    assert (made.device_id, made.rows.device) == (None, None)
    assert made.rows.session is not None
    assert (made.rows.session.method, made.rows.session.device_id) == ("impersonation", None)


def test_a_blocked_device_is_refused_and_one_case():
    """Whatever it tries, the case is about the device."""
    blocked = opening(stored_device(1, access=Access.BLOCKED), claimed=claim_of(1))

    made = plan(blocked, NOTHING, visit(claims=number(1)))

    assert made.decision.code is Code.DEVICE_BLOCKED
    assert [(each.code, each.subject) for each in made.rows.violations] == [(Code.DEVICE_BLOCKED, str(number(1)))]


def test_a_browser_that_updated_itself_is_described_anew_and_another_one_is_not():
    """A cookie that was carried to another browser does not rename the device."""
    known = opening(stored_device(1), claimed=claim_of(1))

    updated = plan(known, NOTHING, visit(claims=number(1), user_agent=CHROME.format(150))).rows.device
    carried = plan(known, NOTHING, visit(claims=number(1), user_agent=FIREFOX)).rows.device

    assert updated is not None
    assert carried is not None
    assert (updated.browser, updated.browser_version) == ("Chrome", "150")
    assert (carried.id, carried.browser, carried.label) == (number(1), "Chrome", "Chrome on Windows")


OLDER = b"".join(secret_hash(bytes([each]) * 32)[:8] for each in b"lk")
"""The beginnings of two hashes."""


def rotated(held: bytes, before: bytes, seconds: int, *, shown: bool = False) -> ClaimedDevice:
    """The device whose token rotated so many seconds ago, from `before` to `held`, after older ones."""
    return msgspec.structs.replace(
        claim_of(1),
        secret_hash=secret_hash(held * 32),
        previous_hash=secret_hash(before * 32),
        older_hashes=OLDER,
        rotated_at=NOW - timedelta(seconds=seconds),
        shown=shown,
    )


@pytest.mark.parametrize(
    ("shows", "rotated_s_ago", "shown", "state", "known"),
    [
        pytest.param(b"n", 3600, True, "current", True, id="the one that is held"),
        pytest.param(b"o", 0, True, "previous", True, id="the one before, just rotated"),
        pytest.param(b"o", 30, True, "previous", True, id="the one before, at the end of its grace"),
        pytest.param(b"o", 31, False, "late_previous", True, id="the one before, whose successor may be lost"),
        pytest.param(b"o", 31, True, "late_previous", False, id="the one before, whose successor is in use"),
        pytest.param(b"l", 1, False, "displaced", False, id="an older one"),
        pytest.param(b"x", 1, False, "stale", False, id="one that is not remembered"),
    ],
)
def test_a_token_is_good_until_its_successor_is_in_use(shows, rotated_s_ago, shown, state, known):
    """Only hashes are stored; the one before has 30 s of grace, and more only while the new one may be lost."""
    claimed = rotated(b"n", b"o", rotated_s_ago, shown=shown)
    asked = msgspec.structs.replace(
        visit(claims=number(1), device_token="a token"), claim=Claim(device_id=number(1), secret=shows * 32)
    )

    made = plan(opening(stored_device(1), claimed=claimed), NOTHING, asked)

    assert made.rows.attempt.device_token == state
    assert (made.device_id == number(1)) is known
    grades = [each.details["grade"] for each in made.rows.violations]
    assert grades == ([] if state in {"current", "previous"} else [state])


def test_an_old_token_of_a_blocked_device_leads_to_the_block():
    """It gives nothing, and takes nothing away from what an operator said."""
    asked = msgspec.structs.replace(visit(claims=number(1)), claim=Claim(device_id=number(1), secret=b"x" * 32))
    blocked = opening(stored_device(1, access=Access.BLOCKED), claimed=rotated(b"n", b"o", 3600, shown=True))

    made = plan(blocked, NOTHING, asked)

    assert made.decision.code is Code.DEVICE_BLOCKED


def test_an_old_token_of_somebody_else_lends_nothing():
    """Neither the device nor the browser that both would share; and no case names another member's device."""
    asked = msgspec.structs.replace(visit(claims=number(7)), claim=Claim(device_id=number(7), secret=b"x" * 32))
    claimed = claim_of(7, member="ben", browser=1)

    made = plan(opening(stored_device(1), claimed=claimed), NOTHING, asked)

    assert (made.device_id, made.rows.violations) == (NEW_DEVICE, ())
    assert made.rows.device is not None
    assert made.rows.device.browser_id == NEW_DEVICE


def test_of_logins_at_once_the_sessions_may_come_back():
    """A login that shows the token before, or none at the same instant, does not know whose answer arrives last."""
    young = stored_session("young", started_at=NOW - timedelta(seconds=5))
    tabs = [young, stored_session("old", started_at=NOW - timedelta(seconds=600))]
    known = opening(stored_device(1), claimed=rotated(b"n", b"o", 5), sessions=tabs)
    sure = opening(stored_device(1), claimed=rotated(b"o", b"n", 5), sessions=tabs)

    at_once, after = plan(known, NOTHING, visit(claims=number(1))), plan(sure, NOTHING, visit(claims=number(1)))

    assert {each.id: each.by for each in at_once.rows.ended} == {"young": "twin", "old": None}
    assert {each.id: each.by for each in after.rows.ended} == {"young": None, "old": None}


def test_what_is_kept_of_a_member_whose_logins_wait_does_not_grow_without_end():
    """Every open session, of the ended ones the last 50, and the 1,000 devices seen last."""
    ended = [
        msgspec.structs.replace(stored_session(f"e{each}"), ended_at=NOW + timedelta(seconds=each))
        for each in range(60)
    ]
    devices = [
        msgspec.structs.replace(stored_device(1000 + each), last_seen_at=NOW - timedelta(seconds=each))
        for each in range(1_005)
    ]
    known = opening(*devices, sessions=[stored_session("open"), *ended]).snapshot
    made = provisional(NOTHING, visit(), known)

    left = after(known, made, NOTHING)

    kept = {each.id for each in left.sessions}
    assert kept == {"open", NEW_SESSION, *(f"e{each}" for each in range(10, 60))}
    assert len(left.devices) == 1_000
    assert {NEW_DEVICE, number(1000)} <= {each.id for each in left.devices}
    assert number(2004) not in {each.id for each in left.devices}


@pytest.mark.parametrize(("others", "ended"), [(499, 0), (500, 1), (600, 101)])
def test_a_member_has_so_many_sessions_at_most_whatever_the_rules_say(others, ended):
    """The oldest of them end when one more begins, as by a rule; what has expired or is somebody else's work takes no place."""
    begins = [NOW - timedelta(minutes=each) for each in range(others)]
    held = [stored_session(f"s{number}", device_id=None, started_at=at) for number, at in enumerate(begins)]
    none = [
        stored_session("expired", started_at=NOW - timedelta(days=2), expires_at=NOW - timedelta(days=1)),
        stored_session("support", started_at=NOW - timedelta(days=2), method=Method.IMPERSONATION),
    ]

    made = plan(opening(sessions=[*held, *none]), NOTHING, visit())

    assert made.decision.outcome is Outcome.ALLOW
    assert {(each.id, each.reason) for each in made.rows.ended} == {
        (f"s{number}", "session_limit") for number in range(others - ended, others)
    }
