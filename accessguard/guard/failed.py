"""What an attempt comes to that the platform itself refused. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from accessguard.guard.facts import gather
from accessguard.guard.model import Method
from accessguard.guard.plan import Plan, found_of
from accessguard.guard.verdicts import verdict_of
from accessguard.guard.visit import Visit, attempt, device_of, known_as, recognised, seen_of, session_of, token_state
from accessguard.policies.model import Policy
from accessguard.rules.engine import judge, mild, of_failure
from accessguard.rules.login import reach
from accessguard.rules.model import LoginFailures, Outcome, Rule, Stage
from accessguard.sessions.failures import Failures
from accessguard.sessions.model import LoginRows, Opening, Snapshot

NOBODY: Final = ""
"""Who an unknown user is to the rules: a member with nothing."""


def failure(
    tenant: str, opening: Opening | None, policy: Policy, visit: Visit, *, failures: Failures | None = None
) -> Plan:
    """Put together what an attempt leaves behind that the platform itself refused.

    Only rules on where it came from and on failures before it are asked.
    Refused by one it is not counted; else it is, and where a rule counts
    failures it claims its member, so that of two at once the second sees the first.
    """
    snapshot = opening.snapshot if opening else nobody(tenant)
    own = recognised(opening, visit) if opening else None
    own_id = own.id if own else None
    device = device_of(own, visit) if own else None
    before = failures or Failures()
    facts = gather(
        snapshot,
        policy,
        now=visit.now,
        stage=Stage.LOGIN,
        session=session_of(visit, own_id, visit.now),
        device=device,
        seen=seen_of(visit),
        impersonated=visit.asked.method is Method.IMPERSONATION,
        failures=before.facts,
        succeeded_at=before.succeeded_at(known_as(device)),
    )
    decision = mild(judge(of_failure(policy.rules), facts))
    allowed = decision.outcome is Outcome.ALLOW
    counted = allowed and not facts.staff
    token = token_state(opening.claimed if opening else None, visit)
    member_id = visit.asked.member_id
    claims = counted and opening is not None and failures is not None
    rows = LoginRows(
        tenant=tenant,
        member_id=member_id,
        generation=snapshot.generation if claims else None,
        at=visit.now,
        counted=False,
        attempt=attempt(visit, member_id, decision, device_id=own_id, device_new=False, token=token, counted=counted),
        device=None,
        session=None,
        ended=(),
        violations=found_of(decision, visit, snapshot, own_id) if opening else (),
        key=None,
    )
    refusal = None if allowed else verdict_of(decision, snapshot, policy, None)
    return Plan(decision=decision, rows=rows, device_id=None, device_new=False, refusal=refusal)


def failures_reach(rules: Sequence[Rule]) -> timedelta | None:
    """How far back failed logins are read; None when no rule counts them."""
    return max((reach(rule.params) for rule in rules if isinstance(rule.params, LoginFailures)), default=None)


def nobody(tenant: str, member_id: str = NOBODY) -> Snapshot:
    """A member of whom nothing is known."""
    return Snapshot(
        tenant=tenant,
        member_id=member_id,
        generation=0,
        staff=False,
        tags=(),
        locale=None,
        checks_enabled=True,
        checks_disabled_until=None,
        sessions=(),
        devices=(),
    )
