"""A login as it came: what it says of itself, and the lines that it leaves whatever is decided. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from accessguard.devices.browser import Browser, kin
from accessguard.devices.cookie import Claim, secret_hash
from accessguard.guard.facts import Seen, device_fact
from accessguard.guard.model import Login, Method
from accessguard.guard.tokens import GRACE, TokenState, claimed_state, token_fact, trusted
from accessguard.rules.model import Access, Decision, DeviceFact, Facts, Outcome, Place, Rule, SessionFact, TokenFact
from accessguard.rules.network import admitted_since
from accessguard.rules.networks import Address
from accessguard.sessions.model import AttemptRow, ClaimedDevice, Device, NetworkRow, Opening


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """A login as it was asked, read and recognised; `ids` are fresh ones, enough for all it may need.

    `session_id` is the platform's or a new one, `device_id` is for the case
    that the device is new, `challenge_id` for a challenge, `secret` is what
    the device will hold from now on, and `seed` what that is derived from.
    `device_new`: the device was made by this very login, when it was
    challenged. `vouched`: the claim is our own word, of that same login.
    `twin`: it shows no token, but the device that was read is the one that a
    login of the same browser at the same time has just made.
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
    seed: bytes = b""
    place: Place = Place()
    device_new: bool = False
    vouched: bool = False
    twin: bool = False


def recognised(opening: Opening, visit: Visit) -> Device | None:
    """The member's own device that the token speaks of; None for a new one.

    One browser may serve several members. Its cookie then names the device of
    whoever logged in last; the browser behind it leads to the others' own.
    An old token leads nowhere but to a device that is blocked.
    """
    claimed = opening.claimed
    if claimed is None or claimed.forgotten or not (visit.claim or visit.twin):
        return None
    own = opening.snapshot.device(claimed.id)
    if not good(claimed, visit) and (own is None or own.access is not Access.BLOCKED):
        return None
    if own is not None:
        return own
    return next((d for d in opening.snapshot.devices if d.browser_id == claimed.browser_id), None)


def good(claimed: ClaimedDevice, visit: Visit) -> bool:
    """Whether whoever logs in has that device: by its token, or by our own word."""
    sure = visit.vouched or visit.twin
    return not claimed.forgotten and (sure or trusted(claimed, claimed_state(claimed, visit.claim, visit.now)))


def beside(opening: Opening, visit: Visit) -> bool:
    """Whether this login came at the same time as the one that gave the device its present token."""
    claimed = opening.claimed
    if claimed is None or claimed.member_id != opening.snapshot.member_id or claimed.forgotten:
        return False
    if claimed.survivor_rotated_at is not None and good(claimed, visit):
        return abs(visit.now - claimed.survivor_rotated_at) <= GRACE
    return visit.twin or claimed_state(claimed, visit.claim, visit.now) is TokenState.PREVIOUS


def token_state(claimed: ClaimedDevice | None, visit: Visit) -> TokenState:
    """What the token that was shown turned out to be, for the access log."""
    return claimed_state(claimed, visit.claim, visit.now) if visit.asked.device_token else TokenState.NONE


def old_token(opening: Opening, visit: Visit) -> TokenFact | None:
    """What rules are told of an old token of one of the member's own devices."""
    claimed = opening.claimed
    if visit.claim is None or visit.vouched or claimed is None or claimed.member_id != opening.snapshot.member_id:
        return None
    own = opening.snapshot.device(claimed.id)
    fact = token_fact(claimed, claimed_state(claimed, visit.claim, visit.now))
    return fact if fact is None or own is None else msgspec.structs.replace(fact, device_id=own.id)


def shown_hash(opening: Opening, device: Device | None, visit: Visit) -> str | None:
    """The hash of the secret by which a device was recognised, in PostgreSQL's text form of bytea; None for another way."""
    claimed = opening.claimed
    if device is None or visit.claim is None or visit.vouched or claimed is None:
        return None
    known = claimed.id in (device.id, *device.merged_ids) and good(claimed, visit)
    return "\\x" + secret_hash(visit.claim.secret).hex() if known else None


def through(opening: Opening, device: Device | None, visit: Visit) -> UUID | None:
    """The merged device by whose token its survivor was recognised, if it was."""
    shown = shown_hash(opening, device, visit)
    other = opening.claimed.id if shown is not None and opening.claimed is not None else None
    return None if device is None or other == device.id else other


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
