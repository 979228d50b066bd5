"""`accessguard dev`: the whole service on one machine, with stores, secrets and a tenant to try it with."""

import asyncio
import os
import secrets
import signal
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from uuid import uuid4

import jwt
import msgspec

from accessguard.api.keys import Role
from accessguard.config import Config, ConfigError, complete, load, with_workers
from accessguard.embedded import Embedded
from accessguard.embedded.stores import SECRETS

TENANT: Final = "demo"
DAY_S: Final = 86_400
TOKEN_DAYS: Final = 30
ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

GREETING: Final = """
AccessGuard answers at {address}  (metrics at {metrics}, data in {folder})

Tokens for the tenant `{tenant}`, good for {days} days:

{tokens}

Lines to paste into another terminal:

Is it alive?
curl -sS {address}/healthz

A student logs in:
curl -sS {address}/v1/logins -H 'Authorization: Bearer {platform}' -H 'Content-Type: application/json' -d '{login}'

May that session go on?
curl -sS {address}/v1/check -H 'Authorization: Bearer {platform}' -H 'Content-Type: application/json' -d '{check}'

What support sees:
curl -sS {address}/v1/members -H 'Authorization: Bearer {supervisor}'

A day of traffic to look at: {command} demo --url {address}
The whole contract: {address}/docs. Ctrl-C stops the service.
"""
LOGIN: Final = {
    "member_id": "stu-1",
    "identifier": "ana@example.com",
    "outcome": "success",
    "method": "password",
    "ip": "203.0.113.9",
    "user_agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "session_id": "try-1",
}
CHECK: Final = {"session_id": "try-1", "ip": "203.0.113.9", "activity": "lesson_open", "resource": "course:42/lesson:7"}


def secrets_file(config: Config) -> Path:
    """Return where the secrets of `accessguard dev` are kept."""
    return Path(config.data_folder) / SECRETS


def read_secrets(config: Config) -> Mapping[str, str]:
    """Return the secrets made by `accessguard dev`, by the names of the environment; empty before its first start."""
    path = secrets_file(config)
    try:
        kept = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(kept, dict[str, str])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"Cannot read the secrets {path}: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"The secrets in {path} are damaged; remove the file to have new ones made.") from error


def make_secrets(config: Config) -> None:
    """Make each of the secrets once, readable by their owner alone; what is there stays."""
    path, kept = secrets_file(config), dict(read_secrets(config))
    fresh = {
        "ACCESSGUARD_TOKEN_SECRETS": secrets.token_hex(32),
        "ACCESSGUARD_DEVICE_KEYS": f"d1:{secrets.token_hex(32)}",
        "ACCESSGUARD_SESSION_KEYS": f"s1:{secrets.token_hex(32)}",
        "ACCESSGUARD_WEBHOOK_KEYS": f"w1:{secrets.token_hex(32)}",
        "ACCESSGUARD_IDENTIFIER_KEY": secrets.token_hex(32),
    }
    made = fresh | kept
    if made == kept:
        return
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f'{name} = "{value}"\n' for name, value in made.items())
    draft.replace(path)


def load_local() -> Config:
    """Read the configuration as `load` does, with the secrets of `accessguard dev` for those that are not set."""
    return load(fallback=read_secrets(load()))


def sign_token(config: Config, *, tenant: str, role: Role, subject: str, days: int) -> str:
    """Return a caller's token that ends in `days`; raises ConfigError when there is no secret to sign with."""
    if not config.tokens.secrets:
        raise ConfigError("Set ACCESSGUARD_TOKEN_SECRETS, or start `make run` once, which makes its own.")
    now = int(time.time())
    claims = {
        "iss": config.tokens.issuers[0] if config.tokens.issuers else "accessguard",
        "aud": config.tokens.audience,
        "sub": subject,
        "role": role.value,
        "tenant": tenant,
        "iat": now,
        "exp": now + days * DAY_S,
        "jti": str(uuid4()),
    }
    return jwt.encode(claims, config.tokens.secrets[0], algorithm="HS256")


