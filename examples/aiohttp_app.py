"""A small course platform on aiohttp: `python -m aiohttp.web examples.aiohttp_app:make`."""

import os

from aiohttp import web

from accessguard.client import AccessGuard, OnUnknown, Settings
from accessguard.client.front import Front
from accessguard.client.naming import activity
from accessguard.client.web import GATE, guarded


async def home(request: web.Request) -> web.Response:
    """Open to everybody."""
    return web.Response(text="welcome")


async def login(request: web.Request) -> web.Response:
    """Whoever knows the password `open sesame` is let in."""
    if request.query.get("password") != "open sesame":
        await request[GATE].failed(request.query.get("member"))
        return web.Response(text="wrong password", status=401)
    await request[GATE].login(request.query["member"])
    raise web.HTTPSeeOther("/courses/42")


async def logout(request: web.Request) -> web.Response:
    """End the session."""
    await request[GATE].logout()
    return web.Response(text="bye")


@activity("course_open", resource="course:{course}", product="{course}")
async def course(request: web.Request) -> web.Response:
    """For members; opening it is an activity."""
    return web.Response(text=f"course {request.match_info['course']}")


def make(_arguments: list[str] | None = None) -> web.Application:
    """Make the application."""
    settings = Settings(
        address=os.environ["ACCESSGUARD_ADDRESS"],
        token=os.environ["ACCESSGUARD_TOKEN"],
        on_unknown=OnUnknown(os.environ.get("ACCESSGUARD_ON_UNKNOWN", "allow")),
    )
    app = web.Application()
    app.add_routes([web.get("/", home), web.post("/login", login), web.post("/logout", logout)])
    app.add_routes([web.get("/courses/{course}", course)])
    return guarded(app, AccessGuard(settings), Front(login_url="/login", secure=False))
