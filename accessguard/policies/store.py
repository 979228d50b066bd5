"""Rules, their versions and settings in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, get_args
from uuid import UUID

import msgspec

from accessguard.database import Database, Row
from accessguard.policies.hosts import Host
from accessguard.policies.model import Language, Policy, RuleBody, RuleRecord, Settings, Wording, policy
from accessguard.rules.model import Code

LANGUAGES: Final = frozenset(get_args(Language))
CODES: Final = frozenset(Code)

# The tenant with the rules it starts with, or nothing when it is there.
ENSURE_TENANT: Final = """
    WITH made AS (
        INSERT INTO tenant (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING RETURNING id
    ), asked AS (
        SELECT f.id, f.body, f.place FROM made, jsonb_to_recordset($4) AS f(id uuid, body jsonb, place integer)
    ), ruled AS (
        INSERT INTO rule (tenant, id, version, kind, body, created_at, updated_at)
        SELECT $1, id, 1, body->>'kind', body, $3, $3 FROM asked ORDER BY place
    ), kept AS (
        INSERT INTO rule_version (tenant, rule_id, version, body, at, actor, reason)
        SELECT $1, id, 1, body, $3, $5, NULL FROM asked
    )
    SELECT id FROM made
"""

SYSTEM: Final = "system"
"""Who made what nobody asked for by name."""

LOAD: Final = """
    SELECT t.generation, t.settings, t.parent,
           (SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'id', r.id, 'version', r.version, 'body', r.body, 'updated_at', r.updated_at)), '[]')
              FROM rule r WHERE r.tenant = t.id AND r.deleted_at IS NULL) AS rules
      FROM tenant t WHERE t.id = $1 AND t.status = 'active' AND t.deleted_at IS NULL
"""

RULES: Final = """
    SELECT id, version, body, updated_at FROM rule
     WHERE tenant = $1 AND deleted_at IS NULL ORDER BY created_at, id LIMIT 1000
"""

RULE: Final = """
    SELECT id, version, body, updated_at FROM rule WHERE tenant = $1 AND id = $2 AND deleted_at IS NULL
"""

# A retry with the same id (the same Idempotency-Key) changes nothing and answers what is stored.
CREATE: Final = """
    WITH made AS (
        INSERT INTO rule (tenant, id, version, kind, body, created_at, updated_at)
        VALUES ($1, $2, 1, $3, $4, $5, $5) ON CONFLICT (tenant, id) DO NOTHING
        RETURNING id, version, body, updated_at
    ), kept AS (
        INSERT INTO rule_version (tenant, rule_id, version, body, at, actor, reason)
        SELECT $1, id, version, body, $5, $6, $7 FROM made
    ), changed AS (
        UPDATE tenant SET generation = nextval('generation') WHERE id = $1 AND EXISTS (SELECT FROM made)
    )
    SELECT id, version, body, updated_at FROM made
"""

REPLACE: Final = """
    WITH made AS (
        UPDATE rule SET version = version + 1, kind = $3, body = $4, updated_at = $5
         WHERE tenant = $1 AND id = $2 AND deleted_at IS NULL
        RETURNING id, version, body, updated_at
    ), kept AS (
        INSERT INTO rule_version (tenant, rule_id, version, body, at, actor, reason)
        SELECT $1, id, version, body, $5, $6, $7 FROM made
    ), changed AS (
        UPDATE tenant SET generation = nextval('generation') WHERE id = $1 AND EXISTS (SELECT FROM made)
    )
    SELECT id, version, body, updated_at FROM made
"""

DELETE: Final = """
    WITH made AS (
        UPDATE rule SET version = version + 1, deleted_at = $3, updated_at = $3
         WHERE tenant = $1 AND id = $2 AND deleted_at IS NULL
        RETURNING id, version, body, updated_at
    ), kept AS (
        INSERT INTO rule_version (tenant, rule_id, version, body, at, actor, reason, deleted)
        SELECT $1, id, version, body, $3, $4, $5, true FROM made
    ), changed AS (
        UPDATE tenant SET generation = nextval('generation') WHERE id = $1 AND EXISTS (SELECT FROM made)
    )
    SELECT id, version, body, updated_at FROM made
"""

VERSIONS: Final = """
    SELECT version, body, at, actor, reason, deleted FROM rule_version
     WHERE tenant = $1 AND rule_id = $2 ORDER BY version DESC LIMIT 1000
"""

SETTINGS: Final = "SELECT settings FROM tenant WHERE id = $1"

SAVE_SETTINGS: Final = """
    UPDATE tenant SET settings = $2, name = coalesce(nullif($3, ''), name), generation = nextval('generation')
     WHERE id = $1 RETURNING settings
"""

# Whoever saves a rule or settings waits for whoever is saving the other.
HOLD: Final = "SELECT 1 FROM tenant WHERE id = $1 FOR NO KEY UPDATE"

CHANGED: Final = """
    SELECT id, generation FROM tenant WHERE generation > $1 ORDER BY generation LIMIT 10000
"""


class RuleVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a rule: what it was, since when, by whom and why."""

    version: int
    body: RuleBody
    at: datetime
    actor: str
    reason: str | None
    deleted: bool


