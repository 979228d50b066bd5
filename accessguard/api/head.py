"""Heads of requests that are plain enough for the fast lane: framing and caller, read once for each distinct head.

What is read here is a strict part of HTTP/1.1 (RFC 9112): every line a token, a
colon and visible ASCII; one Content-Length of digits; nothing that changes
the framing. Everything else is None, and aiohttp's to judge.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

import msgspec

from accessguard.api.access import bearer, named_tenant
from accessguard.api.context import Context
from accessguard.api.keys import Caller, Role
from accessguard.errors import GuardError


class Call(IntEnum):
    """What the fast lane answers."""

    CHECK = 0
    CHECKS = 1
    LOGIN = 2


FAST: Final = {
    b"POST /v1/check HTTP/1.1": Call.CHECK,
    b"POST /v1/checks HTTP/1.1": Call.CHECKS,
    b"POST /v1/logins HTTP/1.1": Call.LOGIN,
}
PLAIN: Final = (b"GET /", b"POST /", b"PUT /", b"PATCH /", b"DELETE /", b"HEAD /", b"OPTIONS /")
VERSION: Final = b" HTTP/1.1"

# RFC 9110, 5.6.2: what a field's name is made of; and what a line is made of at all.
TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
VISIBLE: Final = bytes(range(0x20, 0x7F)) + b"\t"
CRLF: Final = b"\r\n"
DIGITS: Final = b"0123456789"

SINGLES: Final = (b"content-location", b"content-range", b"etag", b"max-forwards", b"server")
AUTHORIZATION, LENGTH, KIND, TENANT, CONNECTION, STRANGE, UPGRADE, SETTINGS, HOST, AGENT, KEY, SINGLE = range(12)
NAMES: Final = {
    b"authorization": AUTHORIZATION,
    b"content-length": LENGTH,
    b"content-type": KIND,
    b"accessguard-tenant": TENANT,
    b"connection": CONNECTION,
    # With these a request is aiohttp's, which is given its bytes and no others: behind another protocol's name than
    # "websocket" it drops whatever else came in the same packet, and takes the rest of that for a request.
    b"upgrade": UPGRADE,
    b"http2-settings": SETTINGS,
    # These have no meaning here but, as aiohttp has it, may come once only; the first has to come.
    b"host": HOST,
    b"user-agent": AGENT,
    # This one makes a login one that has been asked before, perhaps.
    b"idempotency-key": KEY,
    **{name: SINGLE + place for place, name in enumerate(SINGLES)},
    # Each of these changes how the bytes behind the head are to be read, or what happens to the connection.
    b"content-encoding": STRANGE,
    b"expect": STRANGE,
    b"proxy-connection": STRANGE,
    b"sec-websocket-key1": STRANGE,
    b"te": STRANGE,
    b"trailer": STRANGE,
    b"transfer-encoding": STRANGE,
}
TURNING: Final = frozenset({b"keep-alive", b"upgrade", b"http2-settings"})
KINDS: Final = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})
NOTHING: Final[tuple[int, bytes]] = (-1, b"")

MOST_HELD: Final = 8_192
MOST_LINES: Final = 128  # aiohttp's bound
# A longer head goes to aiohttp, whose own bound for one line is 8190.
MOST_HEAD: Final = 6_000
LONGEST_LENGTH: Final = 9  # digits
VALUE: Final = rb"[\t -~]*"
LENGTH_VALUE: Final = rb"[\t ]*([0-9]{1,9})[\t ]*"
LONGEST_KEPT: Final = 2_048  # bytes of a line that is remembered


class Head(msgspec.Struct, frozen=True, gc=False):
    """One head: the length of its body, whether the fast lane may take it, and for which tenant until when (ms)."""

    length: int
    fast: bool = False
    call: Call = Call.CHECK
    tenant: str = ""
    until_ms: int = 0
    caller: Caller | None = None


class Heads:
    """Bounded memories of whole heads (callers whose headers do not vary), of lines, and of callers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._heads: dict[bytes, Head] = {}
        self._seen: set[int] = set()
        self._lines: dict[bytes, tuple[int, bytes]] = {}
        self._callers: dict[tuple[bytes, bytes | None], tuple[str, int, Caller | None]] = {}
        self._last: tuple[bytes, Head | None] = (b"", None)
        self.known = self._heads.get

    def forget(self) -> None:
        """Read every head, and every caller, anew."""
        self._heads.clear()
        self._callers.clear()
        self._last = (b"", None)

    def read(self, head: bytes) -> Head | None:
        """What a head (with its empty line) says; None when it is not plain."""
        known = self._heads.get(head)
        if known is not None:
            return known
        if head == self._last[0]:
            return self._last[1]
        found = self._parse(head)
        if found is not None and found.fast:
            self._keep(head, found)
        else:  # what is not taken at the first look is looked at again
            self._last = (head, found)
        return found

    def _keep(self, head: bytes, found: Head) -> None:
        """Remember a head when it comes a second time; one that never does takes no room."""
        mark = hash(head)
        if mark in self._seen:
            _room(self._heads)
            self._heads[head] = found
        else:
            _room(self._seen)
            self._seen.add(mark)

    def _parse(self, head: bytes) -> Head | None:
        lines = head[:-4].split(CRLF)
        if len(lines) > MOST_LINES:
            return None
        known = self._lines
        seen: dict[int, bytes] = {}
        for line in lines[1:]:
            read = known.get(line) or self._line(line)
            kind = read[0]
            if kind >= 0:
                if kind == STRANGE or kind in seen:
                    return None
                seen[kind] = read[1]
        return self._of(lines[0], seen)

    def _line(self, line: bytes) -> tuple[int, bytes]:
        """One field: its kind and value; a malformed one is strange."""
        named = field(line)
        if named is None:
            return (STRANGE, b"")
        name, value = named
        kind = NAMES.get(name.lower())
        read = NOTHING if kind is None else (kind, value)
        if len(line) <= LONGEST_KEPT:
            _room(self._lines)
            self._lines[line] = read
        return read

    def _of(self, start: bytes, seen: dict[int, bytes]) -> Head | None:
        digits = seen.get(LENGTH, b"0")
        if not digits or len(digits) > LONGEST_LENGTH or digits.translate(None, DIGITS):
            return None
        turning = UPGRADE in seen or SETTINGS in seen
        if HOST not in seen or not _goes_on(seen.get(CONNECTION), turning=turning):
            return None
        call = None if turning else FAST.get(start)
        if call is None:
            return Head(int(digits)) if plain_start(start) else None
        if LENGTH not in seen or (KIND in seen and seen[KIND].lower() not in KINDS):
            return Head(int(digits))
        if call is Call.LOGIN and KEY in seen:
            return Head(int(digits))
        tenant, until_ms, caller = self._caller(seen.get(AUTHORIZATION, b""), seen.get(TENANT))
        return Head(int(digits), until_ms > 0, call, tenant, until_ms, caller)

    def _caller(self, authorization: bytes, tenant: bytes | None) -> tuple[str, int, Caller | None]:
        """The tenant that the caller may ask for, and until when its token says so (0: it may not)."""
        known = self._callers.get((authorization, tenant))
        if known is not None:
            return known
        now_ms = self._context.now_ms()
        try:
            caller = self._context.keyring.verify(bearer(authorization.decode()), now=now_ms / 1000)
            named = named_tenant(caller, None if tenant is None else tenant.decode())
        except GuardError:
            return "", 0, None
        if caller.role is not Role.PLATFORM:
            return "", 0, None
        _room(self._callers)
        self._callers[authorization, tenant] = found = (named, caller.expires_at * 1000, caller)
        return found


