"""The command line: `accessguard` or `python -m accessguard`."""

import asyncio
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, TextIO

import click
import msgspec
import uvloop

from accessguard import __version__, dev
from accessguard.api.keys import Role
from accessguard.config import Config, ConfigError, complete, load, with_workers
from accessguard.embedded import EmbeddedError
from accessguard.errors import GuardError, StartError

DATES: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]
INTERRUPTED: Final = 130  # as a shell says of a command that Ctrl-C ended

tenant_option = click.option("--tenant", required=True, help="The tenant the token is for; * for all of them.")
workers_option = click.option(
    "--workers", type=click.IntRange(1, 256), help="Worker processes, instead of what the configuration says."
)
role_option = click.option("--role", required=True, type=click.Choice([role.value for role in Role]))


@contextmanager
def sentences() -> Iterator[None]:
    """Turn what the person at the terminal can act on into one sentence and exit code 1."""
    try:
        yield
    except (ConfigError, EmbeddedError, GuardError) as error:
        raise click.ClickException(str(error)) from error


def complete_run(work: Coroutine[object, object, None]) -> None:
    """Run `work` on uvloop to its end; a signal that ends it is no error worth a trace."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            with sentences():
                runner.run(work)
        except StartError as error:
            raise click.ClickException(str(error)) from error
        except (asyncio.CancelledError, KeyboardInterrupt):
            sys.exit(INTERRUPTED)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="accessguard")
def main() -> None:
    """AccessGuard says for every request whether this session, on this device, may go on."""


@main.command("dev")
@click.option("--port", type=click.IntRange(0, 65535), help="Listen here instead of on the configured port.")
@workers_option
def develop(port: int | None, workers: int | None) -> None:
    """Serve on this machine alone, with a PostgreSQL and a Valkey of its own and a tenant to try."""
    program = ".venv/bin/accessguard" if sys.argv[0].endswith("__main__.py") else sys.argv[0]
    complete_run(dev.run(say=click.echo, command=program, port=port, workers=workers))


@main.command()
@workers_option
def serve(workers: int | None) -> None:
    """Serve on the PostgreSQL and the Valkey (or Redis) of the configuration."""
    from accessguard import supervisor  # noqa: PLC0415 -- `token` needs none of the service

    with sentences():
        config = with_workers(complete(load()), workers)
    complete_run(
        supervisor.serve(config, os.environ, on_ready=lambda address: click.echo(f"AccessGuard answers at {address}"))
    )


@main.command(hidden=True)
@click.argument("berth")
def worker(berth: str) -> None:
    """Be one of the workers of a supervisor, which starts this and no person."""
    from accessguard import worker as one  # noqa: PLC0415 -- `token` needs none of the service
    from accessguard.control import Berth  # noqa: PLC0415

    with sentences():
        config = complete(load())
    complete_run(one.work(config, msgspec.json.decode(berth, type=Berth)))


@main.command()
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(0, 86_400),
    default=300,
    show_default=True,
    help="Seconds to try for while somebody else uses what a migration needs.",
)
def migrate(wait_s: int) -> None:
    """Bring the schema of the configured database up to date, beside a service that runs.

    A migration that does not get a lock at once gives way to the service and
    is tried again. Safe to repeat, and to run on several hosts at once; when it
    was interrupted, run it again. Connect to PostgreSQL itself, not by way of a pooler.
    """
    from accessguard import app  # noqa: PLC0415 -- `token` needs none of the service

    with sentences():
        database = load().database
        url = database.direct_url if database.pgbouncer else database.url
        if not url:
            name = "ACCESSGUARD_DATABASE_DIRECT_URL" if database.pgbouncer else "ACCESSGUARD_DATABASE_URL"
            raise ConfigError(f"Set {name} to the database to migrate.")
    complete_run(app.migrate(url, patience_s=wait_s))


@main.command()
@click.argument("target", type=click.Path(path_type=Path), required=False)
@click.option("--without-keys", is_flag=True, help="Leave out what tokens and cookies are signed with.")
def backup(target: Path | None, *, without_keys: bool) -> None:
    """Back up what `accessguard dev` keeps, while it serves or not, to a new folder TARGET.

    Left out, TARGET is a folder here with the time in its name. What is in the
    backup is of one moment, with checksums. The keys are in it, so that
    students stay logged in after a restore; keep it where nobody else reads it.
    For a PostgreSQL of your own, see docs/operations.md.
    """
    from accessguard import backup as making  # noqa: PLC0415 -- `token` needs none of it

    with sentences():
        config = load()
    complete_run(making.run(config, target, keys=not without_keys))


@main.command()
@click.argument("backup", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--force", is_flag=True, help="Replace the data that are in the data folder, which are lost.")
def restore(backup: Path, *, force: bool) -> None:
    """Restore from the folder BACKUP what `accessguard dev` keeps; stop it first.

    The data folder must be empty. The backup is verified before, and what came
    of it is counted before it takes the place of anything. One of an older
    release is brought up to date by the next `accessguard dev`.
    """
    from accessguard import backup as making  # noqa: PLC0415 -- `token` needs none of it

    with sentences():
        config = load()
    complete_run(making.run_restore(config, backup, force=force))


@main.command()
@tenant_option
@role_option
@click.option("--subject", help="Who calls, as the audit log will say; the role when left out.")
@click.option("--ttl-days", type=click.IntRange(1, 3650), default=dev.TOKEN_DAYS, show_default=True)
def token(tenant: str, role: str, subject: str | None, ttl_days: int) -> None:
    """Print a caller's token, signed with the first secret of the configuration or of a local `dev`."""
    with sentences():
        signed = dev.sign_token(
            dev.load_local(), tenant=tenant, role=Role(role), subject=subject or role, days=ttl_days
        )
    click.echo(signed)