class PolicyStore:
    """What tenants decided. Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def ensure_tenant(
        self, tenant: str, name: str, *, at: datetime, first: Mapping[UUID, RuleBody] | None = None, actor: str = SYSTEM
    ) -> bool:
        """Make the tenant, with its `first` rules, if it is not there; True when this call made it."""
        rules = [{"id": id_, "body": body, "place": place} for place, (id_, body) in enumerate((first or {}).items())]
        return await self._db.row(ENSURE_TENANT, tenant, name, at, rules, actor) is not None

    async def hold(self, tenant: str) -> None:
        """Hold the tenant's row until the transaction ends."""
        await self._db.row(HOLD, tenant)

    async def load(self, tenant: str) -> Policy | None:
        """The tenant's policy as it stands; None for one that is unknown, suspended or deleted."""
        row = await self._db.row(LOAD, tenant)
        if row is None:
            return None
        records = msgspec.json.decode(row["rules"], type=tuple[RuleRecord, ...])
        made = policy(tenant, row["generation"], settings_of(row["settings"]), records)
        return msgspec.structs.replace(made, parent=row["parent"])

    async def rules(self, tenant: str) -> tuple[RuleRecord, ...]:
        """Every rule, the oldest first."""
        return tuple(_record(row) for row in await self._db.fetch(RULES, tenant))

    async def rule(self, tenant: str, rule_id: UUID) -> RuleRecord | None:
        """One rule; None when it is not there."""
        return _record_or_none(await self._db.row(RULE, tenant, rule_id))

    async def create(
        self, tenant: str, rule_id: UUID, body: RuleBody, *, at: datetime, actor: str, reason: str | None
    ) -> RuleRecord | None:
        """Store version 1 of a rule; None when that id is already stored."""
        return _record_or_none(await self._db.row(CREATE, tenant, rule_id, body.kind, body, at, actor, reason))

    async def replace(
        self, tenant: str, rule_id: UUID, body: RuleBody, *, at: datetime, actor: str, reason: str | None
    ) -> RuleRecord | None:
        """Store the next version; None when the rule is not there."""
        return _record_or_none(await self._db.row(REPLACE, tenant, rule_id, body.kind, body, at, actor, reason))

    async def delete(
        self, tenant: str, rule_id: UUID, *, at: datetime, actor: str, reason: str | None
    ) -> RuleRecord | None:
        """Take the rule out of force, keeping its versions; None when it is not there."""
        return _record_or_none(await self._db.row(DELETE, tenant, rule_id, at, actor, reason))

    async def versions(self, tenant: str, rule_id: UUID) -> tuple[RuleVersion, ...]:
        """Every version, the newest first; empty when the rule never was."""
        rows = await self._db.fetch(VERSIONS, tenant, rule_id)
        return tuple(
            RuleVersion(
                version=row["version"],
                body=msgspec.json.decode(row["body"], type=RuleBody),
                at=row["at"],
                actor=row["actor"],
                reason=row["reason"],
                deleted=row["deleted"],
            )
            for row in rows
        )

    async def settings(self, tenant: str) -> Settings | None:
        """The tenant's settings; None for an unknown tenant."""
        row = await self._db.row(SETTINGS, tenant)
        return None if row is None else settings_of(row["settings"])

    async def save_settings(self, tenant: str, settings: Settings) -> Settings | None:
        """Replace the settings; None for an unknown tenant."""
        row = await self._db.row(SAVE_SETTINGS, tenant, settings, settings.name)
        return None if row is None else settings_of(row["settings"])

    async def changed(self, since: int) -> Sequence[tuple[str, int]]:
        """Tenants whose generation is past `since`, with it, the lowest first."""
        return [(row["id"], row["generation"]) for row in await self._db.fetch(CHANGED, since)]


def settings_of(stored: msgspec.Raw) -> Settings:
    """Settings from their stored form; what was stored by another release and is unknown here is left out."""
    kept = _known(msgspec.json.decode(stored, type=dict[str, Any]), Settings)
    if "languages" in kept:
        kept["languages"] = [each for each in kept["languages"] if each in LANGUAGES]
    if "messages" in kept:
        kept["messages"] = {code: _spoken(texts) for code, texts in kept["messages"].items() if code in CODES}
    if "hosts" in kept:
        kept["hosts"] = [_known(each, Host) for each in kept["hosts"]]
    return msgspec.convert(kept, Settings)


def _spoken(texts: Mapping[str, Any]) -> dict[str, Any]:
    return {language: _known(text, Wording) for language, text in texts.items() if language in LANGUAGES}


def _known(stored: Mapping[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    kept = {field.encode_name: field.type for field in msgspec.structs.fields(kind) if field.encode_name in stored}
    nested = {name for name, of in kept.items() if isinstance(of, type) and issubclass(of, msgspec.Struct)}
    return {name: _known(stored[name], of) if name in nested else stored[name] for name, of in kept.items()}


def _record(row: Row) -> RuleRecord:
    return RuleRecord(
        id=row["id"],
        version=row["version"],
        body=msgspec.json.decode(row["body"], type=RuleBody),
        updated_at=row["updated_at"],
    )


def _record_or_none(row: Row | None) -> RuleRecord | None:
    return None if row is None else _record(row)
