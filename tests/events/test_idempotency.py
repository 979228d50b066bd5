"""What an idempotency key stands for."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from accessguard.errors import ErrorCode, GuardError
from accessguard.events.idempotency import IdempotencyStore
from tests.build import NOW
from tests.service import Service


@pytest.fixture
def store(service: Service) -> IdempotencyStore:
    """The keys of the run's PostgreSQL."""
    return service.context.idempotency


async def test_one_key_stands_for_one_id(store, tenant):
    """The first one offered, however many come after, at one instant or later."""
    fresh = [uuid4() for _ in range(20)]

    made = await asyncio.gather(
        *(store.made_id(tenant.name, "kim", "k", b"content", fresh=each, at=NOW) for each in fresh)
    )
    later = await store.made_id(tenant.name, "kim", "k", b"content", fresh=uuid4(), at=NOW)

    assert len({*made, later}) == 1
    assert later in fresh


@pytest.mark.parametrize(
    ("tenant_name", "caller", "key"),
    [
        pytest.param("other", "kim", "k", id="tenant"),
        pytest.param(None, "lou", "k", id="caller"),
        pytest.param(None, "kim", "K", id="key"),
    ],
)
async def test_another_key_stands_for_another_id(store, tenant, tenant_name, caller, key):
    """A key is of one tenant and one caller, and its letters count."""
    place = f"{tenant.name}-other" if tenant_name else tenant.name
    one = await store.made_id(tenant.name, "kim", "k", b"content", fresh=uuid4(), at=NOW)

    other = await store.made_id(place, caller, key, b"content", fresh=uuid4(), at=NOW)

    assert one != other


async def test_another_content_under_a_key_is_refused(store, tenant):
    """And does not take the key over."""
    made = await store.made_id(tenant.name, "kim", "k", b"content", fresh=uuid4(), at=NOW)

    with pytest.raises(GuardError) as refused:
        await store.made_id(tenant.name, "kim", "k", b"other", fresh=uuid4(), at=NOW)

    assert refused.value.code is ErrorCode.UNPROCESSABLE
    assert await store.made_id(tenant.name, "kim", "k", b"content", fresh=uuid4(), at=NOW) == made
