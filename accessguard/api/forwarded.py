"""What a proxy says of the request that it asks about: each dialect by its own headers, and by no others'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from accessguard.api.origin import client_address
from accessguard.rules.networks import Networks, address

ENVOY_PREFIX: Final = "/auth/envoy"


class Dialect(StrEnum):
    """Who asks, and how; HAProxy asks as nginx does."""

    NGINX = "nginx"
    TRAEFIK = "traefik"
    CADDY = "caddy"
    ENVOY = "envoy"


class Told(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request as its proxy tells of it.

    `target` is its path with the query, "" where nobody said. `ip` is the
    client's address, "" when unknown. `host` has no port and is in lower case.
    """

    method: str
    target: str
    host: str
    ip: str
    cookies: str
    user_agent: str
    accept: str
    authorization: str
    languages: str | None

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def browser(self) -> bool:
        """Whether a page may be shown to whoever asks: somebody who looks at one, not a script that fetches."""
        return "text/html" in self.accept and self.method in {"", "GET", "HEAD"}


class Trust(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whose forwarded chain is believed; `whole`, because the proxy showed a caller's token."""

    networks: Networks
    unix: bool
    whole: bool = False


def host_of(dialect: Dialect, fields: Mapping[str, str]) -> str:
    """The host that was visited, as it is compared; Envoy sends it as its own, others may say it beside theirs."""
    said = None if dialect is Dialect.ENVOY else fields.get("x-forwarded-host")
    return bare(said or fields.get("host", ""))


def told(dialect: Dialect, fields: Mapping[str, str], asked: tuple[str, str], peer: str | None, trust: Trust) -> Told:
    """Read the headers of one dialect.

    `fields` are the headers by their names in lower case, `asked` method and
    target of the call itself, which to Envoy are the request's own.
    """
    get = fields.get
    if dialect is Dialect.ENVOY:
        method, target = asked[0], asked[1].removeprefix(ENVOY_PREFIX)
    elif dialect is Dialect.NGINX:
        method, target = get("x-original-method", "GET"), get("x-original-uri", "")
    else:
        method, target = get("x-forwarded-method", "GET"), get("x-forwarded-uri", "")
    return Told(
        method=method,
        target=target if target.startswith("/") else "",
        host=host_of(dialect, fields),
        ip=_envoy_address(fields, peer, trust) if dialect is Dialect.ENVOY else _address(fields, peer, trust),
        cookies=get("cookie", ""),
        user_agent=get("user-agent", ""),
        accept=get("accept", ""),
        authorization=get("authorization", ""),
        languages=get("accept-language"),
    )


def _address(fields: Mapping[str, str], peer: str | None, trust: Trust) -> str:
    """The client, by the chain that a trusted peer forwards; every dialect but Envoy's writes `X-Forwarded-For`."""
    chain = fields.get("x-forwarded-for")
    nearest = None if trust.whole and chain else peer
    found = client_address(
        nearest, () if chain is None else (chain,), (), trust.networks, trust_unix=trust.unix or trust.whole
    )
    return found.text if found is not None else ""


def _envoy_address(fields: Mapping[str, str], peer: str | None, trust: Trust) -> str:
    """The client as Envoy found it; `X-Forwarded-For` of its own calls holds Envoy itself (envoy#21519)."""
    nearest = address(peer)
    believed = trust.whole or (nearest in trust.networks if nearest is not None else trust.unix and not peer)
    if not believed:
        return nearest.text if nearest is not None else ""
    said = address(fields.get("x-envoy-external-address"))
    return said.text if said is not None else ""


def bare(host: str) -> str:
    """A host without its port, as it is compared."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).strip().lower().removesuffix(".")


def cookies(header: str) -> Iterator[tuple[str, str]]:
    """The pairs of a Cookie header (RFC 6265, section 4.2.1)."""
    for pair in header.split(";"):
        name, equals, value = pair.partition("=")
        if equals:
            yield name.strip(), value.strip().strip('"')


def fields_of(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by name in lower case; the lines of one are joined as HTTP joins them (RFC 9110, 5.3; cookies, RFC 9113, 8.2.3)."""
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        if key in found:
            found[key] = f"{found[key]}{'; ' if key == 'cookie' else ', '}{value}"
        else:
            found[key] = value
    return found
