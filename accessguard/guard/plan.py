"""What one login decides and writes, from what was read. Pure: ids, secrets and the time are handed in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from accessguard.devices.browser import Browser, same
from accessguard.devices.cookie import secret_hash
from accessguard.devices.hints import screen
from accessguard.devices.kinship import HANDHELD
from accessguard.guard.facts import Case, cases, counts, gather
from accessguard.guard.model import Method, Verdict
from accessguard.guard.verdicts import verdict_of
from accessguard.guard.visit import (
    Visit,
    attempt,
    beside,
    device_of,
    good,
    known_as,
    network,
    old_token,
    recognised,
    seen_of,
    session_of,
    shown_hash,
    through,
    token_state,
)
from accessguard.policies.model import Policy
from accessguard.rules.device import place_since
from accessguard.rules.engine import judge
from accessguard.rules.model import Decision, Kind, Mode, Outcome, Stage
from accessguard.sessions.failures import Failures
from accessguard.sessions.model import TWIN, Device, DeviceRow, Ended, LoginRows, Opening, SessionRow, Snapshot
from accessguard.violations.model import Found

REPLACED: Final = "replaced"
AT_ONCE: Final = timedelta(seconds=30)
"""A session that began so lately may be the one whose answer arrives last, when logins come at once."""
MOST_OPEN: Final = 500
"""Sessions of one member that may be open, whatever the rules say: half of what a decision reads, so that it knows them all."""
AFTER: Final = timedelta(milliseconds=1)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a login comes to: the decision, the rows it writes, and the device it came from."""

    decision: Decision
    rows: LoginRows
    device_id: UUID | None
    device_new: bool
    refusal: Verdict | None


def plan(
    opening: Opening,
    policy: Policy,
    visit: Visit,
    *,
    live_ms: Mapping[str, int] | None = None,
    failures: Failures | None = None,
    keeps: bool = False,
) -> Plan:
    """Decide on a successful login and put together everything it leaves behind.

    `live_ms` is last activity (ms) by session where it is newer than in the
    snapshot, `failures` are there when a rule counts them. `keeps`: first
    logins at once leave each other's sessions open.
    """
    snapshot, asked = opening.snapshot, visit.asked
    impersonated = asked.method is Method.IMPERSONATION
    device = None if impersonated else recognised(opening, visit)
    device_id = None if impersonated else device.id if device else visit.device_id
    replaced = () if visit.twin and (keeps or _limited(policy)) else _replaced(snapshot, device, visit.session_id)
    fact = None if impersonated else device_of(device, visit)
    before = failures or Failures()
    begins = begins_at(snapshot, visit.now)
    facts = gather(
        snapshot,
        policy,
        now=visit.now,
        stage=Stage.LOGIN,
        session=session_of(visit, device_id, begins),
        device=fact,
        seen=seen_of(visit),
        live_ms=live_ms,
        impersonated=impersonated,
        without=(*replaced, visit.session_id),
        failures=before.facts,
        succeeded_at=before.succeeded_at(known_as(fact)),
        token=None if impersonated else old_token(opening, visit),
    )
    decision = judge(policy.rules, facts)
    allowed = decision.outcome is Outcome.ALLOW
    found = found_of(decision, visit, snapshot, device_id)
    evicted = [each for each in decision.evict if each != visit.session_id]
    ended = _ended(opening, visit, replaced)
    evicted += _overflow(snapshot, visit, {*replaced, *evicted})
    ended += tuple(Ended(id=each, reason="session_limit") for each in evicted)
    rows = LoginRows(
        tenant=snapshot.tenant,
        member_id=snapshot.member_id,
        generation=snapshot.generation,
        at=visit.now,
        counted=allowed and not impersonated,
        attempt=attempt(
            visit,
            snapshot.member_id,
            decision,
            device_id=device_id,
            device_new=device is None,
            token=token_state(opening.claimed, visit),
        ),
        device=None if device_id is None else _device_row(opening, policy, visit, device, device_id, allowed=allowed),
        session=_session_row(visit, policy, snapshot, device_id, begins) if allowed else None,
        ended=ended if allowed else (),
        violations=found,
        key=None,
        network=network(visit, snapshot.member_id, facts, policy.rules, device_id=device_id, allowed=allowed),
    )
    return Plan(
        decision=decision,
        rows=rows,
        device_id=device_id,
        device_new=device is None or visit.device_new,
        refusal=None if allowed else _refusal(decision, snapshot, policy, visit),
    )


def _refusal(decision: Decision, snapshot: Snapshot, policy: Policy, visit: Visit) -> Verdict:
    verdict = verdict_of(decision, snapshot, policy, None)
    if decision.outcome is not Outcome.CHALLENGE:
        return verdict
    return msgspec.structs.replace(verdict, challenge_id=visit.challenge_id)


