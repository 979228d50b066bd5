"""The configuration: one TOML file and the environment, read once into frozen structs."""

import os
import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from accessguard.rules.networks import NetworkError
from accessguard.rules.networks import networks as read_networks
from accessguard.signing import MIN_SECRET_BYTES, SigningKey

DEFAULT_FILE: Final = Path("config/accessguard.toml")
PREFIX: Final = "ACCESSGUARD_"

PUBLIC: Final = re.compile(r"https://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?", re.ASCII)
LOCAL: Final = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?", re.ASCII)
FEWEST_CHARACTERS: Final = 8
"""Different ones in a secret: 32 random bytes in hexadecimal have fewer once in 10^14 times."""
EXAMPLES: Final = ("changeme", "change-me", "change_me", "your-secret", "your_secret", "example", "password")
"""What secrets are called in manuals, and copied with."""

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
    `proxy_tenant` is whose proxies those are that show no token; "*" leaves it to the host, None refuses them.
    `public_url` is where students' browsers reach it ("https://guard.example"), None where they do not: then there
    is no page for them. `check_deadline_ms` is how long a check may take that is not answered from memory.
    """

    host: str = "127.0.0.1"
    port: Port = 8080
    admin_host: str = "127.0.0.1"
    admin_port: Port = 9090
    unix_socket: str | None = None
    body_limit_bytes: Positive = 1_048_576
    trusted_networks: tuple[str, ...] = ()
    trust_unix_socket: bool = False
    proxy_tenant: Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^([^*]|\*$)")] | None = None
    shutdown_s: NotNegative = 10
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    drain_s: NotNegative = 30
    check_deadline_ms: Positive = 100
    public_url: Annotated[str, msgspec.Meta(max_length=300)] | None = None


class Limits(Section, frozen=True, kw_only=True):
    """What one worker lets callers have; None for no bound.

    Calls a second of one caller: of operators, of platforms, and checks, with
    ten seconds' worth at once; those of operators then wait for their turn. `concurrent` is how many calls of one caller
    may be under way, `connections` how many may be open in all, `request_s`
    how long a request may take to arrive, `answer_s` how long its answer may be in the making,
    `write_s` how long it may lie unread. `attempts_per_member_per_h` are
    logins of one member, those that succeed and those that fail counted apart;
    `devices_per_member` are those that are known of one, fewer than a decision reads (1,000).
    """

    operator_calls_per_s: Positive | None = 100
    platform_calls_per_s: Positive | None = None
    checks_per_s: Positive | None = None
    concurrent: Positive | None = 2_048
    connections: Annotated[int, msgspec.Meta(ge=16)] = 8_192
    request_s: Positive = 20
    answer_s: Positive = 60
    attempts_per_member_per_h: Positive | None = 5_000
    devices_per_member: Annotated[int, msgspec.Meta(ge=10, le=900)] = 500
    write_s: Positive = 30


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
    """How callers' tokens are verified; `jwks_file` is a path, `issuers` empty means any.

    Keys of `jwks_url` are in use for `jwks_max_age_s` after they were fetched
    last. `secrets_file` is where the secrets were read from; None for the environment.
    """

    secrets: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    secrets_file: str | None = None
    jwks_file: str | None = None
    jwks_url: str | None = None
    jwks_max_age_s: Positive = 86_400
    algorithms: tuple[Algorithm, ...] = ("HS256",)
    audience: str = "accessguard"
    issuers: tuple[str, ...] = ()
    leeway_s: NotNegative = 5


class CertifiedCaller(Section, frozen=True, kw_only=True):
    """Whom the text `name` of the proxy's header stands for."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    role: Literal["platform", "attendant", "supervisor", "administrator", "root"]
    tenant: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class Certificates(Section, frozen=True, kw_only=True):
    """Callers known by a certificate that a proxy in `networks` has verified and names in `header`; None: there are none."""

    header: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9-]{1,64}$")] | None = None
    networks: tuple[str, ...] = ()
    callers: Annotated[tuple[CertifiedCaller, ...], msgspec.Meta(max_length=256)] = ()


