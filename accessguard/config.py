"""The configuration: one TOML file and the environment, read once into frozen structs."""

import os
import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from accessguard.rules.networks import NetworkError
from accessguard.rules.networks import networks as read_networks
from accessguard.signing import MIN_SECRET_BYTES, SigningKey

DEFAULT_FILE: Final = Path("config/accessguard.toml")
PREFIX: Final = "ACCESSGUARD_"

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]
Level = Literal["debug", "info", "warning", "error"]


class ConfigError(ValueError):
    """The configuration cannot be used; the text is one sentence that says what to change."""


class Provision(StrEnum):
    """When a tenant begins to exist: when a token first names it, or when somebody creates it."""

    FIRST_USE = "first_use"
    EXPLICIT = "explicit"


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the configuration; a key that it does not know is refused."""


class Hidden(Section, frozen=True, kw_only=True):
    """A part that holds secrets, and does not show them when it is printed."""

    def __repr__(self) -> str:
        """Show the name alone."""
        return f"{type(self).__name__}(...)"


class Server(Section, frozen=True, kw_only=True):
    """Where the service listens, and with how many worker processes.

    `unix_socket` is a path, None for none. `trusted_networks` are its own
    proxies; with `trust_unix_socket` so is whoever may connect to the socket.
    `proxy_tenant` is whose proxies those are that show no token; None refuses them.
    `check_deadline_ms` is how long a check may take that is not answered from memory.
    """

    host: str = "127.0.0.1"
    port: Port = 8080
    admin_host: str = "127.0.0.1"
    admin_port: Port = 9090
    unix_socket: str | None = None
    body_limit_bytes: Positive = 1_048_576
    trusted_networks: tuple[str, ...] = ()
    trust_unix_socket: bool = False
    proxy_tenant: Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^*]")] | None = None
    shutdown_s: NotNegative = 10
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    drain_s: NotNegative = 30
    check_deadline_ms: Positive = 100


class Database(Hidden, frozen=True, kw_only=True):
    """PostgreSQL; `pool_size` counts the connections of one worker.

    `pgbouncer`: `url` leads to a PgBouncer that pools by transaction;
    `direct_url` then to PostgreSQL itself, which `migrate` wants. `replica_url`
    ("": none) leads to a replica that lists and reports are read from.
    """

    url: str = ""
    pool_size: Positive = 10
    pgbouncer: bool = False
    direct_url: str = ""
    replica_url: str = ""


class Redis(Hidden, frozen=True, kw_only=True):
    """Valkey or Redis."""

    url: str = ""


class Tokens(Hidden, frozen=True, kw_only=True):
    """How callers' tokens are verified; `jwks_file` is a path, `issuers` empty means any."""

    secrets: tuple[str, ...] = ()
    jwks_file: str | None = None
    algorithms: tuple[Algorithm, ...] = ("HS256",)
    audience: str = "accessguard"
    issuers: tuple[str, ...] = ()
    leeway_s: NotNegative = 5


class Keys(Hidden, frozen=True, kw_only=True):
    """Keys of the device cookie and the session token, of which the first signs and all verify.

    `identifier` keys the hash that is kept of an unknown user name. The two
    files are where the lists were read from; what is new in them is taken up
    while the service runs. None for a list that stood in the environment.
    """

    device: tuple[SigningKey, ...] = ()
    session: tuple[SigningKey, ...] = ()
    identifier: str = ""
    device_file: str | None = None
    session_file: str | None = None


class Tenants(Section, frozen=True, kw_only=True):
    """How tenants come to be, and the preset of rules that they start with ("none": no rule)."""

    provision: Provision = Provision.FIRST_USE
    preset: Annotated[str, msgspec.Meta(max_length=64)] = "observe-only"


class Geo(Section, frozen=True, kw_only=True):
    """Files in MaxMind's format that say where addresses are; for each fact the first that knows it."""

    files: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()


class Webhooks(Section, frozen=True, kw_only=True):
    """Networks of one's own that webhooks may lead to; none as long as it is empty."""

    allow_networks: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()


class Metrics(Section, frozen=True, kw_only=True):
    """Whether tenants are named in metrics (`accessguard_tenant_violations`), at most 100 of them."""

    tenants: bool = False


class Tracing(Section, frozen=True, kw_only=True):
    """Where traces go (OTLP over HTTP, a URL such as http://collector:4318/v1/traces), None for nowhere; the share of them that is made."""

    endpoint: str | None = None
    ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0


class Log(Section, frozen=True, kw_only=True):
    """The least important level that is written."""

    level: Level = "info"


