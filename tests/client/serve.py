"""Serves one example on a port that the system chooses, which it prints: `python -m tests.client.serve NAME FOLDER`."""

from __future__ import annotations

import importlib
import socket
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

EXAMPLES = {
    "starlette": ("examples.starlette_app", "app"),
    "fastapi": ("examples.fastapi_app", "app"),
    "aiohttp": ("examples.aiohttp_app", "make"),
    "flask": ("examples.flask_app", "app"),
    "django": ("examples.django_app", "application"),
    "django-async": ("examples.django_app", "asynchronous"),
}
MEMBERS = ("django", "django-async", "late-django", "late-django-async")


class Quiet(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, *_):
        """Say nothing."""


def main():
    """Serve until ended."""
    name = sys.argv[1]
    module, attribute = EXAMPLES[name]
    made = getattr(importlib.import_module(module), attribute)
    if name.startswith("django"):
        people()
    if name in {"flask", "django"}:
        with make_server("127.0.0.1", 0, made, handler_class=Quiet) as server:
            print(server.server_port, flush=True)  # noqa: T201 - whoever started it reads it
            server.serve_forever()
        return
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)  # noqa: T201 - as above
    if name == "aiohttp":
        from aiohttp import web

        web.run_app(made(), sock=listening, print=None, access_log=None)
        return
    import uvicorn

    uvicorn.Server(uvicorn.Config(made, log_level="error")).run(sockets=[listening])


def people():
    """A database with somebody in it."""
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.core.management import call_command

    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    call_command("migrate", verbosity=0)
    for key, each in enumerate(MEMBERS):
        User.objects.create_user(each, password="open sesame", pk=1 + key)


if __name__ == "__main__":
    main()
