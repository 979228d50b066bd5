"""The examples by the test clients of their own frameworks: `python -m tests.client.own` prints what each was answered, as JSON."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys

HTML = "text/html"
JSON = "application/json"
LOGIN = "/login?member={}&password=open%20sesame"
STEPS = [("GET", "/", HTML), ("GET", "/courses/42?page=2", HTML), ("GET", "/courses/42", JSON), ("POST", "login", JSON)]
STEPS += [("GET", "/courses/42", JSON), ("POST", "/logout", JSON), ("GET", "/courses/42", JSON)]
WITH_A_COOKIE = [("GET", "/courses/42", HTML), ("GET", "/courses/42", JSON), ("GET", "/", JSON)]


def journey(name):
    """What is asked: everything, or with a cookie that nobody can look at."""
    steps = STEPS if sys.argv[1] == "all" else WITH_A_COOKIE
    return [(method, LOGIN.format(name) if path == "login" else path, accept) for method, path, accept in steps]


def said(status, headers, text):
    """What is kept of an answer."""
    names = ("Location", "Retry-After")
    kept = {name: headers[name] for name in names if name in headers}
    word = next((each for each in ("no_session", "undecided", "<html", "course 42") if each in text), "")
    return [status, kept, word]


def by_flask():
    """`app.test_client()`."""
    from examples.flask_app import app

    client = app.test_client()
    client.set_cookie("ag_login", "x") if sys.argv[1] != "all" else None
    for method, path, accept in journey("flask"):
        answer = client.open(path, method=method, headers={"Accept": accept})
        yield said(answer.status_code, answer.headers, answer.text)


def by_django():
    """`django.test.Client`."""
    from django.test import Client

    client = Client()
    client.cookies["ag_login"] = "x" if sys.argv[1] != "all" else ""
    for method, path, accept in journey("django"):
        answer = client.generic(method, path, headers={"Accept": accept})
        yield said(answer.status_code, answer.headers, answer.content.decode())


async def by_django_async():
    """`django.test.AsyncClient`."""
    from django.test import AsyncClient

    client, found = AsyncClient(), []
    client.cookies["ag_login"] = "x" if sys.argv[1] != "all" else ""
    for method, path, accept in journey("django-async"):
        answer = await client.generic(method, path, headers={"Accept": accept})
        found.append(said(answer.status_code, answer.headers, answer.content.decode()))
    return found


async def by_aiohttp():
    """`aiohttp.test_utils.TestClient`."""
    from aiohttp import CookieJar
    from aiohttp.test_utils import TestClient, TestServer

    from examples.aiohttp_app import make

    found = []
    async with TestClient(TestServer(make()), cookie_jar=CookieJar(unsafe=True)) as client:
        client.session.cookie_jar.update_cookies({"ag_login": "x"} if sys.argv[1] != "all" else {})
        for method, path, accept in journey("aiohttp"):
            async with client.request(method, path, headers={"Accept": accept}, allow_redirects=False) as answer:
                found.append(said(answer.status, answer.headers, await answer.text()))
    return found


def by_starlette(name):
    """`TestClient` of Starlette, which is FastAPI's; a request without `with` has a loop of its own, which ends with it."""
    from starlette.testclient import TestClient

    module = importlib.import_module(f"examples.{name}_app")
    client = TestClient(module.app, follow_redirects=False)
    client.cookies.set("ag_login", "x") if sys.argv[1] != "all" else None
    for method, path, accept in journey(name):
        answer = client.request(method, path, headers={"Accept": accept})
        yield said(answer.status_code, answer.headers, answer.text)


def main():
    """Ask all of them."""
    from examples import django_app

    assert django_app.application
    from tests.client.serve import people

    people()
    found = {"flask": list(by_flask()), "django": list(by_django()), "django-async": asyncio.run(by_django_async())}
    found["aiohttp"] = asyncio.run(by_aiohttp())
    if importlib.util.find_spec("httpx2"):
        found |= {name: list(by_starlette(name)) for name in ("starlette", "fastapi")}
    print(json.dumps(found))  # noqa: T201 - whoever started it reads it


if __name__ == "__main__":
    main()
