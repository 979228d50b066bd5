"""What a run has to say, for people and for programs."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from tests.chaos.play import Outcome, Scene

MOST_SHOWN = 20


def shown(outcome: Outcome, console: Console) -> None:
    """Print the faults, the figures, and every broken promise with what shows it."""
    console.print(_faults(outcome))
    console.print(_figures(outcome))
    for each in outcome.breaches[:MOST_SHOWN]:
        console.print(f"BROKEN: {each.promise} (at {each.at} s, {each.during}): {each.what}", markup=False)
        if each.entry is not None:
            console.print(f"    ledger: {msgspec.json.encode(each.entry).decode()}", markup=False)
    told = f"{len(outcome.breaches)} promises broken" if outcome.breaches else "every promise kept"
    console.print(f"Seed {outcome.seed}, {outcome.seconds:.0f} s: {told}.")


def _faults(outcome: Outcome) -> Table:
    table = Table(title="Faults, and checks while they lasted")
    for name in (
        "fault",
        "played",
        "checks",
        "failed",
        "degraded",
        "in 100 ms",
        "p99 ms",
        "slowest ms",
        "well after s",
    ):
        table.add_column(name, justify="left" if name == "fault" else "right")
    by_fault: defaultdict[str, list[Scene]] = defaultdict(list)
    for scene in outcome.scenes:
        by_fault[scene.fault].append(scene)
    for name, scenes in (("none", [outcome.calm]), *sorted(by_fault.items())):
        table.add_row(name, *_row(scenes))
    for name in outcome.skipped:
        table.add_row(name, "skipped: needs a small disk of its own")
    return table


def _row(scenes: list[Scene]) -> tuple[str, ...]:
    checks = sum(each.checks for each in scenes)
    in_time = sum(each.within_deadline * each.checks for each in scenes) / checks if checks else 1.0
    return (
        str(len(scenes)),
        str(checks),
        str(sum(each.errors for each in scenes)),
        str(sum(each.degraded for each in scenes)),
        f"{in_time:.2%}",
        f"{median(each.p99_ms for each in scenes):.0f}",
        f"{max(each.slowest_ms for each in scenes):.0f}",
        f"{max(each.settled_s for each in scenes):.1f}",
    )


def _figures(outcome: Outcome) -> Table:
    table = Table(title="Figures", show_header=False)
    spread = outcome.propagation_ms
    table.add_row("acknowledged", ", ".join(f"{kind} {many}" for kind, many in sorted(outcome.acknowledged.items())))
    table.add_row("of them repeated", str(outcome.retried))
    table.add_row("tries without an answer", ", ".join(f"{kind} {many}" for kind, many in outcome.refused.items()))
    table.add_row(
        "a block reaches the other host (ms)",
        f"median {spread['p50']}, 99 % {spread['p99']}, slowest {spread['slowest']}, of {spread['samples']:.0f}",
    )
    undecided = ", ".join(f"{what}: {many}" for what, many in sorted(outcome.undecided.items()))
    table.add_row("allowed because undecided", undecided or "none")
    for name, rest in (("at rest after the first cycle", outcome.first), ("at rest in the end", outcome.last)):
        if rest is not None:
            table.add_row(
                name,
                f"{rest.memory_mb} MB and {rest.descriptors} open files in a worker, {rest.postgres} connections to"
                f" PostgreSQL, {rest.valkey} to Valkey",
            )
    return table


def written(outcome: Outcome, path: Path) -> None:
    """Keep all of it as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(outcome), indent=1))
