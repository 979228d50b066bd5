"""`accessguard simulate`: a rule tried on history, with a progress bar and a table."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from accessguard import app
from accessguard.config import Config, ConfigError
from accessguard.guard.simulation import Example, SimulatedDay, Simulation
from accessguard.policies.model import RuleBody

MOST_DAYS: Final = 31


def read(raw: bytes) -> RuleBody:
    """A rule as it stands in a file. Raises ConfigError with a sentence that says what is wrong."""
    try:
        return msgspec.json.decode(raw, type=RuleBody)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The rule cannot be read: {error}.") from error


async def run(config: Config, tenant: str, body: RuleBody, *, since: datetime, until: datetime, as_json: bool) -> None:
    """Play the history and print what came of it; the bar goes to standard error."""
    columns = (TextColumn("Members"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("members", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        found = await app.simulate(config, tenant, body, since=since, until=until, progress=progress)
    console = Console(highlight=False)
    if as_json:
        console.print_json(msgspec.json.encode(found).decode())
    else:
        show(console, found)


def show(console: Console, found: Simulation) -> None:
    """Print it for a person."""
    console.print(
        f"{found.members_affected} of {found.members_total} members would have been stopped or had a session ended: "
        f"{found.denials} refusals, {found.ended_sessions} sessions ended, {found.logged} only noted "
        f"({found.events} events played)."
    )
    if found.by_day:
        console.print(_days(found.by_day))
    if found.examples:
        console.print(_examples(found.examples))


def _days(days: tuple[SimulatedDay, ...]) -> Table:
    title = f"The last {MOST_DAYS} of {len(days)} days" if len(days) > MOST_DAYS else None
    table = Table("Day", title=title)
    table.add_column("Refusals", justify="right")
    table.add_column("Members", justify="right")
    for each in days[-MOST_DAYS:]:
        table.add_row(each.day.isoformat(), str(each.denials), str(each.members))
    return table


def _examples(examples: Iterable[Example]) -> Table:
    table = Table("Member", "At (UTC)", "Effect", "Why", title="How it begins")
    for each in examples:
        table.add_row(each.member_id, f"{each.at:%Y-%m-%d %H:%M:%S}", each.effect, each.explanation)
    return table
