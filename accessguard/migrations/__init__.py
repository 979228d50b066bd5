"""The schema: forward only, under one lock, safe to run twice and beside the release before."""

from __future__ import annotations

from typing import Final

from accessguard.migrations.standing import Schema, head, objection, revisions

__all__ = ["PATIENCE_S", "Schema", "head", "migrate", "objection", "revision", "revisions"]

PATIENCE_S: Final = 300.0
"""How long a migration is tried for while somebody else holds what it needs."""


async def migrate(database_url: str, *, patience_s: float = PATIENCE_S, to: str | None = None) -> str:
    """Bring the schema at `database_url` to this release's, or to the revision `to`; return its revision.

    Each revision is one transaction under an advisory lock. One that does not
    get a lock at once gives way to the service and is tried again, for
    `patience_s` in all; whatever ends it in the middle, the next run goes on.
    Then the indexes of big tables are built beside the service.
    Raises StartError when time is over or the schema is newer than this
    release, and what SQLAlchemy raises when the database is out of reach.
    """
    from accessguard.migrations import run  # noqa: PLC0415 -- a server that only looks needs none of Alembic

    return await run.migrate(database_url, patience_s=patience_s, to=to)


async def revision(database_url: str) -> str | None:
    """The revision that the database is at; None for an empty database."""
    from accessguard.migrations import run  # noqa: PLC0415 -- a server that only looks needs none of Alembic

    return await run.revision(database_url)
