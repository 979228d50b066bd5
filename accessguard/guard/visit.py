"""A login as it came: what it says of itself, and the lines that it leaves whatever is decided. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from accessguard.devices.browser import Browser, kin
from accessguard.devices.cookie import Claim, matches
from accessguard.guard.facts import Seen, device_fact
from accessguard.guard.model import Login, Method
from accessguard.rules.model import Access, Decision, DeviceFact, Facts, Outcome, Place, Rule, SessionFact
from accessguard.rules.network import admitted_since
from accessguard.rules.networks import Address
from accessguard.sessions.model import AttemptRow, ClaimedDevice, Device, NetworkRow, Opening


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """A login as it was asked, read and recognised; `ids` are fresh ones, enough for all it may need.

    `session_id` is the platform's or a new one, `device_id` is for the case
    that the device is new, `challenge_id` for a challenge, `secret` is what
    the device will hold from now on. `device_new`: the device was made by
    this very login, when it was challenged.
    """

    asked: Login
    now: datetime
    attempt_id: UUID
    session_id: str
    device_id: UUID
    secret: bytes
    claim: Claim | None
    browser: Browser
    address: Address | None
    user_agent: str | None
    identifier_hash: str | None
    ids: tuple[UUID, ...]
    challenge_id: UUID
    place: Place = Place()
    device_new: bool = False


def recognised(opening: Opening, claim: Claim | None) -> Device | None:
    """The member's own device that the token speaks of; None for a new one.

    One browser may serve several members. Its cookie then names the device of
    whoever logged in last; the browser behind it leads to the others' own.
    """
    claimed = opening.claimed
    if claim is None or claimed is None or claimed.forgotten:
        return None
    own = opening.snapshot.device(claimed.id)
    if own is not None:
        return own
    return next((d for d in opening.snapshot.devices if d.browser_id == claimed.browser_id), None)


class TokenState(StrEnum):
    """What a device token turned out to be; kept in the access log."""

    NONE = "none"
    CURRENT = "current"
    PREVIOUS = "previous"
    STALE = "stale"
    FOREIGN = "foreign"


GRACE: Final = timedelta(seconds=30)
"""A token rotates at login; the one before is good for 30 s more (design.md, "Client address, cookie, keys")."""


def token_state(claimed: ClaimedDevice | None, visit: Visit) -> TokenState:
    """Compare the secret of a token with the hashes that are stored, in constant time."""
    if not visit.asked.device_token:
        return TokenState.NONE
    if visit.claim is None or claimed is None or claimed.forgotten:
        return TokenState.FOREIGN
    if matches(visit.claim.secret, claimed.secret_hash):
        return TokenState.CURRENT
    before = claimed.previous_hash is not None and matches(visit.claim.secret, claimed.previous_hash)
    return TokenState.PREVIOUS if before and visit.now - claimed.rotated_at <= GRACE else TokenState.STALE


def attempt(
    visit: Visit,
    member_id: str | None,
    decision: Decision,
    *,
    device_id: UUID | None,
    device_new: bool,
    token: TokenState,
    counted: bool = False,
) -> AttemptRow:
    """The line that this login leaves in the access log; `counted` is a failure that rules count."""
    asked, step = visit.asked, decision.step
    allowed = asked.outcome == "success" and decision.outcome is Outcome.ALLOW
    return AttemptRow(
        id=visit.attempt_id,
        at=visit.now,
        member_id=member_id,
        identifier_hash=visit.identifier_hash,
        outcome=asked.outcome,
        failure_reason=asked.failure_reason,
        method=asked.method,
        app=asked.app,
        host=asked.host,
        ip=visit.address.text if visit.address else None,
        user_agent=visit.user_agent,
        browser=visit.browser.family,
        os=visit.browser.os,
        device_class=visit.browser.device_class,
        device_id=device_id,
        device_new=(device_new or visit.device_new) and device_id is not None,
        device_token=token,
        session_id=visit.session_id if allowed else None,
        decision=decision.outcome,
        code=decision.code,
        rule_id=step.rule.id if step else None,
        rule_version=step.rule.version if step else None,
        exempt=decision.exempt,
        degraded=decision.degraded,
        counted=counted,
        country=visit.place.country,
        asn=visit.place.asn,
        city=visit.place.city,
    )


def network(
    visit: Visit, member_id: str, facts: Facts, rules: Sequence[Rule], *, device_id: UUID | None, allowed: bool
) -> NetworkRow | None:
    """Where the member logged in from; one that is refused holds no place. None: unknown, or not the member himself."""
    if visit.address is None or visit.asked.method is Method.IMPERSONATION:
        return None
    here = (each for each in facts.networks if (each.session_id, each.address) == (visit.session_id, visit.address))
    before = next(here, None)
    held, last_at = (None, visit.now) if before is None else (before.admitted_at, before.last_at)
    place = visit.place
    return NetworkRow(
        member_id=member_id,
        session_id=visit.session_id if allowed else "",
        ip=visit.address.text,
        device_id=device_id,
        at=visit.now,
        admitted_at=admitted_since(held, last_at, rules, visit.now) if allowed else None,
        country=place.country,
        asn=place.asn,
        city=place.city,
        latitude=place.latitude,
        longitude=place.longitude,
    )


def session_of(visit: Visit, device_id: UUID | None, begins: datetime) -> SessionFact:
    """The session that this login would open at `begins`, as rules see it."""
    return SessionFact(
        id=visit.session_id,
        device_id=device_id,
        started_at=begins,
        last_activity=begins,
        app=visit.asked.app,
        device_class=visit.browser.device_class,
    )


def device_of(device: Device | None, visit: Visit) -> DeviceFact:
    """The device that this login comes from, as rules see it."""
    if device is not None:
        return msgspec.structs.replace(device_fact(device), new=visit.device_new)
    return DeviceFact(
        id=visit.device_id,
        access=Access.DEFAULT,
        admitted_at=None,
        last_seen=visit.now,
        device_class=visit.browser.device_class,
        new=True,
        browser=kin(visit.browser.family),
        os=visit.browser.os,
    )


def seen_of(visit: Visit) -> Seen:
    """What this login itself shows."""
    browser = visit.browser
    return Seen(address=visit.address, place=visit.place, browser=kin(browser.family), os=browser.os)


def known_as(device: DeviceFact | None) -> UUID | None:
    """The device that the member is known by; None for a stranger's or a new one."""
    return None if device is None or device.new else device.id
