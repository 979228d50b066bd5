"""Evidence that several people use one account: gathered by day, added up for a report. Evidence, never a verdict."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final, Literal, TypeAlias

import msgspec

from accessguard.database import Database, Row, both_ways
from accessguard.members.ranking import Rankings

Key: TypeAlias = Literal["score", "last_at"]
Asked: TypeAlias = tuple[Key, str, bool]
"""A ranking: by what, of which tenant, whether from the top down."""

KEPT: Final = timedelta(days=93)
"""How long a day's evidence is kept, and the longest period of a report."""


class Evidence(StrEnum):
    """What speaks for, and against, several people using one account."""

    PARALLEL_ACTIVITY = "parallel_activity"
    FAR_PLACES = "far_places"
    PARALLEL_DEVICES = "parallel_devices"
    COPIED_TOKENS = "copied_tokens"
    TRAVEL = "travel"
    CHURN = "churn"
    FALSE_ALARMS = "false_alarms"


class Weight(msgspec.Struct, frozen=True, kw_only=True):
    """Points for each of what is counted beyond `free`, `most` in all; `column` is what it is called in SQL."""

    column: str
    each: int
    most: int
    free: int = 0
    words: str


# Chosen so that everything together is 100, and that no single kind of evidence comes near it: docs/sharing.md says why.
WEIGHTS: Final[Mapping[Evidence, Weight]] = {
    Evidence.PARALLEL_ACTIVITY: Weight(
        column="parallel_activity",
        each=2,
        most=30,
        words="{amount} stretches of ten minutes in which two devices were used, on {days} days",
    ),
    Evidence.FAR_PLACES: Weight(
        column="far_places",
        each=5,
        most=20,
        words="{amount} hours in which two devices were used 100 km apart or more, on {days} days",
    ),
    Evidence.PARALLEL_DEVICES: Weight(
        column="parallel_devices",
        each=1,
        most=15,
        words="{amount} hours with three devices, or two of one class, on {days} days",
    ),
    Evidence.COPIED_TOKENS: Weight(
        column="copied_tokens", each=10, most=20, words="{amount} cases of a copied session or device token"
    ),
    Evidence.TRAVEL: Weight(column="travel", each=5, most=5, words="{amount} cases of travel that nobody can make"),
    Evidence.CHURN: Weight(
        column="new_devices", each=2, most=10, free=2, words="{amount} new devices, of which two count nothing"
    ),
    Evidence.FALSE_ALARMS: Weight(
        column="false_alarms", each=-10, most=100, words="{amount} cases that an operator marked as false alarms"
    ),
}
BY_DAY: Final = ("parallel_activity", "far_places", "parallel_devices", "new_devices")
BY_CASE: Final = {
    "copied_tokens": "code = 'copied_session' AND resolution <> 'false_alarm'",
    "travel": "code = 'impossible_travel' AND resolution <> 'false_alarm'",
    "false_alarms": "resolution = 'false_alarm'",
}


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of evidence: how much of it, on how many days, when last, and what it adds to the score."""

    kind: Evidence
    amount: int
    days: int
    last_day: date
    weight: int
    explanation: str


class Suspicion(msgspec.Struct, frozen=True, kw_only=True):
    """A member with the evidence of a period, 0 to 100; `as_of` is up to when activity was looked at (None: not yet)."""

    member_id: str
    name: str
    score: int
    last_at: datetime
    points: tuple[Point, ...]
    as_of: datetime | None


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """From `since` on, before `until`; whole days (UTC) of what is gathered by day."""

    since: datetime
    until: datetime


def _score() -> str:
    parts = (
        f"least({w.most}, {w.each} * greatest(0, {w.column} - {w.free}))" if w.each > 0 else f"{w.each} * {w.column}"
        for w in WEIGHTS.values()
    )
    return f"greatest(0, {' + '.join(parts)})"


DAYS: Final = """
    FROM sharing_day WHERE tenant = $1 AND day >= $2::timestamptz::date AND day <= ($3::timestamptz - interval '1 microsecond')::date
"""
CASES: Final = """
    FROM violation
   WHERE tenant = $1 AND last_at >= $2 AND last_at < $3 AND effect <> 'exempt'
     AND (code IN ('copied_session', 'impossible_travel') OR resolution = 'false_alarm')