class Keys(Hidden, frozen=True, kw_only=True):
    """Keys of the device cookie and the session token, of which the first signs and all verify.

    `identifier` keys the hash that is kept of an unknown user name. The two
    files are where the lists were read from; what is new in them is taken up
    while the service runs. None for a list that stood in the environment.
    `webhook` are those that webhooks' secrets are encrypted and security event
    tokens signed with; without one, a key derived from `identifier` does.
    """

    device: tuple[SigningKey, ...] = ()
    session: tuple[SigningKey, ...] = ()
    webhook: tuple[SigningKey, ...] = ()
    identifier: str = ""
    device_file: str | None = None
    session_file: str | None = None
    webhook_file: str | None = None


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
    limits: Limits = Limits()
    database: Database = Database()
    redis: Redis = Redis()
    tokens: Tokens = Tokens()
    certificates: Certificates = Certificates()
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
    "PUBLIC_URL": ("server", "public_url"),
    "DATABASE_URL": ("database", "url"),
    "DATABASE_DIRECT_URL": ("database", "direct_url"),
    "DATABASE_REPLICA_URL": ("database", "replica_url"),
    "REDIS_URL": ("redis", "url"),
    "TOKEN_SECRETS": ("tokens", "secrets"),
    "DEVICE_KEYS": ("keys", "device"),
    "SESSION_KEYS": ("keys", "session"),
    "WEBHOOK_KEYS": ("keys", "webhook"),
    "IDENTIFIER_KEY": ("keys", "identifier"),
    "DATA_FOLDER": ("data_folder",),
}

