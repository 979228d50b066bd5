"""`accessguard doctor`: each check finds what it is there for, broken on purpose, on real stores where it asks them."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from redis.asyncio import Redis as Client

from accessguard.config import Config, Database, Geo, Keys, Redis, Server, Tenants, Tokens
from accessguard.doctor.findings import Finding, Level
from accessguard.doctor.local import disk, examine, open_files, workers
from accessguard.doctor.stores import clock, postgres, server, settings, valkey, webhook_keys
from accessguard.signing import SigningKey
from tests.mmdb import city, mmdb
from tests.service import Service

ROOT = Path(__file__).parents[2]
HEALTHY: dict[str, Any] = {
    "version": 180_001,
    "named": "18.1",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "autovacuum": "on",
    "room": 100,
    "standby": False,
    "encoding": "UTF8",
    "superuser": False,
    "tls": True,
    "broken_indexes": 0,
}
SOUND = {"valkey_version": "9.0.1", "aof_enabled": "1", "maxmemory_policy": "noeviction", "appendfsync": "everysec"}


def good(**sections: Any) -> Config:
    """A configuration without a fault, but for the sections given."""
    keys = Keys(
        device=(SigningKey(id="d", secret=secrets.token_hex(32)),),
        session=(SigningKey(id="s", secret=secrets.token_hex(32)),),
        identifier=secrets.token_hex(32),
    )
    sound = {
        "database": Database(url="postgresql://db/accessguard"),
        "redis": Redis(url="redis://valkey"),
        "tokens": Tokens(secrets=(secrets.token_hex(32),)),
        "keys": keys,
        "server": Server(trusted_networks=("10.1.2.0/24",)),
    }
    return Config(**sound | sections)


def found(config: Config, **environ: str) -> dict[str, list[Finding]]:
    """What there is to say of a configuration, by check."""
    by_check: dict[str, list[Finding]] = {}
    for each in examine(config, environ, now_s=time.time()):
        by_check.setdefault(each.check, []).append(each)
    return by_check


def worst(findings: list[Finding]) -> Level:
    """The level that counts."""
    order = tuple(Level)
    return max((each.level for each in findings), key=order.index)


def test_a_sound_configuration_is_sound():
    """Else every other test here could be right for the wrong reason."""
    checks = found(good())

    checked = {check: worst(checks[check]) for check in ("configuration", "keys", "trust", "admin port")}

    assert set(checked.values()) == {Level.OK}, checked


@pytest.mark.parametrize(
    ("check", "level", "sections"),
    [
        pytest.param("configuration", Level.FAIL, {"redis": Redis()}, id="no Valkey named"),
        pytest.param("configuration", Level.FAIL, {"tenants": Tenants(preset="nonsense")}, id="no such preset"),
        pytest.param(
            "configuration",
            Level.FAIL,
            {"tokens": Tokens(algorithms=("ES256",), jwks_file="nowhere.json")},
            id="no published keys",
        ),
        pytest.param("keys", Level.FAIL, {"keys": Keys()}, id="keys missing"),
        pytest.param("keys", Level.FAIL, {"tokens": Tokens(secrets=("ab" * 20,))}, id="a secret easily guessed"),
        pytest.param(
            "keys",
            Level.WARN,
            {
                "keys": Keys(
                    device=(SigningKey(id="d", secret="0123456789abcdef" * 3),),
                    session=(SigningKey(id="s", secret="0123456789abcdef" * 3),),
                    identifier=secrets.token_hex(32),
                )
            },
            id="one secret for two things",
        ),
        pytest.param("trust", Level.FAIL, {"server": Server(trusted_networks=("0.0.0.0/0",))}, id="everybody"),
        pytest.param(
            "trust", Level.FAIL, {"server": Server(trusted_networks=("10.0.0.1", "::/0"))}, id="everybody (6)"
        ),
        pytest.param("trust", Level.WARN, {"server": Server(trusted_networks=("8.8.8.0/24",))}, id="a public network"),
        pytest.param("trust", Level.NOTE, {"server": Server()}, id="no proxy"),
        pytest.param("admin port", Level.WARN, {"server": Server(admin_host="0.0.0.0")}, id="metrics for everybody"),
        pytest.param("geo", Level.NOTE, {}, id="no geo files"),
        pytest.param("geo", Level.FAIL, {"geo": Geo(files=("nowhere.mmdb",))}, id="a geo file that is not there"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_said(check, level, sections):
    """With what to do."""
    said = found(good(**sections))[check]

    assert worst(said) is level
    assert all(each.advice for each in said if each.level is not Level.OK)


@pytest.mark.parametrize(("days", "level"), [(1, Level.OK), (90, Level.WARN)])
def test_an_old_geo_file_is_told_from_a_young_one(tmp_path, days, level):
    """By its own date of build."""
    path = tmp_path / "city.mmdb"
    path.write_bytes(
        mmdb({"203.0.113.0/24": city("IT", "Milan", 45.46, 9.19)}, built_at_s=int(time.time()) - days * 86_400)
    )

    assert worst(found(good(geo=Geo(files=(str(path),))))["geo"]) is level


def test_a_file_of_secrets_that_everybody_may_read_is_said(tmp_path):
    """Though its content is strong."""
    path = tmp_path / "keys"
    path.write_text("d:" + secrets.token_hex(32))
    levels = []

    for mode in (0o600, 0o644):
        path.chmod(mode)
        levels.append(worst(found(good(), ACCESSGUARD_DEVICE_KEYS_FILE=str(path))["keys"]))

    assert levels == [Level.OK, Level.WARN]


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (disk(Path(), 50 << 30), Level.OK),
        (disk(Path(), 500 << 20), Level.WARN),
        (disk(Path(), 50 << 20), Level.FAIL),
        (open_files(1024), Level.WARN),
        (open_files(65_536), Level.OK),
        (workers(8, 2), Level.WARN),
        (workers(2, 2), Level.OK),
        (clock("Valkey", -0.2), Level.OK),
        (clock("Valkey", 2.0), Level.WARN),
        (clock("PostgreSQL", -7.0), Level.FAIL),
    ],
)
def test_a_machine_without_room_or_time_is_said(finding, level):
    """Disk, open files, cores, clocks."""
    assert finding.level is level
    assert bool(finding.advice) is (level is not Level.OK)


@pytest.mark.parametrize(
    ("wrong", "check", "level"),
    [
        ({}, "postgres", Level.OK),
        ({"version": 140_010, "named": "14.10"}, "postgres", Level.FAIL),
        ({"standby": True}, "postgres", Level.FAIL),
        ({"encoding": "SQL_ASCII"}, "postgres", Level.FAIL),
        ({"tls": False}, "postgres", Level.WARN),
        ({"fsync": "off"}, "postgres settings", Level.FAIL),
        ({"room": 12}, "postgres settings", Level.WARN),
        ({"superuser": True}, "postgres role", Level.NOTE),
        ({"broken_indexes": 1}, "schema", Level.WARN),
    ],
)
def test_what_postgres_lacks_is_said(wrong, check, level):
    """Version, place, settings, rights."""
    said = [each for each in server(HEALTHY | wrong, good()) if each.check == check]

    assert worst(said) is level


@pytest.mark.parametrize(
    ("wrong", "check", "level"),
    [
        ({}, "valkey", Level.OK),
        ({"valkey_version": "7.0.2"}, "valkey", Level.FAIL),
        ({"role": "slave"}, "valkey", Level.FAIL),
        ({}, "valkey settings", Level.OK),
        ({"maxmemory_policy": "allkeys-lru"}, "valkey settings", Level.FAIL),
        ({"aof_enabled": "0"}, "valkey settings", Level.FAIL),
        ({"aof_last_write_status": "err"}, "valkey settings", Level.FAIL),
        ({"appendfsync": "no"}, "valkey settings", Level.WARN),
    ],
)
def test_what_valkey_lacks_is_said(wrong, check, level):
    """Version, place, settings."""
    said = [each for each in settings(SOUND | wrong) if each.check == check]

    assert worst(said) is level


async def of(findings: AsyncIterator[Finding]) -> dict[str, Finding]:
    """The worst by check."""
    every = [each async for each in findings]
    return {
        check: max((each for each in every if each.check == check), key=lambda each: tuple(Level).index(each.level))
        for check in {each.check for each in every}
    }


async def test_real_stores_are_asked(service: Service, database_url, redis_url):
    """Sound ones are found sound; a setting made wrong, a webhook that fails and a database without a schema are found."""
    config = good(database=Database(url=database_url), redis=Redis(url=redis_url))
    tenant = service.tenant()
    await tenant.login()
    cache, db = Client.from_url(redis_url), await asyncpg.connect(database_url)
    name = f"doctor_{time.time_ns()}"
    try:
        before, fine = await of(postgres(config)), await of(valkey(config))
        await db.execute(
            "INSERT INTO webhook (tenant, id, url, events, secret, status, created_at)"
            " VALUES ($1, gen_random_uuid(), 'https://secret.example/', '{}', 'x', 'disabled', now())",
            tenant.name,
        )
        await cache.config_set("maxmemory-policy", "allkeys-lru")
        await db.execute(f"CREATE DATABASE {name}")
        empty = good(database=Database(url=database_url.replace("@/accessguard?", f"@/{name}?")))
        after, broken, unmade = await of(postgres(config)), await of(valkey(config)), await of(postgres(empty))
    finally:
        await cache.config_set("maxmemory-policy", "noeviction")
        await cache.aclose()
        await db.execute("DELETE FROM webhook WHERE tenant = $1", tenant.name)
        await db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await db.close()

    assert {before[each].level for each in ("postgres", "schema", "clocks")} == {Level.OK}
    assert {fine[each].level for each in ("valkey", "valkey settings", "clocks")} == {Level.OK}
    assert after["webhooks"].level is Level.WARN
    assert tenant.name in after["webhooks"].said
    assert "secret.example" not in after["webhooks"].said
    assert broken["valkey settings"].level is Level.FAIL
    assert unmade["schema"].level is Level.FAIL
    assert "accessguard migrate" in unmade["schema"].said


def test_a_key_of_webhooks_that_is_gone_is_named():
    """By its id; those that are set, and the one that there always is, are none."""
    config = good()
    keys = msgspec.structs.replace(config.keys, webhook=(SigningKey(id="w1", secret="w" * 40),))

    found = [list(webhook_keys(used, good(keys=keys))) for used in (["derived", "w1"], ["derived", "w0", "w1"])]

    assert found[0] == []
    assert [(each.level, "w0." in each.said) for each in found[1]] == [(Level.FAIL, True)]


async def test_a_store_that_is_out_of_reach_is_said(tmp_path):
    """With what was met there, and no password."""
    config = good(
        database=Database(url=f"postgresql://me:hidden-word@/db?host={tmp_path}"),
        redis=Redis(url=f"unix://:hidden-word@{tmp_path}/nobody.sock"),
    )

    said = {**await of(postgres(config)), **await of(valkey(config))}

    assert {each.level for each in said.values()} == {Level.FAIL}
    assert set(said) == {"postgres", "valkey"}
    assert "hidden-word" not in str(said)


def test_the_command_ends_with_1_and_says_why(tmp_path):
    """In JSON for a machine."""
    (tmp_path / "wrong.toml").write_text("[server]\nprot = 1\n")
    bare = {name: value for name, value in os.environ.items() if not name.startswith("ACCESSGUARD_")}
    environ = bare | {"ACCESSGUARD_CONFIG": "wrong.toml", "PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        [sys.executable, "-m", "accessguard", "doctor", "--json"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    said = json.loads(done.stdout)
    assert done.returncode == 1
    assert (said["ok"], said["worst"]) == (False, "fail")
    assert said["findings"][0]["check"] == "configuration"
    assert "server.prot" in said["findings"][0]["said"]
