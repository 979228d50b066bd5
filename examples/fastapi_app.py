"""A small course platform on FastAPI: `uvicorn examples.fastapi_app:app`."""

import os

from fastapi import FastAPI, HTTPException, Request

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
app = FastAPI()
app.add_middleware(GuardMiddleware, guard=guard, front=Front(login_url="/login", secure=False))


@app.get("/")
async def home() -> str:
    """Open to everybody."""
    return "welcome"


@app.post("/login")
async def login(request: Request, member: str, password: str) -> str:
    """Whoever knows the password `open sesame` is let in."""
    if password != "open sesame":  # noqa: S105 - an example
        await request.scope["accessguard"].failed(member)
        raise HTTPException(401, "wrong password")
    await request.scope["accessguard"].login(member)
    return "logged in"


@app.post("/logout")
async def logout(request: Request) -> str:
    """End the session."""
    await request.scope["accessguard"].logout()
    return "bye"


@app.get("/courses/{course}")
@activity("course_open", resource="course:{course}", product="{course}")
async def course(course: str) -> str:
    """For members; opening it is an activity."""
    return f"course {course}"