class Config(Section, frozen=True, kw_only=True):
    """The whole configuration; `data_folder` is for the embedded stores, relative to the working folder."""

    server: Server = Server()
    database: Database = Database()
    redis: Redis = Redis()
    tokens: Tokens = Tokens()
    keys: Keys = Keys()
    tenants: Tenants = Tenants()
    geo: Geo = Geo()
    webhooks: Webhooks = Webhooks()
    metrics: Metrics = Metrics()
    tracing: Tracing = Tracing()
    log: Log = Log()
    data_folder: str = ".accessguard"


# Environment variable, without the prefix: where its value goes.
VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "HOST": ("server", "host"),
    "PORT": ("server", "port"),
    "ADMIN_HOST": ("server", "admin_host"),
    "ADMIN_PORT": ("server", "admin_port"),
    "WORKERS": ("server", "workers"),
    "DATABASE_URL": ("database", "url"),
    "DATABASE_DIRECT_URL": ("database", "direct_url"),
    "DATABASE_REPLICA_URL": ("database", "replica_url"),
    "REDIS_URL": ("redis", "url"),
    "TOKEN_SECRETS": ("tokens", "secrets"),
    "DEVICE_KEYS": ("keys", "device"),
    "SESSION_KEYS": ("keys", "session"),
    "IDENTIFIER_KEY": ("keys", "identifier"),
    "DATA_FOLDER": ("data_folder",),
}

# Lists of keys that are read again when their file changes: where its path goes.
WATCHED: Final[Mapping[str, tuple[str, ...]]] = {
    "DEVICE_KEYS": ("keys", "device_file"),
    "SESSION_KEYS": ("keys", "session_file"),
}


def load(environ: Mapping[str, str] = os.environ, *, fallback: Mapping[str, str] | None = None) -> Config:
    """Read the configuration file and the environment; the environment wins.

    `fallback` gives values, by the names of the environment, for what neither
    has. What `serve` cannot do without may still be missing: see `complete`.
    Raises ConfigError.
    """
    document = read_file(environ)
    for name, place in VARIABLES.items():
        text = read_variable(environ, PREFIX + name)
        if text is None and fallback is not None:
            text = fallback.get(PREFIX + name)
        if text is not None:
            put(document, place, parse(PREFIX + name, text))
            watched = environ.get(f"{PREFIX}{name}_FILE")
            if watched is not None and name in WATCHED:
                put(document, WATCHED[name], watched)
    config = decode(document)
    check_strength(config)
    check_networks(config.server.trusted_networks)
    check_allowed(config.webhooks.allow_networks)
    return config


def complete(config: Config) -> Config:
    """Return `config` when a service can run on it; raises ConfigError that names what to set."""
    symmetric = "HS256" in config.tokens.algorithms
    missing = {
        "ACCESSGUARD_DATABASE_URL": not config.database.url,
        "ACCESSGUARD_REDIS_URL": not config.redis.url,
        "ACCESSGUARD_TOKEN_SECRETS": symmetric and not config.tokens.secrets,
        "tokens.jwks_file": config.tokens.algorithms != ("HS256",) and not config.tokens.jwks_file,
        "ACCESSGUARD_DEVICE_KEYS": not config.keys.device,
        "ACCESSGUARD_SESSION_KEYS": not config.keys.session,
        "ACCESSGUARD_IDENTIFIER_KEY": not config.keys.identifier,
    }
    names = [name for name, absent in missing.items() if absent]
    if names:
        raise ConfigError(f"Set {', '.join(names)} first; config/accessguard.toml says what each is.")
    return config


def with_workers(config: Config, workers: int | None) -> Config:
    """Return `config` with so many worker processes; None for as many as it says."""
    if workers is None:
        return config
    return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, workers=workers))


