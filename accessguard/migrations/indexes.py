"""Indexes on tables that may be big: built while the service writes, outside of any transaction."""

from __future__ import annotations

import asyncio
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from accessguard.errors import StartError
from accessguard.migrations.beginning import begin_chains
from accessguard.migrations.partitioned import build_partitioned
from accessguard.migrations.triggers import build_triggers

LOCK_NUMBER: Final = 0x4147_0003  # "AG" 3; any constant works, as long as every release takes the same
POLL_S: Final = 0.2

# Name: what it is on. By age for upkeep, which names a tenant in a form that no other query uses, so that no plan made
# before there were statistics takes one of them for the index of a member.
INDEXES: Final = {
    "member_network_by_age": "member_network ((tenant || ''), first_at)",
    "session_by_age": "session ((tenant || ''), started_at)",
    "challenge_by_age": "challenge ((tenant || ''), created_at)",
    # Without the time that a device was last seen, which each beat and login moves: devices of one member are few, and sorted
    # when they are read. It begins with the member, or a planner without statistics would look devices up in it by tenant.
    "device_of_member": "device (member_id, tenant)",
    "device_blocked": "device (access_at DESC) WHERE access = 'blocked' AND forgotten_at IS NULL",
    "audit_by_actor": "audit (tenant, actor, at, id)",
    "audit_by_action": "audit (tenant, action, at, id)",
    "audit_by_kind": "audit (tenant, target_kind, at, id)",
    "audit_by_target": "audit (tenant, target_id, at, id)",
    "read_mark_by_reader": "read_mark (tenant, reader, violation_id) INCLUDE (hits)",
    "member_by_phone": "member (tenant, phone_e164) WHERE phone_e164 IS NOT NULL AND phone_e164 <> ''",
    "audit_by_member": "audit (tenant, (coalesce(member_id, target_id)), at, id)",
    "member_phone_unread": "member (tenant, id) WHERE phone IS NOT NULL AND phone_e164 IS NULL",
    # Who waits to be taken into the directory, and the directory by status; see members/filing.py.
    "member_unfiled": (
        "member (tenant, id)"
        " WHERE filed_as IS DISTINCT FROM hash_record_extended(ROW(name, email, phone, phone_e164, tags), 0)"
    ),
    "enrolment_unfiled": "enrolment (tenant, member_id) WHERE filed_at IS DISTINCT FROM updated_at",
    "member_by_standing": (
        "member ((tenant || ''), (CASE WHEN standing = 5 THEN 1 ELSE 0 END), (coalesce(last_activity_at, '-infinity'::timestamptz)), id)"
    ),
}

# What others of these stand in for, so that nothing has to wait for a later release: dropped when those are there.
REPLACED: Final = ("device_by_member",)
# Room for the next state of a row in the page that it is in, without which it is in every index again. Like an index, it
# is asked for without holding up anybody (PostgreSQL, "Explicit Locking": SHARE UPDATE EXCLUSIVE); pages that are full stay.
ROOM: Final = "ALTER TABLE device SET (fillfactor = 80)"

TRY_LOCK: Final = text("SELECT pg_try_advisory_lock(:number)")
THERE: Final = """
    SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
     WHERE c.relname = ANY(:names) AND pg_table_is_visible(c.oid)
"""


async def build(connection: AsyncConnection, *, until: float) -> None:
    """Build each index that is not there, on a connection that commits by itself; one whose building was cut off, anew.

    Then those go that they stand in for. Writers are held up by none of it (CREATE INDEX CONCURRENTLY), and whoever
    comes second waits without a statement of its own, for whose end the
    building would wait, until `until` (loop time): then StartError. The
    building itself takes as long as it takes.
    """
    while not await connection.scalar(TRY_LOCK, {"number": LOCK_NUMBER}):
        if asyncio.get_running_loop().time() > until:
            raise StartError("Another `accessguard migrate` still builds indexes; nothing else is left to do.")
        await asyncio.sleep(POLL_S)
    try:
        await connection.execute(text("SET statement_timeout = 0"))
        found = await connection.execute(text(THERE), {"names": list(INDEXES)})
        valid = {row.relname: row.indisvalid for row in found}
        for name, columns in INDEXES.items():
            if valid.get(name) is False:
                await connection.execute(text(f"DROP INDEX CONCURRENTLY {name}"))
            if not valid.get(name):
                await connection.execute(text(f"CREATE INDEX CONCURRENTLY {name} ON {columns}"))
        for name in REPLACED:
            await connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))
        await connection.execute(text(ROOM))
        await build_partitioned(connection, until=until)
        await build_triggers(connection, until=until)
        await begin_chains(connection)
    finally:
        await connection.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": LOCK_NUMBER})
