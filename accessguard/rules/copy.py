"""A session or a device token in two hands: an old token, two browsers, or two networks in turns (L38)."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from accessguard.rules.model import (
    Action,
    Code,
    CopiedSession,
    DeviceFact,
    Facts,
    Finding,
    Kind,
    Mode,
    NetworkFact,
    Rule,
    Signal,
    Stage,
)
from accessguard.rules.networks import Address

TURN = timedelta(seconds=120)
"""Two machines that take turns do so within two minutes; a phone moves from one network to the next once."""

UNKNOWN = frozenset({None, "", "Other"})

# A phone or tablet that is asked for desktop pages says that it is one of the other.
DISGUISES = frozenset({frozenset({"Android", "Linux"}), frozenset({"iOS", "Mac OS X"})})

WATCH: Final = Rule(
    id=UUID(int=0), version=0, kind=Kind.COPIED_SESSION, mode=Mode.ENFORCE, action=Action.LOG, params=CopiedSession()
)
"""Stands for the rule that is not there: it only records, and its cases are no rule's."""


def copied_session(facts: Facts, params: CopiedSession) -> Finding | None:
    """Find one session, or one device token, in two hands.

    The families of browser and system count, never a version, and what is
    unknown never differs. A token whose successor may have been lost on its
    way is nobody's wrong.
    """
    if params.signal is not Signal.NETWORK:
        lost = facts.token is not None and facts.token.lost
        found = (None if lost else _old_token(facts)) or _other_browser(facts)
        if found is not None:
            return found
    return None if params.signal is Signal.BROWSER else _two_networks(facts)


def unwatched(facts: Facts) -> Finding | None:
    """What is recorded of tokens and browsers where no rule finds anything."""
    return (_old_token(facts) or _other_browser(facts)) if facts.watched else None


def other_browser(device: DeviceFact, browser: str | None, os: str | None) -> bool:
    """Whether families as seen cannot be the device's own; an unknown one may be any."""
    same = (device.browser, device.os) == (browser, os)
    return not same and (_browser(device, browser) or _system(device, os))


def turns(facts: Facts) -> tuple[NetworkFact, NetworkFact] | None:
    """This session's present network and another that was used again after this one was first seen.

    One machine uses IPv4 and IPv6 in turns (RFC 8305), and addresses of one
    /64 as it likes: neither is a second network.
    """
    if facts.address is None:
        return None
    since, session_id = facts.now - TURN, facts.session.id
    mine = [each for each in facts.networks if each.last_at > since and each.session_id == session_id]
    if len(mine) < 2:
        return None
    here = next((each for each in mine if each.address == facts.address), None)
    if here is None or here.first_at <= since:
        return None
    others = (each for each in mine if _elsewhere(each.address, here.address))
    back = [each for each in others if each.first_at < here.first_at < each.last_at]
    return (here, max(back, key=lambda each: (each.last_at, each.address.text))) if back else None


def _elsewhere(one: Address, other: Address) -> bool:
    return one.version == other.version and one.place != other.place


def _old_token(facts: Facts) -> Finding | None:
    token = facts.token
    if token is None:
        return None
    login = facts.stage is Stage.LOGIN
    return Finding(
        code=Code.COPIED_SESSION,
        subject=str(token.device_id) if login else facts.session.id,
        sessions=() if login else (facts.session.id,),
        devices=(token.device_id,),
        grade=token.grade,
    )


def _other_browser(facts: Facts) -> Finding | None:
    device = facts.device
    if device is None or device.new or not other_browser(device, facts.browser, facts.os):
        return None
    return Finding(
        code=Code.COPIED_SESSION,
        subject=_subject(facts),
        sessions=(facts.session.id,),
        devices=(device.id,),
        seen=f"{facts.browser or '?'} on {facts.os or '?'}",
        before=f"{device.browser or '?'} on {device.os or '?'}",
    )


def _two_networks(facts: Facts) -> Finding | None:
    found = turns(facts)
    if found is None:
        return None
    here, other = found
    return Finding(
        code=Code.COPIED_SESSION,
        subject=_subject(facts),
        sessions=(facts.session.id,),
        networks=(other.address.text, here.address.text),
        times=(other.last_at, here.first_at),
        seen=here.address.text,
        before=other.address.text,
    )


def _browser(device: DeviceFact, browser: str | None) -> bool:
    return browser not in UNKNOWN and device.browser not in UNKNOWN and browser != device.browser


def _system(device: DeviceFact, os: str | None) -> bool:
    if os in UNKNOWN or device.os in UNKNOWN or os == device.os:
        return False
    return frozenset({os, device.os}) not in DISGUISES


def _subject(facts: Facts) -> str:
    """The session: what is copied is its cookie. A login has none yet, so the device that it claims to be."""
    login = facts.stage is Stage.LOGIN and facts.device is not None
    return str(facts.device.id) if login and facts.device else facts.session.id
