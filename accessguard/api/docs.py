"""The contract for machines at `/openapi.json` and for people at `/docs`."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from base64 import b64encode
from functools import cache
from typing import Final

import msgspec
from aiohttp import hdrs, web
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from accessguard import __version__
from accessguard.api.chapters import ABOUT, ROLES
from accessguard.api.docs_view import chapters
from accessguard.api.openapi import contract, document
from accessguard.api.reply import JSON, SAFE_HEADERS
from accessguard.api.routes import Handler

PIECE: Final = 32_768
HTML: Final = "text/html; charset=utf-8"
CODE: Final = re.compile(r"`([^`]+)`")
PARTS: Final = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=\s*:)|(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>(?<=[\s\[])(?:true|false|null|-?\d+(?:\.\d+)?)(?=[,\s\]]))'
)


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """What stays the same as long as the process lives, plain and compressed."""

    plain: bytes
    packed: bytes
    headers: dict[str, str]


def add_docs(app: web.Application) -> None:
    """Serve the document and its page; both are made here, once for a process."""
    app.router.add_get("/openapi.json", _serving(openapi()))
    app.router.add_get("/docs", _serving(page()))


@cache
def openapi() -> Resource:
    """The document as it is served."""
    return _resource(document(), {hdrs.CONTENT_TYPE: JSON})


@cache
def page() -> Resource:
    """The page as it is served: nothing on it is fetched, and no script runs (CSP level 3)."""
    room = Environment(
        loader=PackageLoader("accessguard.api"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    room.filters |= {"prose": prose, "coloured": coloured}
    style = room.get_template("docs.css").render().strip()
    shown = {"chapters": chapters(contract()), "about": ABOUT, "roles": ROLES, "version": __version__}
    html = room.get_template("docs.html").render(shown, style=Markup(style))  # noqa: S704 -- our own file
    policy = (
        f"default-src 'none'; style-src '{_source(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {hdrs.CONTENT_TYPE: HTML, "Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}
    return _resource(html.encode(), headers)


def prose(text: str) -> Markup:
    """Text with its `code` as code; everything else is escaped."""
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 -- escaped just before


def coloured(code: str) -> Markup:
    """JSON (or a line with JSON in it) with its keys, texts and other values told apart."""
    pieces, end = [], 0
    for found in PARTS.finditer(code):
        pieces += [escape(code[end : found.start()]), Markup('<i class="{}">{}</i>').format(found.lastgroup, found[0])]
        end = found.end()
    return Markup("").join([*pieces, escape(code[end:])])


def _serving(resource: Resource) -> Handler:
    """A handler that serves one resource; whoever has it already is told so (RFC 9110, 13.1.2)."""

    async def serve(request: web.Request) -> web.StreamResponse:
        headers = resource.headers
        if headers[hdrs.ETAG] in request.headers.get(hdrs.IF_NONE_MATCH, ""):
            return web.Response(status=304, headers=headers)
        if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
            return web.Response(body=resource.packed, headers=headers | {hdrs.CONTENT_ENCODING: "gzip"})
        if request.method == hdrs.METH_HEAD:
            return web.Response(body=resource.plain, headers=headers)
        return await _in_pieces(request, resource.plain, headers)

    return serve


async def _in_pieces(request: web.Request, body: bytes, headers: dict[str, str]) -> web.StreamResponse:
    """A large body no faster than it is read: whole, it would take 3 ms to hand over, and be held for whoever reads nothing."""
    response = web.StreamResponse(headers={**SAFE_HEADERS, **headers})
    response.content_length = len(body)
    await response.prepare(request)
    for start in range(0, len(body), PIECE):
        await response.write(body[start : start + PIECE])
        await asyncio.sleep(0)  # others have their turn
    await response.write_eof()
    return response


def _resource(body: bytes, headers: dict[str, str]) -> Resource:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    kept = {hdrs.ETAG: tag, hdrs.CACHE_CONTROL: "no-cache", hdrs.VARY: hdrs.ACCEPT_ENCODING}
    return Resource(plain=body, packed=gzip.compress(body, mtime=0), headers=headers | kept)


def _source(style: str) -> str:
    """The hash by which a policy allows one inline style."""
    return "sha256-" + b64encode(hashlib.sha256(style.encode()).digest()).decode()
