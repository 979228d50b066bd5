"""What both stores say of themselves: reachable, recent, set as they should be, of the right schema and time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from accessguard import migrations
from accessguard.config import Config
from accessguard.database import Database
from accessguard.doctor.findings import Finding, fail, fine, note, warn
from accessguard.errors import GuardError
from accessguard.events.chain import ChainStore
from accessguard.events.keys import DERIVED
from accessguard.guard.schema import schema
from accessguard.sessions.live import Live

PATIENCE_S: Final = 3.0
OLDEST_POSTGRES: Final = 150_000
OLDEST_VALKEY: Final = (7, 2)
"""WAITAOF, by which logins in an outage are known to be on disk, is of Redis 7.2."""
APART_S: Final = 1.0
FAR_APART_S: Final = 5.0
"""What callers' tokens are given for clocks that differ (tokens.leeway_s)."""
MOST_NAMED: Final = 10
START: Final = "Start it, or correct the address; the log of the store says who was turned away."
SERVER: Final = """
    SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS named,
           current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
           current_setting('synchronous_commit') AS synchronous_commit, current_setting('autovacuum') AS autovacuum,
           current_setting('max_connections')::int AS room, pg_is_in_recovery() AS standby,
           pg_encoding_to_char(d.encoding) AS encoding, r.rolsuper AS superuser,
           coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS tls,
           (SELECT count(*) FROM pg_index WHERE NOT indisvalid) AS broken_indexes
      FROM pg_database d, pg_roles r WHERE d.datname = current_database() AND r.rolname = current_user
"""
NOW: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"
WEBHOOKS: Final = """
    SELECT tenant, id::text, status, failing_since FROM webhook
     WHERE status <> 'active' OR failing_since < now() - interval '1 hour' ORDER BY failing_since, tenant LIMIT $1
"""

SEALED: Final = """
    SELECT DISTINCT split_part(sealed, '.', 2) AS key FROM webhook WHERE sealed IS NOT NULL ORDER BY key LIMIT $1
"""


