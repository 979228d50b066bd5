"""Memory of sessions: what a fresh worker grows by while it meets the crowd, and what Valkey keeps of it.

The worker's is no million in small, because its first 50,000 sessions are
larger than all others; that of a million is measured by `growth`.
"""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.machine import resident_bytes
from benchmarks.model import Figure, spread

NAME = "memory"
MILLION = 1_000_000
MB = 1_000_000
FIRST = 200


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Extrapolate Valkey's from the crowd to a million; the worker is warmed with others first, so that its code is not counted."""
    crowd = await bench.crowd()
    fresh = await bench.worker("fresh")
    try:
        await bench.pass_over("warm", fresh, (await bench.people())[:FIRST])
        before = resident_bytes(fresh.process.pid)
        await bench.pass_over("crowd", fresh, crowd.people)
        grown = resident_bytes(fresh.process.pid) - before
    finally:
        await bench.processes.stop(fresh.process)
    kept = await bench.store_bytes() - crowd.store_bytes
    count = len(crowd.people)
    return (
        Figure(
            scenario=NAME,
            what=f"in a worker, {count:,} sessions asked about lately",
            unit="MB",
            value=spread([grown / MB]),
            lower_is_better=True,
        ),
        Figure(
            scenario=NAME,
            what="in Valkey, per million sessions",
            unit="MB",
            value=spread([kept / count * MILLION / MB]),
            floor=200,
            moonshot=165,
            lower_is_better=True,
        ),
    )
