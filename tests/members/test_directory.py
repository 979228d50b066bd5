"""The directory at size: every way to ask for members is answered from indexes, and with the same members as by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from accessguard.database import Database, Row
from accessguard.listing import Short, onward
from accessguard.members.directory import Directory, _as_far
from accessguard.members.filing import Filing
from accessguard.members.model import MemberFilter, MemberSort
from accessguard.members.store import OF_PAGE
from tests.service import Service, Tenant

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
MANY = 3_000

# One in ten has a first name of its own; one in five has been away for long and is enrolled in nothing that goes on.
MEMBERS = """
    INSERT INTO member (tenant, id, name, email, phone, phone_e164, tags, created_at, first_access_at, last_access_at,
                        last_activity_at, last_activity_kind, last_activity_session)
    SELECT $1, 'stu/' || n, 'Maria ' || CASE n % 10 WHEN 0 THEN 'João' ELSE 'Ana' END || ' Silva' || n, 'm' || n || '@school.example',
           '(11) 9' || lpad(n::text, 8, '0'), '+55119' || lpad(n::text, 8, '0'),
           CASE WHEN n % 200 = 0 THEN ARRAY['rare'] WHEN n % 3 = 0 THEN ARRAY['vip'] ELSE ARRAY[]::text[] END,
           $2::timestamptz, $2, $2::timestamptz - n * interval '1 minute', $2::timestamptz - (CASE n % 5 WHEN 0 THEN 300 ELSE 0 END) * interval '1 day' - n * interval '1 minute',
           'lesson_open', 's' || n
      FROM generate_series(1, $3::integer) n
"""
ENROLMENTS = """
    INSERT INTO enrolment (tenant, member_id, product_id, starts_at, ends_at, status, updated_at)
    SELECT $1, 'stu/' || n, 'course-' || n % 7, $2::timestamptz - interval '400 days',
           CASE n % 5 WHEN 0 THEN $2::timestamptz - interval '200 days' WHEN 1 THEN $2::timestamptz + n * interval '1 hour' END, 'active', $2::timestamptz
      FROM generate_series(1, $3::integer) n
"""
VIOLATIONS = """
    INSERT INTO violation (tenant, id, code, mode, effect, member_id, first_at, last_at, hits)
    SELECT $1, gen_random_uuid(), 'device_limit', 'enforce', CASE n % 3 WHEN 0 THEN 'denied' ELSE 'observed' END,
           'stu/' || (n % ($3::integer / 8)) * 6, $2::timestamptz, $2::timestamptz - n * interval '1 minute', 1
      FROM generate_series(1, $3::integer / 4) n
"""
# One in five is active now, or was a moment ago: their rows say when they were here before.
NOW_HERE = """
    WITH here AS (
        INSERT INTO member_activity (tenant, member_id, at, kind, session_id)
        SELECT tenant, id, last_activity_at, 'video_watch', last_activity_session FROM member
         WHERE tenant = $1 AND right(id, 1) IN ('0', '3') AND $2::timestamptz IS NOT NULL AND $3::integer > 0
        RETURNING member_id
    )
    UPDATE member SET last_activity_at = CASE right(id, 2) WHEN '10' THEN NULL ELSE last_activity_at - interval '200 hours' END
     WHERE tenant = $1 AND id IN (SELECT member_id FROM here)
"""
MARKS = """
    INSERT INTO read_mark (tenant, violation_id, reader, hits, read_at)
    SELECT tenant, id, 'reader', hits, $2::timestamptz FROM violation WHERE tenant = $1 AND extract(minute FROM last_at)::int % 4 <> 0
