"""References: what one command to each store costs through its usual driver."""

from __future__ import annotations

import msgspec

from benchmarks.bench import Bench
from benchmarks.model import Figure, spread
from benchmarks.processes import python
from benchmarks.store_loops import Tally

AT_ONCE = 32
ROUNDS = 2


async def tally(bench: Bench, operation: str, at_once: int) -> Tally:
    """Run one of `store_loops`'s operations in a process of its own on the server's core."""
    stores = await bench.stores()
    url = stores.redis_url if operation.startswith("redis") else stores.database_url
    command = python("benchmarks.store_loops", operation, url, str(at_once), str(bench.settings.window_s))
    return msgspec.json.decode(await bench.processes.read(*command, core=bench.cores.server), type=Tally)


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Measure each operation, one after the other and 32 at once."""
    figures: list[Figure] = []
    for operation in ("redis_get", "pg_fetch", "pg_insert"):
        for at_once in (1, AT_ONCE) if bench.settings.rounds > 1 else (AT_ONCE,):
            tallies = [await tally(bench, operation, at_once) for _ in range(min(bench.settings.rounds, ROUNDS))]
            figures += _figures(f"{operation.replace('_', ' ')}, {at_once} at once", tallies)
    return tuple(figures)


def _figures(what: str, tallies: list[Tally]) -> tuple[Figure, Figure]:
    return (
        Figure(scenario="stores", what=what, unit="/s", value=spread([tally.per_second for tally in tallies])),
        Figure(
            scenario="stores",
            what=f"{what}: CPU of the client",
            unit="us",
            value=spread([tally.cpu_us_each for tally in tallies]),
            lower_is_better=True,
        ),
    )
