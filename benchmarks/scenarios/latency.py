"""Latency at a fixed rate: Poisson arrivals, counted from the moment a request was due."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from benchmarks.bench import BEAT_S, Bench
from benchmarks.model import Figure, Measure, Target, ratios, spread
from benchmarks.scenarios.races import varying

NAME = "latency"
RATE = 1_000.0
ROUNDS = 2
"""As many as fit into the half minute in which no beat falls due."""
QUIET_S = 2.0
"""What PostgreSQL needs to write the beats of everybody."""


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Both at 1,000 a second and at half of what each can do, in turn."""
    noop, held = await bench.noop(), await varying(bench)
    targets = (_at(noop, RATE), _at(held, RATE), await _at_half(bench, noop), await _at_half(bench, held))
    await _hold(bench, held)
    rounds = [await _round(bench, targets) for _ in range(min(ROUNDS, bench.settings.rounds))]
    noop_fixed, held_fixed, noop_half, held_half = ([one[place] for one in rounds] for place in range(4))
    return (
        *_against("at 1,000 a second", noop_fixed, held_fixed),
        *_absolute("at half of own capacity", noop_half, held_half),
    )


async def _hold(bench: Bench, held: Target) -> None:
    """Have everybody's beat at one time: when all are due, and then none for half a minute."""
    await asyncio.sleep(BEAT_S if bench.settings.spread_s else 0)
    await bench.settle(held)
    await asyncio.sleep(min(QUIET_S, bench.settings.latency_s))


async def _round(bench: Bench, targets: Sequence[Target]) -> list[Measure]:
    return [await bench.measure(target, seconds=bench.settings.latency_s) for target in targets]


def _at(target: Target, rate: float) -> Target:
    return msgspec.structs.replace(target, load=msgspec.structs.replace(target.load, rate=rate))


async def _at_half(bench: Bench, target: Target) -> Target:
    return _at(target, (await bench.measure(target)).rps / 2)


def _against(when: str, noop: list[Measure], held: list[Measure]) -> tuple[Figure, ...]:
    value = ratios([measure.p99_us for measure in held], [measure.p99_us for measure in noop])
    what = f"99th percentile {when} / no-op"
    return (
        Figure(scenario=NAME, what=what, unit="x", value=value, floor=1, moonshot=0.7, lower_is_better=True),
        *_absolute(when, noop, held, floor=None, moonshot=None),
    )


def _absolute(
    when: str, noop: list[Measure], held: list[Measure], *, floor: float | None = 2_000, moonshot: float | None = 1_000
) -> tuple[Figure, ...]:
    return (
        _figure(f"99th percentile {when}", [measure.p99_us for measure in held], floor=floor, moonshot=moonshot),
        _figure(f"99th percentile {when}, no-op", [measure.p99_us for measure in noop]),
        _figure(f"median {when}", [measure.p50_us for measure in held]),
        _figure(f"median {when}, no-op", [measure.p50_us for measure in noop]),
    )


def _figure(what: str, values: list[float], *, floor: float | None = None, moonshot: float | None = None) -> Figure:
    return Figure(
        scenario=NAME, what=what, unit="us", value=spread(values), floor=floor, moonshot=moonshot, lower_is_better=True
    )
