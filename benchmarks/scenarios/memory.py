"""Memory per held session: what a fresh worker grows by while it meets the crowd, and what Valkey keeps of it."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.machine import resident_bytes
from benchmarks.model import Figure, spread

NAME = "memory"
MILLION = 1_000_000
MB = 1_000_000
FIRST = 200


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Extrapolate from the crowd to a million; the worker is warmed with others first, so that its code is not counted."""
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
    return (
        _figure("in a worker, per million held sessions", grown, len(crowd.people), floor=320, moonshot=100),
        _figure("in Valkey, per million sessions", kept, len(crowd.people), floor=200, moonshot=165),
    )


def _figure(what: str, total: int, sessions: int, *, floor: float, moonshot: float) -> Figure:
    value = spread([total / sessions * MILLION / MB])
    return Figure(
        scenario=NAME, what=what, unit="MB", value=value, floor=floor, moonshot=moonshot, lower_is_better=True
    )
