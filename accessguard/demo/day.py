"""One day from end to end: rules, members, traffic, reading, report."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from accessguard.demo.client import DemoError, Service, connected
from accessguard.demo.model import Person, Plan
from accessguard.demo.plan import make
from accessguard.demo.player import Player
from accessguard.demo.report import show, where_to_look

MEMBERS_AT_ONCE: Final = 16


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Callers' tokens for one tenant."""

    platform: str
    supervisor: str
    administrator: str

    def __repr__(self) -> str:
        """Show the name alone."""
        return "Tokens(...)"


def run(
    url: str,
    tokens: Tokens,
    *,
    members: int,
    seed: int,
    day_s: float = 20,
    jar: Path | None = None,
    console: Console | None = None,
) -> None:
    """Play a day of `members` (20 or more) at the service, in `day_s` seconds if it keeps up, and report.

    `jar` is a file that keeps the browsers' cookies until the next day of the
    same seed, None to forget them. Raises DemoError.
    """
    plan = make(members=members, seed=seed)
    asyncio.run(play(url, tokens, plan, day_s=day_s, jar=jar, console=console or Console()))


async def play(url: str, tokens: Tokens, plan: Plan, *, day_s: float, jar: Path | None, console: Console) -> None:
    """Play a plan and report. Raises DemoError."""
    kept = read_jar(jar)
    async with connected(url, msgspec.structs.asdict(tokens)) as service:
        with _progress(console) as progress:
            bar = progress.add_task("Rules and members", total=plan.size, clock="     ")
            await _prepare(service, plan, lambda: progress.advance(bar))
            player = Player(service, day_s=day_s, jars=kept, on_step=lambda at_s: _tick(progress, bar, at_s))
            progress.update(bar, description="The day")
            await _together(player.play(story) for story in plan.stories)
            for step in plan.evening:
                await player.send(step)
        cases = await service.call("supervisor", "GET", "/v1/violations/summary")
    keep_jar(jar, plan, player.jars)
    show(console, plan, player.tally, cases, day_s=day_s)
    where_to_look(console, plan, url=url.rstrip("/"), token=tokens.supervisor, admin_token=tokens.administrator)


def read_jar(jar: Path | None) -> dict[str, str]:
    """The cookies that browsers kept, by the browser's key; none when there is no such file."""
    if jar is None or not jar.exists():
        return {}
    try:
        return msgspec.json.decode(jar.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError) as error:
        raise DemoError(f"Cannot read the browsers' cookies in {jar}; remove the file to start without any.") from error


def keep_jar(jar: Path | None, plan: Plan, cookies: dict[str, str]) -> None:
    """Write the cookies down for another day, but those of private windows."""
    if jar is None:
        return
    private = _private(plan)
    kept = {key: token for key, token in cookies.items() if key not in private}
    try:
        jar.parent.mkdir(parents=True, exist_ok=True)
        jar.touch(mode=0o600)
        jar.write_bytes(msgspec.json.encode(kept))
    except OSError as error:
        raise DemoError(f"Cannot keep the browsers' cookies in {jar}: {error.strerror}.") from error


def _private(plan: Plan) -> frozenset[str]:
    browsers = (getattr(step, "browser", None) for story in plan.stories for step in story.steps)
    return frozenset(browser.key for browser in browsers if browser is not None and browser.private)


async def _prepare(service: Service, plan: Plan, on_step: Callable[[], None]) -> None:
    """Make the rules first, then tell of the members, a few at a time."""
    await _make_rules(service, plan, on_step)
    turn = asyncio.Semaphore(MEMBERS_AT_ONCE)

    async def tell(person: Person) -> None:
        async with turn:
            await _tell(service, person)
        on_step()

    await _together(tell(person) for person in plan.people)


async def _make_rules(service: Service, plan: Plan, on_step: Callable[[], None]) -> None:
    """Make the rules that are not there yet, by their names; one that was changed since is left alone."""
    there = await service.call("administrator", "GET", "/v1/rules")
    names = {rule["name"] for rule in there["items"]}
    for rule in plan.rules:
        if rule["name"] not in names:
            reason = "The demonstration's rules"
            await service.call("administrator", "POST", "/v1/rules", rule | {"reason": reason})
        on_step()


async def _tell(service: Service, person: Person) -> None:
    body = {name: value for name, value in msgspec.structs.asdict(person).items() if name != "member_id"}
    await service.call("platform", "PUT", f"/v1/members/{quote(person.member_id, safe='')}", body)


async def _together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run everything side by side; the first error ends the rest."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), TextColumn("{task.fields[clock]}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console)


def _tick(progress: Progress, bar: TaskID, at_s: int) -> None:
    progress.update(bar, advance=1, clock=f"{at_s // 3600:02}:{at_s // 60 % 60:02}")
