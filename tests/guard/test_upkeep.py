"""Partitions are there before the months that need them."""

from __future__ import annotations

from datetime import UTC, datetime

from accessguard.database import Database
from accessguard.guard.facts import to_ms
from accessguard.guard.upkeep import Upkeep
from tests.service import Service, Tenant

PARTITIONS = """
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
     WHERE p.relname = $1 ORDER BY 1
"""


async def test_three_months_of_partitions_are_made_and_making_them_again_changes_nothing(
    service: Service, database_url: str
):
    """The month of the time given and the next two, over the end of a year, for each of the three tables."""
    db = await Database.connect(database_url, size=1)
    at_ms = to_ms(datetime(2031, 11, 30, 23, 59, tzinfo=UTC))
    upkeep = Upkeep(db, now_ms=lambda: at_ms)

    for _ in range(2):
        await upkeep.once()
    made = {parent: [row[0] for row in await db.fetch(PARTITIONS, parent)] for parent in ("login_attempt", "violation")}
    await db.close()

    for parent, names in made.items():
        assert [name for name in names if "_203" in name] == [f"{parent}_{m}" for m in ("203111", "203112", "203201")]


async def test_a_login_lies_in_the_partition_of_its_month(tenant: Tenant, database_url: str):
    """A worker makes the partitions before it serves, so that nothing goes to the default one."""
    db = await Database.connect(database_url, size=1)

    await tenant.login()
    table = await db.value("SELECT tableoid::regclass::text FROM login_attempt WHERE tenant = $1", tenant.name)
    await db.close()

    assert table == f"login_attempt_{datetime.now(UTC):%Y%m}"
