"""A login decided without PostgreSQL: what is believed of its member, and how that is put right at the end. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from accessguard.devices.cookie import Claim, secret_hash
from accessguard.guard.facts import counts
from accessguard.guard.failed import failure, nobody
from accessguard.guard.model import LoginOutcome, Method
from accessguard.guard.plan import AT_ONCE, REPLACED, Plan, plan
from accessguard.guard.tokens import TokenState, hashed_state, shown_state, trusted
from accessguard.guard.verdicts import verdict_of
from accessguard.guard.visit import Visit, attempt
from accessguard.policies.model import Policy
from accessguard.rules.model import Access, Code, Decision, Kind, Mode, Outcome
from accessguard.sessions.model import (
    MARK_BYTES,
    WAITING,
    ClaimedDevice,
    Device,
    DeviceRow,
    Ended,
    LoginRows,
    Opening,
    Session,
    Snapshot,
)

MOST_FRESH: Final = 4
"""First logins of so many browsers of a member may come at once and still find each other."""
MOST_ENDED: Final = 50
MOST_DEVICES: Final = 1_000
"""What is kept of a member beside its open sessions: it is written anew with each of its logins that wait."""
OF_PLACES: Final = frozenset(
    {Kind.IP_DENY, Kind.IP_ALLOW_ONLY, Kind.COUNTRY_DENY, Kind.COUNTRY_ALLOW_ONLY, Kind.ASN_DENY}
)
"""Rules that look at where a login comes from and at nothing that is stored."""


def belief(planned: Plan) -> Plan:
    """The same, marked as made while some state could not be read or written."""
    return msgspec.structs.replace(
        planned,
        decision=msgspec.structs.replace(planned.decision, degraded=True),
        rows=msgspec.structs.replace(
            planned.rows, attempt=msgspec.structs.replace(planned.rows.attempt, degraded=True)
        ),
    )


def provisional(policy: Policy, visit: Visit, before: Snapshot | None, *, barred: bool = False) -> Plan:
    """Decide on a login by what is known of its member; `before` is None when that is nothing, `barred` a device that is blocked.

    Then what rules would count is unknown, and the tenant's `failure_mode`
    decides: open counts what there is (nothing), closed refuses.
    """
    if visit.asked.outcome is LoginOutcome.FAILURE:
        opening = None if before is None else Opening(snapshot=before)
        return belief(failure(policy.tenant, opening, policy, visit))
    blind = before is None and visit.asked.method is not Method.IMPERSONATION
    opening = _opening(visit, before or nobody(policy.tenant, visit.asked.member_id or ""), barred=barred)
    planned = belief(plan(opening, policy, visit, keeps=True))
    if (
        blind
        and planned.decision.outcome is Outcome.ALLOW
        and policy.settings.failure_mode == "closed"
        and _counts(policy)
    ):
        return _undecided(policy, visit, opening.snapshot)
    return planned


def merged(stored: Snapshot | None, waiting: Snapshot | None) -> Snapshot | None:
    """What PostgreSQL had and what came since, as one; a device that either knows as blocked is blocked."""
    if stored is None or waiting is None:
        return stored or waiting
    sessions = {each.id: each for each in (*stored.sessions, *waiting.sessions)}
    ended = {each.id: each for each in stored.sessions if each.ended_at is not None}
    blocked = {each.id for each in (*stored.devices, *waiting.devices) if each.access is Access.BLOCKED}
    devices = {each.id: each for each in (*stored.devices, *waiting.devices)}
    return msgspec.structs.replace(
        stored,
        parts=stored.parts | WAITING,
        sessions=tuple((sessions | ended).values()),
        devices=tuple(
            msgspec.structs.replace(each, access=Access.BLOCKED) if each.id in blocked else each
            for each in devices.values()
        ),
        fresh=waiting.fresh,
    )


def after(before: Snapshot | None, planned: Plan, policy: Policy) -> Snapshot:
    """The member as it is once this login is written."""
    rows = planned.rows
    known = before or nobody(policy.tenant, rows.member_id or "")
    ended = {each.id: each.reason for each in rows.ended}
    sessions = tuple(
        msgspec.structs.replace(each, ended_at=rows.at, end_reason=ended[each.id]) if each.id in ended else each
        for each in known.sessions
        if rows.session is None or each.id != rows.session.id
    )
    return msgspec.structs.replace(
        known,
        parts=known.parts | WAITING,
        sessions=(*_lately(sessions), *_session(rows)),
        devices=_newest(_with_device(known, rows)),
        fresh=_fresh(known, rows),
    )


def settled(rows: LoginRows, opening: Opening, *, twin: bool = False) -> LoginRows:
    """The rows of a login as they fit the member that PostgreSQL has now.

    Session and secret stay as they were answered. The device is another only
    where the token's word was not the whole truth: it was an old one, of a
    device that was forgotten or became part of another, or of a browser that
    serves several members. `opening` was asked for by `asked_by`. A `twin`
    leaves the sessions open that began beside its own.
    """
    snapshot, device, claimed = opening.snapshot, rows.device, opening.claimed
    rows = msgspec.structs.replace(rows, generation=snapshot.generation)
    if device is None:
        return rows
    state = None if claimed is None or device.previous_hash is None else _state(device.previous_hash, claimed, rows.at)
    if claimed is not None and not _holds(claimed, state, opening):
        return _apart(rows, device, state)
    if claimed is not None:
        device = _at_home(device, claimed, opening, rows.attempt.id)
    stored = snapshot.device(device.id)
    if stored is not None:
        device = msgspec.structs.replace(
            device, browser_id=stored.browser_id, admitted_at=stored.admitted_at or device.admitted_at
        )
    rows = msgspec.structs.replace(rows, device=device)
    return _replacing(_on_device(rows, device.id), snapshot, device.id, until=rows.at - AT_ONCE if twin else rows.at)


def asked_by(rows: LoginRows) -> UUID | None:
    """The device whose token was shown, as far as it was known then; a new one has none that was shown."""
    return None if rows.device is None else rows.device.through or rows.device.id


def _state(shown: str, claimed: ClaimedDevice, at: datetime) -> TokenState:
    return hashed_state(claimed, _bytes(shown), at)


def _holds(claimed: ClaimedDevice, state: TokenState | None, opening: Opening) -> bool:
    """Whether the login has that device after all; to one that is blocked any genuine token leads."""
    own = opening.snapshot.device(claimed.id)
    if claimed.forgotten:
        return False
    return state is None or trusted(claimed, state) or (own is not None and own.access is Access.BLOCKED)


def _at_home(device: DeviceRow, claimed: ClaimedDevice, opening: Opening, new_id: UUID) -> DeviceRow:
    """The member's own device behind that token, or a new one of the same browser.

    What was answered is a token of the device that was claimed, which takes the new secret too.
    """
    mine = claimed.member_id == opening.snapshot.member_id
    devices = opening.snapshot.devices
    own = opening.snapshot.device(claimed.id) if mine else None
    own = own or next((each for each in devices if each.browser_id == claimed.browser_id), None)
    device_id = own.id if own else new_id
    return msgspec.structs.replace(
        device,
        id=device_id,
        browser_id=own.browser_id if own else claimed.browser_id,
        through=claimed.id if claimed.id != device_id else None,
    )


def _apart(rows: LoginRows, device: DeviceRow, state: TokenState | None) -> LoginRows:
    """A login that has no right to the device that it claimed: it is a new one, and replaces no session."""
    new_id, replace = rows.attempt.id, msgspec.structs.replace
    admitted_at = rows.at if device.admitted_at else None
    device = replace(
        device,
        id=new_id,
        browser_id=new_id,
        previous_hash=None,
        through=None,
        first_seen_at=rows.at,
        admitted_at=admitted_at,
    )
    attempt = replace(rows.attempt, device_new=True, device_token=state or rows.attempt.device_token)
    ended = tuple(each for each in rows.ended if each.reason != REPLACED)
    return _on_device(replace(rows, device=device, attempt=attempt, ended=ended), new_id)


def _opening(visit: Visit, known: Snapshot, *, barred: bool) -> Opening:
    """What the login is decided on; a genuine token of a device that nobody here knows is taken at its word."""
    claim = visit.claim
    if claim is None:
        return Opening(snapshot=known, claimed=beside(known, visit) if visit.twin else None)
    device = known.device(claim.device_id)
    if device is None:
        browser = visit.browser
        device = Device(
            id=claim.device_id,
            browser_id=claim.device_id,
            access=Access.BLOCKED if barred else Access.DEFAULT,
            label=browser.label,
            browser=browser.family,
            os=browser.os,
            device_class=browser.device_class,
            admitted_at=None,
            last_seen_at=visit.now,
        )
        known = msgspec.structs.replace(known, devices=(*known.devices, device))
    return Opening(snapshot=known, claimed=_claimed(known.member_id, device, claim, visit.now))


def beside(known: Snapshot, visit: Visit) -> ClaimedDevice | None:
    """What PostgreSQL would say of the device of the newest first login that waits and came like this one; None when there is none."""
    row = next((each for each in known.fresh if _alike(each, visit)), None)
    if row is None or row.secret_seed is None:
        return None
    return ClaimedDevice(
        id=row.id,
        member_id=known.member_id,
        browser_id=row.browser_id,
        forgotten=False,
        secret_hash=_bytes(row.secret_hash),
        previous_hash=None,
        rotated_at=row.rotated_at,
        seed=_bytes(row.secret_seed),
    )


def _alike(row: DeviceRow, visit: Visit) -> bool:
    """Whether a first login came from where this one comes from, by the same browser."""
    browser = visit.browser
    if visit.address is None:
        return False
    seen = (row.last_ip, row.browser, row.browser_version, row.os)
    return seen == (visit.address.text, browser.family, browser.version, browser.os)


def _fresh(known: Snapshot, rows: LoginRows) -> tuple[DeviceRow, ...]:
    """The devices of the last logins that showed no token, each until its token is shown."""
    row = rows.device
    if row is None:
        return known.fresh
    others = tuple(each for each in known.fresh if each.id != row.id)
    first = row.previous_hash is None and rows.attempt.device_token is TokenState.NONE
    return (row, *others)[:MOST_FRESH] if first else others


def _bytes(text: str) -> bytes:
    """PostgreSQL's text form of bytea."""
    return bytes.fromhex(text.removeprefix("\\x"))


