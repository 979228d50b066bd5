"""Heads of requests that are plain enough for the fast lane: framing and caller, read once for each distinct head.

What is read here is a strict part of HTTP/1.1 (RFC 9112): every line a token, a
colon and visible ASCII; one Content-Length of digits; nothing that changes
the framing. Everything else is None, and aiohttp's to judge.
"""

from __future__ import annotations

from typing import Final

import msgspec

from accessguard.api.access import bearer, named_tenant
from accessguard.api.context import Context
from accessguard.api.keys import Role
from accessguard.errors import GuardError

FAST: Final = {b"POST /v1/check HTTP/1.1": False, b"POST /v1/checks HTTP/1.1": True}
PLAIN: Final = (b"GET /", b"POST /", b"PUT /", b"PATCH /", b"DELETE /", b"HEAD /", b"OPTIONS /")
VERSION: Final = b" HTTP/1.1"

# RFC 9110, 5.6.2: what a field's name is made of; and what a head is made of at all.
TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
VISIBLE: Final = bytes(range(0x20, 0x7F)) + b"\t\r\n"
DIGITS: Final = b"0123456789"

AUTHORIZATION, LENGTH, KIND, TENANT, CONNECTION, STRANGE, OTHER = range(7)
NAMES: Final = {
    b"authorization": AUTHORIZATION,
    b"content-length": LENGTH,
    b"content-type": KIND,
    b"accessguard-tenant": TENANT,
    b"connection": CONNECTION,
    # Each of these changes how the bytes behind the head are to be read, or what happens to the connection.
    b"content-encoding": STRANGE,
    b"expect": STRANGE,
    b"http2-settings": STRANGE,
    b"proxy-connection": STRANGE,
    b"sec-websocket-key1": STRANGE,
    b"te": STRANGE,
    b"trailer": STRANGE,
    b"transfer-encoding": STRANGE,
    b"upgrade": STRANGE,
}
KINDS: Final = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})

MOST_HEADS: Final = 4_096
MOST_NAMES: Final = 1_024
MOST_CALLERS: Final = 10_000
LONGEST_LENGTH: Final = 9  # digits


class Head(msgspec.Struct, frozen=True, gc=False):
    """One head: the length of its body, whether the fast lane may take it, and for which tenant until when.

    `tenant` is None when the caller is not one who may check; then its request
    is aiohttp's. `many` marks the call for a batch.
    """

    length: int
    fast: bool
    many: bool = False
    tenant: str | None = None
    until_ms: int = 0


class Heads:
    """Bounded memories: of whole heads (callers whose headers do not vary), of field names, of Authorization values."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._heads: dict[bytes, Head] = {}
        self._names: dict[bytes, int] = {}
        self._callers: dict[tuple[bytes, bytes], tuple[str, int]] = {}

    def read(self, head: bytes) -> Head | None:
        """What a head (with its empty line) says; None when it is not plain."""
        known = self._heads.get(head)
        if known is not None:
            return known
        found = self._parse(head)
        if found is not None and found.tenant is not None:
            _bounded(self._heads, MOST_HEADS)
            self._heads[head] = found
        return found

    def _parse(self, head: bytes) -> Head | None:
        lines = head[:-4].split(b"\r\n")
        if head.translate(None, VISIBLE) or head.count(b"\r") != len(lines) + 1 or head.count(b"\n") != len(lines) + 1:
            return None
        start = lines[0]
        if not start.endswith(VERSION) or not start.startswith(PLAIN) or start.count(b" ") != 2:
            return None
        seen: dict[int, bytes] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            kind = self._names.get(name)
            if kind is None:
                kind = self._name(name)
            if kind == OTHER:
                if not colon:
                    return None
                continue
            if kind == STRANGE or not colon or kind in seen:
                return None
            seen[kind] = value.strip(b" \t")
        return self._of(start, seen)

    def _of(self, start: bytes, seen: dict[int, bytes]) -> Head | None:
        digits = seen.get(LENGTH, b"0")
        if not digits or len(digits) > LONGEST_LENGTH or digits.translate(None, DIGITS):
            return None
        if seen.get(CONNECTION, b"keep-alive").lower() != b"keep-alive":
            return None
        length = int(digits)
        many = FAST.get(start)
        if many is None or LENGTH not in seen or seen.get(KIND, b"application/json").lower() not in KINDS:
            return Head(length, fast=False)
        tenant, until_ms = self._caller(seen.get(AUTHORIZATION, b""), seen.get(TENANT, b""))
        return Head(length, fast=tenant is not None, many=many, tenant=tenant, until_ms=until_ms)

    def _name(self, name: bytes) -> int:
        """What a field's name means here; a name that is no token is strange."""
        kind = STRANGE if not name or name.translate(None, TOKEN) else NAMES.get(name.lower(), OTHER)
        _bounded(self._names, MOST_NAMES)
        self._names[name] = kind
        return kind

    def _caller(self, authorization: bytes, tenant: bytes) -> tuple[str | None, int]:
        """The tenant that the caller may check for, and until when (ms) its token says so."""
        known = self._callers.get((authorization, tenant))
        now_ms = self._context.now_ms()
        if known is not None and now_ms < known[1]:
            return known
        try:
            caller = self._context.keyring.verify(bearer(authorization.decode()), now=now_ms / 1000)
            named = named_tenant(caller, tenant.decode() or None)
        except GuardError:
            return None, 0
        if caller.role is not Role.PLATFORM:
            return None, 0
        _bounded(self._callers, MOST_CALLERS)
        self._callers[authorization, tenant] = found = (named, caller.expires_at * 1000)
        return found


def _bounded(
    memory: dict[bytes, Head] | dict[bytes, int] | dict[tuple[bytes, bytes], tuple[str, int]], most: int
) -> None:
    """Make room for one more: what came first goes first."""
    if len(memory) >= most:
        del memory[next(iter(memory))]  # type: ignore[arg-type] # each key is its own memory's
