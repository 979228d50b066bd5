"""The recorded history of members, member by member in order of time, in pages that do not grow with its length."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias
from uuid import UUID

import msgspec

from accessguard.database import Database, Row
from accessguard.rules.model import (
    Access,
    Activity,
    DeviceFact,
    EnrolmentFact,
    EnrolmentStatus,
    FailureFact,
    NetworkFact,
    Place,
    SessionFact,
)
from accessguard.rules.networks import Address, address
from accessguard.rules.replay import Event, KnownDevice, LoggedIn, Open, Over, Past, Span, Standing, Used

Lookup: TypeAlias = Callable[[Address | None], Place]
Kin: TypeAlias = Callable[[str], str]
"""The family that a browser is counted to, whatever form of it it is."""

MEMBERS_AT_ONCE: Final = 20
EVENTS_AT_ONCE: Final = 500
EVENTS_WITH_STRANGERS: Final = 25
"""Of each member; a page is at most so many events of so many members."""
COUNT_S: Final = 60.0

# Members with something recorded in the period ($4 to $5), as they were at $3, where the run-up begins.
# What ended in between is open then; a device's first admission is what a tenant without limits on devices goes by.
PEOPLE: Final = """
    SELECT m.id, m.tags, m.staff, m.checks_enabled, m.checks_disabled_until, (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'id', s.id, 'device_id', s.device_id, 'device_class', s.device_class, 'app', s.app, 'started_at', s.started_at,
                       'expires_at', s.expires_at, 'last_at', a.at, 'last_kind', a.kind)), '[]')
              FROM (SELECT * FROM session
                     WHERE tenant = $1 AND member_id = m.id AND started_at < $3 AND (ended_at IS NULL OR ended_at >= $3)
                       AND expires_at > $3 AND method <> 'impersonation'
                     ORDER BY started_at DESC, id DESC LIMIT 1000) s
              LEFT JOIN LATERAL (SELECT at, kind FROM activity WHERE tenant = $1 AND session_id = s.id AND at < $3
                                  ORDER BY at DESC LIMIT 1) a ON true) AS sessions, (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'id', d.id, 'access', d.access, 'access_at', d.access_at, 'forgotten_at', d.forgotten_at, 'browser', d.browser,
                       'os', d.os, 'device_class', d.device_class, 'first_seen_at', d.first_seen_at, 'last_seen_at', d.last_seen_at,
                       'first_admitted_at', coalesce(d.first_admitted_at, d.admitted_at))), '[]')
              FROM (SELECT * FROM device WHERE tenant = $1 AND member_id = m.id AND merged_into IS NULL
                     ORDER BY last_seen_at DESC, id LIMIT 1000) d) AS devices, (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'ip', host(n.ip), 'session_id', nullif(n.session_id, ''), 'device_id', n.device_id, 'first_at', n.first_at,
                       'last_at', n.last_at, 'admitted_at', n.admitted_at)), '[]')
              FROM (SELECT * FROM member_network WHERE tenant = $1 AND member_id = m.id AND first_at < $3
                     ORDER BY last_at DESC, session_id, ip LIMIT 500) n) AS networks, (
            SELECT coalesce(jsonb_agg(jsonb_build_object('kind', p.kind, 'since', p.created_at, 'until', p.until)), '[]')
              FROM (SELECT * FROM pass WHERE tenant = $1 AND member_id = m.id AND until > $3
                     ORDER BY until DESC LIMIT 1000) p) AS passes, (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'product_id', e.product_id, 'starts_at', e.starts_at, 'ends_at', e.ends_at, 'status', e.status,
                       'reopens_at', e.reopens_at)), '[]')
              FROM (SELECT * FROM enrolment WHERE tenant = $1 AND member_id = m.id
                     ORDER BY ends_at DESC NULLS FIRST, product_id LIMIT 1000) e) AS enrolments, (
            SELECT coalesce(jsonb_agg(jsonb_build_object('product_id', c.product_id, 'at', c.at, 'before', c.before, 'after', c.after)
                                      ORDER BY c.at, c.id), '[]')
              FROM (SELECT * FROM enrolment_change WHERE tenant = $1 AND member_id = m.id
                     ORDER BY at DESC, id DESC LIMIT 1000) c) AS changes
      FROM member m
     WHERE m.tenant = $1 AND m.id > $2
       AND (EXISTS (SELECT FROM login_attempt WHERE tenant = $1 AND member_id = m.id AND at >= $4 AND at < $5)
            OR EXISTS (SELECT FROM activity WHERE tenant = $1 AND member_id = m.id AND at >= $4 AND at < $5))
     ORDER BY m.id LIMIT $6
