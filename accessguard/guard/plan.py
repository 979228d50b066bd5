"""What one login decides and writes, from what was read. Pure: ids, secrets and the time are handed in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from accessguard.devices.browser import Browser, same
from accessguard.devices.cookie import Claim, matches, secret_hash
from accessguard.guard.facts import Case, Seen, cases, counts, device_fact, gather
from accessguard.guard.model import Login, Method, Verdict
from accessguard.guard.verdicts import verdict_of
from accessguard.policies.model import Policy
from accessguard.rules.engine import judge
from accessguard.rules.model import Access, Decision, DeviceFact, DeviceLimit, Outcome, SessionFact, Stage
from accessguard.rules.networks import Address
from accessguard.sessions.model import (
    AttemptRow,
    ClaimedDevice,
    Device,
    DeviceRow,
    Ended,
    LoginRows,
    Opening,
    SessionRow,
    Snapshot,
)
from accessguard.violations.model import Found


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """A login as it was asked, read and recognised; `ids` are fresh ones, enough for all it may need.

    `session_id` is the platform's or a new one, `device_id` is for the case
    that the device is new, `secret` is what the device will hold from now on.
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


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a login comes to: the decision, the rows it writes, and the device it came from."""

    decision: Decision
    rows: LoginRows
    device_id: UUID | None
    device_new: bool
    refusal: Verdict | None


def plan(opening: Opening, policy: Policy, visit: Visit, *, live_ms: Mapping[str, int] | None = None) -> Plan:
    """Decide on a successful login and put together everything it leaves behind.

    `live_ms` is last activity (ms) by session where it is newer than in the snapshot.
    """
    snapshot, asked = opening.snapshot, visit.asked
    impersonated = asked.method is Method.IMPERSONATION
    device = None if impersonated else recognised(opening, visit.claim)
    device_id = None if impersonated else device.id if device else visit.device_id
    replaced = _replaced(snapshot, device, visit.session_id)
    facts = gather(
        snapshot,
        policy,
        now=visit.now,
        stage=Stage.LOGIN,
        session=_session_fact(visit, device_id),
        device=None if impersonated else _device_fact(device, visit),
        seen=Seen(address=visit.address),
        live_ms=live_ms,
        impersonated=impersonated,
        without=(*replaced, visit.session_id),
    )
    decision = judge(policy.rules, facts)
    allowed = decision.outcome is Outcome.ALLOW
    found = _found(decision, visit, snapshot, device_id)
    evicted = [each for each in decision.evict if each != visit.session_id]
    ended = tuple(Ended(id=each, reason="replaced") for each in replaced)
    ended += tuple(Ended(id=each, reason="session_limit") for each in evicted)
    rows = LoginRows(
        tenant=snapshot.tenant,
        member_id=snapshot.member_id,
        generation=snapshot.generation,
        at=visit.now,
        counted=allowed and not impersonated,
        attempt=attempt(
            visit,
            snapshot.member_id,
            decision,
            device_id=device_id,
            device_new=device is None,
            token=token_state(opening.claimed, visit),
        ),
        device=None if device_id is None else _device_row(opening, policy, visit, device, device_id, allowed=allowed),
        session=_session_row(visit, policy, snapshot, device_id) if allowed else None,
        ended=ended if allowed else (),
        violations=found,
        key=None,
    )
    return Plan(
        decision=decision,
        rows=rows,
        device_id=device_id,
        device_new=device is None,
        refusal=None if allowed else verdict_of(decision, snapshot, policy, None),
    )


def failure(tenant: str, opening: Opening | None, visit: Visit) -> Plan:
    """Put together what an attempt leaves behind that the platform itself refused: it is only recorded."""
    own = recognised(opening, visit.claim) if opening else None
    decision = Decision(outcome=Outcome.ALLOW)
    row = attempt(
        visit,
        visit.asked.member_id,
        decision,
        device_id=own.id if own else None,
        device_new=False,
        token=token_state(opening.claimed if opening else None, visit),
    )
    rows = LoginRows(
        tenant=tenant,
        member_id=visit.asked.member_id,
        generation=None,
        at=visit.now,
        counted=False,
        attempt=row,
        device=None,
        session=None,
        ended=(),
        violations=(),
        key=None,
    )
    return Plan(decision=decision, rows=rows, device_id=None, device_new=False, refusal=None)


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
) -> AttemptRow:
    """The line that this login leaves in the access log."""
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
        device_new=device_new and device_id is not None,
        device_token=token,
        session_id=visit.session_id if allowed else None,
        decision=decision.outcome,
        code=decision.code,
        rule_id=step.rule.id if step else None,
        rule_version=step.rule.version if step else None,
        exempt=decision.exempt,
        degraded=decision.degraded,
    )


def _replaced(snapshot: Snapshot, device: Device | None, session_id: str) -> tuple[str, ...]:
    """Logging in again from the same device replaces its session."""
    if device is None:
        return ()
    open_here = (s for s in snapshot.sessions if s.device_id == device.id and counts(s) and s.id != session_id)
    return tuple(sorted(session.id for session in open_here))


def _session_fact(visit: Visit, device_id: UUID | None) -> SessionFact:
    return SessionFact(
        id=visit.session_id,
        device_id=device_id,
        started_at=visit.now,
        last_activity=visit.now,
        app=visit.asked.app,
        device_class=visit.browser.device_class,
    )


def _device_fact(device: Device | None, visit: Visit) -> DeviceFact:
    if device is not None:
        return device_fact(device)
    return DeviceFact(
        id=visit.device_id,
        access=Access.DEFAULT,
        admitted_at=None,
        last_seen=visit.now,
        device_class=visit.browser.device_class,
    )


def _found(decision: Decision, visit: Visit, snapshot: Snapshot, device_id: UUID | None) -> tuple[Found, ...]:
    case = Case(
        member_id=snapshot.member_id,
        session_id=visit.session_id if decision.outcome is Outcome.ALLOW else None,
        device_id=device_id,
        address=visit.address,
        now=visit.now,
    )
    return case.found(visit.ids[: cases(decision)], decision)


def _device_row(
    opening: Opening, policy: Policy, visit: Visit, device: Device | None, device_id: UUID, *, allowed: bool
) -> DeviceRow:
    browser, now = visit.browser, visit.now
    lent = opening.claimed.browser_id if opening.claimed and not opening.claimed.forgotten else device_id
    kept = device is not None and not same(_as_stored(device, browser), browser)
    return DeviceRow(
        id=device_id,
        member_id=opening.snapshot.member_id,
        browser_id=device.browser_id if device else lent,
        secret_hash="\\x" + secret_hash(visit.secret).hex(),
        rotated_at=now,
        label=device.label if kept and device else browser.label,
        browser=device.browser if kept and device else browser.family,
        browser_version=browser.version,
        os=device.os if kept and device else browser.os,
        device_class=device.device_class if kept and device else browser.device_class,
        model=browser.model,
        first_seen_at=now,
        last_seen_at=now if allowed or device is None else device.last_seen_at,
        last_ip=visit.address.text if visit.address else None,
        admitted_at=_admitted(device, policy, now, allowed=allowed),
    )


def _as_stored(device: Device, browser: Browser) -> Browser:
    return msgspec.structs.replace(browser, family=device.browser, os=device.os)


def _admitted(device: Device | None, policy: Policy, now: datetime, *, allowed: bool) -> datetime | None:
    """When the device took its place; a device that had left the window of a limit takes a new one."""
    held = device.admitted_at if device else None
    if not allowed:
        return held
    windows = [rule.params.window for rule in policy.rules if isinstance(rule.params, DeviceLimit)]
    shortest = min((window for window in windows if window is not None), default=timedelta.max)
    if held is None or device is None or (shortest < timedelta.max and device.last_seen_at <= now - shortest):
        return now
    return held


def _session_row(visit: Visit, policy: Policy, snapshot: Snapshot, device_id: UUID | None) -> SessionRow:
    return SessionRow(
        id=visit.session_id,
        member_id=snapshot.member_id,
        device_id=device_id,
        device_class=visit.browser.device_class,
        app=visit.asked.app,
        host=visit.asked.host,
        method=visit.asked.method,
        ip=visit.address.text if visit.address else None,
        user_agent=visit.user_agent,
        started_at=visit.now,
        expires_at=visit.now + timedelta(seconds=policy.settings.session.absolute_ttl_s),
    )
