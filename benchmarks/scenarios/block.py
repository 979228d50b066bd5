"""From the answer to a block, on one worker, to the first refusal on another."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Sequence

import msgspec

from benchmarks.bench import Bench
from benchmarks.control import device_path
from benchmarks.exchange import Exchange
from benchmarks.model import BenchError, Figure, spread
from benchmarks.people import DENIED, Person, check_record
from benchmarks.service import Service
from benchmarks.wire import request

NAME = "block-to-refusal"
GIVE_UP_S = 10.0


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Hold every session on both workers, then block the devices one by one on the first, asking the second all the while."""
    first = await bench.service()
    people = await bench.log_in("to-block", bench.settings.blocks)
    second = await bench.worker("second")
    try:
        for service in (first, second, second):
            await bench.pass_over("both", service, people)
        taken = await asyncio.to_thread(_block_all, bench, first, second, people)
    finally:
        await bench.processes.stop(second.process)
    return _figures(sorted(taken))


def _block_all(bench: Bench, first: Service, second: Service, people: Sequence[Person]) -> list[float]:
    headers = bench.caller()
    operator = {**headers, "Authorization": f"Bearer {bench.secrets.token('supervisor')}"}
    with Exchange(first.port) as blocking, Exchange(second.port) as asking:
        return [
            _block(blocking, asking, _access(person, operator), check_record(person, headers).data) for person in people
        ]


def _access(person: Person, headers: dict[str, str]) -> bytes:
    body = msgspec.json.encode({"access": "blocked", "reason": "benchmark"})
    return request("PATCH", device_path(person), headers=headers, body=body)


def _block(blocking: Exchange, asking: Exchange, block: bytes, check: bytes) -> float:
    """Return the microseconds from the answer to `block` to the first refused `check`; 0 when the refusal came first."""
    blocking.send(block)
    began = time.monotonic()
    answered: float | None = None
    while time.monotonic() < began + GIVE_UP_S:
        asking.send(check)
        answered = answered or _wait(blocking, asking)
        refused = DENIED.encode() in asking.receive()
        at = time.monotonic()
        if refused:
            answered = answered or _receive(blocking, at)
            return max(0.0, at - answered) * 1e6
    raise BenchError(f"a blocked device was still allowed on the other worker after {GIVE_UP_S} s")


def _wait(blocking: Exchange, asking: Exchange) -> float | None:
    """Wait for the check's answer; return when the block's arrived, if it did meanwhile."""
    while True:
        ready, _, _ = select.select([blocking, asking], [], [], GIVE_UP_S)
        if blocking in ready:
            return _receive(blocking, time.monotonic())
        if asking in ready or not ready:
            return None


def _receive(blocking: Exchange, at: float) -> float:
    blocking.receive()
    return at


def _figures(taken: list[float]) -> tuple[Figure, ...]:
    last = taken[min(len(taken) - 1, int(len(taken) * 0.99))]
    return (
        Figure(
            scenario=NAME,
            what="99th percentile",
            unit="us",
            value=spread([last]),
            floor=10_000,
            moonshot=1_000,
            lower_is_better=True,
        ),
        Figure(scenario=NAME, what=f"all {len(taken)} blocks", unit="us", value=spread(taken), lower_is_better=True),
    )