def _claimed(member_id: str, device: Device, claim: Claim, now: datetime) -> ClaimedDevice:
    """What PostgreSQL would say of the token, as far as the beginnings of its device's hashes tell.

    They tell nothing of a device that was merged into it, whose token is taken at its word.
    """
    own = device.id == claim.device_id
    state, shown = shown_state(device, claim, now) if own else TokenState.CURRENT, secret_hash(claim.secret)
    return ClaimedDevice(
        id=claim.device_id,
        member_id=member_id,
        browser_id=device.browser_id,
        forgotten=False,
        secret_hash=shown if state is TokenState.CURRENT else b"",
        previous_hash=shown if state in {TokenState.PREVIOUS, TokenState.LATE_PREVIOUS} else None,
        older_hashes=shown[:MARK_BYTES] if state is TokenState.DISPLACED else b"",
        rotated_at=device.rotated_at or now,
        shown=device.shown,
    )


def _counts(policy: Policy) -> bool:
    return any(rule.mode is Mode.ENFORCE and rule.kind not in OF_PLACES for rule in policy.rules)


def _undecided(policy: Policy, visit: Visit, snapshot: Snapshot) -> Plan:
    decision = Decision(outcome=Outcome.DENY, code=Code.UNDECIDED, degraded=True)
    rows = LoginRows(
        tenant=policy.tenant,
        member_id=snapshot.member_id,
        generation=None,
        at=visit.now,
        counted=False,
        attempt=attempt(visit, snapshot.member_id, decision, device_id=None, device_new=False, token=TokenState.NONE),
        device=None,
        session=None,
        ended=(),
        violations=(),
        key=None,
    )
    refusal = verdict_of(decision, snapshot, policy, None)
    return Plan(decision=decision, rows=rows, device_id=None, device_new=False, refusal=refusal)


