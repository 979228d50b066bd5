"""Every check a beat: sessions whose verdict is held, each asked once with its first activity, so that each one writes."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bench import BEAT_S, Bench
from benchmarks.model import Figure, Measure, Spread, Target, ratios, spread
from benchmarks.people import Person

NAME = "every-check-a-beat"
GROUPS = 3


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Hold a third of the crowd without activity, then time one activity of each; three times, beside the no-op."""
    people = (await bench.crowd()).people
    noop = await bench.noop()
    size = len(people) // GROUPS
    pairs = [await _round(bench, noop, people[number * size : (number + 1) * size]) for number in range(GROUPS)]
    beats, references = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    rate = ratios([beat.rps for beat in beats], [reference.rps for reference in references])
    cpu = ratios([beat.cpu_us for beat in beats], [reference.cpu_us for reference in references])
    return (
        Figure(scenario=NAME, what="decisions a second / no-op", unit="x", value=rate, floor=3, moonshot=4.4),
        Figure(scenario=NAME, what="decisions a second", unit="/s", value=spread([beat.rps for beat in beats])),
        Figure(scenario=NAME, what="CPU per decision / no-op", unit="x", value=cpu, lower_is_better=True),
        Figure(
            scenario=NAME,
            what="CPU per decision",
            unit="us",
            value=spread([beat.cpu_us for beat in beats]),
            lower_is_better=True,
        ),
        await _commands(bench, people[:size]),
    )


async def _round(bench: Bench, noop: Target, people: Sequence[Person]) -> tuple[Measure, Measure]:
    service = await bench.service()
    await bench.pass_over("held", service, people, activity=False)
    beats = await bench.pass_over("beat", service, people)
    return beats, await bench.measure(noop)


async def _commands(bench: Bench, people: Sequence[Person]) -> Figure:
    """Count what Valkey processed for one more pass: as many beats as 30 s allow, which is none."""
    service = await bench.service()
    before = await bench.store_commands()
    measure = await bench.pass_over("held again", service, people)
    each = (await bench.store_commands() - before) / measure.requests
    what = f"Valkey commands per check inside the {BEAT_S} s after a beat"
    return Figure(
        scenario=NAME, what=what, unit="", value=Spread(median=each, low=each, high=each), lower_is_better=True
    )
