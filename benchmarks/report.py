"""The report: JSON for programs, Markdown for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.model import Figure, Outcome


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. `notes` are sentences a reader must know before believing a figure."""

    at: datetime
    quick: bool
    seconds: float
    machine: dict[str, str]
    notes: tuple[str, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The scenarios whose answers were not what they should be."""
        return tuple(outcome for outcome in self.outcomes if outcome.failed is not None)


def save(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write `<time>.json` and `<time>.md` into `folder`, and return the two."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = report.at.astimezone(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    data, table = folder / f"{stem}.json", folder / f"{stem}.md"
    data.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    table.write_text(markdown(report))
    return data, table


def markdown(report: Report) -> str:
    """Write the run as a table, and below it what was skipped or failed."""
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    lines = [
        f"# Benchmark of {report.at:%Y-%m-%d %H:%M} UTC{' (quick: a test of the bed, not a measurement)' if report.quick else ''}",
        "",
        f"{machine}; took {report.seconds:.0f} s. Medians, with the lowest and highest round.",
        "",
        *(f"- {note}" for note in report.notes),
        *([""] if report.notes else []),
        "| scenario | figure | median | range | goal | moonshot | |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
        *(_row(figure) for outcome in report.outcomes for figure in outcome.figures),
        "",
        *_asides(report.outcomes),
    ]
    return "\n".join(lines) + "\n"


def _row(figure: Figure) -> str:
    spread = figure.value
    span = f"{number(spread.low)} - {number(spread.high)}"
    cells = (
        figure.scenario,
        figure.what,
        f"{number(spread.median)} {figure.unit}".strip(),
        span,
        _goal(figure, figure.floor),
        _goal(figure, figure.moonshot),
    )
    return f"| {' | '.join(cells)} | {_verdict(figure)} |"


def _goal(figure: Figure, goal: float | None) -> str:
    return "" if goal is None else f"{'<=' if figure.lower_is_better else '>='} {number(goal)}"


def _verdict(figure: Figure) -> str:
    if figure.moonshot is not None and figure.reaches(figure.moonshot):
        return "moonshot"
    if figure.floor is None:
        return ""
    return "reached" if figure.reaches(figure.floor) else "**missed**"


def _asides(outcomes: Sequence[Outcome]) -> list[str]:
    skipped = [
        f"- skipped {outcome.scenario}: {outcome.skipped}" for outcome in outcomes if outcome.skipped is not None
    ]
    failed = [
        f"- **failed** {outcome.scenario}: {outcome.failed}" for outcome in outcomes if outcome.failed is not None
    ]
    notes = [f"- {outcome.scenario}: {outcome.note}" for outcome in outcomes if outcome.note is not None]
    return [*failed, *skipped, *notes]


def number(value: float) -> str:
    """Write three significant digits, thousands with a comma: 0.0123, 4.56, 17,025."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
