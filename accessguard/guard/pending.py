"""A login that was challenged, as it waits to be finished: without its secrets, which are derived again. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from accessguard.challenges.model import Challenge
from accessguard.devices.hints import kept
from accessguard.guard.model import Login, Verdict
from accessguard.guard.plan import Plan
from accessguard.guard.visit import Visit
from accessguard.rules.model import Outcome, Rule, Stage

LASTS: Final = timedelta(minutes=10)
"""How long a challenge can be settled: as long as codes by mail usually live."""


class Pending(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a challenged login needs to be finished.

    `login` has lost the device token and what was typed as user name, of which
    the keyed hash is here. The device's next secret comes from `salt` and the
    challenge's id. `refusal` is what the student was told.
    """

    login: Login
    identifier_hash: str | None
    device_id: UUID
    device_new: bool
    session_id: str
    salt: bytes
    refusal: Verdict


def challenge_of(planned: Plan, visit: Visit, salt: bytes) -> Challenge | None:
    """The challenge that a login is answered with; None when it is none."""
    step, refusal, device_id = planned.decision.step, planned.refusal, planned.device_id
    if planned.decision.outcome is not Outcome.CHALLENGE or step is None or step.finding is None:
        return None
    if refusal is None or device_id is None:
        raise ValueError("whoever is challenged has a device and a reason")
    pending = Pending(
        login=msgspec.structs.replace(
            visit.asked,
            device_token=None,
            identifier=None,
            attempt_id=None,
            user_agent=visit.user_agent,
            client_hints=kept(visit.asked.client_hints),
        ),
        identifier_hash=visit.identifier_hash,
        device_id=device_id,
        device_new=planned.device_new,
        session_id=visit.session_id,
        salt=salt,
        refusal=refusal,
    )
    return Challenge(
        id=visit.challenge_id,
        member_id=visit.asked.member_id or "",
        session_id=visit.session_id,
        device_id=device_id,
        rule_id=step.rule.id,
        rule_version=step.rule.version,
        subject=step.finding.subject,
        violation_id=None,
        stage=Stage.LOGIN,
        asked=msgspec.Raw(msgspec.json.encode(pending)),
        created_at=visit.now,
        expires_at=visit.now + LASTS,
    )


def good_until(rule: Rule | None, now: datetime, session_ends: datetime) -> datetime:
    """How long a passed challenge is good for: the rule's window, and no longer than the session."""
    window = getattr(rule.params, "window", None) if rule else None
    return session_ends if window is None else min(session_ends, now + window)