def read_file(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of the configuration file, empty when there is none and none was named."""
    named = environ.get(f"{PREFIX}CONFIG")
    path = Path(named) if named else DEFAULT_FILE
    if not named and not path.exists():
        return {}
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {path}: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"The configuration {path} is not TOML: {error}.") from error
    refuse_secrets(document, path)
    return document


def refuse_secrets(document: dict[str, Any], path: Path) -> None:
    """Raise ConfigError when the file holds a secret; files are copied, shown and committed."""
    tokens = document.get("tokens")
    if "keys" in document or (isinstance(tokens, dict) and "secrets" in tokens):
        raise ConfigError(
            f"The configuration {path} holds secrets; set ACCESSGUARD_TOKEN_SECRETS, ACCESSGUARD_DEVICE_KEYS,"
            " ACCESSGUARD_SESSION_KEYS and ACCESSGUARD_IDENTIFIER_KEY in the environment instead."
        )


def read_variable(environ: Mapping[str, str], name: str) -> str | None:
    """Return the value of `name`, or the content of the file that `name`_FILE names, or None for neither."""
    path = environ.get(f"{name}_FILE")
    if path is None:
        return environ.get(name)
    if name in environ:
        raise ConfigError(f"Set {name} or {name}_FILE, not both.")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read {path}, which {name}_FILE names: {error}.") from error


def parse(name: str, text: str) -> object:
    """Return a variable's text in the shape its key has in the file; raises ConfigError."""
    if name.endswith("PORT"):
        if not text.isdecimal():
            raise ConfigError(f"{name} is a number from 0 to 65535.")
        return int(text)
    if name.endswith("WORKERS"):
        if not text.isdecimal():
            raise ConfigError(f"{name} is a number from 1 to 256.")
        return int(text)
    if name.endswith("SECRETS"):
        return items(text)
    if name.endswith("KEYS"):
        return [parse_key(name, item) for item in items(text)]
    return text


def read_keys(name: str, text: str) -> tuple[SigningKey, ...]:
    """Return the keys of a variable's text; raises ConfigError that does not repeat a secret."""
    try:
        keys = msgspec.convert(parse(name, text), tuple[SigningKey, ...])
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name} is wrong: {error}.") from None
    if not keys or len({key.id for key in keys}) != len(keys):
        raise ConfigError(f"{name} holds no key, or two of one id.")
    return keys


def items(text: str) -> list[str]:
    """Return the parts of a list with commas, without the space around them."""
    return [item.strip() for item in text.split(",") if item.strip()]


def parse_key(name: str, text: str) -> dict[str, str]:
    """Return the parts of "id:secret"; raises ConfigError that does not repeat the secret."""
    key_id, colon, secret = text.partition(":")
    if not colon:
        raise ConfigError(f"{name} has the form id:secret,id:secret.")
    return {"id": key_id, "secret": secret}


def put(document: dict[str, Any], place: tuple[str, ...], value: object) -> None:
    """Set the value at a place of the document, whose tables are made when they are not there."""
    *tables, key = place
    for table in tables:
        document = document.setdefault(table, {})
        if not isinstance(document, dict):
            raise ConfigError(f"The key `{table}` of the configuration is a table.")
    document[key] = value


def decode(document: dict[str, Any]) -> Config:
    """Return the document as a Config; raises ConfigError that names the key."""
    try:
        return msgspec.convert(document, Config)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        unknown = re.fullmatch("Object contains unknown field `(.*)`", what)
        place = where.rstrip("`")
        if unknown:
            name = f"{place}.{unknown[1]}" if place else unknown[1]
            raise ConfigError(f"The configuration has no key `{name}`.") from None
        raise ConfigError(f"The key `{place}` of the configuration is wrong: {what}.") from None


def check_strength(config: Config) -> None:
    """Raise ConfigError when a secret is shorter than MIN_SECRET_BYTES or two keys of a list share an id."""
    secrets = {
        "ACCESSGUARD_TOKEN_SECRETS": config.tokens.secrets,
        "ACCESSGUARD_IDENTIFIER_KEY": (config.keys.identifier,) if config.keys.identifier else (),
    }
    for name, values in secrets.items():
        if any(len(value.encode()) < MIN_SECRET_BYTES for value in values):
            raise ConfigError(f"{name} is weak: use {MIN_SECRET_BYTES} bytes or more, as `openssl rand -hex 32` makes.")
    for name, keys in (("DEVICE", config.keys.device), ("SESSION", config.keys.session)):
        if len({key.id for key in keys}) != len(keys):
            raise ConfigError(f"ACCESSGUARD_{name}_KEYS holds two keys of one id.")


def check_allowed(networks: tuple[str, ...]) -> None:
    """Raise ConfigError when one is no network in the one form that cannot be misread, CIDR."""
    for network in networks:
        try:
            ip_network(network)
        except ValueError:
            raise ConfigError(f"`{network}` in webhooks.allow_networks is no network such as 10.20.0.0/16.") from None


def check_networks(networks: tuple[str, ...]) -> None:
    """Raise ConfigError when one is neither an address nor a network, read as rules read theirs."""
    for network in networks:
        try:
            read_networks([network])
        except NetworkError as error:
            what = f"`{network}` in server.trusted_networks is no address and no network"
            raise ConfigError(f"{what}: {error.detail}.") from None
