"""A file of all members, as a platform takes it: how fast it comes, and what it costs the worker in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final

import aiohttp
import msgspec

from benchmarks.machine import resident_bytes
from benchmarks.model import BenchError, Figure, spread

PATH: Final = "/v1/members?sort=name"
LONGEST_S: Final = 30.0
"""How long a file is read; one that takes longer is left at that."""
MOST_GROWN_MB: Final = 40.0
"""What a worker may grow by while it writes one, however long it is: two portions of it, and what Python keeps of them."""


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one file: its rows, the seconds they took, by how much the worker grew meanwhile."""

    rows: int
    seconds: float
    grown_bytes: int


async def stream(client: aiohttp.ClientSession, pid: int, token: str) -> Streamed:
    """Take the file from the worker `pid`. Raises BenchError for another answer."""
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/csv"}
    before = most = resident_bytes(pid)
    began, rows = time.monotonic(), 0
    timeout = aiohttp.ClientTimeout(total=None)
    async with client.get(PATH, headers=headers, timeout=timeout) as reply:
        if reply.status != 200:
            raise BenchError(f"the file was answered {reply.status}: {(await reply.read())[:300]!r}")
        async for chunk in reply.content.iter_any():
            rows += chunk.count(b"\n")
            most = max(most, resident_bytes(pid))
            if time.monotonic() - began > LONGEST_S:
                reply.close()
                break
    return Streamed(rows=rows, seconds=time.monotonic() - began, grown_bytes=most - before)


def of_files(scenario: str, files: Mapping[int, Streamed]) -> Iterator[Figure]:
    """The figures of one file for each number of members."""
    for members, file in files.items():
        what = f"all members as CSV, {members:,} members"
        yield Figure(
            scenario=scenario, what=f"{what}, rows a second", unit="1/s", value=spread([file.rows / file.seconds])
        )
        yield Figure(
            scenario=scenario,
            what=f"{what}, growth of the worker",
            unit="MB",
            value=spread([file.grown_bytes / 1e6]),
            floor=MOST_GROWN_MB,
            lower_is_better=True,
        )
