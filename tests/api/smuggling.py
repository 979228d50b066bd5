"""Requests that have made one reader of HTTP/1.1 see more, fewer or other requests than the next one did.

Gathered from RFC 9112, from the permutations of PortSwigger's
http-request-smuggler (James Kettle, Amit Klein), from the findings of the HTTP
Garden, and from llhttp's and aiohttp's own advisories; written anew here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

NOTHING: Final = b"0\r\n\r\n"


@dataclass(frozen=True)
class Words:
    """A caller's token, a question, and the whole check that asks it: what is smuggled, and known again when it is seen."""

    token: bytes
    body: bytes
    check: bytes

    def post(self, *fields: bytes, body: bytes, start: bytes = b"POST /v1/check HTTP/1.1") -> bytes:
        """A request by a genuine caller with exactly these fields besides."""
        return b"\r\n".join([start, b"Host: h", b"Authorization: Bearer " + self.token, *fields, b"", body])


@dataclass(frozen=True)
class Trick:
    """Bytes to be sent, how many checks are to be seen in them, and whether the connection goes on behind them.

    What is refused is not seen, nor is anything behind it. `last`: the request
    says that it is the last one; with more behind it in its packet, aiohttp
    refuses both.
    """

    raw: bytes
    seen: int = 0
    goes_on: bool = False
    last: bool = False


def length(value: bytes) -> bytes:
    """The usual field."""
    return b"Content-Length: " + value


LENGTHS: Final[Mapping[str, bytes]] = {
    "twice the same": b"Content-Length: @\r\nContent-Length: @",
    "twice, short first": b"Content-Length: 3\r\nContent-Length: @",
    "twice, short last": b"Content-Length: @\r\nContent-Length: 3",
    "twice, apart": b"Content-Length: @\r\nX: y\r\ncontent-length: 0",
    "a list of the same": b"Content-Length: @, @",
    "a list": b"Content-Length: @, 0",
    "plus": b"Content-Length: +@",
    "minus": b"Content-Length: -@",
    "hexadecimal": b"Content-Length: 0x@",
    "octal": b"Content-Length: 0o@",
    "underscore": b"Content-Length: 1_0",
    "exponent": b"Content-Length: 1e2",
    "fraction": b"Content-Length: @.0",
    "comma": b"Content-Length: @,",
    "comma first": b"Content-Length: ,@",
    "semicolon": b"Content-Length: @;a",
    "space inside": b"Content-Length: @ 0",
    "tab inside": b"Content-Length: @\t0",
    "quoted": b'Content-Length: "@"',
    "empty": b"Content-Length:",
    "spaces": b"Content-Length:   ",
    "a word": b"Content-Length: many",
    "2^64 more": b"Content-Length: 1844674407370955@@",
    "2^64": b"Content-Length: 18446744073709551616",
    "2^32": b"Content-Length: 4294967296@",
    "thirty digits": b"Content-Length: 999999999999999999999999999999",
    "wide digits": "Content-Length: \uff11\uff12".encode(),
    "arabic digits": "Content-Length: \u0661\u0662".encode(),
    "NUL behind": b"Content-Length: @\x00",
    "NUL before": b"Content-Length: \x00@",
    "vertical tab": b"Content-Length: \x0b@",
    "form feed": b"Content-Length: @\x0c",
    "DEL": b"Content-Length: @\x7f",
    "0xA0": b"Content-Length:\xa0@",
    "CR behind": b"Content-Length: @\r",
    "CR before": b"Content-Length: \r@",
    "LF before": b"Content-Length: \n@",
    "space before the colon": b"Content-Length : @",
    "tab before the colon": b"Content-Length\t: @",
    "LF before the colon": b"Content-Length\n : @",
    "junk before the colon": b"Content-Length x: @",
    "space for the hyphen": b"Content Length: @",
    "CR in the name": b"Con\rtent-Length: @",
    "0x80 in the name": b"Cont\x80nt-Length: @",
    "folded": b"X: y\r\n Content-Length: @",
    "folded by a tab": b"X: y\r\n\tContent-Length: @",
    "value folded": b"Content-Length:\r\n @",
    "value folded by a tab": b"Content-Length: \r\n\t@",
    "behind a bare LF": b"X: y\nContent-Length: @",
    "behind a bare CR": b"X: y\rContent-Length: @",
    "behind CRLF and CR": b"X: y\r\n\rContent-Length: @",
    "behind two LF": b"X: y\n\nContent-Length: @",
    "behind a blank line that is none": b"X: y\r\n \r\nContent-Length: @",
    "behind a line without a colon": b"X\r\nContent-Length: @",
    "behind a line without a name": b": y\r\nContent-Length: @",
}
"""Wrong ways to say how long a body is; `@` stands for the right number."""

