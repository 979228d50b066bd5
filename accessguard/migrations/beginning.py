"""Where the chains of the audit log begin: how many entries each tenant had before there was one."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

EVERYWHERE: Final = "*"
"""Whose chain is begun last, also where it has no entry: with it all are."""

BEGUN: Final = text("SELECT EXISTS (SELECT FROM audit_chain WHERE tenant = :tenant AND kind = 'began')")
# What is written while this is counted is in the chain with the very transaction that writes it.
COUNTED: Final = text("""
    SELECT a.tenant, count(*) AS entries FROM audit a
     WHERE NOT EXISTS (SELECT FROM audit_chain c WHERE c.tenant = a.tenant AND c.entry_id = a.id AND c.kind = 'written')
       AND NOT EXISTS (SELECT FROM audit_chain c WHERE c.tenant = a.tenant AND c.kind = 'began')
     GROUP BY a.tenant
""")
BEGIN: Final = text("SELECT extend_audit_chain(:tenant, 'began', NULL, :entries, NULL)")


async def begin_chains(connection: AsyncConnection) -> None:
    """Note once how many entries there were, on a connection that commits by itself and that alone builds.

    It is done after the triggers are there, and never again: an entry that is put
    in past them later is none of these. What is cut off goes on with the next run.
    """
    if await connection.scalar(BEGUN, {"tenant": EVERYWHERE}):
        return
    # An operator's commit holds a chain for milliseconds; nobody waits behind this one but the next of them.
    await connection.execute(text("SET lock_timeout = 0"))
    found = (await connection.execute(COUNTED)).all()
    counted: dict[str, int] = {row.tenant: row.entries for row in found}
    everywhere = counted.pop(EVERYWHERE, 0)
    for tenant, entries in sorted(counted.items()):
        await connection.execute(BEGIN, {"tenant": tenant, "entries": entries})
    await connection.execute(BEGIN, {"tenant": EVERYWHERE, "entries": everywhere})
