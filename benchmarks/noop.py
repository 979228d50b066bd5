"""The reference of every ratio: a bare aiohttp handler under uvloop, without an access log."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import web


async def answer(_request: web.Request) -> web.Response:
    """Answer without doing anything."""
    return web.json_response({"allow": True})


async def read_and_answer(request: web.Request) -> web.Response:
    """Read the JSON body, then answer."""
    await request.json()
    return web.json_response({"allow": True})


def main() -> None:
    """Serve on the port of the loopback interface that the first argument names."""
    app = web.Application()
    app.add_routes([web.get("/", answer), web.post("/", read_and_answer)])
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
