"""The page of one member, gathered in one call: what it is, what happened lately, what operators wrote."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import msgspec

from accessguard.devices.model import Device
from accessguard.devices.store import DeviceStore
from accessguard.geo import UNKNOWN, Geo, Where
from accessguard.guard.facts import from_ms
from accessguard.members.comments import Comment, CommentStore
from accessguard.members.model import Card, Pass, PassKind
from accessguard.members.pages import Pages, PageStore, RunVisit
from accessguard.members.phone import e164
from accessguard.members.related import Related, RelatedStore
from accessguard.policies.model import Settings
from accessguard.rules.networks import address
from accessguard.sessions.history import HistoryStore, SessionItem
from accessguard.violations.model import Violation, ViolationFilter
from accessguard.violations.store import ViolationStore
from accessguard.words.moments import zone

SESSIONS: Final = 20
DEVICES: Final = 20
CASES: Final = 5
COMMENTS: Final = 5
RELATED: Final = 5
RUNS: Final = 50
RELATED_REACH: Final = timedelta(days=90)
"""How far back addresses are looked at; the access log is kept for about as long."""


class LocalTime(msgspec.Struct, frozen=True, kw_only=True):
    """What time it is where the member is; `source` says how the zone (IANA) is known: by profile, by address, by the school."""

    at: str
    time_zone: str
    source: Literal["profile", "place", "school"]


class Whereabouts(msgspec.Struct, frozen=True, kw_only=True):
    """Where the profile says that the member lives, beside where its address was seen last: a hint, no finding.

    `agrees` compares the countries; None where one of them is unknown.
    """

    profile_country: str | None
    profile_city: str | None
    seen_country: str | None
    seen_city: str | None
    seen_at: datetime | None
    agrees: bool | None


class Exemption(msgspec.Struct, frozen=True, kw_only=True):
    """Why rules deny this member nothing, until when (None: without an end); `by` is None when they do."""

    by: Literal["staff", "operator", "pass"] | None
    until: datetime | None
    reason: str | None


class MemberCard(Card, frozen=True, kw_only=True):
    """All that the page of one member shows; an attendant sees no address, device, session, case or comment."""

    local_time: LocalTime
    whereabouts: Whereabouts
    exemption: Exemption
    live_sessions: tuple[SessionItem, ...] = ()
    known_devices: tuple[Device, ...] = ()
    unread_cases: tuple[Violation, ...] = ()
    comments: tuple[Comment, ...] = ()
    related: tuple[Related, ...] = ()
    last_pages: Pages = Pages(as_of=None, items=())
    runs: tuple[RunVisit, ...] = ()


class Cards:
    """Raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(
        self,
        *,
        history: HistoryStore,
        devices: DeviceStore,
        violations: ViolationStore,
        comments: CommentStore,
        pages: PageStore,
        related: RelatedStore,
        geo: Geo,
    ) -> None:
        self._history = history
        self._devices = devices
        self._violations = violations
        self._comments = comments
        self._pages = pages
        self._related = related
        self._geo = geo

    def plain(self, card: Card, settings: Settings, *, now_ms: int) -> MemberCard:
        """The card as somebody sees it who sees no address."""
        now = from_ms(now_ms)
        return MemberCard(
            **msgspec.structs.asdict(card),
            local_time=local_time(card.time_zone, None, settings.time_zone, now),
            whereabouts=whereabouts(card, UNKNOWN, None),
            exemption=exemption(card, now),
        )

    async def whole(self, tenant: str, card: Card, settings: Settings, *, reader: str, now_ms: int) -> MemberCard:
        """The card with all that there is, as `reader` sees it."""
        now, member_id = from_ms(now_ms), card.member_id
        devices = await self._devices.listed(tenant, member_id, now=now, after=None, limit=DEVICES)
        seen = next((each for each in devices if each.last_ip is not None), None)
        where = self._geo.where(address(seen.last_ip)) if seen else UNKNOWN
        return MemberCard(
            **msgspec.structs.asdict(card),
            local_time=local_time(card.time_zone, where.time_zone, settings.time_zone, now),
            whereabouts=whereabouts(card, where, seen.last_seen_at if seen else None),
            exemption=exemption(card, now),
            live_sessions=tuple(await self._history.open_sessions(tenant, member_id, now=now, limit=SESSIONS)),
            known_devices=tuple(devices),
            unread_cases=await self._unread(tenant, member_id, reader),
            comments=tuple(await self._comments.listed(tenant, member_id, after=None, limit=COMMENTS)),
            related=tuple(await self._alike(tenant, card, settings, now)),
            last_pages=await self._pages.last(tenant, member_id),
            runs=tuple(await self._pages.runs(tenant, member_id, limit=RUNS)),
        )

    async def _unread(self, tenant: str, member_id: str, reader: str) -> tuple[Violation, ...]:
        asked = ViolationFilter(member_id=member_id, read=False)
        found = await self._violations.listed(tenant, asked, reader=reader, after=None, limit=4 * CASES)
        return tuple(each for each in found if each.effect != "exempt")[:CASES]

    async def _alike(self, tenant: str, card: Card, settings: Settings, now: datetime) -> Sequence[Related]:
        """The few with most in common."""
        number = e164(card.phone, settings.country)
        found = [
            *await self._related.by_device(tenant, card.member_id),
            *await self._related.by_address(tenant, card.member_id, since=now - RELATED_REACH),
            *(await self._related.by_phone(tenant, card.member_id, number) if number else ()),
        ]
        return sorted(found, key=lambda each: each.place)[:RELATED]


def local_time(profile: str | None, place: str | None, school: str, now: datetime) -> LocalTime:
    """The time by the first of these zones that is one; the profile's comes before the address's, which may be a proxy's."""
    for name, source in ((profile, "profile"), (place, "place"), (school, "school")):
        found = zone(name) if name else None
        if found is not None and name is not None:
            return LocalTime(at=now.astimezone(found).isoformat(timespec="seconds"), time_zone=name, source=source)  # type: ignore[arg-type] # one of the three above
    return LocalTime(at=now.astimezone(UTC).isoformat(timespec="seconds"), time_zone="UTC", source="school")


def whereabouts(card: Card, where: Where, seen_at: datetime | None) -> Whereabouts:
    """The profile's place beside that of the last address."""
    country = where.place.country
    return Whereabouts(
        profile_country=card.country,
        profile_city=card.city,
        seen_country=country,
        seen_city=where.place.city,
        seen_at=seen_at,
        agrees=None if card.country is None or country is None else card.country == country,
    )


def exemption(card: Card, now: datetime) -> Exemption:
    """What keeps rules from denying, the strongest first; an operator's word that has run out is none."""
    if card.staff:
        return Exemption(by="staff", until=None, reason=None)
    until = card.checks_disabled_until
    if not card.checks_enabled and (until is None or until > now):
        return Exemption(by="operator", until=until, reason=card.checks_reason)
    held: Pass | None = max(
        (each for each in card.passes if each.kind is PassKind.SUSPEND_CHECKS),
        key=lambda each: each.until,
        default=None,
    )
    if held is not None:
        return Exemption(by="pass", until=held.until, reason=held.reason)
    return Exemption(by=None, until=None, reason=None)