"""

COUNT: Final = """
    SELECT count(*) FROM member m
     WHERE m.tenant = $1
       AND (EXISTS (SELECT FROM login_attempt WHERE tenant = $1 AND member_id = m.id AND at >= $2 AND at < $3)
            OR EXISTS (SELECT FROM activity WHERE tenant = $1 AND member_id = m.id AND at >= $2 AND at < $3))
"""

# Of each member the next events after ($3, $5, $6), in order of time; what ends comes before what begins at the same instant.
# A session that a rule ended, or that another login replaced, is left to the replay. A login that was refused is tried again.
# `strangers` are failures of others at the place of an address, back to $8 before; only asked for where a rule counts them.
EVENTS: Final = """
    SELECT w.member_id, e.*
      FROM unnest($2::text[]) WITH ORDINALITY AS w(member_id, place) CROSS JOIN LATERAL (
        SELECT * FROM (
            (SELECT at, 1 AS sort, id::text AS key, coalesce(session_id, id::text) AS session_id, outcome = 'success' AS succeeded,
                    device_id, device_class, app, browser, os, host(ip) AS ip, NULL AS kind, NULL AS product_id,
                    CASE WHEN $8::interval IS NOT NULL THEN ARRAY(
                        SELECT f.at FROM login_attempt f
                         WHERE f.tenant = $1 AND f.counted AND f.at < l.at AND f.at > l.at - $8::interval
                           AND f.ip BETWEEN host(network(set_masklen(l.ip, CASE family(l.ip) WHEN 4 THEN 32 ELSE 64 END)))::inet
                                        AND host(broadcast(set_masklen(l.ip, CASE family(l.ip) WHEN 4 THEN 32 ELSE 64 END)))::inet
                           AND f.member_id IS DISTINCT FROM l.member_id
                         ORDER BY f.at DESC LIMIT 500) END AS strangers
               FROM login_attempt l
              WHERE tenant = $1 AND member_id = w.member_id AND at >= $3 AND at < $4 AND method <> 'impersonation'
                AND (at, 1, id::text) > ($3, $5, $6)
              ORDER BY at, id::text LIMIT $7)
            UNION ALL
            (SELECT at, 2, session_id, session_id, NULL, NULL, NULL, NULL, NULL, NULL, host(ip), kind, product_id, NULL
               FROM activity
              WHERE tenant = $1 AND member_id = w.member_id AND at >= $3 AND at < $4 AND (at, 2, session_id) > ($3, $5, $6)
              ORDER BY at, session_id LIMIT $7)
            UNION ALL
            (SELECT ended_at, 0, id, id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
               FROM session
              WHERE tenant = $1 AND member_id = w.member_id AND ended_at >= $3 AND ended_at < $4
                AND end_reason NOT IN ('replaced', 'session_limit', 'copied_session') AND (ended_at, 0, id) > ($3, $5, $6)
              ORDER BY ended_at, id LIMIT $7)
        ) u ORDER BY at, sort, key LIMIT $7) e
     ORDER BY w.place, e.at, e.sort, e.key
