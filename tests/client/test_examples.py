"""The examples, each started as a process of its own and used by a browser."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack

import pytest
from aiohttp import ClientSession, CookieJar

from tests.client.serve import EXAMPLES, MEMBERS
from tests.service import CHROME, FIREFOX, token

BROWSER = {"Accept": "text/html", "User-Agent": CHROME.format(142)}
PROGRAM = {"Accept": "application/json", "User-Agent": CHROME.format(142)}


@pytest.fixture(scope="module")
async def platforms(service, tmp_path_factory):
    """All examples at work for one tenant, which allows one session a member; their addresses by name."""
    tenant = service.tenant()
    await tenant.rule("session_limit", "deny_new", max=1)
    async with AsyncExitStack() as stack:
        started = [started_one(stack, service, tenant, name, tmp_path_factory.mktemp(name)) for name in EXAMPLES]
        yield tenant, dict(zip(EXAMPLES, await asyncio.gather(*started), strict=True))


async def started_one(stack, service, tenant, name, folder):
    """One example, which ends with the stack."""
    told = {
        "ACCESSGUARD_ADDRESS": service.url,
        "ACCESSGUARD_TOKEN": token(tenant.name, "platform"),
        "DJANGO_DATABASE": str(folder / "db.sqlite"),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.client.serve", name), env={**os.environ, **told}, stdout=asyncio.subprocess.PIPE
    )
    stack.push_async_callback(process.communicate)  # its pipe is closed as well
    stack.callback(process.terminate)
    assert process.stdout is not None
    line = await process.stdout.readline()
    return f"http://127.0.0.1:{int(line)}"


def member_of(name, typed):
    """The member that somebody is to the service: Django's users have numbers."""
    return str(1 + MEMBERS.index(typed)) if name.startswith("django") else typed


@pytest.mark.parametrize("name", EXAMPLES)
async def test_a_student_logs_in_opens_a_course_and_is_thrown_out(platforms, name):
    """The one line of middleware is enough: strangers stay outside, members go in, an ended session is over at its next question."""
    tenant, where = platforms
    async with ClientSession(where[name], cookie_jar=CookieJar(unsafe=True)) as browser:

        async def get(path, headers=BROWSER):
            async with browser.get(path, headers=headers, allow_redirects=False) as answer:
                return answer.status, await answer.text(), answer.headers

        async def post(path):
            async with browser.post(path, headers=BROWSER, allow_redirects=False) as answer:
                return answer.status, answer.headers.getall("Set-Cookie", [])

        assert (await get("/"))[0] == 200
        status, _, headers = await get("/courses/42?page=2")
        assert (status, headers["Location"]) == (303, "/login?next=/courses/42%3Fpage%3D2")
        status, body, _ = await get("/courses/42", PROGRAM)
        assert (status, '"no_session"' in body) == (401, True)

        status, cookies = await post(f"/login?member={name}&password=wrong")
        assert (status, [each for each in cookies if each.startswith("ag_")]) == (401, [])

        status, cookies = await post(f"/login?member={name}&password=open+sesame")
        assert status in {200, 303}
        assert {each.partition("=")[0] for each in cookies} >= {"ag_login", "ag_device"}
        status, body, _ = await get("/courses/42")
        assert (status, "course 42" in body) == (200, True)
        card = (await tenant.see(f"/v1/members/{member_of(name, name)}/activity")).body["items"]
        assert [(each["kind"], each["resource"]) for each in card] == [("course_open", "course:42")]

        await tenant.call("POST", f"/v1/members/{member_of(name, name)}/sessions/end", {}, role="supervisor")
        status, body, _ = await get("/courses/43", PROGRAM)
        assert (status, '"session_ended"' in body) == (401, True)
        assert (await get("/"))[0] == 200
        _, cookies = await post("/logout")
        assert any(each.startswith("ag_login=;") for each in cookies)
        assert (await get("/courses/43", PROGRAM))[0] == 401


@pytest.mark.parametrize("name", EXAMPLES)
async def test_a_refused_login_is_no_login_whatever_the_view_does(platforms, name):
    """Over the limit of sessions, the platform's answer, cookies and all, is replaced by the refusal."""
    tenant, where = platforms
    member = f"late-{name}"
    first = await tenant.login(member_of(name, member), user_agent=FIREFOX)
    await tenant.check(first, user_agent=FIREFOX)
    async with ClientSession(where[name], cookie_jar=CookieJar(unsafe=True)) as browser:
        path = f"/login?member={member}&password=open+sesame"
        async with browser.post(path, headers=PROGRAM, allow_redirects=False) as answer:
            status, body, cookies = answer.status, await answer.text(), answer.headers.getall("Set-Cookie", [])

        assert (status, '"session_limit"' in body, cookies) == (403, True, [])
        async with browser.get("/courses/42", headers=PROGRAM) as answer:
            assert answer.status == 401