def _replaced(snapshot: Snapshot, device: Device | None, session_id: str) -> tuple[str, ...]:
    """Logging in again from the same device replaces its session."""
    if device is None:
        return ()
    open_here = (s for s in snapshot.sessions if s.device_id == device.id and counts(s) and s.id != session_id)
    return tuple(sorted(session.id for session in open_here))


def _overflow(snapshot: Snapshot, visit: Visit, gone: set[str]) -> list[str]:
    """The oldest sessions, where this one would be open beside too many."""
    gone = {*gone, visit.session_id}
    still = [s for s in snapshot.sessions if s.id not in gone and counts(s) and s.expires_at > visit.now]
    still.sort(key=lambda session: (session.started_at, session.id))
    return [session.id for session in still[: max(0, len(still) + 1 - MOST_OPEN)]]


def _limited(policy: Policy) -> bool:
    """Whether a rule decides how many sessions there are; then it decides on those of logins at once, too."""
    return any(rule.kind is Kind.SESSION_LIMIT and rule.mode is Mode.ENFORCE for rule in policy.rules)


def _ended(opening: Opening, visit: Visit, replaced: tuple[str, ...]) -> tuple[Ended, ...]:
    """The ends of replaced sessions; of logins at once, whichever session the browser kept may come back."""
    lately = visit.now - AT_ONCE
    at_once = beside(opening, visit)
    young = {s.id for s in opening.snapshot.sessions if at_once and s.started_at >= lately}
    return tuple(Ended(id=each, reason=REPLACED, by=TWIN if each in young else None) for each in replaced)


def found_of(decision: Decision, visit: Visit, snapshot: Snapshot, device_id: UUID | None) -> tuple[Found, ...]:
    """The cases that a decision on this login makes."""
    case = Case(
        member_id=snapshot.member_id,
        session_id=visit.session_id if decision.outcome is Outcome.ALLOW else None,
        device_id=device_id,
        address=visit.address,
        now=visit.now,
    )
    return case.found(visit.ids[: cases(decision)], decision)


def _device_row(
    opening: Opening, policy: Policy, visit: Visit, device: Device | None, device_id: UUID, *, allowed: bool
) -> DeviceRow:
    browser, now = visit.browser, visit.now
    lent = opening.claimed.browser_id if opening.claimed and good(opening.claimed, visit) else device_id
    kept = device is not None and not same(_as_stored(device, browser), browser)
    return DeviceRow(
        id=device_id,
        member_id=opening.snapshot.member_id,
        browser_id=device.browser_id if device else lent,
        secret_hash="\\x" + secret_hash(visit.secret).hex(),
        secret_seed="\\x" + visit.seed.hex(),
        previous_hash=shown_hash(opening, device, visit),
        rotated_at=now,
        label=device.label if kept and device else browser.label,
        browser=device.browser if kept and device else browser.family,
        browser_version=browser.version,
        os=device.os if kept and device else browser.os,
        device_class=device.device_class if kept and device else browser.device_class,
        model=browser.model,
        first_seen_at=now,
        last_seen_at=now if allowed or device is None else device.last_seen_at,
        last_ip=visit.address.text if visit.address else None,
        admitted_at=_admitted(device, policy, now, allowed=allowed),
        screen=screen(visit.asked.client_hints, handheld=browser.device_class in HANDHELD),
        through=through(opening, device, visit),
    )


def _as_stored(device: Device, browser: Browser) -> Browser:
    return msgspec.structs.replace(browser, family=device.browser, os=device.os)


def _admitted(device: Device | None, policy: Policy, now: datetime, *, allowed: bool) -> datetime | None:
    """When the device took its place; a device that had left the window of a limit takes a new one."""
    held = device.admitted_at if device else None
    if not allowed:
        return held
    last_seen = device.last_seen_at if device else now
    return place_since(held, last_seen, policy.rules, now)


def begins_at(snapshot: Snapshot, now: datetime) -> datetime:
    """When a session begins that is opened now: after all that the member has, though they were opened by a clock that was ahead.

    Places are given by rank, and rank is the order of logins.
    """
    newest = max((session.started_at for session in snapshot.sessions), default=now)
    return now if newest <= now else newest + AFTER


def _session_row(
    visit: Visit, policy: Policy, snapshot: Snapshot, device_id: UUID | None, begins: datetime
) -> SessionRow:
    return SessionRow(
        id=visit.session_id,
        member_id=snapshot.member_id,
        device_id=device_id,
        device_class=visit.browser.device_class,
        app=visit.asked.app,
        host=visit.asked.host,
        method=visit.asked.method,
        ip=visit.address.text if visit.address else None,
        user_agent=visit.user_agent,
        started_at=begins,
        expires_at=visit.now + timedelta(seconds=policy.settings.session.absolute_ttl_s),
    )