"""


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """What is replayed: from `since` on, before `until`, after a run-up from `begin` on.

    `strangers` is how far back failed logins of others at an address are asked for; None: not at all.
    """

    begin: datetime
    since: datetime
    until: datetime
    strangers: timedelta | None = None

    @property
    def at_once(self) -> int:
        """Events of a page: fewer where each brings the failures of others along."""
        return EVENTS_AT_ONCE if self.strangers is None else EVENTS_WITH_STRANGERS


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """One member, as it was when the run-up begins."""

    id: str
    past: Past


class _Session(msgspec.Struct, frozen=True, gc=False):
    id: str
    device_id: UUID | None
    device_class: str
    app: str | None
    started_at: datetime
    expires_at: datetime
    last_at: datetime | None
    last_kind: Activity | None


class _Device(msgspec.Struct, frozen=True, gc=False):
    id: UUID
    access: Access
    access_at: datetime | None
    forgotten_at: datetime | None
    browser: str
    os: str
    device_class: str
    first_seen_at: datetime
    last_seen_at: datetime
    first_admitted_at: datetime | None


class _Network(msgspec.Struct, frozen=True, gc=False):
    ip: str
    session_id: str | None
    device_id: UUID | None
    first_at: datetime
    last_at: datetime
    admitted_at: datetime | None


class _Pass(msgspec.Struct, frozen=True, gc=False):
    kind: Literal["extra_device", "extra_session", "suspend_checks"]
    since: datetime
    until: datetime


class _Enrolment(msgspec.Struct, frozen=True, gc=False):
    starts_at: datetime
    status: EnrolmentStatus
    ends_at: datetime | None = None
    reopens_at: datetime | None = None
    product_id: str = ""

    def fact(self, product_id: str) -> EnrolmentFact:
        return EnrolmentFact(
            product_id=product_id,
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            status=self.status,
            reopens_at=self.reopens_at,
        )


class _Change(msgspec.Struct, frozen=True, gc=False):
    product_id: str
    at: datetime
    before: _Enrolment | None
    after: _Enrolment | None


class ReplayStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database, lookup: Lookup, kin: Kin) -> None:
        self._db = db
        self._lookup = lookup
        self._kin = kin

    async def count(self, tenant: str, period: Period) -> int:
        """How many members have something recorded in the period."""
        return int(await self._db.value(COUNT, tenant, period.since, period.until, timeout_s=COUNT_S))

    async def people(self, tenant: str, period: Period) -> AsyncIterator[tuple[Person, AsyncIterator[Event]]]:
        """Every member with something recorded in the period, with its events; those are to be read before the next member."""
        after = ""
        while True:
            rows = await self._db.fetch(
                PEOPLE, tenant, after, period.begin, period.since, period.until, MEMBERS_AT_ONCE, timeout_s=COUNT_S
            )
            if not rows:
                return
            after = rows[-1]["id"]
            first = _by_member(await self._page(tenant, [row["id"] for row in rows], period, None))
            for row in rows:
                person = Person(id=row["id"], past=self._past(row, period.begin))
                yield person, self._events(tenant, person.id, period, first.pop(person.id, []))

    async def _events(self, tenant: str, member_id: str, period: Period, rows: list[Row]) -> AsyncIterator[Event]:
        while rows:
            for row in rows:
                yield self._event(row)
            last = rows[-1]
            full = len(rows) == period.at_once
            place = (last["at"], last["sort"], last["key"])
            rows = await self._page(tenant, [member_id], period, place) if full else []

    async def _page(
        self, tenant: str, member_ids: Sequence[str], period: Period, after: tuple[datetime, int, str] | None
    ) -> list[Row]:
        at, sort, key = after or (period.begin, -1, "")
        limit, strangers = period.at_once, period.strangers
        return await self._db.fetch(EVENTS, tenant, member_ids, at, period.until, sort, key, limit, strangers)

    def _event(self, row: Row) -> Event:
        sort: int = row["sort"]
        if sort == 0:
            return Over(at=row["at"], session_id=row["session_id"])
        host = address(row["ip"])
        place = self._lookup(host)
        if sort == 2:
            return Used(
                at=row["at"],
                session_id=row["session_id"],
                activity=Activity(row["kind"]),
                product_id=row["product_id"],
                address=host,
                place=place,
            )
        return LoggedIn(
            at=row["at"],
            session_id=row["session_id"],
            succeeded=row["succeeded"],
            device_id=row["device_id"],
            device_class=row["device_class"] or "unknown",
            app=row["app"],
            browser=None if row["browser"] is None else self._kin(row["browser"]),
            os=row["os"],
            address=host,
            place=place,
            strangers=tuple(_strangers(row["strangers"] or (), host)),
        )

    def _past(self, row: Row, begin: datetime) -> Past:
        decode = msgspec.json.decode
        passes = decode(row["passes"], type=list[_Pass])
        return Past(
            tags=frozenset(row["tags"]),
            staff=row["staff"],
            exempt=(*_switched_off(row), *_spans(passes, "suspend_checks")),
            extra_sessions=_spans(passes, "extra_session"),
            extra_devices=_spans(passes, "extra_device"),
            sessions=tuple(_open(each) for each in decode(row["sessions"], type=list[_Session])),
            devices=tuple(_device(each, begin, self._kin) for each in decode(row["devices"], type=list[_Device])),
            networks=tuple(self._networks(decode(row["networks"], type=list[_Network]), begin)),
            enrolments=_standings(
                decode(row["enrolments"], type=list[_Enrolment]), decode(row["changes"], type=list[_Change])
            ),
        )

    def _networks(self, found: Iterable[_Network], begin: datetime) -> Iterator[NetworkFact]:
        for each in found:
            host = address(each.ip)
            if host is not None:
                admitted = each.admitted_at
                yield NetworkFact(
                    address=host,
                    place=self._lookup(host),
                    session_id=each.session_id,
                    device_id=each.device_id,
                    first_at=each.first_at,
                    last_at=min(each.last_at, begin),
                    admitted_at=admitted if admitted is None or admitted < begin else each.first_at,
                )


def _by_member(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["member_id"], []).append(row)
    return found


def _strangers(times: Iterable[datetime], host: Address | None) -> Iterator[FailureFact]:
    return (FailureFact(at=at, address=host, device_id=None, own=False) for at in times)


def _switched_off(row: Row) -> Iterator[Span]:
    """The member's present exemption: since when it has been so is not known."""
    if not row["checks_enabled"]:
        yield Span(until=row["checks_disabled_until"])