GOOD_LENGTHS: Final[Mapping[str, bytes]] = {
    "plain": b"Content-Length: @",
    "capitals": b"CONTENT-LENGTH: @",
    "no space": b"content-length:@",
    "tabs": b"Content-Length:\t@\t ",
    "zeros": b"Content-Length: 000@",
    "named by Connection": b"Content-Length: @\r\nX: Content-Length",
    "another name": b"Content_Length: 3\r\nContent-Length: @",
}
"""Right ways, however unusual."""

CODINGS: Final[Mapping[str, bytes]] = {
    "vertical tab": b"Transfer-Encoding: \x0bchunked",
    "form feed": b"Transfer-Encoding: \x0cchunked",
    "tab behind": b"Transfer-Encoding: chunked\t",
    "form feed behind": b"Transfer-Encoding: chunked\x0c",
    "NUL": b"Transfer-Encoding: \x00chunked",
    "NUL behind": b"Transfer-Encoding: chunked\x00",
    "DEL": b"Transfer-Encoding: chunked\x7f",
    "CR behind": b"Transfer-Encoding: chunked\r",
    "CR before": b"Transfer-Encoding: \rchunked",
    "quotes": b'Transfer-Encoding: "chunked"',
    "apostrophes": b"Transfer-Encoding: 'chunked'",
    "too short": b"Transfer-Encoding: chunk",
    "too long": b"Transfer-Encoding: chunkedd",
    "prefix": b"Transfer-Encoding: xchunked",
    "parameter": b"Transfer-Encoding: chunked;q=1",
    "not last": b"Transfer-Encoding: chunked, identity",
    "nested": b"Transfer-Encoding: identity, chunked, identity",
    "twice in a list": b"Transfer-Encoding: chunked, chunked",
    "comma": b"Transfer-Encoding: chunked,",
    "twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "twice, identity first": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "twice, identity last": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "identity": b"Transfer-Encoding: identity",
    "gzip": b"Transfer-Encoding: gzip",
    "empty": b"Transfer-Encoding:",
    "a comma alone": b"Transfer-Encoding: ,",
    "two words": b"Transfer-Encoding: chunked chunked",
    "0xFF": b"Transfer-Encoding:\xffchunked",
    "0xA0": b"Transfer-Encoding:\xa0chunked",
    "0x96 inside": b"Transfer-Encoding: ch\x96nked",
    "Kelvin sign": "Transfer-Encoding: chun\u212aed".encode(),
    "line wrapped": b"Transfer-Encoding:\n chunked",
    "vertically wrapped": b"Transfer-Encoding:\n\x0bchunked",
    "folded": b"Transfer-Encoding:\r\n chunked",
    "folded by a tab": b"Transfer-Encoding: \r\n\tchunked",
    "LF before the colon": b"Transfer-Encoding\n : chunked",
    "space before the colon": b"Transfer-Encoding : chunked",
    "tab before the colon": b"Transfer-Encoding\t: chunked",
    "junk before the colon": b"Transfer-Encoding x: chunked",
    "space for the hyphen": b"Transfer Encoding: chunked",
    "CR in the name": b"Tra\rnsfer-Encoding: chunked",
    "0x82 in the name": b"Transf\x82r-Encoding: chunked",
    "NUL in the name": b"Transfer-Enc\x00oding: chunked",
    "behind a bare LF": b"X: y\nTransfer-Encoding: chunked",
    "behind a bare CR": b"X: y\rTransfer-Encoding: chunked",
    "behind CRLF and CR": b"X: y\r\n\rTransfer-Encoding: chunked",
    "behind two LF": b"X: y\n\nTransfer-Encoding: chunked",
    "behind a fold": b"X: y\r\n Transfer-Encoding: chunked",
    "behind a tabbed fold": b"X: y\r\n\tTransfer-Encoding: chunked",
}
"""Ways to say that a body comes in chunks, of which one reader or another says that they say nothing."""

