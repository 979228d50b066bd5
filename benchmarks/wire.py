"""Requests as bytes, and the files the generator takes them from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from struct import pack

import msgspec

MARK = "@" * 16
"""Sixteen characters that the generator replaces, in each request it sends, by a number never used before."""

TRACE = {"traceparent": f"00-{MARK}7b3c2e9c4a5f01d2-00f067aa0ba902b7-01"}
"""A W3C trace context header that is new in each request."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a file: its bytes, its kind (an index into the load's `expects`) and its own expected text."""

    data: bytes
    kind: int = 0
    own: str = ""


def request(method: str, path: str, *, headers: Mapping[str, str], body: bytes | None = None) -> bytes:
    """Write an HTTP/1.1 request; a body brings its Content-Length with it."""
    fields = {"Host": "guard.example", **headers}
    if body is not None:
        fields["Content-Length"] = str(len(body))
    return _head(method, path, fields) + (body or b"")


def chunked(method: str, path: str, *, headers: Mapping[str, str], body: bytes) -> bytes:
    """The same request with the body in one chunk (RFC 9112, section 7.1)."""
    fields = {"Host": "guard.example", **headers, "Transfer-Encoding": "chunked"}
    return _head(method, path, fields) + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


def _head(method: str, path: str, fields: Mapping[str, str]) -> bytes:
    lines = (f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode()


def save(path: Path, records: Iterable[Record]) -> Path:
    """Write the records as the generator reads them; returns `path`."""
    with path.open("wb") as file:
        for record in records:
            own = record.own.encode()
            file.write(pack("<III", len(record.data), record.kind, len(own)) + record.data + own)
    return path
