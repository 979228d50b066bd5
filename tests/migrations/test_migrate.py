"""The schema: brought up to date by several at once, its big indexes beside those who write."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from accessguard import migrations
from accessguard.database import Database
from accessguard.embedded import Embedded
from accessguard.migrations import indexes, partitioned
from tests.data import lay_out

ALL = [*indexes.INDEXES, *partitioned.INDEXES]
VALID: str = "SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid::regclass::text = ANY($1)"
BROKEN: str = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'challenge_by_age'::regclass"
# As when it ended after two of three steps: made for the table alone, half built on its only partition, attached to none.
ALONE: tuple[str, ...] = (
    "DROP INDEX violation_by_code",
    "CREATE INDEX violation_by_code ON ONLY violation (tenant, code, last_at, id)",
    "CREATE INDEX violation_default_by_code ON violation_default (tenant, code, last_at, id)",
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'violation_default_by_code'::regclass",
)


@pytest.mark.slow
async def test_migrations_at_the_same_time_wait_for_each_other_and_mend_an_index_that_was_cut_off(tmp_path: Path):
    """Three at once end well with every index; one that a crash left half built is built anew."""
    stores = await Embedded.start(await lay_out(tmp_path / "stores", migrated=False))
    try:
        await asyncio.gather(*(migrations.migrate(stores.database_url) for _ in range(3)))
        db = await Database.connect(stores.database_url, size=1)
        first = await db.value(VALID, ALL)
        for statement in (BROKEN, *ALONE):
            await db.row(statement)
        broken = await db.value(VALID, ALL)
        await migrations.migrate(stores.database_url)
        mended = await db.value(VALID, ALL)
        await db.close()
    finally:
        await stores.stop()

    assert (first, broken, mended) == (len(ALL), len(ALL) - 2, len(ALL))