class Shape:
    """What two heads of one connection have in common, and where they differ: in values that change nothing here.

    `parts` are the bytes around the differing values; `length_at` is which of
    those is the Content-Length, -1 when it is none.
    """

    __slots__ = ("_begin", "_begins", "_rest", "head")

    def __init__(self, parts: tuple[bytes, ...], length_at: int, head: Head) -> None:
        self.head = head
        self._begin = parts[0]
        self._begins = len(self._begin)
        values = (LENGTH_VALUE if place == length_at else VALUE for place in range(len(parts) - 1))
        rest = (value + re.escape(part) for value, part in zip(values, parts[1:], strict=True))
        self._rest = re.compile(b"".join(rest)).fullmatch

    def read(self, head: bytes) -> int:
        """The length of the body behind a head of this shape; -1 for another head, which is then parsed in full."""
        if len(head) >= MOST_HEAD or not head.startswith(self._begin):
            return -1
        found = self._rest(head, self._begins)
        if found is None:
            return -1
        return int(found[1]) if found.lastindex else self.head.length


def shape(one: bytes, other: bytes, head: Head) -> Shape | None:
    """The shape of two plain heads, of which `head` says what `other` does.

    None when they differ in more than values; and when they do not differ at
    all, as then they are known whole, which costs less.
    """
    parts: list[bytes] = []
    fixed, length_at = b"", -1
    lines = zip(one.split(CRLF), other.split(CRLF), strict=False)
    if one == other or one.count(CRLF) != other.count(CRLF):
        return None
    for number, (first, second) in enumerate(lines):
        lead = CRLF if number else b""
        name, colon, _ = second.partition(b":")
        if first == second:
            fixed += lead + second
            continue
        kind = NAMES.get(name.lower(), HOST)
        if not colon or not first.startswith(name + b":") or (kind < HOST and kind != LENGTH):
            return None
        length_at = len(parts) if kind == LENGTH else length_at
        parts.append(fixed + lead + name + b":")
        fixed = b""
    return Shape((*parts, fixed), length_at, head)


