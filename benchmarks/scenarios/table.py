"""Every scenario by its name, in the order they are run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from benchmarks.bench import Bench
from benchmarks.model import Figure
from benchmarks.scenarios import (
    beat,
    block,
    client,
    growth,
    judging,
    latency,
    login,
    memory,
    mixed,
    operators,
    places,
    proxies,
    recognition,
    siege,
    simulate,
    stores,
)
from benchmarks.scenarios.races import RACES


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario that measures in its own way."""

    name: str
    about: str
    run: Callable[[Bench], Awaitable[tuple[Figure, ...]]]


SCENARIOS = (
    Scenario(name="stores", about="reference: one command through redis-py, one through asyncpg", run=stores.run),
    Scenario(
        name=latency.NAME, about="percentiles at 1,000 checks a second, and at half of own capacity", run=latency.run
    ),
    Scenario(name=login.NAME, about="a new session on a known device", run=login.run),
    Scenario(name=mixed.NAME, about="activity, beats, 1 % denials, 0.1 % logins, blocks now and then", run=mixed.run),
    Scenario(name=block.NAME, about="a block on one worker, refused on another", run=block.run),
    Scenario(name=beat.NAME, about="every check a beat: one Valkey script each", run=beat.run),
    Scenario(name=memory.NAME, about="memory per million held sessions, in a worker and in Valkey", run=memory.run),
    Scenario(name=growth.NAME, about="from ten thousand sessions to a million", run=growth.run),
    Scenario(name=siege.NAME, about="another caller's checks beside slow clients and a flood", run=siege.run),
    Scenario(
        name=client.NAME, about="a platform's client: CPU of a check asked and held, a block on its way", run=client.run
    ),
    Scenario(name=proxies.NAME, about="what the question adds to a request through each proxy", run=proxies.run),
    Scenario(name=judging.NAME, about="one check judged by every kind of rule, in process", run=judging.run),
    Scenario(
        name=recognition.NAME, about="a browser recognised, in process, beside user_agents.parse", run=recognition.run
    ),
    Scenario(name=places.NAME, about="an address placed, a forwarded chain resolved, in process", run=places.run),
    Scenario(name=simulate.NAME, about="a rule tried on a million recorded events", run=simulate.run),
    Scenario(name=operators.NAME, about="every list, search, card and report, by number of members", run=operators.run),
)
"""The way of a check first: what a run has no time left for are scenarios of other things."""

NAMES = (*(race.name for race in RACES), *(scenario.name for scenario in SCENARIOS))