OTHER_NAMES: Final[Mapping[str, bytes]] = {
    "underscore": b"Transfer_Encoding: chunked",
    "percent": b"Transfer-%45ncoding: chunked",
    "content encoding": b"X-Content-Encoding: chunked",
    "a suffix": b"Transfer-Encodings: chunked",
}
"""Fields that say nothing about the body, by any reading."""

GOOD_CODINGS: Final[Mapping[str, bytes]] = {
    "plain": b"Transfer-Encoding: chunked",
    "capitals": b"TRANSFER-ENCODING: CHUNKED",
    "mixed": b"tRANSFER-ENCODING: Chunked",
    "tab": b"Transfer-Encoding:\tchunked",
    "spaces": b"Transfer-Encoding:   chunked  ",
}

CHUNKS: Final[Mapping[str, bytes]] = {
    "LF behind an extension": b"%x;a\n@\r\n0\r\n\r\n",
    "CR in an extension": b"%x;a\rb\r\n@\r\n0\r\n\r\n",
    "two CR behind a size": b"%x\r\r\n@\r\n0\r\n\r\n",
    "NUL in an extension": b"%x;\x00\r\n@\r\n0\r\n\r\n",
    "0x prefix": b"0x%x\r\n@\r\n0\r\n\r\n",
    "plus": b"+%x\r\n@\r\n0\r\n\r\n",
    "minus": b"-%x\r\n@\r\n0\r\n\r\n",
    "underscore": b"0_%x\r\n@\r\n0\r\n\r\n",
    "space before": b" %x\r\n@\r\n0\r\n\r\n",
    "tab before": b"\t%x\r\n@\r\n0\r\n\r\n",
    "17 digits": b"1000000000000000%x\r\n@\r\n0\r\n\r\n",
    "2^64": b"10000000000000000\r\n@\r\n0\r\n\r\n",
    "2^68": b"fffffffffffffffff\r\n@\r\n0\r\n\r\n",
    "LF lines": b"%x\n@\n0\n\n",
    "LF behind the size": b"%x\n@\r\n0\r\n\r\n",
    "LF behind the data": b"%x\r\n@\n0\r\n\r\n",
    "CR behind the size": b"%x\r@\r\n0\r\n\r\n",
    "nothing behind the data": b"%x\r\n@0\r\n\r\n",
    "two bytes behind the data": b"%x\r\n@XX0\r\n\r\n",
    "more data than said": b"%x\r\n@ \r\n0\r\n\r\n",
    "an empty size": b"\r\n@\r\n0\r\n\r\n",
    "an extension without a size": b";a\r\n@\r\n0\r\n\r\n",
    "no digit": b"G\r\n@\r\n0\r\n\r\n",
    "two sizes": b"%x %x\r\n@\r\n0\r\n\r\n",
    "a comma": b"%x,\r\n@\r\n0\r\n\r\n",
    "LF at the very end": b"%x\r\n@\r\n0\r\n\n",
    "LF behind the last size": b"%x\r\n@\r\n0\n\r\n",
    "CR at the very end": b"%x\r\n@\r\n0\r\n\r\r",
    "a trailer without a colon": b"%x\r\n@\r\n0\r\nX\r\n\r\n",
    "a trailer with a space": b"%x\r\n@\r\n0\r\nX : y\r\n\r\n",
    "a trailer behind LF": b"%x\r\n@\r\n0\r\nX: y\nZ: w\r\n\r\n",
    "a trailer that says a length": b"%x\r\n@\r\n0\r\nContent-Length: 9\r\n\r\n",
    "a trailer that says a coding": b"%x\r\n@\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a trailer with NUL": b"%x\r\n@\r\n0\r\nX: \x00\r\n\r\n",
}
"""Chunks that are none; `%x` stands for the right size, `@` for the data."""

GOOD_CHUNKS: Final[Mapping[str, bytes]] = {
    "plain": b"%x\r\n@\r\n0\r\n\r\n",
    "zeros": b"00000000000%x\r\n@\r\n00000\r\n\r\n",
    "an extension": b"%x;a=b\r\n@\r\n0;c\r\n\r\n",
    "a quoted extension": b'%x;a="b;c"\r\n@\r\n0\r\n\r\n',
    "a trailer": b"%x\r\n@\r\n0\r\nX: y\r\n\r\n",
}