def _spans(passes: Iterable[_Pass], kind: str) -> tuple[Span, ...]:
    return tuple(Span(since=each.since, until=each.until) for each in passes if each.kind == kind)


def _open(row: _Session) -> Open:
    fact = SessionFact(
        id=row.id,
        device_id=row.device_id,
        started_at=row.started_at,
        last_activity=max(row.started_at, row.last_at or row.started_at),
        app=row.app,
        device_class=row.device_class,
        last_kind=row.last_kind,
    )
    return Open(fact=fact, expires_at=row.expires_at)


def _device(row: _Device, begin: datetime, kin: Kin) -> KnownDevice:
    first = row.first_admitted_at if row.first_admitted_at is not None and row.first_admitted_at < begin else None
    fact = DeviceFact(
        id=row.id,
        access=row.access,
        admitted_at=first,
        first_admitted_at=first,
        last_seen=min(row.last_seen_at, begin),
        device_class=row.device_class,
        browser=kin(row.browser),
        os=row.os,
    )
    return KnownDevice(
        fact=fact, there=row.first_seen_at < begin, access_at=row.access_at, forgotten_at=row.forgotten_at
    )


def _standings(now: Iterable[_Enrolment], changes: Sequence[_Change]) -> tuple[Standing, ...]:
    """Enrolments as they stood from time to time: before the first change that is kept, and after each."""
    begun: dict[str, _Enrolment | None] = {each.product_id: each for each in now}
    begun |= {each.product_id: each.before for each in reversed(changes)}
    first = (Standing(product_id=name, fact=was.fact(name)) for name, was in begun.items() if was is not None)
    later = (
        Standing(product_id=each.product_id, at=each.at, fact=each.after.fact(each.product_id) if each.after else None)
        for each in changes
    )
    return (*first, *later)
