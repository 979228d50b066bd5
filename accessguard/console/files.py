"""The few files that every page uses: read once, compressed once, kept by browsers until they change."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from accessguard.console.shield import shielded
from accessguard.errors import ErrorCode, GuardError

FOLDER: Final = Path(__file__).parent / "static"
KINDS: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
A_YEAR: Final = "public, max-age=31536000, immutable"


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file, plain and compressed; `mark` is in its address and changes with it."""

    kind: str
    plain: bytes
    packed: bytes
    mark: str


@cache
def files() -> Mapping[str, File]:
    """All of them by name."""
    return {path.name: _file(path) for path in sorted(FOLDER.iterdir()) if path.suffix in KINDS}


def address(name: str) -> str:
    """Where a file is, with its mark."""
    return f"/console/static/{name}?v={files()[name].mark}"


async def serve(request: web.Request) -> web.StreamResponse:
    """One of the files."""
    file = files().get(request.match_info["name"])
    if file is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There is nothing here.")
    packed = "gzip" in request.headers.get("Accept-Encoding", "")
    headers = {"Cache-Control": A_YEAR, "Vary": "Accept-Encoding"} | ({"Content-Encoding": "gzip"} if packed else {})
    body = file.packed if packed else file.plain
    return shielded(web.Response(body=body, content_type=file.kind, charset="utf-8", headers=headers))


def _file(path: Path) -> File:
    plain = path.read_bytes()
    mark = hashlib.sha256(plain).hexdigest()[:16]
    return File(kind=KINDS[path.suffix], plain=plain, packed=gzip.compress(plain, mtime=0), mark=mark)
