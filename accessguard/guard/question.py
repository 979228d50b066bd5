"""One check with all that its verdict is made from, and what can be said of it without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

import msgspec

from accessguard.devices.browser import kin, recognise
from accessguard.devices.cookie import Claim, DeviceTokens
from accessguard.geo import Geo
from accessguard.guard.deadline import Deadline
from accessguard.guard.facts import Seen, device_fact, from_ms, gather, session_fact, to_ms
from accessguard.guard.model import Check
from accessguard.guard.tokens import TokenState, shown_state, token_fact
from accessguard.policies.model import Policy
from accessguard.rules.copy import other_browser
from accessguard.rules.engine import explain, judge
from accessguard.rules.horizon import holds_until
from accessguard.rules.model import (
    Access,
    Activity,
    Code,
    Decision,
    DeviceFact,
    Facts,
    NetworkFact,
    Outcome,
    Place,
    Stage,
    TokenFact,
)
from accessguard.rules.needs import Need
from accessguard.rules.networks import address
from accessguard.sessions.model import BEAT_MS, IMPERSONATION, MARK_BYTES, Beat, Device, Session, Snapshot

TTL_MS: Final = 5_000
REPLACED: Final = "replaced"
PLAIN: Final = Decision(outcome=Outcome.ALLOW)


class Question:
    """A check of a known session; times in ms since the epoch.

    `snapshot` is the member as PostgreSQL had it, read after the moment `since`
    of the worker's memory; `live_ms` is last activity by session where it is
    newer, `kinds` which of the six it was, where rules look at that. `state` is
    that of a token of the session's own device, None where none was shown;
    `first_shown` is its device and mark, when nobody has come with it before.
    """

    __slots__ = (
        "_facts",
        "address",
        "asked",
        "deadline",
        "device",
        "first_shown",
        "kinds",
        "live_ms",
        "now_ms",
        "place",
        "policy",
        "seen",
        "session",
        "since",
        "snapshot",
        "state",
        "token",
    )

    def __init__(
        self,
        policy: Policy,
        snapshot: Snapshot,
        session: Session,
        asked: Check,
        now_ms: int,
        *,
        since: int,
        deadline: Deadline,
    ) -> None:
        self.policy = policy
        self.snapshot = snapshot
        self.session = session
        self.asked = asked
        self.now_ms = now_ms
        self.since = since
        self.deadline = deadline
        self.live_ms: dict[str, int] = {}
        self.kinds: Mapping[str, Activity] = {}
        self.address = address(asked.ip)
        self.device: DeviceFact | None = None
        self.place: Place | None = None
        self.seen: tuple[str | None, str | None] = (None, None)
        self.state: TokenState | None = None
        self.token: TokenFact | None = None
        self.first_shown: tuple[UUID, bytes] | None = None
        self._facts: Facts | None = None

    def renew(self, snapshot: Snapshot, session: Session) -> None:
        """Take over the member as it is now."""
        self.snapshot, self.session = snapshot, session

    def hear(self, live_ms: Mapping[str, int], kinds: Mapping[str, Activity]) -> bool:
        """Take over newer last activity; whether that of another session is news."""
        news = self.kinds != kinds
        self.kinds = kinds
        for session_id, at in live_ms.items():
            if self.live_ms.get(session_id, 0) < at:
                self.live_ms[session_id] = at
                news = news or session_id != self.session.id
        return news

    def recognise(self, tokens: DeviceTokens, geo: Geo) -> None:
        """Find the session's device; another one of the member's whose token is shown counts when it is blocked.

        Where the rules look at it, find out where the address is, too.
        """
        snapshot, asked, shown = self.snapshot, self.asked, None
        own = snapshot.device(self.session.device_id)
        claim = tokens.read(asked.device_token) if asked.device_token is not None else None
        if claim is not None and own is not None and claim.device_id == own.id:
            self._shows(own, claim)
        elif claim is not None:
            shown = snapshot.device(claim.device_id)
        chosen = shown if shown is not None and shown.access is Access.BLOCKED else own
        self.device = device_fact(chosen) if chosen else None
        if asked.user_agent:
            found = recognise(asked.user_agent)
            self.seen = (kin(found.family), found.os)
        if self.policy.needs & (Need.PLACE | Need.NETWORKS):
            self.place = geo.lookup(self.address)

    def _shows(self, own: Device, claim: Claim) -> None:
        """Find out how old the token is that was shown."""
        self.state = shown_state(own, claim, from_ms(self.now_ms))
        self.token = token_fact(own, self.state)
        if self.state is TokenState.CURRENT and own.marks and not own.shown:
            self.first_shown = (own.id, own.marks[:MARK_BYTES])

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

    @property
    def may_come_back(self) -> bool:
        """Whether the session was replaced so soon that it may have been by a login at the same instant."""
        session = self.session
        young = self.now_ms - to_ms(session.started_at) <= BEAT_MS
        return session.ended_at is not None and session.end_reason == REPLACED and young and not self.blocked

    def decision(self) -> Decision:
        """Judge on what is known now.

        Where there are no more sessions and devices than every limit allows, a
        policy of limits alone has nothing to find.
        """
        self._facts = None
        if self.asked.explain:
            return explain(self.policy.rules, self.facts)
        return PLAIN if self._free else judge(self.policy.rules, self.facts)

    @property
    def facts(self) -> Facts:
        """All that the last decision was made from."""
        if self._facts is None:
            self._facts = self._gathered()
        return self._facts

    def _gathered(self) -> Facts:
        return gather(
            self.snapshot,
            self.policy,
            now=from_ms(self.now_ms),
            stage=Stage.CHECK,
            session=session_fact(self.session, self.live_ms.get(self.session.id), self.kinds.get(self.session.id)),
            device=self.device,
            seen=self._seen,
            live_ms=self.live_ms,
            kinds=self.kinds,
            impersonated=self.impersonated,
            token=self.token,
        )

    def went(self, network: NetworkFact) -> None:
        """Take over what has been noted of an address."""
        past = self.snapshot.past.with_network(network)
        self.snapshot = msgspec.structs.replace(self.snapshot, evidence=past)

    def steady(self, decision: Decision) -> bool:
        """Whether time alone cannot alter the decision, however often last activity moves.

        So it is where nothing was found, every limit has room for all there is,
        and no token is in its grace.
        """
        calm = decision.outcome is Outcome.ALLOW and not decision.degraded and not decision.fired
        calm = calm and self.state is not TokenState.PREVIOUS
        return calm and (not self._judged or self.policy.timeless(*self._counts))

    def end_ms(self, last_ms: int) -> int:
        """When the verdict ends at the latest: with the session, or with the member's exemption or pass."""
        changes_at = self.snapshot.changes_at(from_ms(self.now_ms))
        over = self._over_ms(last_ms)
        return over if changes_at is None else min(over, to_ms(changes_at))

    def holds_ms(self, decision: Decision) -> int:
        """Until when the passing of time alone cannot change the decision, as far as it is looked ahead (30 s)."""
        ahead = self.now_ms + BEAT_MS + TTL_MS
        if self._free or not self._judged or self.steady(decision):
            return ahead
        until = holds_until(self.policy.rules, self.facts)
        return ahead if until is None else min(ahead, to_ms(until))

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
    def _free(self) -> bool:
        """Whether no rule can find anything, so that none need be looked at."""
        ordinary = self._judged and self.snapshot.checks_enabled and not self.blocked and not self.exempt
        return ordinary and self.policy.idle(*self._counts) and not self._doubtful

    @property
    def _doubtful(self) -> bool:
        """Whether the token or the browser is not what the device's own would be."""
        return self.token is not None or (self.device is not None and other_browser(self.device, *self.seen))

    @property
    def _seen(self) -> Seen:
        asked = self.asked
        browser, os = self.seen
        return Seen(
            address=self.address,
            place=self.place,
            browser=browser,
            os=os,
            activity=asked.activity,
            product_id=asked.product_id,
        )

    @property
    def _counts(self) -> tuple[int, int]:
        """How many sessions and devices there are, forgotten ones too, whether or not they count."""
        snapshot = self.snapshot
        return len(snapshot.sessions), len(snapshot.devices) + len(snapshot.past.forgotten)

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
