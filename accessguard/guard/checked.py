"""A session that was challenged at a check, as it stands when the challenge is settled, and what is answered. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from accessguard.challenges.model import Challenge
from accessguard.guard.facts import Seen, device_fact, gather, session_fact
from accessguard.guard.model import EndedSession, LoginVerdict, OpenedSession, Verdict
from accessguard.guard.verdicts import verdict_of
from accessguard.policies.model import Policy
from accessguard.rules.engine import judge
from accessguard.rules.model import Activity, Code, Decision, Kind, Outcome, Rule, SessionLimit, Stage
from accessguard.sessions.model import Session, Snapshot

CODES: Final = {
    Kind.IP_DENY: Code.IP_DENIED,
    Kind.IP_ALLOW_ONLY: Code.IP_NOT_ALLOWED,
    Kind.COUNTRY_DENY: Code.COUNTRY_DENIED,
    Kind.COUNTRY_ALLOW_ONLY: Code.COUNTRY_DENIED,
    Kind.ASN_DENY: Code.ASN_DENIED,
    Kind.ENROLMENT: Code.NO_ACTIVE_ENROLMENT,
}


class Checked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The session with its member; `decision` is that of the challenging rule alone, `closed` why it is over, if it is."""

    snapshot: Snapshot
    session: Session
    rule: Rule | None
    decision: Decision
    closed: Code | None


def of_session(snapshot: Snapshot | None, policy: Policy, challenge: Challenge, now: datetime) -> Checked | None:
    """Look at the session again by the rule that challenged it; None when there is no such session.

    Where it was used from is not known now, nor needed: only sessions and devices can be closed to free a place.
    """
    session = snapshot.session(challenge.session_id or "") if snapshot else None
    if snapshot is None or session is None:
        return None
    rule = next((each for each in policy.rules if each.id == challenge.rule_id), None)
    device = snapshot.device(session.device_id)
    facts = gather(
        snapshot,
        policy,
        now=now,
        stage=Stage.CHECK,
        session=session_fact(session),
        device=device_fact(device) if device else None,
        seen=Seen(address=None, activity=_activity(rule)),
    )
    decision = judge((rule,) if rule else (), facts)
    blocked = Code.DEVICE_BLOCKED if decision.code is Code.DEVICE_BLOCKED else None
    return Checked(
        snapshot=snapshot,
        session=session,
        rule=rule,
        decision=decision,
        closed=_closed(session, policy, now) or blocked,
    )


def allowed(challenge: Challenge, checked: Checked, freed: Sequence[EndedSession]) -> LoginVerdict:
    """The session goes on."""
    session = OpenedSession(id=checked.session.id, token="", expires_at=checked.session.expires_at)
    return _answer(challenge, Outcome.ALLOW, freed, session=session)


def refused(
    policy: Policy, challenge: Challenge, checked: Checked | None, freed: Sequence[EndedSession]
) -> LoginVerdict:
    """The session is over, or the challenge was not passed."""
    if checked is None:
        verdict = Verdict(outcome=Outcome.DENY, code=Code.UNKNOWN_SESSION, session_id=challenge.session_id)
        return _answer(challenge, Outcome.DENY, freed, refusal=verdict)
    step = None if checked.closed else checked.decision.step
    decision = Decision(outcome=Outcome.DENY, code=checked.closed or _code(checked.rule), step=step)
    verdict = verdict_of(decision, checked.snapshot, policy, checked.session)
    if checked.closed is None:
        verdict = msgspec.structs.replace(verdict, rule_id=challenge.rule_id, rule_version=challenge.rule_version)
    return _answer(challenge, Outcome.DENY, freed, refusal=verdict)


def still(
    policy: Policy, challenge: Challenge, checked: Checked, freed: Sequence[EndedSession], next_id: UUID
) -> LoginVerdict:
    """What was freed is not enough: the next challenge."""
    verdict = verdict_of(checked.decision, checked.snapshot, policy, checked.session)
    verdict = msgspec.structs.replace(verdict, challenge_id=next_id)
    return _answer(challenge, checked.decision.outcome, freed, refusal=verdict)


def _answer(
    challenge: Challenge,
    outcome: Outcome,
    freed: Sequence[EndedSession],
    *,
    session: OpenedSession | None = None,
    refusal: Verdict | None = None,
) -> LoginVerdict:
    return LoginVerdict(
        outcome=outcome,
        attempt_id=challenge.id,
        exempt=False,
        degraded=False,
        session=session,
        device=None,
        ended_sessions=tuple(freed),
        violations=(),
        refusal=refusal,
    )


def _code(rule: Rule | None) -> Code:
    """The code of a rule's findings; of one that is gone there is nothing better to say than that it is not known."""
    if rule is None:
        return Code.UNDECIDED
    return CODES.get(rule.kind) or Code(rule.kind.value)


def _activity(rule: Rule | None) -> Activity | None:
    """An interaction that the rule looks at."""
    kinds = rule.params.activities if rule and isinstance(rule.params, SessionLimit) else None
    return next(iter(sorted(kinds)), None) if kinds else None


def _closed(session: Session, policy: Policy, now: datetime) -> Code | None:
    if session.ended_at is not None:
        return Code.SESSION_ENDED
    idle = timedelta(seconds=policy.settings.session.idle_ttl_s)
    last = max(session.started_at, session.last_activity_at or session.started_at)
    return Code.SESSION_EXPIRED if now >= min(session.expires_at, last + idle) else None
