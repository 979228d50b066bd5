"""One examination from the configuration to the stores, and how it is told."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from accessguard.config import Config, ConfigError, load
from accessguard.dev import read_secrets
from accessguard.doctor.findings import Finding, Level, Report, fail, report
from accessguard.doctor.local import examine
from accessguard.doctor.stores import postgres, valkey
from accessguard.embedded.postgres import database_url
from accessguard.embedded.valkey import redis_url

SIGNS: Final = {
    Level.OK: "[green]ok[/]",
    Level.NOTE: "[cyan]note[/]",
    Level.WARN: "[yellow]warn[/]",
    Level.FAIL: "[red]fail[/]",
}
SUMMARY: Final = {
    Level.OK: "All is well.",
    Level.NOTE: "All is well.",
    Level.WARN: "It works; look at the warnings.",
    Level.FAIL: "Put right what failed, from the top.",
}
SOCKET_LINE: Final = 4
"""Of postmaster.pid: the folder of the Unix socket (PostgreSQL documentation, Database File Layout)."""


async def run(environ: Mapping[str, str], *, as_json: bool) -> bool:
    """Examine, print, and tell whether nothing has failed."""
    found = await examined(environ)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())  # noqa: T201 - what was asked for
    else:
        show(found)
    return found.ok


async def examined(environ: Mapping[str, str]) -> Report:
    """Everything in order; a configuration that cannot be read is all that there is to say."""
    try:
        config = read(environ)
    except ConfigError as error:
        return report([fail("configuration", str(error), "Correct it; config/accessguard.toml is the manual.")])
    findings: list[Finding] = list(examine(config, environ, now_s=time.time()))
    if config.database.url:
        findings += [each async for each in postgres(config)]
    if config.redis.url:
        findings += [each async for each in valkey(config)]
    return report(findings)


def read(environ: Mapping[str, str]) -> Config:
    """The configuration; that of a running `accessguard dev`, where no stores are named. Raises ConfigError."""
    config = load(environ)
    if config.database.url or config.redis.url:
        return config
    runtime = _runtime(Path(config.data_folder))
    if runtime is None:
        return config
    config = load(environ, fallback=read_secrets(config))
    return msgspec.structs.replace(
        config,
        database=msgspec.structs.replace(config.database, url=database_url(runtime)),
        redis=msgspec.structs.replace(config.redis, url=redis_url(runtime)),
    )


def show(found: Report) -> None:
    """Print it for a person."""
    table = Table("", "What", "How it stands", "What to do", box=None, pad_edge=False)
    for each in found.findings:
        table.add_row(SIGNS[each.level], each.check, _plain(each.said), _plain(each.advice))
    console = Console(highlight=False)
    console.print(table)
    console.print(SUMMARY[found.worst])


def _runtime(folder: Path) -> Path | None:
    """Where the sockets of the embedded stores are; None when they do not run."""
    try:
        return Path((folder / "postgres" / "postmaster.pid").read_text().splitlines()[SOCKET_LINE])
    except (OSError, LookupError, ValueError):
        return None


def _plain(text: str) -> str:
    """The text without markup in it: names and addresses may have brackets."""
    return text.replace("[", r"\[")
