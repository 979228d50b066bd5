"""A small course platform on Starlette: `uvicorn examples.starlette_app:app`."""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from accessguard.client import AccessGuard, OnUnknown, Settings
from accessguard.client.asgi import GuardMiddleware
from accessguard.client.front import Front
from accessguard.client.naming import activity

guard = AccessGuard(
    Settings(
        address=os.environ["ACCESSGUARD_ADDRESS"],
        token=os.environ["ACCESSGUARD_TOKEN"],
        on_unknown=OnUnknown(os.environ.get("ACCESSGUARD_ON_UNKNOWN", "allow")),
    )
)


async def home(request: Request) -> Response:
    """Open to everybody."""
    return PlainTextResponse("welcome")


async def login(request: Request) -> Response:
    """Whoever knows the password `open sesame` is let in."""
    form = request.query_params
    if form.get("password") != "open sesame":
        await request.scope["accessguard"].failed(form.get("member"))
        return PlainTextResponse("wrong password", 401)
    await request.scope["accessguard"].login(form["member"])
    return RedirectResponse("/courses/42", 303)


async def logout(request: Request) -> Response:
    """End the session."""
    await request.scope["accessguard"].logout()
    return RedirectResponse("/", 303)


@activity("course_open", resource="course:{course}", product="{course}")
async def course(request: Request) -> Response:
    """For members; opening it is an activity."""
    return PlainTextResponse(f"course {request.path_params['course']}")


app = Starlette(
    routes=[
        Route("/", home),
        Route("/login", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/courses/{course}", course),
    ]
)
app.add_middleware(GuardMiddleware, guard=guard, front=Front(login_url="/login", secure=False))
