"""HTTP/1.1 as the client speaks it: heads that come to the service byte for byte the same, and a small reader of answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

from accessguard.client.model import (
    Check,
    ClientError,
    Login,
    LoginAnswer,
    OnUnknown,
    Question,
    Verdict,
    unknown_login,
)

END: Final = b"\r\n\r\n"
# A longer answer than any of the service's is not read on: 500 verdicts are about 500 kB.
MOST_ANSWER: Final = 8_388_608
MOST_DIGITS: Final = 16
HEX: Final = b"0123456789abcdefABCDEF"
MOST_CHECKS: Final = 500
"""In one `POST /v1/checks`, by the contract."""
STEP: Final = 64
"""Bodies are filled up with spaces to a multiple of this, so that few heads differ: the service knows a head again whole."""
BATCH_STEP: Final = 1_024


class Results(msgspec.Struct, frozen=True):
    """The answer to `POST /v1/checks`."""

    results: tuple[Verdict, ...]


_verdict: Final[Callable[[bytes], Verdict]] = msgspec.json.Decoder(Verdict).decode
_results: Final[Callable[[bytes], Results]] = msgspec.json.Decoder(Results).decode
_login_answer: Final[Callable[[bytes], LoginAnswer]] = msgspec.json.Decoder(LoginAnswer).decode
_written: Final[Callable[[object], bytes]] = msgspec.json.Encoder().encode

NONSENSE: Final = (msgspec.DecodeError, UnicodeDecodeError)
"""What reading something that is no JSON, or no text, ends with."""
REFUSES: Final = frozenset({400, 413, 422})
"""What a question is answered with that the service does not accept."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Any call but a check: its name for traces, where it goes, what it says."""

    name: str
    path: str
    body: bytes


def of_login(login: Login) -> Call:
    """Record a login."""
    return Call(name="/v1/logins", path="/v1/logins", body=_written(login))


def of_end(session_id: str, reason: str) -> Call:
    """End a session."""
    path = f"/v1/sessions/{quote(session_id, safe='')}/end"
    return Call(name="/v1/sessions/{id}/end", path=path, body=_written({"reason": reason}))


def verdicts(body: bytes, asked: Sequence[Question]) -> tuple[Verdict, ...] | None:
    """The answers to some questions, in order; None when what came is not about them."""
    try:
        found = (_verdict(body),) if len(asked) == 1 else _results(body).results
    except NONSENSE:
        return None
    if len(found) != len(asked):
        return None
    for each, question in zip(found, asked, strict=True):
        if each.session_id is not None and each.session_id != question[0]:
            return None
    return found


