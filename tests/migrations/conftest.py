"""Stores that the tests of migrations have to themselves."""

from collections.abc import AsyncIterator

import pytest

from accessguard.embedded import Embedded
from tests.migrations.databases import empty_database, own_stores


@pytest.fixture(scope="module")
async def own(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Embedded]:
    """Both stores, for the tests of one file."""
    async with own_stores(tmp_path_factory.mktemp("own") / "stores") as stores:
        yield stores


@pytest.fixture
async def empty(own: Embedded) -> str:
    """The address of an empty database."""
    return await empty_database(own)