def greeting(address: str, config: Config, *, command: str) -> str:
    """Return what the person who started it reads: where it is, tokens, and lines that work when pasted."""
    tokens = {
        role: sign_token(config, tenant=TENANT, role=role, subject=f"{role}@{TENANT}", days=TOKEN_DAYS) for role in Role
    }
    return GREETING.format(
        address=address,
        metrics=f"http://{config.server.admin_host}:{config.server.admin_port}/metrics",
        folder=config.data_folder,
        tenant=TENANT,
        days=TOKEN_DAYS,
        tokens="\n".join(f"{role.value:14} {token}" for role, token in tokens.items()),
        platform=tokens[Role.PLATFORM],
        supervisor=tokens[Role.SUPERVISOR],
        login=msgspec.json.encode(LOGIN).decode(),
        check=msgspec.json.encode(CHECK).decode(),
        command=command,
    )


async def run(*, say: Callable[[str], None], command: str, port: int | None = None, workers: int | None = None) -> None:
    """Start the stores, migrate, serve until a signal, stop the stores.

    `say` is told the greeting, in which `command` stands for this program;
    `port` and `workers` replace the configured ones. Raises ConfigError, EmbeddedError,
    StartError, and CancelledError for a signal during the start.
    """
    stop_on_signals()
    config = load()
    stores = await Embedded.start(Path(config.data_folder))
    try:
        make_secrets(config)
        config = with_workers(on_stores(load_local(), stores, port=port), workers)
        await serve(config, say=say, command=command)
    finally:
        ignore_signals()
        await stores.stop()


def on_stores(config: Config, stores: Embedded, *, port: int | None) -> Config:
    """Return the configuration with the addresses of the embedded stores, complete; raises ConfigError."""
    server = config.server if port is None else msgspec.structs.replace(config.server, port=port)
    if server.public_url is None and server.port:
        server = msgspec.structs.replace(server, public_url=f"http://127.0.0.1:{server.port}")
    database = msgspec.structs.replace(config.database, url=stores.database_url)
    redis = msgspec.structs.replace(config.redis, url=stores.redis_url)
    return complete(msgspec.structs.replace(config, server=server, database=database, redis=redis))


async def serve(config: Config, *, say: Callable[[str], None], command: str) -> None:
    """Migrate, make the tenant to try things with, and serve until a signal."""
    from accessguard import app  # noqa: PLC0415 -- the stores start while nothing else is loaded
    from accessguard.supervisor import serve as serve_all  # noqa: PLC0415

    await app.migrate(config.database.url)
    await app.ensure_tenant(config, TENANT, "Demo school")
    await serve_all(
        config,
        environment(config),
        on_ready=lambda address: say(greeting(address, config, command=command)),
        renewable=False,
    )


def environment(config: Config) -> Mapping[str, str]:
    """The environment in which workers read the same configuration: with the stores and the secrets of this one."""
    secrets = {
        name: value for name, value in read_secrets(config).items() if not {name, f"{name}_FILE"} & {*os.environ}
    }
    public = {} if config.server.public_url is None else {"ACCESSGUARD_PUBLIC_URL": config.server.public_url}
    stores = public | {"ACCESSGUARD_DATABASE_URL": config.database.url, "ACCESSGUARD_REDIS_URL": config.redis.url}
    inherited = {name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in stores}
    return inherited | secrets | stores


def stop_on_signals() -> None:
    """Let a signal cancel the running task, so that what it started is stopped in order."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    for ending in ENDINGS:
        loop.add_signal_handler(ending, lambda: task and task.cancel())


def ignore_signals() -> None:
    """Let a second signal not interrupt the stop."""
    loop = asyncio.get_running_loop()
    for ending in ENDINGS:
        loop.add_signal_handler(ending, lambda: None)