"""


# Another school on the same tables, so that reading one from end to end is not the shortest way to all of the first.
OTHERS = (
    "INSERT INTO tenant (id, name, created_at) VALUES ($1, $1, $2)",
    """
    INSERT INTO member (tenant, id, name, created_at, filed_as)
    SELECT $1, 'x' || n, '', $2, hash_record_extended(ROW(''::text, NULL::text, NULL::text, NULL::text, '{}'::text[]), 0)
      FROM generate_series(1, 12000) n
    """,
    """
    INSERT INTO enrolment (tenant, member_id, product_id, starts_at, status, updated_at, filed_at)
    SELECT $1, 'x' || n, 'course-' || n % 7, $2, 'active', $2, $2 FROM generate_series(1, 12000) n
    """,
    """
    INSERT INTO violation (tenant, id, code, mode, effect, member_id, first_at, last_at, hits)
    SELECT $1, gen_random_uuid(), 'device_limit', 'enforce', 'denied', 'x' || n, $2, $2, 1 FROM generate_series(1, 6000) n
    """,
    """
    INSERT INTO read_mark (tenant, violation_id, reader, hits, read_at)
    SELECT tenant, id, 'reader', hits, $2 FROM violation WHERE tenant = $1
    """,
)


@pytest.fixture(scope="module")
async def town(service: Service) -> Tenant:
    """A tenant of many members, all of them in the directory, and tables whose sizes the planner knows."""
    tenant = service.tenant()
    await tenant.see("/v1/members")
    db = service.context.members._db
    for statement in (MEMBERS, NOW_HERE, ENROLMENTS, VIOLATIONS):
        await db.fetch(statement, tenant.name, NOW, MANY, timeout_s=60)
    await db.fetch(MARKS, tenant.name, NOW, timeout_s=60)
    for statement in OTHERS:
        await db.fetch(
            statement.replace("$1", "$1::text").replace("$2", "$2::timestamptz"), f"{tenant.name}-x", NOW, timeout_s=60
        )
    while await Filing(db).catch_up(tenant.name, now=NOW, most=1_000):
        pass
    await db.fetch("ANALYZE member, member_activity, member_search, enrolment, violation, read_mark", timeout_s=60)
    return tenant


def questions() -> Iterator[tuple[MemberFilter, MemberSort]]:
    """Every filter alone and with others, in every order."""
    alone: list[dict[str, Any]] = [
        {},
        {"q": "silva2711"},
        {"q": "ana"},
        {"q": "jo"},
        {"q": "+55 (11) 90000-2711"},
        {"status": "active"},
        {"status": "inactive"},
        {"tag": "vip"},
        {"tag": "rare"},
        {"unread": True},
        {"restricted": True},
        {"product_id": "course-3"},
        {"product_id": "course-3", "status": "inactive", "tag": "vip", "q": "joao"},
        {"unread": True, "restricted": True, "status": "active"},
    ]
    for asked, sort in itertools.product(alone, MemberSort):
        yield MemberFilter(**asked), sort


class Listening(Database):
    """A database that writes down what it is asked."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.heard: dict[str, tuple[object, ...]] = {}

    async def fetch(self, statement: str, *values: object, timeout_s: float | None = None) -> list[Row]:
        """As the database answers."""
        self.heard[statement] = values
        return await self._db.fetch(statement, *values, timeout_s=timeout_s)

    async def row(self, statement: str, *values: object, timeout_s: float | None = None) -> Row | None:
        """As the database answers."""
        self.heard[statement] = values
        return await self._db.row(statement, *values, timeout_s=timeout_s)


async def ask(directory: Directory, tenant: Tenant, found: MemberFilter, **how: Any) -> list[str]:
    """The ids of one page."""
    said: dict[str, Any] = {"sort": MemberSort.NAME, "descending": True, "after": None, "limit": 20} | how
    rows = await directory.listed(tenant.name, found, reader="reader", now=NOW, country="BR", **said)
    return [member.member_id for member, _ in rows]


async def test_no_question_reads_a_big_table_from_end_to_end(service: Service, town: Tenant):
    """Planned as for the service, which reads one only where no index leads there: for any values, and for these."""
    db = service.context.members._db
    heard = Listening(db)
    for found, sort in questions():
        await ask(Directory(heard), town, found, sort=sort)
    statements = heard.heard

    scans = []
    async with db.transaction() as tx:
        for mode, (statement, values) in itertools.product(
            ("force_custom_plan", "force_generic_plan"), statements.items()
        ):
            await tx.fetch(f"SET LOCAL plan_cache_mode = {mode}")
            plan = msgspec.json.decode((await tx.fetch("EXPLAIN (FORMAT JSON) " + statement, *values))[0][0])
            scans += [(table, mode, statement) for table in _scanned(plan)]

    assert len(statements) > 40
    assert scans == []


def _scanned(plan: Any) -> Iterator[str]:
    """The tables that a plan reads from end to end."""
    if isinstance(plan, list):
        for each in plan:
            yield from _scanned(each)
    elif isinstance(plan, dict):
        if plan.get("Node Type") == "Seq Scan":
            yield plan["Relation Name"]
        yield from _scanned([each for each in plan.values() if isinstance(each, (list, dict))])


async def test_a_page_that_would_take_too_long_ends_early_and_leads_on(
    service: Service, town: Tenant, monkeypatch: pytest.MonkeyPatch
):
    """Where neither way is short enough, pages of few or nobody go on from where they looked to, to the same members in all."""
    directory = Directory(service.context.members._db)
    asked = [
        MemberFilter(q="silva29"),
        MemberFilter(q="silva29 ana", tag="vip"),
        MemberFilter(restricted=True, tag="vip"),
    ]
    orders = [
        (sort, sort is not MemberSort.NAME) for sort in (MemberSort.LAST_ACTIVITY, MemberSort.NAME, MemberSort.UNREAD)
    ]
    whole = [await _all(directory, town, found, sort, down) for found in asked for sort, down in orders]
    for name, most in {"GLANCE": 20, "FEW": 1, "MANY": 1, "WALK": 50, "FURTHER": 400}.items():
        monkeypatch.setattr(f"accessguard.members.directory.{name}", most)
    _as_far.cache_clear()

    early = Early(directory)
    parts = [await _all(early, town, found, sort, down, limit=20) for found in asked for sort, down in orders]
    answer = await town.see("/v1/members?q=silva29&sort=name&order=asc&limit=1")
    file = await town.see("/v1/members?q=silva29&sort=name", headers={"Accept": "text/csv"})

    _as_far.cache_clear()
    assert early.pages > 5
    assert [[each.member_id for each in rows] for rows in parts] == [
        [each.member_id for each in rows] for rows in whole
    ]
    assert all(whole)
    assert (answer.status, len(answer["items"])) == (200, 0)
    assert answer["next_cursor"] is not None
    assert len(file.body.splitlines()) == 1 + len(whole[0])


