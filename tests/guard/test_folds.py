"""Repeated findings of one case, counted in memory."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import msgspec
import pytest

from accessguard.database import Database
from accessguard.errors import GuardError
from accessguard.guard.folds import Folds
from accessguard.members.erasure import ErasureStore
from accessguard.metrics import FOLDS_DROPPED
from accessguard.rules.model import Code, Effect, Mode
from accessguard.violations.model import Found, ViolationFilter
from accessguard.violations.store import ViolationStore
from tests.build import NOW

ALL = ViolationFilter()


def found(member: str = "ana", *, after_s: float = 0, subject: str = "device 1", hits: int = 1) -> Found:
    """One hit of a case, so many seconds after NOW."""
    return Found(
        id=uuid4(),
        cause="rule 1",
        subject=subject,
        code=Code.SESSION_LIMIT,
        rule_id=None,
        rule_version=None,
        mode=Mode.ENFORCE,
        effect=Effect.DENIED,
        member_id=member,
        session_id=None,
        device_id=None,
        ip=None,
        at=NOW + timedelta(seconds=after_s),
        hits=hits,
        details={},
    )


@pytest.fixture
async def db(service, database_url):
    """A pool of its own, which a test may close."""
    pool = await Database.connect(database_url, size=2)
    yield pool
    await pool.close()


@pytest.fixture
def store(db) -> ViolationStore:
    """The run's violations."""
    return ViolationStore(db)


@pytest.fixture
async def tenant(service):
    """A tenant that no other test knows, with the members that these tests refuse something."""
    return await peopled(service)


async def peopled(service):
    """A fresh tenant with "ana" and "m0" to "m29"; of nobody else a case is kept."""
    made = service.tenant()
    await service.context.tenancy.provision(made.name, now_ms=service.clock())
    for member in ("ana", *(f"m{each}" for each in range(30))):
        await service.context.members.ensure(made.name, member, at=NOW)
    return made


async def listed(service, tenant):
    """The cases of a tenant, the last hit first."""
    return await service.context.violations.listed(tenant, ALL, reader="tests", after=None, limit=50)


async def test_a_case_is_durable_before_it_is_answered_and_counted_after(service, store, tenant):
    """The first finding is written at once; repeats wait for the flush and are all in it."""
    folds = Folds(store)
    (first,) = await folds.record(tenant.name, [found()])
    (written,) = await listed(service, tenant.name)

    (again,) = await folds.record(tenant.name, [found(after_s=1)])
    folds.again(tenant.name, found(after_s=3))
    folds.again(tenant.name, found(after_s=2))
    (unflushed,) = await listed(service, tenant.name)
    await folds.flush()
    (flushed,) = await listed(service, tenant.name)

    assert first == again == written.id == flushed.id
    assert (written.hits, unflushed.hits, flushed.hits) == (1, 1, 4)
    assert (flushed.first_at, flushed.last_at) == (NOW, NOW + timedelta(seconds=3))


async def test_many_at_one_instant_make_one_case(service, store, tenant):
    """Fifty refusals of one device that nobody has seen before."""
    folds = Folds(store)

    ids = await asyncio.gather(*(folds.record(tenant.name, [found()]) for _ in range(50)))
    await folds.flush()

    (case,) = await listed(service, tenant.name)
    assert {each for (each,) in ids} == {case.id}
    assert case.hits == 50


async def test_two_workers_fold_into_one_case(service, store, tenant):
    """Each counts what it saw; together they are right."""
    one, other = Folds(store), Folds(ViolationStore(service.context.violations._db))

    await asyncio.gather(one.record(tenant.name, [found()]), other.record(tenant.name, [found()]))
    for _ in range(10):
        one.again(tenant.name, found(after_s=1))
        other.again(tenant.name, found(after_s=2))
    await asyncio.gather(one.flush(), other.flush())

    (case,) = await listed(service, tenant.name)
    assert (case.hits, case.last_at) == (22, NOW + timedelta(seconds=2))