STARTS: Final[tuple[bytes, ...]] = (
    b"POST /v1/check",
    b"POST /v1/check ",
    b"POST /v1/check HTTP/0.9",
    b"POST /v1/check HTTP/1.2",
    b"POST /v1/check HTTP/1.10",
    b"POST /v1/check HTTP/1.32",
    b"POST /v1/check HTTP/01.1",
    b"POST /v1/check HTTP/2.0",
    b"POST /v1/check HTTP/11",
    b"POST /v1/check HTTP/1.1x",
    b"POST /v1/check HTTP/1.1 ",
    b"POST /v1/check HTTP/1.1\t",
    b"POST /v1/check HTTP/1.1\r",
    b"POST /v1/check HTTP /1.1",
    b"POST /v1/check http/1.1",
    b"POST /v1/check HTTPS/1.1",
    b"POST /v1/check ICE/1.0",
    b"POST\t/v1/check HTTP/1.1",
    b"POST /v1/check\tHTTP/1.1",
    b"POST\x0b/v1/check HTTP/1.1",
    b"POST /v1/check\x0cHTTP/1.1",
    b"POST /v1/check\nHTTP/1.1",
    b"POST /v1/check\rHTTP/1.1",
    b"POST /v1/check HTTP/1.1\nX: y",
    b"POST /v1/check\nX: y",
    b"POST /v1/check\n",
    b"POST /v1/ch eck HTTP/1.1",
    b"POST /v1/check\x00 HTTP/1.1",
    b"POST /v1/check\x7f HTTP/1.1",
    b"POST v1/check HTTP/1.1",
    b"POST * HTTP/1.1",
    b"POST ! HTTP/1.1",
    b"POST  HTTP/1.1",
    b" POST /v1/check HTTP/1.1",
    b"post /v1/check HTTP/1.1",
    b"PoST /v1/check HTTP/1.1",
    b"P\xd6ST /v1/check HTTP/1.1",
    b"POSTT /v1/check HTTP/1.1",
    b'G=":<>(e),[T];?" /v1/check HTTP/1.1',
    b"PRI * HTTP/2.0",
    b"POST http: HTTP/1.1",
    b"POST /v1/" + b"x" * 9_000 + b" HTTP/1.1",
    b"\x16\x03\x01\x02\x00",
)
"""First lines that are none."""

ELSEWHERE: Final[tuple[bytes, ...]] = (
    b"POST http://h/v1/check/ HTTP/1.1",
    b"POST /v1/check;a HTTP/1.1",
    b"POST //v1/check HTTP/1.1",
    b"POST /v1/./check/ HTTP/1.1",
    b"POST /v1/check%20 HTTP/1.1",
    b"POST /v1/check%00 HTTP/1.1",
    b"PUT /v1/check HTTP/1.1",
    b"GET /v1/nothing HTTP/1.1",
    b"DELETE /v1/check HTTP/1.1",
    b"OPTIONS /v1/check HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"SOURCE /v1/check HTTP/1.1",
)
"""First lines of requests that are no checks, but have a body all the same."""

HEADS: Final[Mapping[str, bytes]] = {
    "space in a name": b"X Y: z",
    "space before the colon": b"X : z",
    "no name": b": z",
    "no colon": b"XYZ",
    "a blank line that is none": b" ",
    "a tab line": b"\t",
    "folded": b"X: y\r\n z",
    "NUL in a value": b"X: \x00",
    "NUL in a name": b"X\x00: y",
    "CR in a value": b"X: a\rb",
    "LF in a value": b"X: a\nY: b",
    "two CR": b"X: a\r\r\nY: b",
    "CR in a name": b"X\r: y",
    "0x80 in a name": b"X\x80: y",
    "two hosts": b"Host: h",
    "a long value": b"X: " + b"y" * 8_300,
    "a long name": b"Y" * 8_300 + b": z",
    "too many": b"\r\n".join(b"X-%d: y" % number for number in range(130)),
    "an old web socket": b"Sec-WebSocket-Key1: y",
}
"""Lines that no head may have."""