@main.command()
def openapi() -> None:
    """Print the HTTP contract as OpenAPI 3.1."""
    from accessguard.api.openapi import document  # noqa: PLC0415 -- `token` needs none of the service

    click.echo(document())


@main.command()
@click.option("--tenant", required=True, help="The tenant whose history is played.")
@click.option(
    "--rule",
    type=click.File("rb"),
    required=True,
    help="The rule as JSON, as POST /v1/rules takes it; - to read it from standard input.",
)
@click.option("--from", "since", type=click.DateTime(DATES), required=True, help="Where the period begins (UTC).")
@click.option("--to", "until", type=click.DateTime(DATES), help="Where the period ends (UTC); now when left out.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON instead of a table.")
def simulate(tenant: str, rule: BinaryIO, since: datetime, until: datetime | None, *, as_json: bool) -> None:
    """Try a rule on recorded history: who would have been stopped, how often, on which day."""
    from accessguard import simulate as trial  # noqa: PLC0415 -- `token` needs none of it

    with sentences():
        url = load().database.url
        if not url:
            raise ConfigError("Set ACCESSGUARD_DATABASE_URL to the database whose history is played.")
        body = trial.read(rule.read())
    begin, end = since.replace(tzinfo=UTC), (until or datetime.now(UTC)).replace(tzinfo=UTC)
    complete_run(trial.run(load(), tenant, body, since=begin, until=end, as_json=as_json))


@main.group()
def geoip() -> None:
    """Look at the files that say where addresses are."""


@geoip.command()
@click.argument("addresses", nargs=-1)
def check(addresses: tuple[str, ...]) -> None:
    """Tell which geo files are loaded, and what they know of ADDRESSES.

    Exit code 1 when a configured file is missing, damaged or older than 60 days.
    """
    from accessguard import geoip as files  # noqa: PLC0415 -- `token` needs none of it

    with sentences():
        good = files.run(load().geo.files, addresses, now_s=datetime.now(UTC).timestamp())
    if not good:
        sys.exit(1)


