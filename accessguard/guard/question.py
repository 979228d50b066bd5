"""One check with all that its verdict is made from, and what can be said of it without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from accessguard.devices.cookie import DeviceTokens
from accessguard.guard.facts import device_fact, from_ms, gather, session_fact, to_ms
from accessguard.guard.model import Check
from accessguard.policies.model import Policy
from accessguard.rules.engine import judge
from accessguard.rules.model import Access, Code, Decision, DeviceFact, Outcome, Stage
from accessguard.rules.networks import address
from accessguard.sessions.model import BEAT_MS, IMPERSONATION, Beat, Session, Snapshot

PLAIN: Final = Decision(outcome=Outcome.ALLOW)


class Question:
    """A check of a known session; times in ms since the epoch.

    `snapshot` is the member as PostgreSQL had it, read after the moment `since`
    of the worker's memory; `live_ms` is last activity by session where it is
    newer.
    """

    __slots__ = ("address", "asked", "device", "live_ms", "now_ms", "policy", "session", "since", "snapshot")

    def __init__(
        self, policy: Policy, snapshot: Snapshot, session: Session, asked: Check, now_ms: int, *, since: int
    ) -> None:
        self.policy = policy
        self.snapshot = snapshot
        self.session = session
        self.asked = asked
        self.now_ms = now_ms
        self.since = since
        self.live_ms: dict[str, int] = {}
        self.address = address(asked.ip)
        self.device: DeviceFact | None = None

    def hear(self, live_ms: Mapping[str, int]) -> bool:
        """Take over newer last activity; whether that of another session is news."""
        news = False
        for session_id, at in live_ms.items():
            if self.live_ms.get(session_id, 0) < at:
                self.live_ms[session_id] = at
                news = news or session_id != self.session.id
        return news

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
    def exempt(self) -> bool:
        """Whether no rule is enforced on this member now."""
        return not self._judged or self.snapshot.exempt(from_ms(self.now_ms))

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
        return max(to_ms(stored) if stored else 0, self.live_ms.get(self.session.id, 0))

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

        Where there are no more sessions and devices than every limit allows, a
        policy of limits alone has nothing to find.
        """
        if self._ordinary and self.policy.idle(*self._counts) and not self.asked.explain:
            return PLAIN
        facts = gather(
            self.snapshot,
            self.policy,
            now=from_ms(self.now_ms),
            stage=Stage.CHECK,
            session=session_fact(self.session, self.live_ms.get(self.session.id)),
            device=self.device,
            address=self.address,
            product_id=self.asked.product_id,
            live_ms=self.live_ms,
            impersonated=self.impersonated,
        )
        return judge(self.policy.rules, facts)

    def steady(self, decision: Decision) -> bool:
        """Whether time alone cannot alter the decision, however often last activity moves.

        So it is where nothing was found, and every limit has room for all there is.
        """
        calm = decision.outcome is Outcome.ALLOW and not decision.degraded and not decision.fired
        return calm and (not self._judged or self.policy.timeless(*self._counts))

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

    @property
    def _judged(self) -> bool:
        """Whether rules are looked at for this member at all."""
        return not (self.snapshot.staff or self.impersonated)

    @property
    def _ordinary(self) -> bool:
        return self._judged and self.snapshot.checks_enabled and not self.blocked

    @property
    def _counts(self) -> tuple[int, int]:
        """How many sessions and devices there are, whether or not they count."""
        return len(self.snapshot.sessions), len(self.snapshot.devices)

    def _over_ms(self, last_ms: int) -> int:
        """When the session ends by itself: at its absolute end, or after too long without activity."""
        idle_since = max(last_ms, to_ms(self.session.started_at))
        return min(to_ms(self.session.expires_at), idle_since + self.policy.settings.session.idle_ttl_s * 1000)


def beat_of(tenant: str, member_id: str, asked: Check, now_ms: int) -> Beat:
    """A counted interaction on its way to PostgreSQL. Raises ValueError for a check without one."""
    if asked.activity is None:
        raise ValueError("a check without an activity is no beat")
    place = address(asked.ip)
    return Beat(
        tenant=tenant,
        member_id=member_id,
        session_id=asked.session_id,
        at=from_ms(now_ms),
        kind=asked.activity,
        resource=asked.resource,
        product_id=asked.product_id,
        ip=place.text if place else None,
    )