def _lengths(words: Words) -> Iterator[tuple[str, Trick]]:
    """Bodies whose length is said wrongly, or in an unusual way, with a check behind what a reader may take for their end."""
    number = b"%d" % len(words.body)
    for name, field in LENGTHS.items():
        yield f"length: {name}", Trick(words.post(field.replace(b"@", number), body=words.body))
    for name, field in GOOD_LENGTHS.items():
        yield f"length: {name}", Trick(words.post(field.replace(b"@", number), body=words.body), 1, goes_on=True)
    inside = words.post(length(b"%d" % len(words.check)), body=words.check)
    yield "length: a check inside", Trick(inside, 0, goes_on=True)
    yield "length: none, and a check behind", Trick(words.post(body=words.check), 1, goes_on=True)
    yield "length: nought, and a check behind", Trick(words.post(length(b"0"), body=words.check), 1, goes_on=True)
    on_get = words.post(length(b"%d" % len(words.check)), body=words.check, start=b"GET /healthz HTTP/1.1")
    yield "length: of a GET, with a check inside", Trick(on_get, 0, goes_on=True)
    gate = on_get.replace(b"GET /healthz", b"GET /auth/nginx")
    yield "length: of a proxy's question, with a check inside", Trick(gate, 0, goes_on=True)


def _codings(words: Words) -> Iterator[tuple[str, Trick]]:
    """Both ways to say a length at once, and chunks that are said in a way of which readers disagree."""
    chunked = b"%x\r\n%b\r\n%b" % (len(words.body), words.body, NOTHING)
    hidden = NOTHING + words.check
    for name, field in CODINGS.items():
        yield f"coding: {name}", Trick(words.post(field, body=chunked))
        yield f"coding: {name}, CL.TE", Trick(words.post(length(b"%d" % len(hidden)), field, body=hidden))
        yield f"coding: {name}, TE.CL", Trick(words.post(field, length(b"4"), body=chunked))
    for name, field in OTHER_NAMES.items():
        said = length(b"%d" % len(hidden))
        yield f"coding: {name} is none", Trick(words.post(field, said, body=hidden), 0, goes_on=True)
    for name, field in GOOD_CODINGS.items():
        yield f"coding: {name}", Trick(words.post(field, body=chunked), 1, goes_on=True)
        yield f"coding: {name}, CL.TE", Trick(words.post(length(b"%d" % len(hidden)), field, body=hidden))
        yield f"coding: {name}, TE.CL", Trick(words.post(field, length(b"4"), body=chunked))
        yield f"coding: {name}, TE.0", Trick(words.post(field, length(b"0"), body=chunked))
    inside = b"%x\r\n%b\r\n%b" % (len(words.check), words.check, NOTHING)
    yield "coding: a check inside a chunk", Trick(words.post(GOOD_CODINGS["plain"], body=inside), 0, goes_on=True)
    old = words.post(GOOD_CODINGS["plain"], body=chunked, start=b"POST /v1/check HTTP/1.0")
    yield "coding: in HTTP/1.0", Trick(old, 1, last=True)
    gate = words.post(GOOD_CODINGS["plain"], body=hidden, start=b"GET /auth/nginx HTTP/1.1")
    yield "coding: of a proxy's question, with a check behind", Trick(gate, 1, goes_on=True)


def _chunks(words: Words) -> Iterator[tuple[str, Trick]]:
    """Chunks that are none, with a check behind them."""
    field, size = GOOD_CODINGS["plain"], b"%x" % len(words.body)
    for name, chunk in CHUNKS.items():
        body = chunk.replace(b"%x", size).replace(b"@", words.body)
        yield f"chunk: {name}", Trick(words.post(field, body=body))
    for name, chunk in GOOD_CHUNKS.items():
        body = chunk.replace(b"%x", size).replace(b"@", words.body)
        yield f"chunk: {name}", Trick(words.post(field, body=body), 1, goes_on=True)


