"""`accessguard audit`: whether the audit log is as it was written, and how far it goes."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from accessguard import migrations
from accessguard.config import Config, ConfigError
from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError, StartError
from accessguard.events.chain import ChainStore
from accessguard.events.links import Head
from accessguard.guard.auditing import Auditing, Verdict
from accessguard.guard.schema import schema

PATIENCE_S: Final = 60.0
"""For one page, on a server that does much else."""
PLACE: Final = re.compile(r"(\d{1,18}):([0-9a-f]{64})")
LINE: Final = re.compile(r"(.+) (\d{1,18}) ([0-9a-f]{64})")
OFF: Final = "A trigger that writes the chain is missing or switched off: what is written now is not in it (`accessguard doctor`)."
NO_HEAD: Final = "That its end was not cut off is not shown without a head that was kept elsewhere (--heads)."


class _Logged(msgspec.Struct, frozen=True, kw_only=True):
    """A line `audit_head` of the service's log."""

    event: str
    tenant: str = ""
    seq: int = 0
    hash: str = ""


def place(text: str, tenant: str) -> Head:
    """A head as `SEQ:HASH`. Raises ConfigError."""
    found = PLACE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is no head: write SEQ:HASH, as `accessguard audit head` tells the two.")
    return Head(tenant=tenant, seq=int(found[1]), hash=found[2])


def noted(lines: Iterable[str]) -> Iterator[Head]:
    """Heads from a file: lines of `accessguard audit head`, or of the service's log, in which others may stand. Raises ConfigError."""
    for line in (each.strip() for each in lines):
        if found := LINE.fullmatch(line):
            yield Head(tenant=_read(found[1]), seq=int(found[2]), hash=found[3])
        elif line.startswith("{"):
            yield from _logged(line)
        elif line:
            raise ConfigError(f"{line!r} is neither a line of `accessguard audit head` nor one of the service's log.")


async def heads(config: Config, tenant: str | None) -> None:
    """Print how far each chain goes, or one tenant's: tenant, number, hash."""
    async with _store(config) as store:
        if tenant is not None:
            found = await store.head(tenant)
            if found is None:
                raise _unknown(tenant)
            print(_line(found))  # noqa: T201 - what was asked for
            return
        async for head in Auditing(store).heads():
            print(_line(head))  # noqa: T201 - what was asked for


async def verify(config: Config, tenant: str | None, kept: Sequence[Head]) -> bool:
    """Verify every log, or one tenant's, and say what came of each; whether all are whole."""
    console, good, many = Console(highlight=False, soft_wrap=True, emoji=False), True, 0
    async with _store(config) as store:
        async for each in _asked(store, tenant, kept):
            verdict = await _verified(store, each, [head for head in kept if head.tenant == each])
            for line in told(verdict):
                console.print(line, markup=False)
            good, many = good and verdict.fault is None, many + 1
        for each in sorted({head.tenant for head in kept}):
            if await Auditing(store).gone(each):
                console.print(f"{written(each)}: the tenant was deleted, and its log with it", markup=False)
        if not await store.on():
            console.print(OFF)
            good = False
    console.print(f"{many} logs: {'all are whole' if good else 'NOT all are whole'}. {'' if kept else NO_HEAD}".strip())
    return good


def told(verdict: Verdict) -> Iterator[str]:
    """What there is to say of one log."""
    v = verdict
    counts = (
        (v.earlier, "from before the chain"),
        (v.redacted, "times words were taken out"),
        (v.moved, "times one became another member's"),
    )
    more = "".join(f", {number:,} {what}" for number, what in counts if number)
    head = f"; head {v.head.seq}:{v.head.hash}" if v.head else ""
    yield f"{written(v.tenant)}: {'whole' if v.fault is None else 'BROKEN after'}, {v.entries:,} entries{more}{head}"
    if v.unexplained:
        yield f"  {v.unexplained:,} times words were taken out and no receipt of an erasure came after: is one unfinished?"
    if v.strayed:
        yield f"  {v.strayed:,} entries say a time that is more than a day from when they were written"
    if v.fault is not None:
        f = v.fault
        about = (
            f"record {f.seq}" if f.seq else "",
            f"entry {f.entry_id}" if f.entry_id else "",
            f"of {f.at:%Y-%m-%d %H:%M:%S.%f} UTC" if f.at else "",
        )
        yield f"  {' '.join(filter(None, about)) or 'as a whole'}: {f.wrong}"


async def _asked(store: ChainStore, tenant: str | None, kept: Sequence[Head]) -> AsyncIterator[str]:
    """Whose logs are verified: also of whom there is a head and nothing else."""
    if tenant is not None:
        if not kept and await store.head(tenant) is None and not await store.entries(tenant, limit=1):
            raise _unknown(tenant)
        yield tenant
        return
    left = {head.tenant for head in kept}
    async for each in Auditing(store).tenants():
        left.discard(each)
        yield each
    for each in sorted(left):
        if not await Auditing(store).gone(each):
            yield each


async def _verified(store: ChainStore, tenant: str, kept: Sequence[Head]) -> Verdict:
    """Verify one, with a bar on standard error: its records, then its entries."""
    head = await store.head(tenant)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        # Mostly a record for each entry: where there are more of them, the bar is full a little early.
        task = bar.add_task(written(tenant).replace("[", r"\["), total=2 * head.seq if head else None)
        return await Auditing(store).verify(tenant, kept, step=lambda records: bar.advance(task, records))


@asynccontextmanager
async def _store(config: Config) -> AsyncIterator[ChainStore]:
    if not config.database.url:
        raise ConfigError(
            "Set ACCESSGUARD_DATABASE_URL to the database whose audit log is meant, or start `accessguard dev`."
        )
    try:
        db = await Database.connect(config.database.url, size=1, timeout_s=PATIENCE_S, pooled=config.database.pgbouncer)
    except (GuardError, OSError) as error:
        raise StartError("PostgreSQL does not answer; check ACCESSGUARD_DATABASE_URL.") from error
    try:
        why = migrations.objection(await schema(db))
        if why is not None:
            raise StartError(why)
        yield ChainStore(db)
    finally:
        await db.close()


def written(tenant: str) -> str:
    """A tenant's name as it stands in a line: in JSON where it would not be read as it is, or do something to a terminal."""
    plain = tenant.isprintable() and tenant == tenant.strip() and not tenant.startswith('"')
    return tenant if plain else json.dumps(tenant)


def _read(name: str) -> str:
    try:
        return str(json.loads(name)) if name.startswith('"') else name
    except ValueError:
        return name


def _line(head: Head) -> str:
    return f"{written(head.tenant)} {head.seq} {head.hash}"


def _logged(line: str) -> Iterator[Head]:
    try:
        said = msgspec.json.decode(line, type=_Logged)
    except msgspec.DecodeError:
        return
    if said.event == "audit_head":
        yield Head(tenant=said.tenant, seq=said.seq, hash=said.hash)


def _unknown(tenant: str) -> GuardError:
    return GuardError(ErrorCode.NOT_FOUND, f"There is no audit log of a tenant {tenant!r}.")