class WireError(Exception):
    """What came is no answer of the service."""


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where the service listens: `path` of a Unix socket, or `host` and `port`."""

    host: str
    port: int
    path: str | None = None


def address(text: str) -> Address:
    """Read `http://host:port` or `unix:/path`. Raises ValueError for anything else (TLS is a proxy's work)."""
    if text.startswith("unix:"):
        return Address(host="localhost", port=0, path=text.removeprefix("unix:").removeprefix("//"))
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
        raise ValueError("the service's address is http://host:port or unix:/path")
    return Address(host=parts.hostname, port=parts.port or 80)


class Heads:
    """The heads of this platform's requests, made once for each token, path and length."""

    def __init__(self, at: Address, token: str | Callable[[], str], tenant: str | None) -> None:
        named = f"[{at.host}]" if ":" in at.host else at.host
        self._host = f"{named}:{at.port}" if at.port else named
        self._token = token
        self._tenant = tenant
        self._known: dict[tuple[str, str, int], bytes] = {}

    def token(self) -> str:
        """The token to use now."""
        return self._token if isinstance(self._token, str) else self._token()

    def checks(self, asked: Sequence[Question]) -> bytes:
        """One request about one or several questions."""
        if len(asked) == 1:
            return self.post("/v1/check", _written(Check(*asked[0])), STEP)
        checks = [Check(*each) for each in asked]
        return self.post("/v1/checks", b'{"checks":%b}' % _written(checks), BATCH_STEP)

    def post(self, path: str, body: bytes, step: int = 1) -> bytes:
        """A POST of JSON, filled up with spaces to a multiple of `step` bytes."""
        size = -(-len(body) // step) * step
        token = self._token if isinstance(self._token, str) else self._token()
        key = (path, token, size)
        return (self._known.get(key) or self._head(key)) + body.ljust(size)

    def _head(self, key: tuple[str, str, int]) -> bytes:
        if len(self._known) >= 1_000:
            self._known.clear()
        path, token, size = key
        kind = "" if size == 0 else "Content-Type: application/json\r\n"
        head = f"POST {path} HTTP/1.1\r\n{self._fields(token)}{kind}Content-Length: {size}\r\n\r\n".encode()
        if step_of(size):
            self._known[key] = head
        return head

    def stream(self, since: str | None) -> bytes:
        """The request for the events after `since`; None: from now on."""
        last = "" if since is None else f"Last-Event-ID: {since}\r\n"
        return (
            f"GET /v1/stream HTTP/1.1\r\n{self._fields(self.token())}Accept: text/event-stream\r\n{last}\r\n".encode()
        )

    def _fields(self, token: str) -> str:
        tenant = "" if self._tenant is None else f"AccessGuard-Tenant: {self._tenant}\r\n"
        return f"Host: {self._host}\r\nAuthorization: Bearer {token}\r\n{tenant}"


def step_of(size: int) -> bool:
    """Whether requests of this length are worth a remembered head."""
    return size % STEP == 0


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One answer; `keep` says whether the connection may be used again."""

    status: int
    body: bytes
    keep: bool


class Head(msgspec.Struct, frozen=True):
    """The beginning of an answer; `length` None means chunks."""

    status: int
    length: int | None
    keep: bool


@lru_cache(maxsize=256)
def head(data: bytes) -> Head:
    """Read a head (RFC 9112), without its empty line; within a second most are byte for byte the same. Raises WireError."""
    start, _, rest = data.partition(b"\r\n")
    if not start.startswith(b"HTTP/1.1 ") or not start[9:12].isdigit():
        raise WireError("no answer of HTTP/1.1")
    length: int | None = None
    chunks, keep = False, True
    for line in rest.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            length = _length(value.strip())
        elif name == b"transfer-encoding":
            chunks = b"chunked" in value
        elif name == b"connection":
            keep = b"close" not in value
    status = int(start[9:12])
    if length is None and not chunks and status not in {204, 304}:
        raise WireError("an answer without an end")
    return Head(status, None if chunks else length or 0, keep)


class Reader:
    """Puts the bytes of one connection together to answers, one at a time."""

    __slots__ = ("_chunks", "_data", "_head")

    def __init__(self) -> None:
        self._data = b""
        self._head: Head | None = None
        self._chunks: Chunks | None = None

    def feed(self, data: bytes) -> Reply | None:
        """Take what came; return the answer that it completes. Raises WireError."""
        self._data = data = self._data + data if self._data else data
        if len(data) > MOST_ANSWER:
            raise WireError("an answer that is too long")
        if self._head is None:
            end = data.find(END)
            if end < 0:
                return None
            self._head = head(data[:end])
            self._data = data = data[end + 4 :]
        found = self._head
        if found.length is None:
            return self._chunked(found)
        if len(data) < found.length:
            return None
        return self._done(found, data[: found.length], more=len(data) > found.length)

    def _chunked(self, found: Head) -> Reply | None:
        if self._chunks is None:
            self._chunks = Chunks(keep=True)
        self._chunks.feed(self._data)
        self._data = b""
        if not self._chunks.ended:
            return None
        return self._done(found, self._chunks.whole(), more=False)

    def _done(self, found: Head, body: bytes, *, more: bool) -> Reply:
        self._data, self._head, self._chunks = b"", None, None
        return Reply(found.status, body, found.keep and not more)


class Chunks:
    """Takes the chunks off a body (RFC 9112, 7.1); with `keep` it may be read as a whole at the end."""

    def __init__(self, *, keep: bool = False) -> None:
        self._data = b""
        self._left = -1  # bytes of the chunk under way with its line end; -1 before its length
        self._kept: list[bytes] | None = [] if keep else None
        self._size = 0
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """Take what came, return what it says. Raises WireError."""
        self._data += data
        said: list[bytes] = []
        while not self.ended and (piece := self._next()) is not None:
            said.append(piece)
        if self._kept is not None:
            self._kept += said
            self._size += sum(map(len, said))
        if len(self._data) > MOST_ANSWER or self._size > MOST_ANSWER:
            raise WireError("a chunk that is too long")
        return b"".join(said)

    def whole(self) -> bytes:
        """All that was said."""
        return b"".join(self._kept or ())

    def _next(self) -> bytes | None:
        if self._left < 0:
            line, found, rest = self._data.partition(b"\r\n")
            if not found:
                return None
            self._left, self._data = _size(line) + 2, rest
        if len(self._data) < self._left:
            return None
        piece, self._data = self._data[: self._left - 2], self._data[self._left :]
        self.ended, self._left = not piece, -1
        return piece


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > MOST_DIGITS:
        raise WireError("a length that is no number")
    return int(value)


def _size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if len(digits) > MOST_DIGITS or not digits or digits.strip(HEX):
        raise WireError("a chunk without a length")
    return int(digits, 16)


def accepted(reply: Reply) -> Reply:
    """The reply itself. Raises ClientError for a 4xx or 5xx."""
    if reply.status >= 400:
        said = reply.body[:300].decode("utf-8", "replace")
        raise ClientError(f"The service answered {reply.status}: {said}", reply.status)
    return reply


def logged_in(reply: Reply, on: OnUnknown) -> LoginAnswer:
    """The answer to a login; the client's own when what came is none."""
    try:
        return _login_answer(reply.body)
    except NONSENSE:
        return unknown_login(on)
