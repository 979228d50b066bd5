"""Latency at a fixed rate: Poisson arrivals, counted from the moment a request was due."""

from __future__ import annotations

import asyncio

import msgspec

from benchmarks.bench import Bench
from benchmarks.model import Figure, Measure, Target, ratios, spread
from benchmarks.scenarios.races import varying

NAME = "latency"
RATE = 1_000.0
ROUNDS = 4
QUIET_S = 2.0
"""What PostgreSQL needs to write the beats of everybody, which fell together while the verdicts were settled."""


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Both at 1,000 a second, then both at half of what each can do, in turn."""
    noop, held = await bench.noop(), await varying(bench)
    fixed = await _rounds(bench, _at(noop, RATE), _at(held, RATE))
    half = await _rounds(bench, await _at_half(bench, noop), await _at_half(bench, held))
    return (*_against("at 1,000 a second", *fixed), *_absolute("at half of own capacity", *half))


def _at(target: Target, rate: float) -> Target:
    return msgspec.structs.replace(target, load=msgspec.structs.replace(target.load, rate=rate))


async def _at_half(bench: Bench, target: Target) -> Target:
    return _at(target, (await bench.measure(target)).rps / 2)


async def _rounds(bench: Bench, noop: Target, held: Target) -> tuple[list[Measure], list[Measure]]:
    """Return what each saw, round by round."""
    pairs = [await _round(bench, noop, held) for _ in range(min(ROUNDS, bench.settings.rounds))]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


async def _round(bench: Bench, noop: Target, held: Target) -> tuple[Measure, Measure]:
    reference = await bench.measure(noop, seconds=bench.settings.latency_s)
    await bench.settle(held)
    await asyncio.sleep(min(QUIET_S, bench.settings.latency_s))
    return reference, await bench.measure(held, seconds=bench.settings.latency_s)


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
