"""The service under a role that owns nothing, and over TLS to both stores."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from accessguard.app import migrate
from accessguard.database import Database
from accessguard.embedded import Embedded
from accessguard.events.chain import ChainStore
from accessguard.guard.auditing import Auditing
from tests.migrations.databases import connected
from tests.service import Service, config, configured, items

GRANTS = Path(__file__).parents[1] / "config/postgres/grants.sql"
APPEND_ONLY = ("audit", "rule_version", "comment", "enrolment_change")


@pytest.fixture(scope="module")
async def granted(service: Service, stores: Embedded) -> str:
    """The run's database, at which the service's role has what grants.sql gives it; the role's address."""
    async with connected(stores.database_url) as owner:
        for _ in "12":  # it is run again after each migration
            await owner.execute(GRANTS.read_text())
    return stores.database_url.replace("//accessguard@", "//accessguard_app@")


@pytest.fixture(scope="module")
async def humble(granted: str, redis_url: str) -> AsyncIterator[Service]:
    """A worker under that role."""
    async with configured(config(granted, redis_url)) as worker:
        yield worker


async def test_the_whole_service_runs_under_the_least_of_rights(humble, granted):
    """Students, operators, erasure, deletion, upkeep with its partitions: nothing wants more than it was given."""
    tenant = humble.tenant()
    login = await tenant.login()
    statuses = [
        login.status,
        (await tenant.check(login, activity="lesson_open")).status,
        (await tenant.call("PUT", "/v1/members/ana", {"name": "Ana", "email": "ana@example.com"})).status,
        (
            await tenant.call(
                "PUT", "/v1/members/ana/enrolments/c", {"status": "active", "starts_at": "2026-01-01T00:00:00Z"}
            )
        ).status,
        (await tenant.rule("session_limit", "deny_new", max=1)).status,
        (await tenant.login(session_id="second")).status,
        (await tenant.device("ana", login["device"]["id"], access="blocked", reason="lost")).status,
        (await tenant.call("POST", "/v1/members/ana/comments", {"text": "x"}, role="supervisor")).status,
        (await tenant.login("bob")).status,
        (await tenant.call("POST", "/v1/members/bob/merge", {"into": "ana"}, role="supervisor")).status,
        (await tenant.call("POST", "/v1/revocations", {"token_id": "t"}, role="administrator")).status,
        (await tenant.call("POST", "/v1/console/links", role="supervisor")).status,
        (await tenant.see("/v1/members?q=ana")).status,
        (await tenant.see("/v1/violations/summary")).status,
        (await tenant.see("/v1/reports/logins")).status,
        (await tenant.call("GET", "/v1/members/ana/export", role="administrator")).status,
        (await tenant.call("DELETE", "/v1/members/ana?mode=anonymise", role="administrator")).status,
        (await tenant.login("cyd")).status,
        (await tenant.call("DELETE", "/v1/members/cyd?mode=erase", role="administrator")).status,
    ]
    log = [each["action"] for each in items(await tenant.call("GET", "/v1/audit", role="administrator"))]
    db = await Database.connect(granted, size=1)
    chain = await Auditing(ChainStore(db)).verify(tenant.name, step=lambda _: None)
    await db.close()

    assert [each for each in statuses if each not in {200, 201, 204}] == []
    assert "device.change" in log
    assert (chain.fault, chain.entries, chain.redacted > 0, chain.moved > 0) == (None, len(log), True, True)


async def test_every_chore_of_upkeep_is_done_under_the_least_of_rights(humble, granted, redis_url):
    """New months' partitions, retention, a deleted tenant's rows with its audit log: by the functions that may."""
    from accessguard.app import open_parts

    tenant = humble.tenant()
    await tenant.login()
    path = f"/v1/tenants/{tenant.name}"
    token = (await tenant.call("DELETE", path, role="root"))["confirmation"]
    gone = await tenant.call("DELETE", f"{path}?confirmation={token}", role="root")
    parts = await open_parts(config(granted, redis_url))
    async with parts.running():
        db = parts.upkeep._db
        done = {}
        for chore in parts.upkeep.chores:
            rows = 1
            while rows:
                async with db.transaction() as tx:
                    rows = await chore.step(tx, datetime.now(UTC))
                done[chore.job] = rows
        for table in ("login_attempt", "activity", "violation"):
            await db.row("SELECT ensure_partition($1, $2::date)", table, datetime(2031, 5, 1, tzinfo=UTC).date())
            await db.row("SELECT drop_partition($1, $2)", table, f"{table}_203105")
        left = [
            table
            for table in ("audit", "login_attempt", "member", "rule")
            if await db.value(f"SELECT count(*) FROM {table} WHERE tenant = $1", tenant.name)
        ]

    assert gone.status == 202
    assert len(done) > 15
    assert left == []


