"""One check with all that its verdict is made from, and what can be said of it without asking anybody."""

from __future__ import annotations

from typing import Final

from accessguard.devices.cookie import DeviceTokens
from accessguard.guard.facts import device_fact, from_ms, gather, session_fact, to_ms
from accessguard.guard.memory import Known
from accessguard.guard.model import Check
from accessguard.policies.model import Policy
from accessguard.rules.engine import judge
from accessguard.rules.model import Access, Code, Decision, DeviceFact, Outcome, Stage
from accessguard.rules.networks import address
from accessguard.sessions.model import BEAT_MS, IMPERSONATION, Beat, Session, Snapshot

PLAIN: Final = Decision(outcome=Outcome.ALLOW)


class Question:
    """A check of a known session; times in ms since the epoch."""

    __slots__ = ("address", "asked", "device", "known", "now_ms", "policy", "session")

    def __init__(self, policy: Policy, known: Known, session: Session, asked: Check, now_ms: int) -> None:
        self.policy = policy
        self.known = known
        self.session = session
        self.asked = asked
        self.now_ms = now_ms
        self.address = address(asked.ip)
        self.device: DeviceFact | None = None

    def recognise(self, tokens: DeviceTokens) -> None:
        """Find the session's device; another one of the member's whose token is shown counts when it is blocked."""
        snapshot, shown = self.snapshot, None
        if self.asked.device_token is not None and len(snapshot.devices) > 1:
            claim = tokens.read(self.asked.device_token)
            shown = snapshot.device(claim.device_id) if claim else None
        own = snapshot.device(self.session.device_id)
        chosen = shown if shown is not None and shown.access is Access.BLOCKED else own
        self.device = device_fact(chosen) if chosen else None

    @property
    def snapshot(self) -> Snapshot:
        """The member as PostgreSQL had it."""
        return self.known.snapshot

    @property
    def impersonated(self) -> bool:
        """Whether an operator is using the member's account."""
        return self.session.method == IMPERSONATION

    @property
    def blocked(self) -> bool:
        """Whether an operator has blocked the device."""
        return self.device is not None and self.device.access is Access.BLOCKED

    @property
    def last_ms(self) -> int:
        """Last activity as far as this worker knows; 0 when there was none."""
        stored = self.session.last_activity_at
        return max(to_ms(stored) if stored else 0, self.known.live_ms.get(self.session.id, 0))

    @property
    def due(self) -> bool:
        """Whether this is an interaction that counts, and the 30 s since the last one have passed."""
        counted = self.asked.activity is not None and not self.impersonated
        return counted and self.now_ms - self.last_ms >= BEAT_MS

    @property
    def closed(self) -> Code | None:
        """Why the session cannot go on by itself, before any rule."""
        if self.session.ended_at is not None:
            return Code.SESSION_ENDED
        return Code.SESSION_EXPIRED if self.now_ms >= self._over_ms(self.last_ms) else None

    def decision(self) -> Decision:
        """Judge on what is known now.

        A limit allows one or more, so where there is one session and one device
        a policy of limits alone has nothing to find.
        """
        snapshot = self.snapshot
        single = self.policy.limits_alone and len(snapshot.sessions) == 1 and len(snapshot.devices) <= 1
        ordinary = snapshot.checks_enabled and not (snapshot.staff or self.impersonated or self.blocked)
        if ordinary and (single or not self.policy.rules) and not self.asked.explain:
            return PLAIN
        facts = gather(
            self.snapshot,
            self.policy,
            now=from_ms(self.now_ms),
            stage=Stage.CHECK,
            session=session_fact(self.session, self.known.live_ms.get(self.session.id)),
            device=self.device,
            address=self.address,
            product_id=self.asked.product_id,
            live_ms=self.known.live_ms,
            impersonated=self.impersonated,
        )
        return judge(self.policy.rules, facts)

    def end_ms(self, last_ms: int) -> int:
        """When the verdict ends at the latest: with the session, or with the member's exemption."""
        until = self.snapshot.checks_disabled_until
        over = self._over_ms(last_ms)
        if until is None or not self.snapshot.exempt(from_ms(self.now_ms)):
            return over
        return min(over, to_ms(until))

    def frees_ms(self, decision: Decision) -> int:
        """When a refusal may be looked at again because a place frees by itself; 30 s from now otherwise."""
        finding = decision.step.finding if decision.step else None
        if finding is None or finding.retry_at is None:
            return self.now_ms + BEAT_MS
        return max(self.now_ms, to_ms(finding.retry_at) + 1)

    def beat(self) -> Beat | None:
        """The interaction, on its way to PostgreSQL; None when it does not count."""
        if self.asked.activity is None:
            return None
        return Beat(
            tenant=self.snapshot.tenant,
            member_id=self.snapshot.member_id,
            session_id=self.session.id,
            device_id=self.session.device_id,
            at=from_ms(self.now_ms),
            kind=self.asked.activity,
            resource=self.asked.resource,
            product_id=self.asked.product_id,
            ip=self.address.text if self.address else None,
        )

    def _over_ms(self, last_ms: int) -> int:
        """When the session ends by itself: at its absolute end, or after too long without activity."""
        idle_since = max(last_ms, to_ms(self.session.started_at))
        return min(to_ms(self.session.expires_at), idle_since + self.policy.settings.session.idle_ttl_s * 1000)
