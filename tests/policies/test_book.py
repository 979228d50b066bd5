"""Policies in memory."""

import asyncio

import pytest

from accessguard.guard.model import Actor
from accessguard.policies.book import PolicyBook
from accessguard.policies.store import PolicyStore
from tests.build import NOW, number
from tests.policies.test_model import body
from tests.service import Service

ACTOR = Actor(subject="tests", role="administrator")


@pytest.fixture
def store(service: Service) -> PolicyStore:
    """The policies of the run's PostgreSQL."""
    return service.context.policies


async def saved(store, tenant, most):
    """One more rule of the tenant."""
    await store.ensure_tenant(tenant, tenant, at=NOW)
    asked = body(kind="session_limit", mode="enforce", action="deny_new", params={"max": most})
    await store.create(tenant, number(most), asked, at=NOW, actor="tests", reason=None)


async def test_a_policy_is_loaded_once_however_many_ask(store, tenant):
    """Fifty questions at one instant are one query, and all get the same policy."""
    await saved(store, tenant.name, 1)
    book = PolicyBook(store)

    found = await asyncio.gather(*(book.policy(tenant.name) for _ in range(50)))

    held = book.held(tenant.name)
    assert held is not None
    assert {id(each) for each in found} == {id(held)}
    assert len(held.rules) == 1


async def test_a_dropped_policy_is_loaded_anew(store, tenant):
    """What was saved since is in it."""
    await saved(store, tenant.name, 1)
    book = PolicyBook(store)
    before = await book.policy(tenant.name)
    await saved(store, tenant.name, 2)

    still = await book.policy(tenant.name)
    book.drop(tenant.name)
    after = await book.policy(tenant.name)

    assert still is before
    assert before is not None
    assert after is not None
    assert (len(before.rules), len(after.rules)) == (1, 2)
    assert after.generation > before.generation


@pytest.mark.parametrize("forget", [lambda book, name: book.drop(name), lambda book, _: book.drop_all()])
async def test_a_drop_during_a_load_is_not_lost(store, tenant, forget):
    """What a load read before the change is given to who asked then, and to nobody after."""
    await saved(store, tenant.name, 1)
    book = PolicyBook(store)
    loading = asyncio.create_task(book.policy(tenant.name))
    await asyncio.sleep(0)

    forget(book, tenant.name)
    await loading

    assert book.held(tenant.name) is None
    assert (await book.policy(tenant.name)) is book.held(tenant.name)


async def test_a_question_after_a_drop_does_not_join_the_load_before_it(store, tenant):
    """Otherwise it would get, and keep, what the change has made untrue."""
    await saved(store, tenant.name, 1)
    book = PolicyBook(store)
    early = asyncio.create_task(book.policy(tenant.name))
    await asyncio.sleep(0)
    await saved(store, tenant.name, 2)
    book.drop(tenant.name)

    late = await book.policy(tenant.name)
    await early

    assert late is not None
    assert len(late.rules) == 2
    assert book.held(tenant.name) is late


async def test_a_caller_that_gives_up_does_not_spoil_the_load_of_others(store, tenant):
    """The load goes on for the one who still waits."""
    await saved(store, tenant.name, 1)
    book = PolicyBook(store)
    impatient = asyncio.create_task(book.policy(tenant.name))
    patient = asyncio.create_task(book.policy(tenant.name))
    await asyncio.sleep(0)

    impatient.cancel()

    assert (await patient) is not None
    assert impatient.cancelled() or impatient.cancelling()


async def test_an_unknown_tenant_is_not_kept(store, tenant):
    """It may be made at any moment."""
    book = PolicyBook(store)

    before = await book.policy(tenant.name)
    await saved(store, tenant.name, 1)

    assert before is None
    assert await book.policy(tenant.name) is not None


async def test_an_update_of_settings_is_a_change_of_the_policy(tenant):
    """The next check is answered under the new settings, not under the verdict held."""
    login = await tenant.login()
    await tenant.check(login)
    settings = {"session": {"idle_ttl_s": 60, "absolute_ttl_s": 3600}}

    saved_settings = await tenant.call("PUT", "/v1/settings", settings, role="administrator")
    tenant.service.clock.forward(61_000)
    check = await tenant.check(login)
    tenant.service.clock.forward(-61_000)

    assert saved_settings["session"] == settings["session"]
    assert check["reason"]["code"] == "session_expired"
