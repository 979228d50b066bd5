"""From what the stores say to what the rules are told, and from a decision to the cases it makes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

from accessguard.devices.browser import kin
from accessguard.guard.model import Choice
from accessguard.policies.model import Policy
from accessguard.rules.copy import WATCH
from accessguard.rules.model import (
    Access,
    Activity,
    Code,
    Decision,
    DeviceFact,
    Effect,
    Facts,
    FailureFact,
    Finding,
    Mode,
    Place,
    SessionFact,
    Stage,
    Step,
    TokenFact,
)
from accessguard.rules.networks import Address
from accessguard.sessions.model import IMPERSONATION, Device, Session, Snapshot
from accessguard.sessions.past import Evidence, Forgotten
from accessguard.violations.model import Found

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
WHOLE_TIME = len('"2026-11-21T18:55:00.123456Z"')


def to_ms(at: datetime) -> int:
    """Milliseconds since the epoch, exact, cut down."""
    return (at - EPOCH) // MILLISECOND


@lru_cache(maxsize=64)
def from_ms(ms: int) -> datetime:
    """The aware UTC time of milliseconds since the epoch, exact. All that comes in one turn of the loop has the same."""
    return EPOCH + timedelta(milliseconds=ms)


def time_text(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    there = at if at.tzinfo is UTC else at.astimezone(UTC)
    written = msgspec.json.encode(there)  # a tenth of the time of `isoformat`; with microseconds, if there are any
    if len(written) == WHOLE_TIME:
        return f"{written[1:24].decode()}Z"
    return f"{there.isoformat(timespec='milliseconds')[:-6]}Z"


def session_fact(session: Session, last_ms: int | None = None, kind: Activity | None = None) -> SessionFact:
    """A session as rules see it; `last_ms` is a newer last activity than the stored one, if there is one, of that `kind`."""
    last = stored = max(session.started_at, session.last_activity_at or session.started_at)
    if last_ms is not None:
        last = max(last, from_ms(last_ms))
    return SessionFact(
        id=session.id,
        device_id=session.device_id,
        started_at=session.started_at,
        last_activity=last,
        app=session.app,
        device_class=session.device_class,
        last_kind=kind if kind is not None and last > stored else session.last_activity_kind,
    )


def device_fact(device: Device) -> DeviceFact:
    """A device as rules see it."""
    return DeviceFact(
        id=device.id,
        access=device.access,
        admitted_at=device.admitted_at,
        last_seen=device.last_seen_at,
        device_class=device.device_class,
        first_admitted_at=device.first_admitted_at,
        browser=kin(device.browser),
        os=device.os,
    )


def forgotten_fact(device: Forgotten) -> DeviceFact:
    """A forgotten device, which only the limit on new devices counts."""
    return DeviceFact(
        id=device.id,
        access=Access.DEFAULT,
        admitted_at=None,
        last_seen=device.last_seen_at,
        device_class=device.device_class,
        first_admitted_at=device.first_admitted_at,
        forgotten=True,
    )


class Seen(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a question itself shows; None where it is unknown, or nobody looks at it.

    `browser` and `os` are families, the phone form of a browser taken for its
    desktop form; `activity` is the counted interaction that is asked for.
    """

    address: Address | None
    place: Place | None = None
    browser: str | None = None
    os: str | None = None
    activity: Activity | None = None
    product_id: str | None = None


def gather(
    snapshot: Snapshot,
    policy: Policy,
    *,
    now: datetime,
    stage: Stage,
    session: SessionFact,
    device: DeviceFact | None,
    seen: Seen,
    live_ms: Mapping[str, int] | None = None,
    kinds: Mapping[str, Activity] | None = None,
    impersonated: bool = False,
    without: Sequence[str] = (),
    failures: Sequence[FailureFact] = (),
    succeeded_at: datetime | None = None,
    token: TokenFact | None = None,
) -> Facts:
    """Everything that one verdict depends on.

    `live_ms` is last activity (ms) by session where it is newer than the
    snapshot, `kinds` of which kind it was; `without` names sessions that this
    login replaces. Of the member's past there is what the snapshot was read with.
    """
    past = snapshot.past
    device_id = device.id if device else None
    return Facts(
        now=now,
        stage=stage,
        session=session,
        device=device,
        address=seen.address,
        others=_others(
            snapshot, policy, now=now, live_ms=live_ms or {}, kinds=kinds or {}, without=(session.id, *without)
        ),
        other_devices=_other_devices(snapshot, device_id),
        tags=frozenset(snapshot.tags),
        product_id=seen.product_id,
        staff=snapshot.staff or impersonated,
        exempt=snapshot.exempt(now),
        place=seen.place,
        browser=seen.browser,
        os=seen.os,
        activity=seen.activity,
        networks=tuple(past.network_facts()) if past.networks else (),
        failures=tuple(failures),
        succeeded_at=succeeded_at,
        enrolments=past.enrolments,
        cases=past.cases,
        settled=tuple(each for each in past.settled if each.until > now),
        extra_sessions=past.live("extra_session", now),
        extra_devices=past.live("extra_device", now),
        changes_at=snapshot.changes_at(now),
        swaps_used=_swaps_used(past, policy, now) if past.freed else (),
        token=token,
        watched=policy.settings.copies == "log",
    )


