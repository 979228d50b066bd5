"""`python -m benchmarks.recognition FILE...`: how much of a corpus of user agents is recognised right.

Prints the share of hits for each class and for families of browsers and systems, as the first look has them and after
the second; `--misses` writes what was not hit. What files are read, `benchmarks/corpora.py` says.
"""

from __future__ import annotations

import csv
import os
import random
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import click
import msgspec

from accessguard.devices.browser import Browser, DeviceClass, kin, recognise
from accessguard.devices.detector import sighting
from accessguard.devices.hints import read_hints
from accessguard.devices.refinement import asked_of, improved, refined
from benchmarks.corpora import Case, ShapeError, read

# The share of hits that each must reach, of the cases of one run.
FLOORS: Final = {
    "family": 0.99,
    "os": 0.99,
    **dict.fromkeys((f"class {each}" for each in ("desktop", "mobile", "tablet", "bot")), 0.97),
    **dict.fromkeys(("class tv", "class console"), 0.95),
}
MOST_MISSES: Final = 10_000

# One system or browser under the names that several corpora give it, in lower case without spaces and signs.
_ALIASES: Final = {
    "microsoftedge": "edge",
    "internetexplorer": "ie",
    "chromewebview": "chromemobilewebview",
    "androidbrowser": "android",
    "mac": "macosx",
    "macos": "macosx",
    "gnulinux": "linux",
    "ipados": "ios",
    "chromiumos": "chromeos",
}


class Graded(msgspec.Struct, frozen=True, kw_only=True):
    """One question about one case: what was expected, and what the two looks said."""

    kind: str
    user_agent: str
    expected: str
    first: str
    found: str
    first_hit: bool
    hit: bool


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one kind; shares from 0 to 1, `floor` None where there is none."""

    kind: str
    cases: int
    first: float
    found: float
    floor: float | None

    @property
    def reached(self) -> bool:
        """Whether it is as good as it must be."""
        return self.floor is None or self.found >= self.floor


def looked(case: Case, *, twice: bool) -> tuple[Browser, Browser]:
    """The browser at the first look, and after the second."""
    first = recognise(case.user_agent, case.hints)
    asked = asked_of(case.user_agent, case.hints)
    if not twice or not asked.user_agent:
        return first, first
    mobile = read_hints(dict(asked.hints)).mobile
    return first, improved(first, refined(first, sighting(asked), mobile=mobile))


def graded(case: Case, first: Browser, found: Browser) -> Iterable[Graded]:
    """Each question that the corpus answers about this case."""
    if (wanted := case.device_class) is not None:
        right = {wanted, DeviceClass.APP} if case.program else {wanted}
        classes = (first.device_class, found.device_class)
        yield _graded(f"class {wanted}", case, wanted, classes, [each in right for each in classes])
    for kind, name, looks in (
        ("family", case.family, (first.family, found.family)),
        ("os", case.os, (first.os, found.os)),
    ):
        if name is not None:
            yield _graded(kind, case, name, looks, [each == name or _plain(each) == _plain(name) for each in looks])


def lines(answers: Sequence[Graded]) -> list[Line]:
    """The share of hits for each kind, in alphabetical order."""
    cases = Counter(each.kind for each in answers)
    first = Counter(each.kind for each in answers if each.first_hit)
    found = Counter(each.kind for each in answers if each.hit)
    return [
        Line(kind=kind, cases=n, first=first[kind] / n, found=found[kind] / n, floor=FLOORS.get(kind))
        for kind, n in sorted(cases.items())
    ]


def table(results: Sequence[Line]) -> str:
    """For people."""
    rows = [f"{'kind':16}{'cases':>8}{'first look':>12}{'second look':>13}{'floor':>8}"]
    for each in results:
        floor = "" if each.floor is None else f"{each.floor:8.0%}"
        rows.append(
            f"{each.kind:16}{each.cases:8}{each.first:12.2%}{each.found:13.2%}{floor:>8}{'' if each.reached else '  missed'}"
        )
    return "\n".join(rows)


def _graded(kind: str, case: Case, wanted: str, looks: tuple[str, str], hits: Sequence[bool]) -> Graded:
    return Graded(
        kind=kind,
        user_agent=case.user_agent,
        expected=str(wanted),
        first=str(looks[0]),
        found=str(looks[1]),
        first_hit=hits[0],
        hit=hits[1],
    )


def _plain(name: str) -> str:
    letters = "".join(character for character in kin(name).lower() if character.isalnum())
    return _ALIASES.get(letters, letters)


def _answers(part: tuple[Sequence[Case], bool]) -> list[Graded]:
    cases, twice = part
    return [answer for case in cases for answer in graded(case, *looked(case, twice=twice))]


def measured(cases: Sequence[Case], *, twice: bool, jobs: int) -> list[Graded]:
    """Grade them all, `jobs` processes at a time."""
    if jobs == 1 or len(cases) < 100:
        return _answers((cases, twice))
    parts = [(cases[place :: jobs * 4], twice) for place in range(jobs * 4)]
    with ProcessPoolExecutor(jobs) as pool:
        return [answer for part in pool.map(_answers, parts) for answer in part]


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--first", "first_only", is_flag=True, help="The first look only, in seconds instead of minutes.")
@click.option("--sample", type=click.IntRange(min=1), help="So many cases of all files, the same ones each time.")
@click.option("--jobs", type=click.IntRange(min=1), default=os.cpu_count() or 1, help="Processes at a time.")
@click.option("--misses", type=click.Path(dir_okay=False, path_type=Path), help="Write what was missed here, as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--check", is_flag=True, help="Fail when a floor is missed.")
def main(
    *,
    files: tuple[Path, ...],
    first_only: bool,
    sample: int | None,
    jobs: int,
    misses: Path | None,
    as_json: bool,
    check: bool,
) -> None:
    """Measure the recognition of browsers on corpora of user agents."""
    try:
        cases = [case for path in files for case in read(path)]
    except ShapeError as error:
        raise click.ClickException(str(error)) from error
    if not any(case.family or case.os or case.device_class for case in cases):
        raise click.ClickException("There is nothing to grade: no line says a family, a system or a class.")
    if sample is not None and sample < len(cases):
        cases = random.Random(sample).sample(cases, sample)
    answers = measured(cases, twice=not first_only, jobs=jobs)
    results = lines(answers)
    if misses is not None:
        _write(misses, [each for each in answers if not each.hit][:MOST_MISSES])
    click.echo(msgspec.json.encode(results).decode() if as_json else table(results))
    sys.exit(1 if check and not all(each.reached for each in results) else 0)


def _write(path: Path, missed: Sequence[Graded]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("kind", "expected", "first", "found", "user_agent"))
        rows.writerows((each.kind, each.expected, each.first, each.found, each.user_agent) for each in missed)


if __name__ == "__main__":
    main()
