"""What it costs to recognise a browser, in process, beside `user_agents.parse`; and what the second look costs others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from statistics import quantiles

import user_agents

from accessguard.devices.browser import recognise
from accessguard.devices.detector import sighting
from accessguard.devices.inquiry import Inquiry
from accessguard.devices.refinement import asked_of
from benchmarks.bench import Bench
from benchmarks.model import Figure, Spread, ratios, spread

NAME = "recognition"
ROUNDS = 5
STRINGS = 400
LOOKS = 60
QUICK_LOOKS = 6
TICK_S = 0.001
WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
SHAPES = (
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/{{0}}.0.0.0 Safari/537.36",
    f"Mozilla/5.0 (Linux; Android 14; SM-S911B) {WEBKIT} Chrome/{{0}}.0.0.0 Mobile Safari/537.36",
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/142.0.{{0}}.0 Safari/537.36 Edg/142.0.0.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 Version/18.6.{0} Mobile/15E148",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:{0}.0) Gecko/20100101 Firefox/{0}.0",
    "MyApp/{0}.2 (iPhone15,2; iOS 17.5)",
)
"""What most logins come from; no string of a run is like another."""


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Time unseen and seen strings beside the reference, then the delay of a loop beside the second look."""
    rounds = min(bench.settings.rounds, ROUNDS)
    recognise(SHAPES[0])
    user_agents.parse(SHAPES[0])
    references, unseen, seen = [], [], []
    for number in range(rounds):
        strings = [SHAPES[each % len(SHAPES)].format(1000 + number * STRINGS + each) for each in range(STRINGS)]
        references.append(_us(user_agents.parse, strings))
        unseen.append(_us(recognise, strings))
        seen.append(_us(recognise, strings))
    delays = await _delays(rounds)
    return (
        _figure("user_agents.parse, unseen string", "us", spread(references)),
        _figure("unseen string", "us", spread(unseen)),
        _figure("seen string", "us", spread(seen)),
        _faster("unseen: times as fast as user_agents.parse", ratios(references, unseen), 15),
        _faster("seen: times as fast as user_agents.parse", ratios(references, seen), 300),
        *delays,
    )


async def _delays(rounds: int) -> tuple[Figure, ...]:
    """How late a loop is that wants to tick each millisecond: alone, and while strings are looked at twice."""
    inquiry = Inquiry()

    async def process(text: str) -> None:
        await inquiry.ask(asked_of(text, None))

    async def thread(text: str) -> None:
        await asyncio.to_thread(sighting, asked_of(text, None))

    async def nothing(_: str) -> None:
        await asyncio.sleep(0.01)

    figures: list[Figure] = []
    try:
        for what, look in (("alone", nothing), ("process", process), ("thread", thread)):
            for shape in SHAPES:
                await look(shape.format(1))
            measures = [
                await _delay(look, number, looks=LOOKS if rounds > 1 else QUICK_LOOKS) for number in range(rounds)
            ]
            figures += [
                _figure(f"loop late, 99th percentile: {what}", "ms", spread([late for late, _ in measures])),
                _figure(f"time of a second look: {what}", "ms", spread([each for _, each in measures])),
            ]
    finally:
        await inquiry.stop()
    return tuple(figure for figure in figures if figure.what != "time of a second look: alone")


async def _delay(look: Callable[[str], Awaitable[None]], number: int, *, looks: int) -> tuple[float, float]:
    """The 99th percentile of the loop's lateness, and the time of one look, in ms."""
    late: list[float] = []
    ticking = asyncio.create_task(_tick(late))
    began = time.perf_counter()
    for each in range(looks):
        await look(SHAPES[each % len(SHAPES)].format(10_000 + number * looks + each))
    took = time.perf_counter() - began
    ticking.cancel()
    await asyncio.gather(ticking, return_exceptions=True)
    return quantiles(late, n=100)[98] * 1e3, took / looks * 1e3


async def _tick(late: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(TICK_S)
        late.append(time.perf_counter() - began - TICK_S)


def _us(parse: Callable[[str], object], strings: Sequence[str]) -> float:
    began = time.perf_counter()
    for text in strings:
        parse(text)
    return (time.perf_counter() - began) / len(strings) * 1e6


def _figure(what: str, unit: str, value: Spread) -> Figure:
    return Figure(scenario=NAME, what=what, unit=unit, value=value, lower_is_better=True)


def _faster(what: str, value: Spread, floor: float) -> Figure:
    return Figure(scenario=NAME, what=what, unit="x", value=value, floor=floor)