"""


def _scored() -> str:
    """Everybody with evidence, added up: by day and by case, each for itself, then joined."""
    sums = ", ".join(f"sum({c})::int AS {c}" for c in BY_DAY)
    counts = ", ".join(f"count(*) FILTER (WHERE {w})::int AS {c}" for c, w in BY_CASE.items())
    both = ", ".join(f"coalesce({c}, 0) AS {c}" for c in (*BY_DAY, *BY_CASE))
    return f"""
        WITH days AS MATERIALIZED (
            SELECT member_id, {sums}, max(last_at) AS at {DAYS} GROUP BY member_id
        ), cases AS MATERIALIZED (
            SELECT member_id, {counts}, max(last_at) AS at {CASES} GROUP BY member_id
        ), summed AS (
            SELECT coalesce(d.member_id, c.member_id) AS member_id, {both}, greatest(d.at, c.at) AS last_at
              FROM days d FULL JOIN cases c ON c.member_id = d.member_id
        ), scored AS (
            SELECT *, {_score()} AS score FROM summed
        )"""  # noqa: S608 - all parts are constants


def _ranking(key: Key) -> str:
    """The statement by this key, put together from constants alone.

    Everybody is only added up (in int, as the sum of a bigint is numeric and
    slow); on which days, and when last, is asked of those alone who are on the
    page.
    """
    days = ", ".join(
        f"count(*) FILTER (WHERE {c} > 0)::int AS {c}_days, max(day) FILTER (WHERE {c} > 0) AS {c}_last" for c in BY_DAY
    )
    cases = ", ".join(
        f"count(DISTINCT last_at::date) FILTER (WHERE {w})::int AS {c}_days, max(last_at::date) FILTER (WHERE {w}) AS {c}_last"
        for c, w in BY_CASE.items()
    )
    kind = "int" if key == "score" else "timestamptz"
    return f"""
        {_scored()}, ranked AS MATERIALIZED (
            SELECT * FROM scored
             WHERE score > 0 AND ($4::{kind} IS NULL OR ({key}, member_id) <after> ($4, $5))
             ORDER BY {key} <order>, member_id <order> LIMIT $6
        )
        SELECT r.*, d.*, c.*, (SELECT count(*) FROM summed) AS everybody, (SELECT name FROM member WHERE tenant = $1 AND id = r.member_id) AS name,
               (SELECT at FROM sharing_mark WHERE tenant = $1) AS as_of
          FROM ranked r, LATERAL (SELECT {days} {DAYS} AND member_id = r.member_id) d,
               LATERAL (SELECT {cases} {CASES} AND member_id = r.member_id) c
         ORDER BY r.{key} <order>, r.member_id <order>
    """  # noqa: S608 - all parts are constants


FOUND: Final = f"{_scored()} SELECT count(*) FROM scored WHERE score > 0"  # noqa: S608 - all parts are constants
RANKED: Final = {key: both_ways(_ranking(key)) for key in ("score", "last_at")}


RANKING_S: Final = 30.0
"""How long everybody may be ranked: half a second where there are a million members."""


MANY: Final = 5_000
"""Of so many members with evidence the first are held for a while (`Rankings`): to rank them takes some 100 ms."""


class SharingStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._rankings: Rankings[Suspicion] = Rankings(_place)

    async def ranked(
        self,
        tenant: str,
        period: Period,
        *,
        key: Key,
        descending: bool,
        after: tuple[int | datetime, str] | None,
        limit: int,
        lately: bool = False,
    ) -> Sequence[Suspicion]:
        """One page of members with evidence in the period; `lately`: in that up to now, which may be some minutes ago where they are many."""
        asked: Asked = (key, tenant, descending)

        async def first(most: int) -> Sequence[Suspicion]:
            return (await self._ranked(tenant, period, key=key, descending=descending, after=None, limit=most))[0]

        if lately and (held := self._rankings.page(asked, after, limit, first)) is not None:
            return held
        found, everybody = await self._ranked(tenant, period, key=key, descending=descending, after=after, limit=limit)
        if lately and everybody >= MANY:
            self._rankings.hold(asked, first)
        return found

    async def _ranked(
        self,
        tenant: str,
        period: Period,
        *,
        key: Key,
        descending: bool,
        after: tuple[int | datetime, str] | None,
        limit: int,
    ) -> tuple[Sequence[Suspicion], int]:
        """One page, and how many there are with evidence for or against them."""
        rows = await self._db.fetch(
            RANKED[key][descending],
            tenant,
            period.since,
            period.until,
            *(after or (None, None)),
            limit,
            timeout_s=RANKING_S,
        )
        return [_suspicion(row) for row in rows], rows[0]["everybody"] if rows else 0

    async def count(self, tenant: str, period: Period) -> int:
        """How many members have evidence in the period."""
        return int(await self._db.value(FOUND, tenant, period.since, period.until, timeout_s=RANKING_S))


def _place(asked: Hashable, item: Suspicion) -> tuple[int | datetime, str]:
    """Where somebody stands in a ranking: by the key that was asked for, then by id."""
    score = isinstance(asked, tuple) and asked[0] == "score"
    return (item.score if score else item.last_at, item.member_id)


def _suspicion(row: Row) -> Suspicion:
    found = (_point(kind, weight, row) for kind, weight in WEIGHTS.items() if row[weight.column])
    return Suspicion(
        member_id=row["member_id"],
        name=row["name"] or "",
        score=row["score"],
        last_at=row["last_at"],
        points=tuple(point for point in found if point.weight),
        as_of=row["as_of"],
    )


def _point(kind: Evidence, weight: Weight, row: Row) -> Point:
    amount, days = row[weight.column], row[f"{weight.column}_days"]
    counted = weight.each * max(0, amount - weight.free)
    return Point(
        kind=kind,
        amount=amount,
        days=days,
        last_day=row[f"{weight.column}_last"],
        weight=min(weight.most, counted) if counted > 0 else counted,
        explanation=weight.words.format(amount=amount, days=days),
    )
