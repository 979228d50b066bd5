"""What operators open answers from indexes, however many members there are: no plan reads a big table from end to end."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from accessguard.database import Database
from accessguard.events import audit
from accessguard.members import access, comments, pages
from accessguard.sessions import history
from accessguard.tallies import store as tallies
from tests.service import Service

BIG = {"member", "enrolment", "product_access", "run_access", "member_page", "comment", "audit", "day_tally", "session"}
FILLED = (
    "INSERT INTO tenant (id, name, created_at) VALUES ($1, 'plans', now())",
    "INSERT INTO member (tenant, id, last_activity_at, created_at) SELECT $1, 'm' || n, now() - n * interval '1 s', now() FROM numbers n",
    """
    INSERT INTO enrolment (tenant, member_id, product_id, starts_at, status, updated_at)
    SELECT $1, 'm' || n, 'p' || p, now(), 'active', now() FROM numbers n, generate_series(n % 50, n % 50 + 1) p
    """,
    """
    INSERT INTO product_access (tenant, member_id, product_id, first_at, last_at)
    SELECT $1, 'm' || n, 'p' || n % 50, now(), now() FROM numbers n
    """,
    "INSERT INTO run_access SELECT $1, 'm' || n, 'webinar', 'r' || n % 9, NULL, now() FROM numbers n",
    "INSERT INTO member_page SELECT $1, 'm' || n, '[]' FROM numbers n",
    "INSERT INTO comment SELECT $1, 'm' || n, gen_random_uuid(), now(), 'bob', 'supervisor', 'text' FROM numbers n",
    """
    INSERT INTO audit (tenant, id, at, actor, role, action, target_kind, target_id, member_id)
    SELECT $1, gen_random_uuid(), now() - n * interval '1 s', 'bob', 'supervisor', 'device.change', 'device', n, 'm' || n FROM numbers n
    """,
    """
    INSERT INTO session (tenant, id, member_id, device_class, method, started_at, expires_at)
    SELECT $1, 's' || n, 'm' || n, 'desktop', 'password', now(), now() FROM numbers n
    """,
    """
    INSERT INTO day_tally SELECT $1, k, '2026-01-01'::date + (n % 700)::int, 'k' || n, '', '', 1, 0
      FROM numbers n, unnest(ARRAY['activity', 'login', 'device', 'refusal']) k
    """,
    f"ANALYZE {', '.join(sorted(BIG))}",
)
MEMBERS, ROWS = 20_000, 4_000
JOINED = ("member", "enrolment", "product_access")
"""Where a page takes fifty out of so many that reading them all would cost more."""
TENANT = "of-plans"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
PLACE = (NOW, UUID(int=0))
ASKED = {
    "access": (access.ALL, "", None, 50, None),
    "access, next page": (access.ALL, "m500", "p1", 50, None),
    "access of a member": (access.OF_MEMBER, "m77", None, 50, None),
    "access to a product": (access.OF_PRODUCT, "m500", 50, "p7"),
    "days": (tallies.LISTED[True], "login", date.min, date.max, None, None, None, None, 50),
    "days, next page": (tallies.LISTED[False], "login", date.min, date.max, date(2026, 5, 1), "k", "", "", 50),
    "comments": (comments.LISTED[True], "m77", None, None, 50),
    "comments, next page": (comments.LISTED[False], "m77", *PLACE, 50),
    "history": (audit.OF_MEMBER[True], "m77", None, None, None, None, None, None, 50),
    "history of an actor": (audit.OF_MEMBER[True], "m77", "bob", "device", None, NOW, *PLACE, 50),
    "open sessions": (history.OPEN, NOW, "m77", 20),
    "last pages": (pages.PAGES, "m77"),
    "runs": (pages.RUNS, "m77", 50),
}


@pytest.fixture(scope="module")
async def filled(service: Service, database_url: str) -> AsyncIterator[Database]:
    """Twenty thousand members with what belongs to them, within a transaction that is undone in the end."""
    assert service.url
    db = await Database.connect(database_url, size=1, timeout_s=110)
    with contextlib.suppress(UndoneError):
        async with db.transaction() as tx:
            await tx.row("SET LOCAL enable_seqscan = on")
            for statement in FILLED:
                count = MEMBERS if any(f"INTO {each} (" in statement for each in JOINED) else ROWS
                numbers = statement.replace("numbers n", f"generate_series(1, {count}) n")
                await tx.row(numbers, *([TENANT] if "$1" in statement else []))
            yield tx
            raise UndoneError
    await db.close()


class UndoneError(Exception):
    """The end of a transaction that leaves nothing."""


def nodes(plan: Any) -> Iterator[dict[str, Any]]:
    """Every step of a plan."""
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes(each)


@pytest.mark.parametrize("asked", ASKED)
async def test_no_page_reads_a_big_table_from_end_to_end(filled: Database, asked: str):
    """PostgreSQL plans each of them by an index, of its own accord."""
    statement, *values = ASKED[asked]

    (plan,) = msgspec.json.decode(await filled.value(f"EXPLAIN (FORMAT JSON) {statement}", TENANT, *values))

    read = {each.get("Relation Name") for each in nodes(plan["Plan"]) if each["Node Type"] == "Seq Scan"}
    assert read & BIG == set()


async def test_pages_are_rebuilt_for_those_alone_who_were_active(filled: Database):
    """Two hundred members are looked at in one step, found by an index."""
    statement, values = pages.REBUILD, (datetime.now(UTC), 200, 200)

    (plan,) = msgspec.json.decode(await filled.value(f"EXPLAIN (FORMAT JSON) {statement}", *values))

    scans = [each for each in nodes(plan["Plan"]) if each.get("Relation Name") == "member"]
    assert scans
    assert all(each["Node Type"] != "Seq Scan" for each in scans)
