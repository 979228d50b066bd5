"""What a help desk would ask a student for, gathered from what is recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import msgspec

from accessguard.devices.model import Device
from accessguard.devices.store import DeviceStore
from accessguard.geo import UNKNOWN, Geo
from accessguard.guard.card import LocalTime, Whereabouts, local_time, whereabouts
from accessguard.guard.facts import from_ms
from accessguard.members.model import Card
from accessguard.policies.model import Settings
from accessguard.rules.networks import address
from accessguard.sessions.history import ActivityItem, HistoryStore, LoginItem, SessionItem
from accessguard.violations.model import Violation, ViolationFilter
from accessguard.violations.store import ViolationStore
from accessguard.words.operator import case_text

DEVICES: Final = 10
SESSIONS: Final = 10
RESOURCES: Final = 20
VERDICTS: Final = 20


class UsedDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device as a help desk asks about it; `via` is whether it is a browser or an app."""

    id: UUID
    label: str
    via: Literal["app", "web"]
    browser: str
    browser_version: str | None
    os: str
    model: str | None
    access: str
    last_ip: str | None
    first_seen_at: datetime
    last_seen_at: datetime


class PastVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided on a login, or what a rule found (a case, at its last hit), and why."""

    at: datetime
    entry: Literal["login", "case"]
    decision: str
    code: str | None
    reason: str | None
    rule_id: UUID | None
    session_id: str | None
    device_id: UUID | None


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """One member's account, devices, place, sessions, last resources and last verdicts, each the newest first."""

    made_at: datetime
    account: Card
    local_time: LocalTime
    whereabouts: Whereabouts
    devices: tuple[UsedDevice, ...]
    sessions: tuple[SessionItem, ...]
    resources: tuple[ActivityItem, ...]
    verdicts: tuple[PastVerdict, ...]


class Bundles:
    """Raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, *, history: HistoryStore, devices: DeviceStore, violations: ViolationStore, geo: Geo) -> None:
        self._history = history
        self._devices = devices
        self._violations = violations
        self._geo = geo

    async def of(
        self, tenant: str, card: Card, settings: Settings, *, reader: str, language: str, now_ms: int
    ) -> Bundle:
        """Everything of one member, with the reasons in one of the six languages."""
        now, member_id, history = from_ms(now_ms), card.member_id, self._history
        devices = await self._devices.listed(tenant, member_id, now=now, after=None, limit=DEVICES)
        seen = next((each for each in devices if each.last_ip is not None), None)
        where = self._geo.where(address(seen.last_ip)) if seen else UNKNOWN
        logins = await history.logins(tenant, member_id, after=None, limit=VERDICTS, descending=True)
        cases = await self._violations.listed(
            tenant, ViolationFilter(member_id=member_id), reader=reader, after=None, limit=VERDICTS
        )
        verdicts = [*_of_logins(logins, language), *_of_cases(cases, language)]
        return Bundle(
            made_at=now,
            account=card,
            local_time=local_time(card.time_zone, where.time_zone, settings.time_zone, now),
            whereabouts=whereabouts(card, where, seen.last_seen_at if seen else None),
            devices=tuple(_used(each) for each in devices),
            sessions=tuple(
                await history.sessions(tenant, member_id, now=now, after=None, limit=SESSIONS, descending=True)
            ),
            resources=tuple(await history.activity(tenant, member_id, after=None, limit=RESOURCES, descending=True)),
            verdicts=tuple(sorted(verdicts, key=lambda each: each.at, reverse=True)[:VERDICTS]),
        )


def _used(device: Device) -> UsedDevice:
    names = [name for name in UsedDevice.__struct_fields__ if name not in {"via", "label"}]
    return UsedDevice(
        label=device.name or device.label,
        via="app" if device.device_class == "app" else "web",
        **{name: getattr(device, name) for name in names},
    )


def _of_logins(logins: Sequence[LoginItem], language: str) -> Iterator[PastVerdict]:
    """What was decided on logins; one that the platform itself refused was `failed`."""
    for each in logins:
        yield PastVerdict(
            at=each.at,
            entry="login",
            decision="failed" if each.outcome == "failure" and each.code is None else each.decision,
            code=each.code,
            reason=each.failure_reason if each.code is None else case_text(language, each.code, {}),
            rule_id=each.rule_id,
            session_id=each.session_id,
            device_id=each.device_id,
        )


def _of_cases(cases: Sequence[Violation], language: str) -> Iterator[PastVerdict]:
    for each in cases:
        yield PastVerdict(
            at=each.last_at,
            entry="case",
            decision=each.effect,
            code=each.code,
            reason=case_text(language, each.code, each.details),
            rule_id=each.rule_id,
            session_id=each.session_id,
            device_id=each.device_id,
        )
