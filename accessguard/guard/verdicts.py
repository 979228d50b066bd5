"""From a decision to the answer a caller gets. Pure."""

from __future__ import annotations

from typing import Final

from accessguard.guard.facts import choices
from accessguard.guard.model import TraceStep, Verdict
from accessguard.policies.model import Policy
from accessguard.rules.model import Code, Count, Decision, Outcome, Step
from accessguard.sessions.model import Session, Snapshot


def unknown(session_id: str) -> Verdict:
    """The answer for a session that is not there."""
    return Verdict(outcome=Outcome.DENY, code=Code.UNKNOWN_SESSION, session_id=session_id)


def undecided(session_id: str, policy: Policy) -> Verdict:
    """The answer when state could not be read: as the tenant chose."""
    closed = policy.settings.failure_mode == "closed"
    return Verdict(
        outcome=Outcome.DENY if closed else Outcome.ALLOW,
        code=Code.UNDECIDED if closed else None,
        session_id=session_id,
        degraded=True,
        support_email=policy.settings.support_email,
    )


def barred(session_id: str, policy: Policy, code: Code) -> Verdict:
    """The answer when all that is known is that the session's device was blocked, or the session ended."""
    return Verdict(
        outcome=Outcome.DENY,
        code=code,
        session_id=session_id,
        degraded=True,
        support_email=policy.settings.support_email,
    )


def verdict_of(decision: Decision, snapshot: Snapshot, policy: Policy, session: Session | None) -> Verdict:
    """The answer that `decision` makes for a member and, unless a login was refused one, its session."""
    step = decision.step
    finding = step.finding if step else None
    return Verdict(
        outcome=decision.outcome,
        code=decision.code,
        session_id=session.id if session else None,
        member_id=snapshot.member_id,
        device_id=session.device_id if session else None,
        exempt=decision.exempt,
        degraded=decision.degraded,
        rule_id=step.rule.id if step else None,
        rule_version=step.rule.version if step else None,
        limit=finding.limit if finding else None,
        counted=finding.counted if finding else None,
        retry_at=finding.retry_at if finding else None,
        message=step.rule.message if step else None,
        end_reason=session.end_reason if session else None,
        choices=choices(snapshot, finding),
        lapse=finding.lapse if finding else None,
        locale=snapshot.locale,
        time_zone=snapshot.time_zone,
        support_email=policy.settings.support_email,
    )


def trace_step(step: Step) -> TraceStep:
    """One step of the engine, as an explanation shows it; what was counted is said even where it was not too much."""
    rule, finding = step.rule, step.finding
    counted = finding or step.count or NOTHING_COUNTED
    return TraceStep(
        rule_id=rule.id,
        rule_version=rule.version,
        kind=rule.kind,
        mode=rule.mode,
        action=step.action or rule.action,
        skipped=step.skipped,
        code=finding.code if finding else None,
        effect=step.effect,
        limit=counted.limit,
        counted=counted.counted,
        retry_at=finding.retry_at if finding else None,
        sessions=counted.sessions,
        devices=counted.devices,
        networks=counted.networks,
        times=counted.times,
        seen=counted.seen,
        before=finding.before if finding else None,
        settled=step.settled,
        would_end=finding.evict if finding else (),
        grade=finding.grade if finding else None,
    )


NOTHING_COUNTED: Final = Count()
