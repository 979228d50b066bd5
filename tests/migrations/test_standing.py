"""A server and a schema that are not of one release."""

from __future__ import annotations

import pytest

from accessguard import migrations
from accessguard.app import open_parts
from accessguard.errors import StartError
from accessguard.migrations.standing import Standing, standing
from tests.migrations.databases import connected
from tests.service import config, running


@pytest.mark.parametrize(
    ("found", "floor", "expected"),
    [
        pytest.param(None, None, Standing.OLDER, id="nothing"),
        pytest.param("0002", None, Standing.OLDER, id="before there was a floor"),
        pytest.param("0008", "0002", Standing.OLDER, id="the one before"),
        pytest.param("0009", "0002", Standing.FITS, id="its own"),
        pytest.param("0010", "0002", Standing.FITS, id="one that was only added to"),
        pytest.param("0010", "0009", Standing.FITS, id="the floor is its own"),
        pytest.param("0012", "0010", Standing.NEWER, id="something was taken away"),
        pytest.param("0012", None, Standing.NEWER, id="newer, and says nothing"),
    ],
)
def test_a_server_works_on_its_schema_and_on_what_was_added_to_it(found, floor, expected):
    """Seen by a server that was made for 0009."""
    assert standing(found, floor, "0009") is expected


@pytest.mark.slow
async def test_a_server_does_not_start_on_a_schema_that_does_not_fit(own, empty):
    """It says which side is older and what to run; on one that was only added to, it starts."""
    await migrations.migrate(empty, to="0002")
    with pytest.raises(StartError, match=r"at 0002.*run `accessguard migrate`"):
        await open_parts(config(empty, own.redis_url))
    await migrations.migrate(empty)

    async with connected(empty) as connection:
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
        async with running(empty, own.redis_url):
            pass
        await connection.execute("UPDATE schema_floor SET revision = '9998'")
        with pytest.raises(StartError, match=r"older than the schema.*9999 and needs 9998.*Upgrade"):
            await open_parts(config(empty, own.redis_url))
    with pytest.raises(StartError, match=r"at 9999.*upgrade"):
        await migrations.migrate(empty)


@pytest.mark.slow
async def test_a_worker_whose_schema_is_changed_under_it_says_that_it_may_not_serve(own, empty):
    """Added to: nothing happens. Taken away from: `/readyz` is 503 and names the schema, until it fits again."""
    await migrations.migrate(empty)
    async with running(empty, own.redis_url) as service, connected(empty) as connection:
        watch = service.context.ready.schema
        tenant, answers = service.tenant(), []
        for revision, floor in (("9999", "0002"), ("9999", "9998"), (migrations.head(), "0002")):
            await connection.execute(f"UPDATE alembic_version SET version_num = '{revision}'")
            await connection.execute(f"UPDATE schema_floor SET revision = '{floor}'")
            await watch.look()
            answers.append(await tenant.call("GET", "/readyz"))

    assert [each.status for each in answers] == [200, 503, 200]
    assert [each["parts"].get("schema") for each in answers] == [None, "down", None]
