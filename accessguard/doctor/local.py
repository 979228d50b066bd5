"""What can be looked at without asking anybody: configuration, keys, trust, files, this machine."""

from __future__ import annotations

import ipaddress
import os
import resource
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from accessguard.config import Config, ConfigError, complete
from accessguard.doctor.findings import Finding, fail, fine, note, warn
from accessguard.geo import FileState, Geo
from accessguard.policies.presets import preset
from accessguard.rules.networks import networks

FEWEST_CHARACTERS: Final = 8
"""Different ones in a secret; 32 random hexadecimal digits have fewer once in ten million."""
WIDE_V4: Final = 2**24
"""Addresses of the widest IPv4 network that somebody has proxies in, 10.0.0.0/8."""
WIDE_V6: Final = 2**96
"""The same for IPv6: a /32, what a provider gets."""
LITTLE_BYTES: Final = 1 << 30
LEAST_BYTES: Final = 100 << 20
FEWEST_FILES: Final = 4_096
"""Open files of a process: one for each connection; Debian's own limit of 1,024 is soon reached."""
SECRETS: Final = (
    "ACCESSGUARD_TOKEN_SECRETS",
    "ACCESSGUARD_DEVICE_KEYS",
    "ACCESSGUARD_SESSION_KEYS",
    "ACCESSGUARD_IDENTIFIER_KEY",
    "ACCESSGUARD_WEBHOOK_KEYS",
)
OPTIONAL: Final = SECRETS[-1]
MAKE: Final = "`openssl rand -hex 32` makes one."


def examine(config: Config, environ: Mapping[str, str], *, now_s: float) -> Iterator[Finding]:
    """Everything here, in order; `now_s` is the time in seconds since the epoch."""
    yield configuration(config)
    yield from keys(config, environ)
    yield trust(config)
    yield admin_port(config)
    yield from geo(config, now_s=now_s)
    yield from machine(config)


def configuration(config: Config) -> Finding:
    """Whether a service can run on it."""
    if config.tenants.preset != "none" and preset(config.tenants.preset) is None:
        return fail("configuration", f"There is no preset {config.tenants.preset!r}.", "Correct tenants.preset.")
    jwks = config.tokens.jwks_file
    if jwks is not None and not os.access(jwks, os.R_OK):
        return fail(
            "configuration", "tokens.jwks_file cannot be read.", "Put the file there, readable for the service."
        )
    try:
        complete(config)
    except ConfigError as error:
        return fail("configuration", str(error), "Set what is named; config/accessguard.toml says what each is.")
    return fine("configuration", "Everything that a service needs is set.")


