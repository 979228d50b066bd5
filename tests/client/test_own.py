"""Real applications, unmodified but for the one line, by the test clients of their own frameworks."""

import asyncio
import json
import os
import sys

import pytest

from tests.service import token

STRANGER = [401, {}, "no_session"]
UNDECIDED = [503, {"Retry-After": "1"}, "undecided"]
PAGE = [503, {"Retry-After": "1"}, "<html"]
FRAMEWORKS = {"flask", "django", "django-async", "aiohttp", "starlette", "fastapi"}
WITHOUT_HTTPX = FRAMEWORKS - {"starlette", "fastapi"}  # an environment that was set up before it was pinned


async def asked(address, bearer, folder, what):
    """What each framework's own client was answered."""
    told = {
        "ACCESSGUARD_ADDRESS": address,
        "ACCESSGUARD_TOKEN": bearer,
        "ACCESSGUARD_ON_UNKNOWN": "deny",
        "DJANGO_DATABASE": str(folder / f"{what}.sqlite"),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-m", "tests.client.own", what),
        env={**os.environ, **told},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(said)


@pytest.mark.slow
async def test_test_clients_of_the_frameworks_come_by_the_one_line(service, tenant, tmp_path):
    """In, out and refused; and 503, as a page or as JSON, when nobody answers and nobody is to be let in then."""
    bearer = token(tenant.name, "platform")

    found, nobody = await asyncio.gather(
        asked(service.url, bearer, tmp_path, "all"), asked(f"unix:{tmp_path}/nobody", bearer, tmp_path, "nobody")
    )

    assert set(found) in (FRAMEWORKS, WITHOUT_HTTPX)
    for name, answers in found.items():
        home, browser, program, entered, inside, left, outside = answers
        assert (name, home[0]) == (name, 200)
        assert (name, browser[:2]) == (name, [303, {"Location": "/login?next=/courses/42%3Fpage%3D2"}])
        assert (name, program, outside) == (name, STRANGER, STRANGER)
        assert (name, entered[0] in {200, 303}, left[0] in {200, 303}) == (name, True, True)
        assert (name, inside) == (name, [200, {}, "course 42"])
    for name, (page, refused, home) in nobody.items():
        assert (name, page, refused, home[0]) == (name, PAGE, UNDECIDED, 200)
