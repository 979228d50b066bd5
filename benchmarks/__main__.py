"""`python -m benchmarks`: start what is needed, measure, report, leave nothing running."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import click
from msgspec.structs import replace

from accessguard.embedded import EmbeddedError
from benchmarks.bench import FULL, QUICK, TROUBLE, Bench, Settings, explain
from benchmarks.machine import about, cores
from benchmarks.model import Outcome, Skipped
from benchmarks.processes import Processes
from benchmarks.report import Report, markdown, save
from benchmarks.scenarios.races import RACES, run_races
from benchmarks.scenarios.table import NAMES, SCENARIOS, Scenario

RESULTS = Path(__file__).with_name("results")
BUDGET_S = 570
QUICK_BUDGET_S = 28
CLEAN_UP_S = 5
MET_A_SECOND = 1_000
"""Sessions that a run with more of them is given time for: they are filled in, and then each is asked about."""
LOADED_A_SECOND = 400
"""Members that a run with more of them is given time for: a slow disk writes as many, with all that is about them."""


@click.command()
@click.option(
    "--quick", is_flag=True, help="See that everything works, in less than a minute; the figures mean little."
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    type=click.Choice(NAMES),
    help="Run this scenario; may be given several times.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, help="Where to write the report."
)
@click.option("--budget", type=float, default=None, help="Seconds after which the run ends by itself.")
@click.option("--rounds", type=int, default=None, help="How many rounds, instead of the usual number.")
@click.option(
    "--rows",
    type=click.IntRange(1_000, 10_000_000),
    default=None,
    help="Fill a deployment with so many sessions, and try a rule on as many events.",
)
@click.option(
    "--members", type=click.IntRange(100, 10_000_000), default=None, help="Have operators ask about so many, too."
)
@click.option(
    "--population",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    help="The folder in which `benchmarks.population --data` has put these members.",
)
@click.option("--keep", is_flag=True, help="Keep the folder of the run: logs, requests, data.")
@click.option("--list", "list_names", is_flag=True, help="List the scenarios.")
def main(
    *,
    quick: bool,
    only: tuple[str, ...],
    out: Path,
    budget: float | None,
    rounds: int | None,
    rows: int | None,
    members: int | None,
    population: Path | None,
    keep: bool,
    list_names: bool,
) -> None:
    """Measure AccessGuard against references of the same run."""
    if list_names:
        for one in (*RACES, *SCENARIOS):
            click.echo(f"{one.name:24}{one.about}")
        return
    settings = _settings(QUICK if quick else FULL, rounds=rounds, rows=rows, members=members, population=population)
    seconds = budget or (
        QUICK_BUDGET_S if quick else BUDGET_S + (members or 0) / LOADED_A_SECOND + (rows or 0) / MET_A_SECOND
    )
    try:
        report = asyncio.run(run(settings, only or NAMES, seconds=seconds, keep=keep))
    except (*TROUBLE, EmbeddedError) as error:
        raise click.ClickException(explain(error)) from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    data, table = save(report, out)
    click.echo(f"{markdown(report)}\n{data}\n{table}")
    sys.exit(1 if report.failed else 0)


def _settings(
    usual: Settings, *, rounds: int | None, rows: int | None, members: int | None, population: Path | None
) -> Settings:
    changed = replace(usual, rounds=rounds or usual.rounds, rows=rows or usual.rows, population=population)
    if members is None:
        return changed
    fewer = tuple(each for each in usual.populations if each < members)
    return replace(changed, populations=(*fewer, members))


async def run(settings: Settings, names: Collection[str], *, seconds: float, keep: bool) -> Report:
    """Run the scenarios of those names within `seconds`; whatever was started is ended on the way out."""
    _end_on_sigterm()
    began = time.monotonic()
    split = cores()
    if split.generator is not None:
        os.sched_setaffinity(0, {split.generator})
    folder = Path(tempfile.mkdtemp(prefix="accessguard-bench-"))
    try:
        async with AsyncExitStack() as stack:
            processes = await stack.enter_async_context(Processes(folder))
            deadline = began + seconds - CLEAN_UP_S
            bench = Bench(
                folder=folder, settings=settings, cores=split, deadline=deadline, processes=processes, stack=stack
            )
            outcomes = await _outcomes(bench, names)
            notes = await _notes(bench)
    finally:
        _leave(folder, keep=keep)
    return Report(
        at=datetime.now(UTC),
        quick=settings.sessions == QUICK.sessions,
        seconds=time.monotonic() - began,
        machine=about(),
        notes=notes,
        outcomes=outcomes,
    )


def _end_on_sigterm() -> None:
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _leave(folder: Path, *, keep: bool) -> None:
    if keep:
        click.echo(f"kept: {folder}", err=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


async def _outcomes(bench: Bench, names: Collection[str]) -> tuple[Outcome, ...]:
    outcomes = await _races(bench, names)
    for scenario in SCENARIOS:
        if scenario.name in names:
            outcomes.append(await _outcome(bench, scenario))
            _progress(bench, outcomes[-1])
    return tuple(outcomes)


async def _races(bench: Bench, names: Collection[str]) -> list[Outcome]:
    races = [race for race in RACES if race.name in names]
    if not races:
        return []
    try:
        async with asyncio.timeout(bench.left_s):
            outcomes = await run_races(bench, races)
    except TimeoutError:
        return [Outcome(scenario=race.name, failed="the time of the run was over") for race in races]
    for outcome in outcomes:
        _progress(bench, outcome)
    return outcomes


async def _outcome(bench: Bench, scenario: Scenario) -> Outcome:
    if bench.left_s < 1:
        return Outcome(scenario=scenario.name, skipped="the time of the run was over")
    try:
        async with asyncio.timeout(bench.left_s):
            return Outcome(
                scenario=scenario.name, figures=await scenario.run(bench), note=bench.asides.get(scenario.name)
            )
    except Skipped as reason:
        return Outcome(scenario=scenario.name, skipped=str(reason))
    except TimeoutError:
        return Outcome(scenario=scenario.name, skipped="the time of the run was over before its end")
    except TROUBLE as error:
        return Outcome(scenario=scenario.name, failed=explain(error))


def _progress(bench: Bench, outcome: Outcome) -> None:
    word = "failed" if outcome.failed else "skipped" if outcome.skipped else "done"
    click.echo(f"{outcome.scenario}: {word} ({bench.left_s:.0f} s left)", err=True)


async def _notes(bench: Bench) -> tuple[str, ...]:
    notes: Sequence[tuple[bool, str]] = (
        (bench.cores.server is None, "One core only: servers, stores and generator shared it."),
        (
            not (await bench.generator()).native,
            "No C compiler was found: the generator was the Python one, and figures are bounded by it.",
        ),
    )
    return tuple(note for applies, note in notes if applies)


if __name__ == "__main__":
    main()