def keys(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether secrets are strong, each used for one thing, and read by nobody else."""
    found: dict[str, tuple[str, ...]] = {
        "ACCESSGUARD_TOKEN_SECRETS": config.tokens.secrets,
        "ACCESSGUARD_DEVICE_KEYS": tuple(key.secret for key in config.keys.device),
        "ACCESSGUARD_SESSION_KEYS": tuple(key.secret for key in config.keys.session),
        "ACCESSGUARD_IDENTIFIER_KEY": (config.keys.identifier,) if config.keys.identifier else (),
        OPTIONAL: tuple(key.secret for key in config.keys.webhook),
    }
    missing = [
        name
        for name, values in found.items()
        if not values and name != OPTIONAL and (name != SECRETS[0] or "HS256" in config.tokens.algorithms)
    ]
    weak = [name for name, values in found.items() if any(len(set(each)) < FEWEST_CHARACTERS for each in values)]
    every = [each for values in found.values() for each in values]
    if missing:
        yield fail("keys", f"Missing: {', '.join(missing)}.", f"Set each to a secret of its own. {MAKE}")
    if weak:
        yield fail("keys", f"Easily guessed: {', '.join(weak)}.", f"Put a new one first, the old one behind it. {MAKE}")
    if len(every) != len(set(every)):
        yield warn("keys", "One secret is used for two things.", f"Give each a secret of its own. {MAKE}")
    open_to_all = [name for name in SECRETS if _readable_by_others(environ.get(f"{name}_FILE"))]
    if open_to_all:
        yield warn("keys", f"Everybody here may read the files of {', '.join(open_to_all)}.", "chmod 600 them.")
    if not (missing or weak or open_to_all) and len(every) == len(set(every)):
        own = "Five kinds of secrets, all different."
        derived = (
            f"Four kinds of secrets, all different; the fifth, {OPTIONAL}, is derived from ACCESSGUARD_IDENTIFIER_KEY."
        )
        yield fine("keys", own if config.keys.webhook else derived)


def trust(config: Config) -> Finding:
    """Whether the proxies that are believed about addresses are known, and no others."""
    texts = config.server.trusted_networks
    wide = [text for text in texts if _addresses(text) > (WIDE_V6 if ":" in text else WIDE_V4)]
    if wide:
        return fail(
            "trust",
            f"server.trusted_networks holds networks that nobody owns all of: {', '.join(wide)}.",
            "Name the proxies' own addresses: whoever is in there says which address a student has.",
        )
    public = [text for text in texts if _public(text)]
    if public:
        return warn(
            "trust",
            f"Public networks are believed: {', '.join(public)}.",
            "Make sure that only your proxies are there.",
        )
    if not texts and not config.server.trust_unix_socket:
        return note(
            "trust",
            "No proxy is believed about addresses.",
            "Right when none is in front. Behind one, all students would share its address: set server.trusted_networks.",
        )
    return fine("trust", f"Believed about addresses: {', '.join(texts) or 'the Unix socket'}.")


def admin_port(config: Config) -> Finding:
    """Whether metrics are kept from the public."""
    try:
        address = ipaddress.ip_address(config.server.admin_host)
    except ValueError:
        return fine("admin port", f"On {config.server.admin_host}.")
    if address.is_unspecified or address.is_global:
        return warn(
            "admin port",
            f"The admin port listens on {address}.",
            "Bind it to an address that only Prometheus reaches (server.admin_host), or let a firewall see to it.",
        )
    return fine("admin port", f"On {address}.")


def geo(config: Config, *, now_s: float) -> Iterator[Finding]:
    """Whether the geo files are there, sound and young."""
    if not config.geo.files:
        yield note("geo", "No geo files: rules on places refuse nobody.", "docs/places.md tells where to get them.")
        return
    for file in Geo(config.geo.files, now_s=lambda: now_s).files:
        state = file.standing(now_s)
        if state is FileState.LOADED:
            yield fine("geo", f"{file.path}: {file.age_s(now_s) / 86_400:.0f} days old.")
        elif state is FileState.OLD:
            yield warn("geo", f"{file.path}: {file.age_s(now_s) / 86_400:.0f} days old.", "Renew it (docs/places.md).")
        else:
            yield fail("geo", f"{file.path}: {state}.", "Put a whole one there by renaming it into place.")


def machine(config: Config) -> Iterator[Finding]:
    """Room on the disk, files, cores."""
    folder = Path(config.data_folder)
    yield disk(folder if folder.exists() else Path(), shutil.disk_usage(folder if folder.exists() else Path()).free)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield open_files(files)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield workers(config.server.workers, cores)


def disk(folder: Path, free: int) -> Finding:
    """`free` bytes where `folder` is."""
    said = f"{free / (1 << 30):.1f} GiB free at {folder.resolve()}."
    if free < LEAST_BYTES:
        return fail("disk", said, "Make room: PostgreSQL stops taking logins when there is none.")
    return warn("disk", said, "Make room soon.") if free < LITTLE_BYTES else fine("disk", said)


def open_files(files: int) -> Finding:
    """How many a process may have open; -1 is no limit."""
    if 0 <= files < FEWEST_FILES:
        return warn("open files", f"{files} a process.", f"Raise it to {FEWEST_FILES} or more (LimitNOFILE=).")
    return fine("open files", "No limit." if files < 0 else f"{files} a process.")


def workers(number: int, cores: int) -> Finding:
    """Worker processes on so many cores."""
    if number > cores:
        return warn("workers", f"{number} on {cores} cores.", "One a core at most: more only take turns.")
    return fine("workers", f"{number} on {cores} cores.")


def _addresses(text: str) -> int:
    """How many addresses a network of the configuration holds."""
    found = networks([text])
    ranges = (*zip(found.v4_first, found.v4_last, strict=True), *zip(found.v6_first, found.v6_last, strict=True))
    return sum(last - first + 1 for first, last in ranges)


def _public(text: str) -> bool:
    """Whether the first address of a network is one of the Internet's."""
    found = networks([text])
    if found.v4_first:
        return ipaddress.IPv4Address(found.v4_first[0]).is_global
    return ipaddress.IPv6Address(found.v6_first[0]).is_global


def _readable_by_others(path: str | None) -> bool:
    try:
        return path is not None and bool(Path(path).stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))
    except OSError:
        return False