@main.command()
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where the service answers.")
@click.option("--tenant", default=dev.TENANT, show_default=True)
@click.option("--members", type=click.IntRange(20, 20_000), default=300, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same members and day.")
@click.option("--seconds", type=click.IntRange(0), default=20, show_default=True, help="How long the day takes.")
def demo(url: str, tenant: str, members: int, seed: int, seconds: int) -> None:
    """Send a believable day of traffic to a running service."""
    from accessguard.demo import DemoError, Tokens, run  # noqa: PLC0415 -- `token` needs none of it

    with sentences():
        config = dev.load_local()
        roles = (Role.PLATFORM, Role.SUPERVISOR, Role.ADMINISTRATOR)
        signed = {
            role.value: dev.sign_token(config, tenant=tenant, role=role, subject=f"{role}@{tenant}", days=1)
            for role in roles
        }
    jar = Path(config.data_folder) / f"demo-{seed}.cookies.json"
    try:
        run(url, Tokens(**signed), members=members, seed=seed, day_s=seconds, jar=jar)
    except DemoError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON instead of a table.")
def doctor(*, as_json: bool) -> None:
    """Look at everything that the service needs, and say what to do.

    Configuration, secrets, trusted proxies, geo files, disk, both stores with
    their settings and clocks, schema, webhooks. Changes nothing. Exit code 1
    when something fails, 0 with warnings alone.
    """
    from accessguard import doctor as examination  # noqa: PLC0415 -- `token` needs none of it

    good = [True]

    async def run() -> None:
        good[0] = await examination.run(os.environ, as_json=as_json)

    complete_run(run())
    if not good[0]:
        sys.exit(1)


@main.group()
def audit() -> None:
    """Look after the audit log, in which each entry carries a hash over all before it."""


@audit.command("verify")
@click.option("--tenant", help="Only this tenant's log.")
@click.option(
    "--head",
    "places",
    metavar="SEQ:HASH",
    multiple=True,
    help="A head of --tenant that was kept elsewhere: shows that nothing up to it was taken away or written anew. Can be repeated.",
)
@click.option(
    "--heads",
    "kept",
    type=click.File("r", encoding="utf-8"),
    help="A file of heads: what `accessguard audit head` printed, or the service's log; - is standard input.",
)
def verify_audit(tenant: str | None, places: tuple[str, ...], kept: TextIO | None) -> None:
    """Tell whether every entry of the audit log is as it was written, and none is missing or put in.

    Only reads, also beside a service that runs. Says the first entry that is
    not. Exit code 1 when there is one.
    """
    from accessguard import audit as log  # noqa: PLC0415 -- `token` needs none of it

    if places and tenant is None:
        raise click.UsageError("--head is of one tenant: give --tenant, or a file with --heads.")
    good = [True]

    async def run() -> None:
        noted = [log.place(each, tenant or "") for each in places] + list(log.noted(kept or ()))
        mine = [each for each in noted if tenant in (None, each.tenant)]
        good[0] = await log.verify(of_here(), tenant, mine)

    complete_run(run())
    if not good[0]:
        sys.exit(1)


@audit.command()
@click.option("--tenant", help="Only this tenant's.")
def head(tenant: str | None) -> None:
    """Print how far each tenant's log goes, as TENANT SEQ HASH: keep it where nobody can change it."""
    from accessguard import audit as log  # noqa: PLC0415 -- `token` needs none of it

    async def run() -> None:
        await log.heads(of_here(), tenant)

    complete_run(run())


def of_here() -> Config:
    """The configuration, with the stores of a running `accessguard dev` where it names none."""
    from accessguard.doctor.rounds import read  # noqa: PLC0415 -- `token` needs none of it

    return read(os.environ)


url_option = click.option(
    "--url", default="http://127.0.0.1:8080", show_default=True, help="Where the service answers."
)
token_option = click.option(
    "--token",
    envvar="ACCESSGUARD_TOKEN",
    help="A caller's token; left out, one for --tenant is made with the secret of the configuration or of a local `dev`.",
)


def caller_token(given: str | None, tenant: str, role: Role) -> str:
    """The token that was given, or one of our own for a service that we hold the secret of."""
    if given:
        return given
    with sentences():
        return dev.sign_token(dev.load_local(), tenant=tenant, role=role, subject=f"{role}@{tenant}", days=1)


@main.command()
@url_option
@click.option(
    "--tenant", default=dev.TENANT, show_default=True, help="What the tokens are bound to; * for all tenants."
)
@token_option
@click.option("--token-id", help="The `jti` of the token to refuse.")
@click.option("--caller", help="The `sub` of the tokens to refuse: all that were issued up to now.")
@click.option("--lift", metavar="ID", help="Refuse no longer what the revocation of this id refuses.")
@click.option("--list", "shown", is_flag=True, help="List what is refused.")
@click.option("--reason", help="Why, as the audit log will say.")
def revoke(
    url: str,
    tenant: str,
    token: str | None,
    *,
    token_id: str | None,
    caller: str | None,
    lift: str | None,
    shown: bool,
    reason: str | None,
) -> None:
    """Refuse a token, or all of a caller's, on every worker of a running service within 5 s."""
    from accessguard import revoke as calling  # noqa: PLC0415 -- `token` needs none of it

    if sum((token_id is not None, caller is not None, lift is not None, shown)) != 1:
        raise click.UsageError("Give one of --token-id, --caller, --lift and --list.")
    signed = caller_token(token, tenant, Role.ROOT if tenant == "*" else Role.ADMINISTRATOR)
    asked = calling.Asked(token_id=token_id, caller=caller, lift=lift, reason=reason)
    complete_run(calling.run(url, signed, asked, say=click.echo))


@main.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@url_option
@click.option("--tenant", default=dev.TENANT, show_default=True)
@token_option
@click.option("--csv", "as_csv", is_flag=True, help="The files are CSV, whatever they are called.")
def import_files(files: tuple[str, ...], url: str, tenant: str, token: str | None, *, as_csv: bool) -> None:
    """Import members and enrolments from FILES, NDJSON or CSV; - is standard input.

    Each line is a member or an enrolment (see `POST /v1/imports`). Safe to
    repeat: what is stored already is not touched. Exit code 1 when lines were refused, which are printed.
    """
    from accessguard import transfer  # noqa: PLC0415 -- `token` needs none of it

    signed = caller_token(token, tenant, Role.PLATFORM)
    good = [True]

    async def run() -> None:
        good[0] = await transfer.import_files(files, url=url, token=signed, as_csv=as_csv)

    complete_run(run())
    if not good[0]:
        sys.exit(1)


@main.command()
@click.argument("target", type=click.File("wb"), default="-")
@url_option
@click.option("--tenant", default=dev.TENANT, show_default=True)
@token_option
@click.option("--csv", "as_csv", is_flag=True, help="As CSV with all that the list of members shows.")
def export(target: BinaryIO, url: str, tenant: str, token: str | None, *, as_csv: bool) -> None:
    """Write all members to TARGET (standard output when left out), as lines that `accessguard import` takes."""
    from accessguard import transfer  # noqa: PLC0415 -- `token` needs none of it

    signed = caller_token(token, tenant, Role.SUPERVISOR)

    async def run() -> None:
        await transfer.export(target, url=url, token=signed, as_csv=as_csv)

    complete_run(run())


if __name__ == "__main__":
    main(prog_name="accessguard")
