"""`make chaos`: the long form, with a seed that is printed and may be given."""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

import uvloop
from rich.console import Console

from tests.chaos.faults import FAULTS
from tests.chaos.nodes import OF_NODES, ON_A_CLUSTER
from tests.chaos.play import play
from tests.chaos.report import shown, written


def main() -> int:
    """Play, print, write; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="make chaos ARGS=...", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="the order of faults")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long; one cycle of all faults at least")
    names = [each.name for each in (*FAULTS, *OF_NODES)]
    parser.add_argument("--only", action="append", default=[], choices=names, help="this fault; repeatable")
    parser.add_argument("--cluster", action="store_true", help="on a Valkey Cluster, with its faults")
    parser.add_argument("--out", type=Path, default=Path("build/chaos"), help="folder for the JSON")
    asked = parser.parse_args()
    if set(asked.only) - {each.name for each in (ON_A_CLUSTER if asked.cluster else FAULTS)}:
        parser.error("this fault is for a cluster (--cluster), or for a single Valkey")
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(f"Seed {asked.seed}: to play it again, make chaos ARGS='--seed {asked.seed}'")
    outcome = uvloop.run(
        play(asked.seed, lasting_s=asked.minutes * 60, only=asked.only, cluster=asked.cluster, say=console.print)
    )
    shown(outcome, console)
    path = asked.out / f"chaos{'-cluster' if asked.cluster else ''}-{asked.seed}.json"
    written(outcome, path)
    console.print(f"All of it: {path}")
    return 1 if outcome.breaches else 0


if __name__ == "__main__":
    sys.exit(main())
