"""Jobs: their progress, their end, and who may read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from accessguard.jobs.model import KEPT, SILENT, JobKind, JobState
from accessguard.jobs.store import JobStore
from tests.build import NOW
from tests.service import Service, Tenant

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def store(service: Service, tenant: Tenant) -> JobStore:
    """The jobs of the run's PostgreSQL; the tenant is there."""
    await tenant.login()
    return service.context.jobs


async def made(store: JobStore, tenant: Tenant, kind: JobKind = JobKind.IMPORT) -> UUID:
    """A job that waits since NOW."""
    job_id = uuid4()
    assert await store.make(tenant.name, job_id, kind, total=None, at=NOW)
    return job_id


async def test_a_job_goes_from_waiting_to_done(store, tenant):
    """Its progress only grows; its result is what it was given."""
    job_id = await made(store, tenant)
    states = [await store.one(tenant.name, job_id, now=NOW)]
    for progress, total in ((10, None), (5, None), (20, 40)):
        await store.advance(tenant.name, job_id, progress, total=total, at=NOW + MINUTE)
        states.append(await store.one(tenant.name, job_id, now=NOW + MINUTE))
    await store.finish(tenant.name, job_id, {"members": 3}, at=NOW + 2 * MINUTE)

    done = await store.one(tenant.name, job_id, now=NOW + 2 * MINUTE)

    assert [(each.state, each.progress, each.total) for each in states] == [
        (JobState.WAITING, 0, None),
        (JobState.RUNNING, 10, None),
        (JobState.RUNNING, 10, None),
        (JobState.RUNNING, 20, 40),
    ]
    assert (done.state, done.result, done.error) == (JobState.DONE, {"members": 3}, None)
    assert done.expires_at == NOW + 2 * MINUTE + KEPT


async def test_what_is_over_stays_as_it_is(store, tenant):
    """Whoever works on it is told that nobody waits."""
    job_id = await made(store, tenant)
    await store.fail(tenant.name, job_id, "line 7 is no JSON", at=NOW)

    later = [
        await store.advance(tenant.name, job_id, 1, at=NOW),
        await store.finish(tenant.name, job_id, {}, at=NOW),
        await store.fail(tenant.name, job_id, "again", at=NOW),
        await store.make(tenant.name, job_id, JobKind.IMPORT, total=1, at=NOW),
    ]

    found = await store.one(tenant.name, job_id, now=NOW)
    assert later == [False] * 4
    assert (found.state, found.error, found.result) == (JobState.FAILED, "line 7 is no JSON", None)


async def test_a_job_that_nobody_works_on_any_more_has_failed(store, tenant):
    """Its process was killed; whoever waits for it is told."""
    job_id = await made(store, tenant)
    await store.advance(tenant.name, job_id, 1, at=NOW)

    before = await store.one(tenant.name, job_id, now=NOW + SILENT - MINUTE)
    after = await store.one(tenant.name, job_id, now=NOW + SILENT)

    assert before.state is JobState.RUNNING
    assert (after.state, after.error) == (JobState.FAILED, "interrupted")


async def test_what_has_expired_goes_when_something_new_comes(store, tenant):
    """So that jobs do not pile up, and nobody reads old results."""
    job_id = await made(store, tenant)
    late = NOW + KEPT

    unread = await store.one(tenant.name, job_id, now=late)
    await store.make(tenant.name, uuid4(), JobKind.IMPORT, total=None, at=late)

    assert unread is None
    assert await store.one(tenant.name, job_id, now=NOW) is None


@pytest.mark.parametrize(
    ("kind", "role", "status"),
    [
        pytest.param(JobKind.IMPORT, "platform", 200, id="platform, import"),
        pytest.param(JobKind.SIMULATE, "platform", 404, id="platform, simulation"),
        pytest.param(JobKind.IMPORT, "administrator", 200, id="administrator, import"),
        pytest.param(JobKind.SIMULATE, "administrator", 200, id="administrator, simulation"),
    ],
)
async def test_a_job_is_read_by_whom_it_is_for(store, tenant, kind, role, status):
    """A simulation tells of students' habits: the platform has no use for it."""
    job_id, now = uuid4(), datetime.fromtimestamp(tenant.service.clock() / 1000, UTC)
    await store.make(tenant.name, job_id, kind, total=40, at=now)

    answer = await tenant.call("GET", f"/v1/jobs/{job_id}", role=role)

    assert answer.status == status
    if status == 200:
        assert (answer["id"], answer["kind"], answer["state"], answer["total"]) == (str(job_id), kind, "waiting", 40)


async def test_a_job_of_another_tenant_is_nobody_s(store, service, tenant):
    """Its id alone opens nothing."""
    job_id = await made(store, tenant)
    other = service.tenant()
    await other.login()

    answer = await other.call("GET", f"/v1/jobs/{job_id}", role="administrator")

    assert answer.status == 404