@pytest.mark.parametrize(
    "statement",
    [
        *(f"DELETE FROM {table}" for table in APPEND_ONLY),
        "UPDATE audit SET at = now()",
        "UPDATE audit SET actor = 'nobody'",
        "UPDATE rule_version SET body = '{}'",
        "UPDATE erasure SET at = now()",
        "UPDATE audit SET salt = gen_random_uuid()",
        "UPDATE audit_chain SET at = now()",
        "DELETE FROM audit_chain",
        "TRUNCATE audit_chain",
        "SELECT extend_audit_chain('some tenant', 'written', NULL, NULL, NULL)",
        "ALTER TABLE audit DISABLE TRIGGER audit_chained",
        "SET session_replication_role = replica",
        "SELECT erase_rows('audit', 'some tenant', NULL, 1000)",
        "UPDATE alembic_version SET version_num = '0001'",
        "DROP TABLE member",
        "CREATE TABLE mine (a int)",
        "ALTER TABLE audit ADD COLUMN b int",
        "TRUNCATE login_attempt",
        "COPY audit TO PROGRAM 'true'",
        "CREATE ROLE another SUPERUSER",
        "ALTER FUNCTION erase_rows(text, text, text, integer) SECURITY INVOKER",
    ],
)
async def test_the_service_s_role_cannot(granted, statement):
    """Whoever takes over the service rewrites no history and makes nothing that stays."""
    async with connected(granted) as connection:
        attempt = connection.transaction()
        await attempt.start()
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
        await attempt.rollback()


def certificate(folder: Path, name: str, host: str) -> tuple[Path, Path]:
    """A certificate for a host, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(secret)
    return paths


@contextlib.asynccontextmanager
async def behind_tls(
    files: tuple[Path, Path],
    socket: str,
    greet: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None,
) -> AsyncIterator[tuple[int, list[str]]]:
    """A TLS server in front of a store's Unix socket: its port, and the versions that were agreed upon.

    `greet` is what is said before TLS begins, as PostgreSQL does.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    agreed: list[str] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            if greet is not None:
                await greet(reader, writer)
                await writer.start_tls(context)
            agreed.append(writer.get_extra_info("ssl_object").version())
            there = await asyncio.open_unix_connection(socket)
            await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    plain = None if greet is not None else context
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=plain)
    try:
        yield server.sockets[0].getsockname()[1], agreed
    finally:
        server.close()


async def ssl_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """PostgreSQL's SSLRequest, accepted (protocol 3.0, message formats)."""
    assert await reader.readexactly(8) == b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
    writer.write(b"S")


async def test_both_stores_are_spoken_to_over_tls_and_only_where_their_certificate_is_good(service, stores, tmp_path):
    """verify-full for PostgreSQL, migrations included, `ssl_ca_certs` for Valkey; a stranger's certificate is none."""
    good, bad = certificate(tmp_path, "good", "localhost"), certificate(tmp_path, "bad", "localhost")
    folder = parse_qs(urlsplit(stores.database_url).query)["host"][0]
    valkey = urlsplit(stores.redis_url).path
    async with (
        behind_tls(good, f"{folder}/.s.PGSQL.5432", ssl_request) as (postgres_port, postgres_agreed),
        behind_tls(good, valkey, None) as (valkey_port, valkey_agreed),
    ):

        def urls(ca: Path) -> tuple[str, str]:
            database = (
                f"postgresql://accessguard@localhost:{postgres_port}/accessguard?sslmode=verify-full&sslrootcert={ca}"
            )
            return database, f"rediss://localhost:{valkey_port}?ssl_ca_certs={ca}"

        await migrate(urls(good[0])[0])
        async with configured(config(*urls(good[0]))) as worker:
            tenant = worker.tenant()
            login = await tenant.login()
            allowed = await tenant.check(login, activity="lesson_open")
            ready = await worker.context.ready.parts()
        with pytest.raises(Exception, match="PostgreSQL does not answer"):
            async with configured(config(*urls(bad[0]))):
                pass
        async with configured(config(stores.database_url, urls(bad[0])[1])) as worker:
            without = await worker.context.ready.parts()

    assert (login.status, allowed["decision"], ready["valkey"]) == (200, "allow", "up")
    assert without["valkey"] == "down"
    assert set(postgres_agreed) == set(valkey_agreed) == {"TLSv1.3"}
