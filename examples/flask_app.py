"""A small course platform on Flask: `flask --app examples.flask_app run`."""

import os

from flask import Flask, redirect, request
from werkzeug.wrappers import Response

from accessguard.client import BlockingAccessGuard, OnUnknown, Settings
from accessguard.client.flask import guarded
from accessguard.client.front import Front
from accessguard.client.naming import activity

app = Flask(__name__)
settings = Settings(
    address=os.environ["ACCESSGUARD_ADDRESS"],
    token=os.environ["ACCESSGUARD_TOKEN"],
    on_unknown=OnUnknown(os.environ.get("ACCESSGUARD_ON_UNKNOWN", "allow")),
)
guarded(app, BlockingAccessGuard(settings), Front(login_url="/login", secure=False))


@app.get("/")
def home() -> str:
    """Open to everybody."""
    return "welcome"


@app.post("/login")
def login() -> Response | tuple[str, int]:
    """Whoever knows the password `open sesame` is let in."""
    if request.args.get("password") != "open sesame":
        request.environ["accessguard"].failed(request.args.get("member"))
        return "wrong password", 401
    request.environ["accessguard"].login(request.args["member"])
    return redirect("/courses/42", 303)


@app.post("/logout")
def logout() -> str:
    """End the session."""
    request.environ["accessguard"].logout()
    return "bye"


@app.get("/courses/<course>")
@activity("course_open", resource="course:{course}", product="{course}")
def course(course: str) -> str:
    """For members; opening it is an activity."""
    return f"course {course}"
