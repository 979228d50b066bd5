"""What every test may ask for: a real PostgreSQL and a real Valkey, started once a run."""

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import structlog
from hypothesis import HealthCheck, settings

from accessguard.embedded import Embedded
from tests.data import lay_out, settle
from tests.fuzz import MANY, NIGHTLY
from tests.order import in_order
from tests.patience import Loop, Patience
from tests.service import CLOCKS, Service, Tenant, running

# Its own way to draw an exception takes seconds, in which the worker under test stands still.
structlog.configure(
    wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ],
)

settings.register_profile(NIGHTLY, max_examples=MANY, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
"""`make fuzz` chooses `nightly`: a thousand times as many examples as in a usual run. Tests that need fewer say so by `tests.fuzz`."""


def pytest_configure(config: pytest.Config) -> None:
    """Before the processes of a run are started, and in each of them."""
    settle()
    config.pluginmanager.register(Patience(), "patience")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first, so that no process has it left at the end."""
    items[:] = in_order(items)


@pytest.fixture(scope="session", autouse=True)
async def _ends_are_heard() -> AsyncIterator[None]:
    """Processes and pipes that tests have let go of are gone before the loop is closed, which uvloop refuses otherwise."""
    yield
    gc.collect()
    await asyncio.sleep(0.2)


@pytest.fixture(scope="session")
async def stores(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Embedded]:
    """Both stores, on a folder of their own, with the schema; a test that kills one starts its own `Embedded` instead."""
    embedded = await Embedded.start(await lay_out(tmp_path_factory.mktemp("stores")))
    yield embedded
    await embedded.stop()


@pytest.fixture(scope="session")
def database_url(stores: Embedded) -> str:
    """The address of the run's PostgreSQL: a database with the schema and without a tenant, which its user owns."""
    return stores.database_url


@pytest.fixture(scope="session")
def redis_url(stores: Embedded) -> str:
    """The address of the run's Valkey."""
    return stores.redis_url


@pytest.fixture(scope="session")
async def service(stores: Embedded) -> AsyncIterator[Service]:
    """One worker on the run's stores, answering on a free port."""
    async with running(stores.database_url, stores.redis_url) as worker:
        yield worker


@pytest.fixture
def tenant(service: Service) -> Tenant:
    """A tenant that no other test knows."""
    return service.tenant()


@pytest.fixture(autouse=True)
def _time_is_given_back() -> Iterator[None]:
    """Clocks that a test shares with others go on as before it."""
    before = [(clock, clock.mark()) for clock in CLOCKS]
    yield
    for clock, mark in before:
        clock.reset(mark)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test on the loop that the service runs on."""
    return {"uvloop": Loop}