def _heads(words: Words) -> Iterator[tuple[str, Trick]]:
    """First lines, lines of heads, and the ends of both."""
    number, good = length(b"%d" % len(words.body)), words.check
    for start in STARTS:
        yield f"start: {start[:40]!r}", Trick(words.post(number, body=words.body, start=start))
    for start in ELSEWHERE:
        yield f"start: {start[:40]!r}", Trick(words.post(number, body=words.body, start=start), 0, goes_on=True)
    for name, line in HEADS.items():
        yield f"head: {name}", Trick(words.post(number, line, body=words.body))
    head, _, body = good.partition(b"\r\n\r\n")
    yield "head: LF lines", Trick(head.replace(b"\r\n", b"\n") + b"\n\n" + body)
    yield "head: CR lines", Trick(head.replace(b"\r\n", b"\r") + b"\r\r" + body)
    yield "head: ends with LF LF", Trick(head + b"\n\n" + body)
    yield "head: ends with CRLF LF", Trick(head + b"\r\n\n" + body)
    yield "head: ends with LF CRLF", Trick(head + b"\n\r\n" + body)
    yield "head: ends with CRLF CR", Trick(head + b"\r\n\r" + body)
    yield "head: ends with CR CR LF", Trick(head + b"\r\r\n\r\n" + body)
    yield "head: without a host", Trick(good.replace(b"Host: guard\r\n", b""))
    yield "head: behind a blank line", Trick(b"\r\n" + good, 1, goes_on=True)
    yield "head: behind two blank lines", Trick(b"\r\n\r\n" + good, 1, goes_on=True)
    yield "head: behind LF", Trick(b"\n" + good, 1, goes_on=True)
    yield "head: behind a space", Trick(b" " + good)
    yield "head: behind NUL", Trick(b"\0" + good)


def _connections(words: Words) -> Iterator[tuple[str, Trick]]:
    """What changes the connection rather than the request."""
    number, body = length(b"%d" % len(words.body)), words.body
    for name, field in {
        "close": b"Connection: close",
        "close among others": b"Connection: keep-alive, close",
        "twice": b"Connection: keep-alive\r\nConnection: close",
    }.items():
        yield f"ends: {name}", Trick(words.post(number, field, body=body), 1, last=True)
    keep = words.post(number, b"Connection: keep-alive, Content-Length", body=body)
    yield "ends: names the length", Trick(keep, 1, goes_on=True)
    names = words.post(number, b"Connection: Transfer-Encoding", body=body)
    yield "ends: names the coding", Trick(names, 1, goes_on=True)
    old = words.post(number, body=body, start=b"POST /v1/check HTTP/1.0")
    yield "ends: HTTP/1.0", Trick(old, 1, last=True)
    yield "ends: RTSP/1.0", Trick(words.post(number, body=body, start=b"POST /v1/check RTSP/1.0"), 1, last=True)
    spaces = words.post(number, body=body, start=b"POST  /v1/check HTTP/1.1")
    yield "head: two spaces, which RFC 9112 lets pass (3)", Trick(spaces, 1, goes_on=True)
    kept = words.post(number, b"Connection: keep-alive", body=body, start=b"POST /v1/check HTTP/1.0")
    yield "ends: HTTP/1.0 that goes on", Trick(kept, 1, goes_on=True)
    for name, field in {
        "100": b"Expect: 100-continue",
        "100 in capitals": b"EXPECT: 100-CONTINUE",
    }.items():
        yield f"waits: {name}", Trick(words.post(number, field, body=body), 1, goes_on=True)
    yield "waits: for what is unknown", Trick(words.post(number, b"Expect: y", body=body), 0, goes_on=True)
    yield "waits: and has no body", Trick(words.post(length(b"0"), b"Expect: 100-continue", body=b""), 0, goes_on=True)
    for name, field in {
        "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "nothing known": b"Connection: upgrade\r\nUpgrade: nothing",
        "websocket": b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13",
        "unasked": b"Upgrade: h2c",
        "half asked": b"Connection: upgrade",
        "asked without a name": b"Connection: upgrade, keep-alive\r\nUpgrade:",
    }.items():
        yield f"turns: {name}", Trick(words.post(number, field, body=body), 1, goes_on=True)
    many = b"%x\r\n%b\r\n%b" % (len(body), body, NOTHING)
    in_chunks = words.post(GOOD_CODINGS["plain"], b"Connection: upgrade\r\nUpgrade: h2c", body=many)
    yield "turns: h2c, in chunks", Trick(in_chunks, 1, last=True)
    yield "turns: CONNECT", Trick(words.post(number, body=body, start=b"CONNECT h:80 HTTP/1.1"))
    simple = b"GET /v1/check\r\n\r\n"
    yield "turns: HTTP/0.9", Trick(simple)


def corpus(words: Words) -> dict[str, Trick]:
    """Every trick by its name."""
    return dict([*_lengths(words), *_codings(words), *_chunks(words), *_heads(words), *_connections(words)])


NAMES: Final = tuple(corpus(Words(b"", b"", b"\r\n\r\n")))