async def test_hits_that_cannot_be_written_are_kept_for_all_tenants(service, database_url, tenant):
    """A flush that fails at the first tenant loses nothing of the others, nor what came meanwhile."""
    closed, other = await Database.connect(database_url, size=1), await peopled(service)
    store = ViolationStore(closed)
    folds = Folds(store)
    for each in (tenant, other):
        await folds.record(each.name, [found()])
        folds.again(each.name, found(after_s=1))
    await closed.close()

    with pytest.raises(GuardError):
        await folds.flush()
    folds.again(tenant.name, found(after_s=2))
    store._db = service.context.violations._db
    await folds.flush()
    await folds.flush()

    assert [case.hits for case in await listed(service, tenant.name)] == [3]
    assert [case.hits for case in await listed(service, other.name)] == [2]


async def test_a_new_case_that_cannot_be_written_is_an_error(service, database_url, tenant):
    """Nothing is acknowledged that is not durable."""
    closed = await Database.connect(database_url, size=1)
    folds = Folds(ViolationStore(closed))
    await closed.close()

    with pytest.raises(GuardError):
        await folds.record(tenant.name, [found()])

    assert await listed(service, tenant.name) == []


async def test_after_a_day_of_silence_a_new_case_begins(service, store, tenant):
    """A silence of exactly a day still belongs to the case; a longer one does not."""
    folds, day = Folds(store), 24 * 3600
    for seconds in (0, day, 2 * day, 3 * day + 1):
        await folds.record(tenant.name, [found(after_s=seconds)])
        await folds.flush()

    cases = await listed(service, tenant.name)

    assert [case.hits for case in cases] == [1, 3]
    assert cases[0].first_at == NOW + timedelta(days=3, seconds=1)


async def test_of_a_member_that_was_erased_no_hit_is_written(service, store, tenant):
    """Neither one that a worker still had in hand, nor one that it is about to note; it is forgotten at the push."""
    folds = Folds(store)
    await folds.record(tenant.name, [found()])
    folds.again(tenant.name, found(after_s=1))
    await ErasureStore(store._db).gone(tenant.name, "ana")
    before = await listed(service, tenant.name)

    ids = await Folds(store).record(tenant.name, [found(after_s=2), found("m1")])
    await folds.flush()
    folds.forget(tenant.name, "ana")

    assert (ids[0], ids[1] is not None) == (None, True)
    assert {(case.member_id, case.hits) for case in await listed(service, tenant.name)} == {("ana", 1), ("m1", 1)}
    assert (len(before), folds._known, folds._pending) == (1, {}, {})


async def test_what_is_known_is_bounded(store, tenant, monkeypatch):
    """A worker forgets cases, PostgreSQL does not: a forgotten one is found again."""
    from accessguard.guard import folds as room

    monkeypatch.setattr(room, "MOST_KNOWN", 10)
    folds = Folds(store)
    (first,) = await folds.record(tenant.name, [found("m0")])
    for each in range(1, 30):
        await folds.record(tenant.name, [found(f"m{each}")])

    (again,) = await folds.record(tenant.name, [msgspec.structs.replace(found("m0"), id=uuid4())])

    assert len(folds._known) <= 10
    assert again == first


async def test_hits_that_wait_are_bounded_and_counted(store, tenant, monkeypatch):
    """At the bound a case that waits is counted on, hits of a further one are given up."""
    from accessguard.guard import folds as room

    monkeypatch.setattr(room, "MOST_PENDING", 2)
    folds = Folds(store)
    before = FOLDS_DROPPED._value.get()
    for member in ("m0", "m1", "m2", "m0"):
        folds.again(tenant.name, found(member))

    assert [each.hits for each in folds._pending.values()] == [2, 1]
    assert FOLDS_DROPPED._value.get() - before == 1
