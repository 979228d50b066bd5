"""A geo file that is replaced while requests are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mmdb import city, mmdb
from tests.service import LAPTOP, Answer, Service, Tenant, running

NETWORK = "203.0.113.0/24"
MILAN = city("IT", "Milan", 45.46, 9.19)
LISBON = city("PT", "Lisbon", 38.72, -9.14)
TIMES = 25


def written(path: Path, record: dict[str, Any]) -> None:
    """A file that takes the place of the one before in one step, as an updater does."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(mmdb({NETWORK: record}))
    fresh.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is; it begins with Milan."""
    written(tmp_path / "city.mmdb", MILAN)
    return tmp_path / "city.mmdb"


@pytest.fixture
async def placed(database_url: str, redis_url: str, service: Service, path: Path) -> AsyncIterator[Service]:
    """A worker that knows where one network is."""
    async with running(database_url, redis_url, str(path)) as worker:
        while not worker.context.changes._memory.trusted:
            await asyncio.sleep(0.01)
        yield worker


def refused(answer: Answer) -> bool:
    """Whether it was refused for its country; no other answer is a right one."""
    assert answer.status == 200, answer.body
    assert not answer["degraded"]
    assert answer["decision"] == "allow" or answer["reason"]["code"] == "country_denied"
    return bool(answer["decision"] == "deny")


async def test_a_new_file_reaches_verdicts_that_were_held(placed: Service, path: Path):
    """A rule on countries looks at nothing that time changes, so that its verdict would be held for an hour."""
    tenant = placed.tenant()
    await tenant.rule("country_deny", countries=["PT"])
    login = await tenant.login()
    before = [refused(await tenant.check(login)) for _ in range(3)]
    written(path, LISBON)
    meanwhile = refused(await tenant.check(login))

    await placed.context.geo.refresh()

    assert (before, meanwhile) == ([False] * 3, False)
    assert [refused(await tenant.check(login)) for _ in range(3)] == [True] * 3


async def test_rules_that_do_not_look_at_places_keep_their_verdicts(placed: Service, path: Path):
    """Nobody is judged anew for a file that his school does not care about."""
    tenant = placed.tenant()
    await tenant.rule("session_limit", max=1)
    login = await tenant.login()
    await tenant.check(login)
    held = placed.context.checks.memory.verdict(tenant.name, login["session"]["id"])
    assert held is not None
    written(path, LISBON)

    await placed.context.geo.refresh()

    assert held.policy is placed.context.book.held(tenant.name)


async def test_no_request_is_lost_while_files_are_replaced(placed: Service, path: Path):
    """Checks and logins without pause, a new file time and again: each answer is by one of the two, the last by the last."""
    tenant = placed.tenant()
    await tenant.rule("country_deny", countries=["PT"], mode="observe")
    logins = [await tenant.login(f"m{number}") for number in range(4)]
    await tenant.rule("country_deny", countries=["PT"])
    over = asyncio.Event()
    askers = [asyncio.create_task(ask(tenant, login, over)) for login in logins]
    askers.append(asyncio.create_task(log_in(tenant, over)))

    for record in alternating():
        written(path, record)
        await placed.context.geo.refresh()
        await asyncio.sleep(0.01)
    over.set()
    answers = [await asker for asker in askers]

    assert all({True, False} == set(each) for each in answers)
    assert [refused(await tenant.check(login, ip=LAPTOP)) for login in logins] == [True] * 4


def alternating() -> Iterator[dict[str, Any]]:
    """Milan and Lisbon in turns, Lisbon last."""
    for _ in range(TIMES):
        yield MILAN
        yield LISBON


async def ask(tenant: Tenant, login: Answer, over: asyncio.Event) -> list[bool]:
    """Check one session until it is over."""
    found = []
    while not over.is_set():
        found.append(refused(await tenant.check(login)))
    return found


async def log_in(tenant: Tenant, over: asyncio.Event) -> list[bool]:
    """Log in again and again until it is over."""
    found = []
    while not over.is_set():
        found.append(refused(await tenant.login("ben")))
    return found