async def postgres(config: Config) -> AsyncIterator[Finding]:
    """PostgreSQL, its schema, its clock, and what it knows of webhooks."""
    try:
        db = await Database.connect(config.database.url, size=1, timeout_s=PATIENCE_S, pooled=config.database.pgbouncer)
    except (GuardError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        yield fail("postgres", f"Does not answer ({type(cause).__name__}).", f"ACCESSGUARD_DATABASE_URL. {START}")
        return
    try:
        async for finding in _of_postgres(config, db):
            yield finding
    except GuardError as error:
        yield fail("postgres", f"Refuses to be asked: {error.message}", "Look at its log and at the role's grants.")
    finally:
        await db.close()


async def _of_postgres(config: Config, db: Database) -> AsyncIterator[Finding]:
    row = await db.row(SERVER)
    for finding in server(dict(row.items()) if row else {}, config):
        yield finding
    if wanting := await db.unsettled():
        advice = "; ".join(f"ALTER ROLE ... SET {name} = off" for name in wanting)
        yield warn("postgres settings", f"On, and wanted off: {', '.join(wanting)}.", f"{advice} (docs/operations.md).")
    why = migrations.objection(await schema(db))
    yield fine("schema", "Fits this release.") if why is None else fail("schema", why, "Do what it says.")
    before, now, after = time.time(), await db.value(NOW), time.time()
    yield clock("PostgreSQL", float(now) - (before + after) / 2)
    if why is None:
        yield webhooks([dict(each.items()) for each in await db.fetch(WEBHOOKS, MOST_NAMED)])
        yield record(on=await ChainStore(db).on())
        for finding in webhook_keys([each["key"] for each in await db.fetch(SEALED, MOST_NAMED)], config):
            yield finding


def server(said: Mapping[str, Any], config: Config) -> Iterator[Finding]:
    """What PostgreSQL's version and settings (a row of SERVER) mean."""
    if said["version"] < OLDEST_POSTGRES:
        yield fail("postgres", f"Version {said['named']}.", "Use PostgreSQL 15 or later.")
    else:
        yield fine("postgres", f"Version {said['named']} answers.")
    if said["standby"]:
        yield fail("postgres", "It is a standby.", "ACCESSGUARD_DATABASE_URL must lead to the primary.")
    if said["encoding"] != "UTF8":
        yield fail("postgres", f"Its encoding is {said['encoding']}.", "Make a database with ENCODING 'UTF8'.")
    off = [name for name in ("fsync", "full_page_writes", "synchronous_commit", "autovacuum") if said[name] == "off"]
    if off:
        yield fail(
            "postgres settings",
            f"Off: {', '.join(off)}.",
            "Switch them on: an answer promises that what it acknowledges survives a crash.",
        )
    yield from _around(said, config)


def _around(said: Mapping[str, Any], config: Config) -> Iterator[Finding]:
    """Room, rights and the way there."""
    wanted = config.server.workers * config.database.pool_size
    if not config.database.pgbouncer and wanted + 5 > said["room"]:
        yield warn(
            "postgres settings",
            f"max_connections is {said['room']}, and this host alone may want {wanted}.",
            "Raise it, lower database.pool_size, or put PgBouncer in between.",
        )
    if said["broken_indexes"]:
        yield warn("schema", f"{said['broken_indexes']} index(es) are not whole.", "Run `accessguard migrate` again.")
    if said["superuser"]:
        yield note(
            "postgres role",
            "The service is a superuser there.",
            "Give it a role of its own with no more than it needs.",
        )
    if not said["tls"] and _far(config.database.url):
        yield warn("postgres", "The way there is not encrypted.", "Add sslmode=verify-full to the address.")


async def valkey(config: Config) -> AsyncIterator[Finding]:
    """Valkey or Redis, and its clock."""
    try:
        live = Live.connect(config.redis.url, timeout_s=PATIENCE_S)
    except ValueError:
        yield fail(
            "valkey",
            "ACCESSGUARD_REDIS_URL is no address.",
            "Write redis://, rediss://, unix:// or as docs/operations.md says.",
        )
        return
    try:
        said = facts(_text(await live.ask("INFO")))
        before, now, after = time.time(), await live.ask("TIME"), time.time()
        with contextlib.suppress(GuardError):  # some that are hired out do not tell
            said["appendfsync"] = _text((await live.ask("CONFIG", "GET", "appendfsync"))[1])
        for finding in settings(said):
            yield finding
        yield clock("Valkey", int(now[0]) + int(now[1]) / 1e6 - (before + after) / 2)
    except (GuardError, OSError, LookupError) as error:
        cause = error.__cause__ or error
        yield fail("valkey", f"Does not answer ({type(cause).__name__}).", f"ACCESSGUARD_REDIS_URL. {START}")
    finally:
        await live.close()


def facts(text: str) -> dict[str, str]:
    """The lines of INFO."""
    return {name: value for name, _, value in (line.partition(":") for line in text.splitlines()) if value}


def settings(said: Mapping[str, str]) -> Iterator[Finding]:
    """What Valkey's version and settings mean."""
    named = said.get("valkey_version") or said.get("redis_version", "0")
    version = tuple(int(part) for part in named.split(".")[:2] if part.isdigit())
    kind = "Valkey" if "valkey_version" in said else "Redis"
    if version < OLDEST_VALKEY:
        yield fail("valkey", f"{kind} {named}.", "Use Valkey, or Redis 7.2 or later: logins in an outage need WAITAOF.")
    else:
        yield fine("valkey", f"{kind} {named} answers.")
    policy = said.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield fail(
            "valkey settings",
            f"maxmemory-policy is {policy}.",
            "Set it to noeviction: waiting logins would be evicted.",
        )
    if said.get("aof_enabled") != "1":
        yield fail(
            "valkey settings", "appendonly is off.", "Set `appendonly yes`: logins wait there while PostgreSQL is out."
        )
    elif said.get("appendfsync", "everysec") == "no":
        yield warn("valkey settings", "appendfsync is no.", "Set it to everysec or always.")
    elif said.get("aof_last_write_status", "ok") != "ok":
        yield fail("valkey settings", "Its last write to disk failed.", "Look at its disk and its log.")
    else:
        yield fine("valkey settings", f"noeviction, append-only file ({said.get('appendfsync', 'not told')}).")
    if said.get("role") == "slave":
        yield fail("valkey", "It is a replica.", "ACCESSGUARD_REDIS_URL must lead to the primary, or to the Sentinels.")


def clock(whose: str, ahead_s: float) -> Finding:
    """How far a store's clock is ahead of this machine's."""
    said = f"{whose}'s is {abs(ahead_s):.2f} s {'ahead of' if ahead_s >= 0 else 'behind'} this one."
    if abs(ahead_s) < APART_S:
        return fine("clocks", said)
    found = fail if abs(ahead_s) >= FAR_APART_S else warn
    return found("clocks", said, "Keep both right by NTP (chronyc tracking, timedatectl).")


def webhooks(failing: list[dict[str, Any]]) -> Finding:
    """Webhooks that are switched off or have failed for an hour, by tenant and id; never where they lead."""
    if not failing:
        return fine("webhooks", "None fails.")
    named = ", ".join(f"{each['tenant']}/{each['id']} ({each['status']})" for each in failing)
    return warn(
        "webhooks", f"Failing or switched off: {named}.", "GET /v1/webhooks/{id}/deliveries says what was answered."
    )


def record(*, on: bool) -> Finding:
    """Whether the audit log is chained."""
    if on:
        return fine("audit log", "Each entry is chained to the one before.")
    return fail(
        "audit log",
        "A trigger that chains its entries is missing or switched off.",
        "Unless you did so, somebody may have changed the log: `accessguard audit verify`. Then `accessguard migrate` and"
        " `ALTER TABLE audit ENABLE TRIGGER USER` put it back.",
    )


def webhook_keys(used: Sequence[str], config: Config) -> Iterator[Finding]:
    """Whether every key is there that webhooks' secrets are encrypted by; `used` are their ids."""
    known = {DERIVED, *(key.id for key in config.keys.webhook)}
    if lost := [each for each in used if each not in known]:
        yield fail(
            "webhook keys",
            f"Webhooks' secrets are encrypted by keys that are not set: {', '.join(lost)}.",
            "Put these keys back behind the others in ACCESSGUARD_WEBHOOK_KEYS, or make the webhooks anew.",
        )


def _far(url: str) -> bool:
    """Whether a store is on another machine."""
    host = urlsplit(url).hostname
    return host not in {None, "", "localhost", "127.0.0.1", "::1"} and not url.partition("host=")[2].startswith("/")


def _text(said: Any) -> str:
    return said.decode() if isinstance(said, bytes) else str(said)
