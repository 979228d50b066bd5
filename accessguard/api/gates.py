"""What proxies ask, in the fast lane: requests that pass by a verdict in memory. Everything else is the ordinary route's.

A request is read by the same functions as there (api/proxy.py), after its head
was found plain; one that came before byte for byte, from the same peer, is one
lookup.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from accessguard.api.context import Context
from accessguard.api.forwarded import Dialect
from accessguard.api.head import CRLF, MOST_HEAD, MOST_LINES, NAMES, SETTINGS, STRANGE, UPGRADE, field, plain_start
from accessguard.api.identity import Asked, identified
from accessguard.api.proxy import called, heard, identity
from accessguard.api.reply import SAFE_HEADERS
from accessguard.errors import GuardError
from accessguard.guard.memory import EXEMPT, MOST_SEEN, Held

END: Final = b"\r\n\r\n"
DIALECTS: Final = {
    b"GET /auth/nginx HTTP/1.1": Dialect.NGINX,
    b"GET /auth/traefik HTTP/1.1": Dialect.TRAEFIK,
    b"GET /auth/caddy HTTP/1.1": Dialect.CADDY,
}
ENVOY: Final = re.compile(rb"GET /auth/envoy/(?!.*(?:\.\.|//))[\w/.~?=&-]* HTTP/1\.1", re.ASCII)
"""Paths that no reader takes apart in more than one way; others are aiohttp's."""
LONGEST_KEPT: Final = 3_072
MOST_FIELDS: Final = 8_192
NOT_HERE: Final = frozenset({STRANGE, UPGRADE, SETTINGS})
NO_BODY: Final = {"content-length": "0", "connection": "keep-alive"}
"""What these may say, if they are there."""
ALLOWED: Final = {
    dialect: b"".join((line, *(f"{name}: {value}\r\n".encode() for name, value in SAFE_HEADERS.items())))
    for dialect, line in (
        *((each, b"HTTP/1.1 204 No Content\r\n") for each in (Dialect.NGINX, Dialect.TRAEFIK, Dialect.CADDY)),
        (Dialect.ENVOY, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"),
    )
}


class Pass(msgspec.Struct, gc=False, frozen=True):
    """An allow that stands as long as its verdict, and until the tokens behind it end (ms); `answer` lacks its date.

    `active` says that it records an interaction, `keys` with which session keys it was read.
    """

    held: Held
    tenant: str
    active: bool
    until: int
    keys: int
    answer: bytes


class Gates:
    """Bounded memories: whole requests by their peer, and lines."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._known: dict[tuple[str | None, bytes], Pass] = {}
        self._seen: set[int] = set()
        self._lines: dict[bytes, tuple[str, str]] = {}
        self.known = self._known.get

    def forget(self) -> None:
        """Read every request anew."""
        self._known.clear()

    def passing(self, data: bytes, peer: str | None, now_ms: int) -> Pass | None:
        """Read one whole request; None when it is not plain, or wants more than memory has."""
        dialect, fields = self._read(data)
        if dialect is None or fields is None:
            return None
        line = data.partition(b" HTTP/1.1")[0].decode().partition(" ")
        try:
            found = self._judged(dialect, fields, (line[0], line[2]), peer, now_ms)
        except GuardError:
            return None
        if found is not None:
            self._keep(peer, data, found)
        return found

    def _judged(
        self, dialect: Dialect, fields: Mapping[str, str], line: tuple[str, str], peer: str | None, now_ms: int
    ) -> Pass | None:
        ctx = self._ctx
        call = called(ctx, dialect, fields, line, peer)
        asked = identified(ctx, heard(ctx, dialect, fields, call), call.tenant)
        if not isinstance(asked, Asked):
            return None
        held = ctx.checks.peek(asked.tenant, asked.check, now_ms)
        if held is None or held.other is not None or asked.member_id not in (None, held.member.id):
            return None
        return Pass(
            held=held,
            tenant=asked.tenant,
            active=asked.check.activity is not None,
            until=min(call.until_ms, asked.until_ms),
            keys=ctx.session_tokens.version,
            answer=ALLOWED[dialect] + _identity(asked, held),
        )

    def _keep(self, peer: str | None, data: bytes, found: Pass) -> None:
        """Know a request again that comes a second time; one that never does takes no room."""
        if len(data) > LONGEST_KEPT:
            return
        mark = hash((peer, data))
        if mark not in self._seen:
            if len(self._seen) >= MOST_SEEN:
                self._seen.clear()
            self._seen.add(mark)
            return
        if len(self._known) >= MOST_SEEN:
            self._known.clear()
        self._known[peer, data] = found

    def _read(self, data: bytes) -> tuple[Dialect | None, dict[str, str] | None]:
        """The dialect and the fields of a plain head without a body."""
        if len(data) >= MOST_HEAD or not data.endswith(END) or data.find(END) + 4 != len(data):
            return None, None
        start, *lines = data[:-4].split(CRLF)
        dialect = DIALECTS.get(start) or (Dialect.ENVOY if ENVOY.fullmatch(start) and plain_start(start) else None)
        return dialect, None if dialect is None or len(lines) >= MOST_LINES else self._fields(lines)

    def _fields(self, lines: list[bytes]) -> dict[str, str] | None:
        known, found = self._lines, dict[str, str]()
        for line in lines:
            pair = known.get(line) or self._field(line)
            if pair is None or pair[0] in found:
                return None
            found[pair[0]] = pair[1]
        plain = all(found.get(name, value).lower() == value for name, value in NO_BODY.items())
        return found if "host" in found and plain else None

    def _field(self, line: bytes) -> tuple[str, str] | None:
        named = field(line)
        if named is None or NAMES.get(named[0].lower()) in NOT_HERE:
            return None
        pair = named[0].lower().decode(), named[1].decode()
        if len(line) <= LONGEST_KEPT:
            if len(self._lines) >= MOST_FIELDS:
                self._lines.clear()
            self._lines[line] = pair
        return pair


def _identity(asked: Asked, held: Held) -> bytes:
    device: str | None = msgspec.json.decode(held.device)
    exempt = held.flags & EXEMPT != 0
    headers = identity(asked.tenant, held.member.id, asked.check.session_id, device or "", exempt=exempt)
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode()