def _others(
    snapshot: Snapshot,
    policy: Policy,
    *,
    now: datetime,
    live_ms: Mapping[str, int],
    kinds: Mapping[str, Activity],
    without: Sequence[str],
) -> tuple[SessionFact, ...]:
    """The member's other sessions that take a place, and have not gone idle for good."""
    idle = timedelta(seconds=policy.settings.session.idle_ttl_s)
    others = (
        session_fact(other, live_ms.get(other.id), kinds.get(other.id))
        for other in snapshot.sessions
        if other.id not in without and counts(other) and other.expires_at > now
    )
    return tuple(other for other in others if other.last_activity > now - idle)


def _other_devices(snapshot: Snapshot, device_id: UUID | None) -> tuple[DeviceFact, ...]:
    there = tuple(device_fact(other) for other in snapshot.devices if other.id != device_id)
    gone = snapshot.past.forgotten
    return there + tuple(forgotten_fact(other) for other in gone if other.id != device_id) if gone else there


def _swaps_used(past: Evidence, policy: Policy, now: datetime) -> tuple[tuple[UUID, int], ...]:
    """How often the member freed a place within each rule's window."""
    return tuple(
        (rule.id, sum(freed.rule_id == rule.id and freed.at > now - rule.swaps.window for freed in past.freed))
        for rule in policy.rules
        if rule.swaps is not None
    )


def counts(session: Session) -> bool:
    """Whether a session takes a place: it is open, and nobody impersonates."""
    return session.ended_at is None and session.method != IMPERSONATION


def choices(snapshot: Snapshot, finding: Finding | None) -> tuple[Choice, ...]:
    """What takes up the places that a refusal counted."""
    if finding is None:
        return ()
    devices = {device.id: device for device in snapshot.devices}
    return tuple(
        Choice(kind="device", id=str(each), label=devices[each].label, last_activity_at=devices[each].last_seen_at)
        for each in finding.devices
        if each in devices
    ) + tuple(_session_choice(snapshot, each) for each in finding.sessions if snapshot.session(each) is not None)


def _session_choice(snapshot: Snapshot, session_id: str) -> Choice:
    session = snapshot.session(session_id)
    if session is None:
        raise LookupError(session_id)
    device = snapshot.device(session.device_id)
    last = max(session.started_at, session.last_activity_at or session.started_at)
    return Choice(
        kind="session", id=session.id, label=device.label if device else session.device_class, last_activity_at=last
    )


class Case:
    """What the findings of one decision have in common on their way to the log."""

    def __init__(
        self,
        *,
        member_id: str,
        session_id: str | None,
        device_id: UUID | None,
        address: Address | None,
        now: datetime,
    ) -> None:
        self._common: dict[str, Any] = {
            "member_id": member_id,
            "session_id": session_id,
            "device_id": device_id,
            "ip": address.text if address else None,
            "at": now,
            "hits": 1,
        }

    def found(self, ids: Sequence[UUID], decision: Decision) -> tuple[Found, ...]:
        """One row for each finding of the decision, with the ids given (at least one for each finding)."""
        if decision.code is Code.DEVICE_BLOCKED:
            return (self._blocked(ids[0]),)
        return tuple(self._of(each, step) for each, step in zip(ids, decision.fired, strict=False))

    def _blocked(self, violation_id: UUID) -> Found:
        return Found(
            id=violation_id,
            cause=Code.DEVICE_BLOCKED,
            subject=str(self._common["device_id"]),
            code=Code.DEVICE_BLOCKED,
            rule_id=None,
            rule_version=None,
            mode=Mode.ENFORCE,
            effect=Effect.DENIED,
            details={},
            **self._common,
        )

    def _of(self, violation_id: UUID, step: Step) -> Found:
        finding, effect = step.finding, step.effect
        if finding is None or effect is None:
            raise ValueError("a step without a finding is no violation")
        ruled = step.rule is not WATCH
        return Found(
            id=violation_id,
            cause=str(step.rule.id) if ruled else finding.code,
            subject=finding.subject,
            code=finding.code,
            rule_id=step.rule.id if ruled else None,
            rule_version=step.rule.version if ruled else None,
            mode=step.rule.mode,
            effect=effect,
            details=details(finding, effect),
            **self._common,
        )


def details(finding: Finding, effect: Effect) -> dict[str, Any]:
    """What a case keeps of its finding: the limit, what was counted, which ones, and what was or would have been ended."""
    kept: dict[str, Any] = {
        "limit": finding.limit,
        "counted": finding.counted,
        "sessions": list(finding.sessions),
        "devices": [str(each) for each in finding.devices],
        "networks": list(finding.networks),
        "seen": finding.seen,
        "before": finding.before,
        "distance_km": finding.distance_km,
        "speed_kmh": finding.speed_kmh,
        "lapse": finding.lapse,
        "grade": finding.grade,
        "ended" if effect is Effect.EVICTED else "would_end": list(finding.evict),
    }
    return {name: value for name, value in kept.items() if value not in (None, [])}


def cases(decision: Decision) -> int:
    """How many violations a decision makes."""
    return 1 if decision.code is Code.DEVICE_BLOCKED else len(decision.fired)
