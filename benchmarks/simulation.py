"""One simulation as the command line runs it: `python -m benchmarks.simulation TENANT RULE FROM TO`.

Prints one JSON object: what was played, in how many seconds, and the most
memory that this process had (bytes).
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from datetime import datetime

import msgspec
import uvloop

from accessguard import app
from accessguard.config import load
from accessguard.simulate import read


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """What was played, and what it took."""

    events: int
    members: int
    denials: int
    seconds: float
    peak_bytes: int


async def play(tenant: str, rule: str, since: str, until: str) -> Played:
    """Play it once; the time includes connecting and counting members."""
    began = time.perf_counter()
    found = await app.simulate(
        load(),
        tenant,
        read(rule.encode()),
        since=datetime.fromisoformat(since),
        until=datetime.fromisoformat(until),
        progress=lambda done, total: None,
    )
    return Played(
        events=found.events,
        members=found.members_total,
        denials=found.denials,
        seconds=time.perf_counter() - began,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(msgspec.json.encode(runner.run(play(*sys.argv[1:5]))).decode())