class Early(Directory):
    """A directory that counts the pages that ended early."""

    def __init__(self, directory: Directory) -> None:
        super().__init__(directory._db)
        self.pages = 0

    async def listed(self, *args: Any, **how: Any) -> Any:
        """As the directory lists."""
        rows = await super().listed(*args, **how)
        self.pages += isinstance(rows, Short)
        return rows


async def test_every_way_to_a_page_finds_the_same_members(service: Service, town: Tenant):
    """Filters are answered as by reading everybody, over pages, whichever index found them."""
    directory = Directory(service.context.members._db)
    everybody = await _all(directory, town, MemberFilter(), MemberSort.NAME)
    assert len(everybody) == MANY
    assert sum(member.last_activity.kind == "video_watch" for member in everybody) == MANY // 5

    for found, sort in [each for each in questions() if each[1] in {MemberSort.LAST_ACTIVITY, MemberSort.UNREAD}]:
        if sort is MemberSort.UNREAD and not (found.unread or found.q or found == MemberFilter()):
            continue
        listed = await _all(directory, town, found, sort)
        ids = [member.member_id for member in listed]
        expected = {member.member_id for member in everybody if _fits(member, found)}
        assert len(ids) == len(set(ids))
        assert set(ids) == expected, found
        assert [_key(member, sort) for member in listed] == sorted((_key(m, sort) for m in listed), reverse=True)


async def _all(
    directory: Directory,
    tenant: Tenant,
    found: MemberFilter,
    sort: MemberSort,
    down: bool = True,
    *,
    limit: int = 1_000,
) -> Sequence[Any]:
    listed, after = [], None
    while True:
        rows = await directory.listed(
            tenant.name,
            found,
            reader="reader",
            now=NOW,
            sort=sort,
            descending=down,
            after=after,
            limit=limit,
            country="BR",
        )
        listed += [member for member, _ in rows]
        after = onward(rows, limit)
        if after is None:
            return listed


def _fits(member: Any, found: MemberFilter) -> bool:
    number = int(member.member_id.removeprefix("stu/"))
    asked = {
        "silva2711": number == 2711,
        "ana": number % 10 != 0,
        "jo": number % 10 == 0,
        "joao": number % 10 == 0,
        "+55 (11) 90000-2711": number == 2711,
        None: True,
    }
    return (
        asked[found.q]
        and found.status in (None, "inactive" if number % 5 == 0 else "active")
        and (found.tag is None or found.tag in member.tags)
        and (not found.unread or member.unread_violations > 0)
        and (not found.restricted or (number % 6 == 0 and member.latest_violation is not None and _denied(number)))
        and (found.product_id is None or number % 7 == 3)
    )


def _denied(number: int) -> bool:
    """Whether one of the member's cases was a denial: of the numbers that make them, every third."""
    return any(n % 3 == 0 for n in range(1, MANY // 4 + 1) if n % (MANY // 8) * 6 == number)


def _key(member: Any, sort: MemberSort) -> Any:
    return member.unread_violations if sort is MemberSort.UNREAD else member.last_activity.at


async def test_who_goes_while_a_page_is_read_does_not_shorten_it(tenant: Tenant, monkeypatch: pytest.MonkeyPatch):
    """A short page is the end of a list: others come for those who were erased after they were found."""
    for number in range(6):
        await tenant.login(f"m{number}")
    db = tenant.service.context.members._db
    directory, fetch = Directory(db), Database.fetch

    async def late(self: Database, statement: str, *values: Any, **more: Any) -> Any:
        if statement == OF_PAGE and "m0" in values[3]:
            await db.row("DELETE FROM member WHERE tenant = $1 AND id = ANY($2::text[])", tenant.name, ["m0", "m2"])
        return await fetch(self, statement, *values, **more)

    monkeypatch.setattr(Database, "fetch", late)

    page = await directory.listed(
        tenant.name, MemberFilter(), reader="x", now=NOW, sort=MemberSort.UNREAD, descending=False, after=None, limit=3
    )

    assert [member.member_id for member, _ in page] == ["m1", "m3", "m4"]