# Lists of keys that are read again when their file changes: where its path goes.
WATCHED: Final[Mapping[str, tuple[str, ...]]] = {
    "TOKEN_SECRETS": ("tokens", "secrets_file"),
    "DEVICE_KEYS": ("keys", "device_file"),
    "SESSION_KEYS": ("keys", "session_file"),
    "WEBHOOK_KEYS": ("keys", "webhook_file"),
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
    check_source(config.tokens.jwks_url)
    check_certificates(config.certificates)
    check_allowed(config.webhooks.allow_networks)
    check_public(config.server.public_url)
    return config


def complete(config: Config) -> Config:
    """Return `config` when a service can run on it; raises ConfigError that names what to set."""
    symmetric = "HS256" in config.tokens.algorithms
    missing = {
        "ACCESSGUARD_DATABASE_URL": not config.database.url,
        "ACCESSGUARD_REDIS_URL": not config.redis.url,
        "ACCESSGUARD_TOKEN_SECRETS": symmetric and not config.tokens.secrets,
        "tokens.jwks_file or tokens.jwks_url": config.tokens.algorithms != ("HS256",)
        and not (config.tokens.jwks_file or config.tokens.jwks_url),
        "ACCESSGUARD_DEVICE_KEYS": not config.keys.device,
        "ACCESSGUARD_SESSION_KEYS": not config.keys.session,
        "ACCESSGUARD_IDENTIFIER_KEY": not config.keys.identifier,
    }
    names = [name for name, absent in missing.items() if absent]
    if names:
        raise ConfigError(f"Set {', '.join(names)} first; config/accessguard.toml says what each is.")
    check_guessed(config)
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
    if "keys" in document or (isinstance(tokens, dict) and {"secrets", "secrets_file"} & set(tokens)):
        raise ConfigError(
            f"The configuration {path} holds secrets; set ACCESSGUARD_TOKEN_SECRETS, ACCESSGUARD_DEVICE_KEYS,"
            " ACCESSGUARD_SESSION_KEYS, ACCESSGUARD_WEBHOOK_KEYS and ACCESSGUARD_IDENTIFIER_KEY in the environment instead."
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


def read_secrets(name: str, text: str) -> tuple[str, ...]:
    """Return the shared secrets of a variable's text; raises ConfigError that does not repeat one."""
    found = tuple(items(text))
    if not found or any(len(each.encode()) < MIN_SECRET_BYTES or guessed(each) for each in found):
        raise ConfigError(f"{name} holds no secret, or a weak one.")
    return found


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
    lists = {"DEVICE": config.keys.device, "SESSION": config.keys.session, "WEBHOOK": config.keys.webhook}
    for name, keys in lists.items():
        if len({key.id for key in keys}) != len(keys):
            raise ConfigError(f"ACCESSGUARD_{name}_KEYS holds two keys of one id.")


def guessed(secret: str) -> bool:
    """Whether a secret is one that nobody made by chance: a few characters again and again, or what a manual calls it."""
    text = secret.lower()
    return len(set(secret)) < FEWEST_CHARACTERS or any(each in text for each in EXAMPLES)


def check_guessed(config: Config) -> None:
    """Raise ConfigError when somebody may guess a secret of a service that is to serve."""
    secrets = {
        "ACCESSGUARD_TOKEN_SECRETS": config.tokens.secrets,
        "ACCESSGUARD_DEVICE_KEYS": tuple(key.secret for key in config.keys.device),
        "ACCESSGUARD_SESSION_KEYS": tuple(key.secret for key in config.keys.session),
        "ACCESSGUARD_WEBHOOK_KEYS": tuple(key.secret for key in config.keys.webhook),
        "ACCESSGUARD_IDENTIFIER_KEY": (config.keys.identifier,),
    }
    for name, values in secrets.items():
        if any(guessed(value) for value in values):
            raise ConfigError(f"{name} can be guessed: use what `openssl rand -hex 32` makes.")


def check_source(url: str | None) -> None:
    """Raise ConfigError when keys of callers may not be fetched from there."""
    if url is None:
        return
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigError("tokens.jwks_url is no address.") from None
    if parts.username is not None or parts.scheme not in {"https", "http"} or not host:
        raise ConfigError("tokens.jwks_url is an https:// address without a name and a password in it.")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigError("tokens.jwks_url leads to another machine, so it begins with https://.")


def check_certificates(said: Certificates) -> None:
    """Raise ConfigError when a header would be believed from nowhere, from everywhere, or for nobody."""
    if said.header is None:
        return
    if not said.networks or not said.callers or said.header.lower() == "authorization":
        raise ConfigError(
            "certificates.header wants certificates.networks, certificates.callers and a name of its own."
        )
    for network in said.networks:
        try:
            wide = ip_network(network).prefixlen == 0
        except ValueError:
            raise ConfigError(f"`{network}` in certificates.networks is no network such as 10.20.0.5/32.") from None
        if wide:
            raise ConfigError(f"`{network}` in certificates.networks is everybody.")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_allowed(networks: tuple[str, ...]) -> None:
    """Raise ConfigError when one is no network in the one form that cannot be misread, CIDR."""
    for network in networks:
        try:
            ip_network(network)
        except ValueError:
            raise ConfigError(f"`{network}` in webhooks.allow_networks is no network such as 10.20.0.0/16.") from None


def check_public(url: str | None) -> None:
    """Raise ConfigError when it is no address that a browser could be sent to: over TLS, or on this machine."""
    if url is not None and not (PUBLIC.fullmatch(url) or LOCAL.fullmatch(url)):
        raise ConfigError(f"`{url}` in server.public_url is no address such as https://guard.example, or with a path.")


def check_networks(networks: tuple[str, ...]) -> None:
    """Raise ConfigError when one is neither an address nor a network, read as rules read theirs."""
    for network in networks:
        try:
            read_networks([network])
        except NetworkError as error:
            what = f"`{network}` in server.trusted_networks is no address and no network"
            raise ConfigError(f"{what}: {error.detail}.") from None