def _session(rows: LoginRows) -> tuple[Session, ...]:
    row = rows.session
    if row is None:
        return ()
    return (
        Session(
            id=row.id,
            device_id=row.device_id,
            device_class=row.device_class,
            app=row.app,
            method=row.method,
            started_at=row.started_at,
            expires_at=row.expires_at,
            last_activity_at=None,
        ),
    )


def _with_device(known: Snapshot, rows: LoginRows) -> tuple[Device, ...]:
    row = rows.device
    if row is None:
        return known.devices
    there = known.device(row.id)
    device = Device(
        id=row.id,
        browser_id=row.browser_id,
        access=there.access if there else Access.DEFAULT,
        label=row.label,
        browser=row.browser,
        os=row.os,
        device_class=row.device_class,
        admitted_at=row.admitted_at,
        last_seen_at=row.last_seen_at,
        first_admitted_at=there.first_admitted_at if there else row.admitted_at,
        merged_ids=there.merged_ids if there else (),
    )
    return (*(each for each in known.devices if each.id != row.id), device)


def _lately(sessions: tuple[Session, ...]) -> tuple[Session, ...]:
    """The open ones, and those that ended last."""
    ends = sorted((each.ended_at, each.id) for each in sessions if each.ended_at is not None)
    gone = {session_id for _, session_id in ends[:-MOST_ENDED]}
    return tuple(each for each in sessions if each.id not in gone) if gone else sessions


def _newest(devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """Those that were seen last, the last of all among them."""
    if len(devices) <= MOST_DEVICES:
        return devices
    return tuple(sorted(devices, key=lambda each: each.last_seen_at)[-MOST_DEVICES:])


def _on_device(rows: LoginRows, device_id: UUID) -> LoginRows:
    replace = msgspec.structs.replace
    return replace(
        rows,
        attempt=replace(rows.attempt, device_id=device_id),
        session=None if rows.session is None else replace(rows.session, device_id=device_id),
        network=None if rows.network is None else replace(rows.network, device_id=device_id),
    )


def _replacing(rows: LoginRows, snapshot: Snapshot, device_id: UUID, *, until: datetime) -> LoginRows:
    """Logging in again from the same device replaces its session, also one that was not known then, if it began before `until`."""
    session = rows.session
    if session is None:
        return rows
    named = {each.id for each in rows.ended}
    here = (
        s.id
        for s in snapshot.sessions
        if s.device_id == device_id and s.id not in named and s.id != session.id and counts(s) and s.started_at <= until
    )
    return msgspec.structs.replace(rows, ended=(*rows.ended, *(Ended(id=each, reason="replaced") for each in here)))