def field(line: bytes) -> tuple[bytes, bytes] | None:
    """The name and the value of a field; None for a malformed one."""
    name, colon, value = line.partition(b":")
    if not colon or not name or name.translate(None, TOKEN) or value.translate(None, VISIBLE):
        return None
    return name, value.strip(b" \t")


def accept_language(request: bytes) -> str | None:
    """The first `Accept-Language` of a plain request; looked for only when a refusal is written, so it costs no other call."""
    return _said(request, b"\r\naccept-language:")


def traceparent(request: bytes) -> str | None:
    """The first `traceparent` of a plain request (W3C Trace Context); looked for only when something is logged or traced."""
    return _said(request, b"\r\ntraceparent:")


def _said(request: bytes, name: bytes) -> str | None:
    """What the first header of this name says, in small letters."""
    head = request.partition(CRLF + CRLF)[0].lower()
    _, found, rest = head.partition(name)
    return rest.partition(CRLF)[0].strip(b" \t").decode("latin-1") if found else None


def _goes_on(connection: bytes | None, *, turning: bool) -> bool:
    """Whether a connection's own field leaves the framing, and the connection, as they are."""
    if connection is None or connection.lower() == b"keep-alive":
        return True
    return turning and all(each.strip(b" \t") in TURNING for each in connection.lower().split(b","))


def plain_start(start: bytes) -> bool:
    """Whether a request line has a usual method, one path of visible ASCII, and HTTP/1.1."""
    usual = start.startswith(PLAIN) and start.endswith(VERSION) and start.count(b" ") == 2
    return usual and not start.translate(None, VISIBLE) and b"\t" not in start


def _room(
    memory: dict[bytes, Head]
    | dict[bytes, tuple[int, bytes]]
    | dict[tuple[bytes, bytes | None], tuple[str, int, Caller | None]]
    | set[int],
) -> None:
    """Forget everything when it is full: rarer and cheaper than to forget one thing each time."""
    if len(memory) >= MOST_HELD:
        memory.clear()
