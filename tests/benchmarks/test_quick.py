"""The benchmark in its quick form: it works from end to end, and nothing of it stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from tests.fuzz import at_night

ROOT = Path(__file__).parents[2]
MARK = "ACCESSGUARD_BENCH_MARK"
ALWAYS = {"noop-post", "held-varying-headers", "held-constant-headers", "ordinary-route", "batch-32", "batch-100"}
"""They need no program beside those that the tests need anyway; the others are run at night, as far as there is time."""


class Outcome(msgspec.Struct):
    """What is read of a scenario in the report."""

    scenario: str
    figures: list[msgspec.Raw]
    failed: str | None


class Report(msgspec.Struct):
    """What is read of the report."""

    outcomes: list[Outcome]


def run(folder: Path, mark: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run it as `make bench ARGS=--quick` does, every process of it marked in its environment."""
    short = ("--budget=80", *(f"--only={each}" for each in sorted(ALWAYS)))
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--out", str(folder), *at_night((), usual=short)],
        cwd=ROOT,
        env={**os.environ, MARK: mark, **more},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def still_running(mark: str) -> list[str]:
    """The processes that carry the mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.hypothesis
def test_every_scenario_of_the_quick_benchmark_is_answered_as_it_should_be(tmp_path):
    """No answer is wrong, the ratios of the hot path are there, and no process outlives the run."""
    mark = uuid4().hex

    ended = run(tmp_path, mark)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    (written,) = tmp_path.glob("*.json")
    outcomes = msgspec.json.decode(written.read_bytes(), type=Report).outcomes
    assert [each.scenario for each in outcomes if each.failed] == []
    assert {each.scenario for each in outcomes if each.figures} >= ALWAYS
    assert still_running(mark) == []
