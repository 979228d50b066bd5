"""What writes the outbox and the chain of the audit log: triggers on tables that are in use, each put there in a moment of its own.

A trigger needs its table for an instant in which nobody writes, so it asks for
it only as briefly as a revision does, gives way, and tries again; never with
the lock of another table in its hands.
"""

from __future__ import annotations

import asyncio
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from accessguard.errors import StartError

PAUSE_S: Final = 0.5
LOCK_TIMEOUT: Final = "SET lock_timeout = '50ms'"
LOCK_NOT_AVAILABLE: Final = frozenset({"55P03", "40P01"})

# Name: what fires it. A condition is looked at before anything is queued, so a beat that moves last activity costs
# nothing, and a login (which moves `last_access_at`) tells nobody that its member has changed.
TRIGGERS: Final = {
    "session_told": """
        AFTER UPDATE OF ended_at ON session FOR EACH ROW
        WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION tell_session()""",
    "device_new_told": "AFTER INSERT ON device FOR EACH ROW EXECUTE FUNCTION tell_device()",
    "device_told": """
        AFTER UPDATE OF access, forgotten_at, merged_into ON device FOR EACH ROW
        WHEN ((OLD.access, OLD.forgotten_at, OLD.merged_into) IS DISTINCT FROM (NEW.access, NEW.forgotten_at, NEW.merged_into))
        EXECUTE FUNCTION tell_device()""",
    "member_told": """
        AFTER UPDATE OF generation ON member FOR EACH ROW
        WHEN (OLD.generation IS DISTINCT FROM NEW.generation AND OLD.last_access_at IS NOT DISTINCT FROM NEW.last_access_at)
        EXECUTE FUNCTION tell_member()""",
    "member_gone_told": "AFTER DELETE ON member FOR EACH ROW EXECUTE FUNCTION tell_member_gone()",
    "policy_told": """
        AFTER UPDATE OF generation ON tenant FOR EACH ROW
        WHEN (OLD.generation IS DISTINCT FROM NEW.generation) EXECUTE FUNCTION tell_policy()""",
    "violation_told": "AFTER INSERT ON violation FOR EACH ROW EXECUTE FUNCTION tell_violation()",
    "audit_salted": "BEFORE INSERT OR UPDATE ON audit FOR EACH ROW EXECUTE FUNCTION salt_audit()",
}
# The same, fired at the end of a transaction, so that no lock of theirs is held while it goes on. PostgreSQL cannot replace one
# of these, and need not: it is built where it is not there.
AT_THE_END: Final = {
    "audit_chained": """
        AFTER INSERT OR UPDATE ON audit DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chain_audit()""",
}
STATEMENTS: Final = {name: f"CREATE OR REPLACE TRIGGER {name} {fired}" for name, fired in TRIGGERS.items()} | {
    name: f"CREATE CONSTRAINT TRIGGER {name} {fired}" for name, fired in AT_THE_END.items()
}
THERE: Final = """
    SELECT t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
     WHERE c.relnamespace = current_schema()::regnamespace AND t.tgparentid = 0 AND t.tgname = ANY(:names)
"""


async def build_triggers(connection: AsyncConnection, *, until: float) -> None:
    """Put each trigger that is not there on its table, on a connection that commits by itself.

    Raises StartError when a table is in use all the time until `until` (loop time).
    """
    await connection.execute(text(LOCK_TIMEOUT))
    found = {row.tgname for row in await connection.execute(text(THERE), {"names": list(STATEMENTS)})}
    for name in STATEMENTS:
        while name not in found and not await _built(connection, name):
            if asyncio.get_running_loop().time() > until:
                raise StartError(
                    "A table that a trigger is put on was in use all the time (pg_stat_activity says by whom); what is "
                    "done stays done: run `accessguard migrate` again, with a longer --wait."
                )
            await asyncio.sleep(PAUSE_S)


async def _built(connection: AsyncConnection, name: str) -> bool:
    """Whether it is there now; False when somebody had the table."""
    try:
        await connection.execute(text(STATEMENTS[name]))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in LOCK_NOT_AVAILABLE:
            raise
        return False
    return True
