"""Who may call and with what keys, as the configuration says it: tokens, certificates, their files, their rates."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from accessguard.api.bounds import Rates
from accessguard.api.certified import Certificates
from accessguard.api.jwks import URL, JwksUrl
from accessguard.api.keys import FILE, MAX_TIME_S, Caller, Keyring, Role
from accessguard.config import Config, read_keys, read_secrets
from accessguard.devices.cookie import DeviceTokens
from accessguard.errors import StartError
from accessguard.events.keys import HookKeys, derived
from accessguard.guard.refused import RefusedPages
from accessguard.keyfiles import KeyFile, KeyFiles
from accessguard.rules.networks import networks
from accessguard.sessions.token import SessionTokens
from accessguard.signing import SigningKey


def keyring_of(config: Config) -> Keyring:
    """Who verifies callers' tokens. Raises StartError for keys that cannot be used."""
    path = config.tokens.jwks_file
    try:
        return Keyring(
            secrets=config.tokens.secrets,
            jwks=Path(path).read_bytes() if path else None,
            algorithms=config.tokens.algorithms,
            audience=config.tokens.audience,
            issuers=config.tokens.issuers,
            leeway_s=config.tokens.leeway_s,
            later=config.tokens.jwks_url is not None,
        )
    except (OSError, ValueError) as error:
        raise StartError(f"The keys of callers' tokens cannot be used: {error}.") from error


def hook_keys(config: Config) -> HookKeys:
    """What webhooks' secrets are encrypted with. Raises StartError for keys that cannot be used."""
    try:
        return HookKeys(_with_derived(config, config.keys.webhook))
    except ValueError as error:
        raise StartError(f"ACCESSGUARD_WEBHOOK_KEYS cannot be used: {error}.") from error


def _with_derived(config: Config, keys: tuple[SigningKey, ...]) -> tuple[SigningKey, ...]:
    """These, and behind them the one that there always is: it opens what was sealed before there were others."""
    return (*keys, derived(config.keys.identifier))


def key_files(
    config: Config,
    device: DeviceTokens,
    session: SessionTokens,
    pages: RefusedPages,
    *,
    hooks: HookKeys,
    callers: Keyring,
) -> KeyFiles:
    """The files of keys that are watched, and who takes up what is new in them; of callers' keys on this loop."""
    soon = asyncio.get_running_loop().call_soon_threadsafe

    def of_device(text: str) -> None:
        device.take(read_keys("ACCESSGUARD_DEVICE_KEYS", text))

    def of_session(text: str) -> None:
        keys = read_keys("ACCESSGUARD_SESSION_KEYS", text)
        session.take(keys)
        pages.take(keys)

    def of_webhooks(text: str) -> None:
        hooks.take(_with_derived(config, read_keys("ACCESSGUARD_WEBHOOK_KEYS", text)))

    def of_callers(text: str) -> None:
        soon(callers.take_secrets, read_secrets("ACCESSGUARD_TOKEN_SECRETS", text))

    def published(text: str) -> None:
        callers.usable(text.encode())  # what is none says so here
        soon(callers.take_jwks, FILE, text.encode())

    watched = (
        (config.keys.device_file, of_device),
        (config.keys.session_file, of_session),
        (config.keys.webhook_file, of_webhooks),
        (config.tokens.secrets_file, of_callers),
        (config.tokens.jwks_file, published),
    )
    return KeyFiles(KeyFile(Path(path), take) for path, take in watched if path is not None)


def published_keys(config: Config, callers: Keyring) -> JwksUrl | None:
    """Where callers' keys are fetched from; None for nowhere."""
    if config.tokens.jwks_url is None:
        return None
    found = JwksUrl(
        config.tokens.jwks_url,
        lambda jwks: callers.take_jwks(URL, jwks),
        max_age_s=config.tokens.jwks_max_age_s,
        clock=time.monotonic,
    )
    callers.on_unknown = found.wanted
    return found


def certificates(config: Config) -> Certificates | None:
    """Who is known by a certificate; None where nobody is."""
    said = config.certificates
    if said.header is None:
        return None
    callers = {
        each.name: Caller(
            subject=each.subject, role=Role(each.role), tenant=each.tenant, expires_at=MAX_TIME_S, token_id=None
        )
        for each in said.callers
    }
    return Certificates(header=said.header, networks=networks(said.networks), callers=callers)


def rates(config: Config) -> Rates:
    """How often and how many at once each caller may ask."""
    said = config.limits
    return Rates(
        checks=said.checks_per_s,
        platform=said.platform_calls_per_s,
        operators=said.operator_calls_per_s,
        concurrent=said.concurrent,
        attempts=said.attempts_per_member_per_h,
        answer_s=said.answer_s,
    )
