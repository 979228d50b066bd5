"""`python -m benchmarks.population`: one tenant with a million members and a year of their lives, in a real schema."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from accessguard.app import migrate
from accessguard.embedded import Embedded, EmbeddedError
from benchmarks.bench import TROUBLE, explain
from benchmarks.ledger import Population
from benchmarks.settling import FEW_CHECKPOINTS, USUAL_CHECKPOINTS, checkpoints, now_ms, settle

MEMBERS: Final = 1_000_000


@click.command()
@click.option("--members", type=click.IntRange(1, 10_000_000), default=MEMBERS, show_default=True, help="How many.")
@click.option("--database-url", default=None, help="The database to fill; it is migrated first.")
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), default=None, help="Or a folder for embedded stores."
)
@click.option("--tenant", default="bench", show_default=True, help="The tenant to make.")
@click.option("--seed", type=int, default=1, show_default=True, help="What everything but the present depends on.")
@click.option(
    "--until-ms", type=int, default=None, help="The present of the histories (ms since 1970); now by default."
)
@click.option("--workers", type=click.IntRange(0, 64), default=os.cpu_count(), show_default=True, help="Processes.")
def main(
    *,
    members: int,
    database_url: str | None,
    data: Path | None,
    tenant: str,
    seed: int,
    until_ms: int | None,
    workers: int,
) -> None:
    """Make a tenant with MEMBERS members, ten times as many login attempts and five times as many sessions.

    The same seed, members and present make the same rows, whatever the
    number of processes.
    """
    if (database_url is None) == (data is None):
        raise click.UsageError("Say where to: one of --database-url and --data.")
    wanted = Population(tenant=tenant, members=members, seed=seed, until_ms=until_ms or now_ms())
    try:
        asyncio.run(_into_folder(data, wanted, workers) if data else fill(database_url or "", wanted, workers))
    except (*TROUBLE, EmbeddedError) as error:
        raise click.ClickException(explain(error)) from error


async def _into_folder(data: Path, wanted: Population, workers: int) -> None:
    stores = await Embedded.start(data)
    try:
        await checkpoints(stores.database_url, FEW_CHECKPOINTS)
        await fill(stores.database_url, wanted, workers)
        await checkpoints(stores.database_url, USUAL_CHECKPOINTS)
    finally:
        await stores.stop()


async def fill(database_url: str, wanted: Population, workers: int) -> None:
    """Migrate, fill, and say what it took."""
    await migrate(database_url)
    began, written = time.monotonic(), 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("members", total=wanted.members)

        def told(members: int, rows: int) -> None:
            nonlocal written
            written += rows
            rate = written / max(0.001, time.monotonic() - began)
            bar.update(task, advance=members, description=f"members ({rate:,.0f} rows/s)")

        rows = await settle(database_url, wanted, workers=workers, progress=told)
    seconds = time.monotonic() - began
    click.echo(
        f"{rows:,} rows of {wanted.members:,} members in {seconds:.0f} s, VACUUM ANALYZE included;"
        f" tenant {wanted.tenant}, seed {wanted.seed}, until {wanted.until_ms}"
    )


if __name__ == "__main__":
    main()
