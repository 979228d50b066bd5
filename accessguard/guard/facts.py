"""From what the stores say to what the rules are told, and from a decision to the cases it makes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from accessguard.guard.model import Choice
from accessguard.policies.model import Policy
from accessguard.rules.model import (
    Code,
    Decision,
    DeviceFact,
    Effect,
    Facts,
    Finding,
    Mode,
    SessionFact,
    Stage,
    Step,
)
from accessguard.rules.networks import Address
from accessguard.sessions.model import IMPERSONATION, Device, Session, Snapshot
from accessguard.violations.model import Found

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def to_ms(at: datetime) -> int:
    """Milliseconds since the epoch, exact, cut down."""
    return (at - EPOCH) // MILLISECOND


def from_ms(ms: int) -> datetime:
    """The aware UTC time of milliseconds since the epoch, exact."""
    return EPOCH + timedelta(milliseconds=ms)


def session_fact(session: Session, last_ms: int | None = None) -> SessionFact:
    """A session as rules see it; `last_ms` is a newer last activity than the stored one, if there is one."""
    last = max(session.started_at, session.last_activity_at or session.started_at)
    if last_ms is not None:
        last = max(last, from_ms(last_ms))
    return SessionFact(
        id=session.id,
        device_id=session.device_id,
        started_at=session.started_at,
        last_activity=last,
        app=session.app,
        device_class=session.device_class,
    )


def device_fact(device: Device) -> DeviceFact:
    """A device as rules see it."""
    return DeviceFact(
        id=device.id,
        access=device.access,
        admitted_at=device.admitted_at,
        last_seen=device.last_seen_at,
        device_class=device.device_class,
    )


def gather(
    snapshot: Snapshot,
    policy: Policy,
    *,
    now: datetime,
    stage: Stage,
    session: SessionFact,
    device: DeviceFact | None,
    address: Address | None,
    product_id: str | None = None,
    live_ms: Mapping[str, int] | None = None,
    impersonated: bool = False,
    without: Sequence[str] = (),
) -> Facts:
    """Everything that one verdict depends on.

    `live_ms` is last activity (ms) by session where it is newer than the
    snapshot; `without` names sessions that this login replaces.
    """
    newer = live_ms or {}
    idle = timedelta(seconds=policy.settings.session.idle_ttl_s)
    others = (
        session_fact(other, newer.get(other.id))
        for other in snapshot.sessions
        if other.id != session.id and other.id not in without and counts(other) and other.expires_at > now
    )
    device_id = device.id if device else None
    return Facts(
        now=now,
        stage=stage,
        session=session,
        device=device,
        address=address,
        others=tuple(other for other in others if other.last_activity > now - idle),
        other_devices=tuple(device_fact(other) for other in snapshot.devices if other.id != device_id),
        tags=frozenset(snapshot.tags),
        product_id=product_id,
        staff=snapshot.staff or impersonated,
        exempt=snapshot.exempt(now),
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
        return Found(
            id=violation_id,
            cause=str(step.rule.id),
            subject=finding.subject,
            code=finding.code,
            rule_id=step.rule.id,
            rule_version=step.rule.version,
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
        "ended" if effect is Effect.EVICTED else "would_end": list(finding.evict),
    }
    return {name: value for name, value in kept.items() if value not in (None, [])}


def cases(decision: Decision) -> int:
    """How many violations a decision makes."""
    return 1 if decision.code is Code.DEVICE_BLOCKED else len(decision.fired)
