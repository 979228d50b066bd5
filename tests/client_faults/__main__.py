"""`python -m tests.client_faults`: random faults between the clients and a real service, with a seed that is printed and may be given."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import uvloop

from tests.chaos.stage import Host, Stores
from tests.client_faults.play import FAULTS, TENANT, Outcome, Play, revived

LASTING_S = (0.5, 7.0)
FAIR_S = (0.5, 4.0)
LISTENS_S = 12.0
"""After it every stream has come back, whose pause is 10 s at most; blocks that were made at the end are seen as well."""


@contextlib.asynccontextmanager
async def hosted(folder: Path) -> AsyncIterator[Host]:
    """A service with two workers and stores of its own; all of it ends."""
    stores = Stores(folder, None)
    host = Host(folder / "h", stores)
    try:
        await stores.start()
        await host.postgres.start()
        await host.valkey.start()
        await revived(host)
        yield host
    finally:
        await asyncio.shield(_ended(host, stores))


async def _ended(host: Host, stores: Stores) -> None:
    try:
        await host.stop()
    finally:
        await host.postgres.stop()
        await host.valkey.stop()
        await stores.stop()


async def play(seed: int, seconds: float, only: list[str], say: Callable[[str], object]) -> Outcome:
    """All faults in a random order, again and again, until the time is over."""
    dice, began = random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="agf-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        async with hosted(Path(name)) as host:
            played = Play(host.url, TENANT, Path(name), dice, host=host)
            async with played.begun():
                while time.monotonic() < began + seconds:
                    for fault in dice.sample(only or FAULTS, len(only or FAULTS)):
                        lasting_s = dice.uniform(*LASTING_S)
                        say(f"{time.monotonic() - began:6.0f} s  {fault}, {lasting_s:.1f} s")
                        await played.fault(fault, lasting_s)
                        await asyncio.sleep(dice.uniform(*FAIR_S))
                        if time.monotonic() >= began + seconds:
                            break
                await asyncio.sleep(LISTENS_S)
                played.reckon()
    return played.outcome(seed, time.monotonic() - began)


def main() -> int:
    """Play, print, write; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.client_faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="the order of faults")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long")
    parser.add_argument("--only", action="append", default=[], choices=FAULTS, help="this fault; repeatable")
    parser.add_argument("--out", type=Path, default=Path("build/client-faults"), help="folder for the JSON")
    asked = parser.parse_args()

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    say(f"Seed {asked.seed}")
    outcome = uvloop.run(play(asked.seed, asked.minutes * 60, asked.only, say))
    data = msgspec.json.format(msgspec.json.encode(outcome), indent=2)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"client-faults-{asked.seed}.json").write_bytes(data + b"\n")
    say(data.decode())
    say(f"{len(outcome.breaches)} promises broken" if outcome.breaches else "every promise kept")
    return 1 if outcome.breaches else 0


if __name__ == "__main__":
    sys.exit(main())
