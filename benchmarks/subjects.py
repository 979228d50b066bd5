"""Members of a population that is there, to ask about: drawn at random, the same at each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg

SAMPLED: Final = 4_000
"""Sessions of which the subjects are drawn, about."""

ROWS: Final = "SELECT greatest(reltuples, 1)::float FROM pg_class WHERE oid = 'session'::regclass"
DRAWN: Final = """
    SELECT s.member_id, s.id AS session_id, s.device_id::text, host(s.ip) AS ip, m.name, m.email, m.phone, m.tenant,
           (SELECT a.email FROM member_alias a WHERE a.tenant = $1 AND a.member_id = m.id LIMIT 1) AS former,
           (SELECT v.id::text FROM violation v WHERE v.tenant = $1 AND v.member_id = m.id LIMIT 1) AS violation_id,
           (SELECT e.product_id FROM enrolment e WHERE e.tenant = $1 AND e.member_id = m.id LIMIT 1) AS product_id,
           (SELECT r.id::text FROM rule r WHERE r.tenant = $1 ORDER BY r.id LIMIT 1) AS rule_id
      FROM (SELECT * FROM session TABLESAMPLE SYSTEM ($2) REPEATABLE (7) WHERE tenant = $1 ORDER BY md5(id) LIMIT $3) s
      JOIN member m ON m.tenant = s.tenant AND m.id = s.member_id
"""


async def draw(database_url: str, tenant: str, most: int) -> Sequence[Mapping[str, str]]:
    """So many subjects at most, what they lack left out."""
    connection = await asyncpg.connect(database_url)
    try:
        percent = min(100.0, 100 * SAMPLED / await connection.fetchval(ROWS))
        rows = await connection.fetch(DRAWN, tenant, percent, most)
    finally:
        await connection.close()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]
