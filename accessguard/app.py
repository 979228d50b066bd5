"""The composition root: the only file that knows every room."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import platform
import signal
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, MutableMapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web
from uuid_utils.compat import uuid7

from accessguard import __version__, migrations
from accessguard.api.context import CONTEXT, Context
from accessguard.api.docs import add_docs
from accessguard.api.fastlane import FastLane, protocol
from accessguard.api.keys import Keyring
from accessguard.api.lane import Lane
from accessguard.api.middleware import boundary
from accessguard.api.reply import time_text
from accessguard.api.routes import add_routes
from accessguard.api.system import add_admin, add_system
from accessguard.challenges.store import ChallengeStore
from accessguard.config import Config, Provision
from accessguard.database import Database
from accessguard.devices.browser import recognise
from accessguard.devices.cookie import DeviceKey, DeviceTokens
from accessguard.devices.store import DeviceStore
from accessguard.errors import GuardError
from accessguard.events.audit import AuditStore
from accessguard.events.idempotency import IdempotencyStore
from accessguard.geo import Geo
from accessguard.guard.addresses import Addresses
from accessguard.guard.aftermath import Aftermath
from accessguard.guard.challenges import Challenges
from accessguard.guard.changes import Changes
from accessguard.guard.check import Checks
from accessguard.guard.evaluate import Evaluation
from accessguard.guard.facts import from_ms
from accessguard.guard.folds import Folds
from accessguard.guard.grants import Grants
from accessguard.guard.login import Logins
from accessguard.guard.memory import Memory
from accessguard.guard.operators import Operators
from accessguard.guard.ready import Ready
from accessguard.guard.simulation import Simulation, Simulations, ask, simulate_alone
from accessguard.guard.spooling import Spooling
from accessguard.guard.tally import Tally
from accessguard.guard.tenancy import Tenancy
from accessguard.guard.upkeep import Upkeep
from accessguard.jobs.store import JobStore
from accessguard.members.enrolments import EnrolmentStore
from accessguard.members.passes import PassStore
from accessguard.members.store import MemberStore
from accessguard.metrics import BUILD, present_at_zero
from accessguard.policies.book import PolicyBook
from accessguard.policies.model import RuleBody
from accessguard.policies.presets import preset, presets
from accessguard.policies.store import PolicyStore
from accessguard.rules.model import Code, Effect, Outcome
from accessguard.rules.networks import networks
from accessguard.sessions.activity import ActivityLog
from accessguard.sessions.history import HistoryStore
from accessguard.sessions.live import Live
from accessguard.sessions.networks import NetworkStore
from accessguard.sessions.store import SessionStore
from accessguard.sessions.token import SessionKey, SessionTokens
from accessguard.violations.store import ViolationStore
from accessguard.words import catalogues

FLUSH_S: Final = 1.0
BACKLOG: Final = 1024
KEEPALIVE_S: Final = 75.0
LOG: Final = structlog.get_logger("accessguard")


class StartError(Exception):
    """The service cannot start; the text is one sentence that says why."""


class Parts:
    """Everything one worker is made of, and the tasks that keep it up to date."""

    def __init__(self, config: Config, db: Database, live: Live, *, now_ms: Callable[[], int]) -> None:
        memory = Memory()
        sessions, policies, violations = SessionStore(db), PolicyStore(db), ViolationStore(db)
        book = PolicyBook(policies)
        seconds = time.perf_counter
        self._db, self._live, self._memory = db, live, memory
        self.changes = Changes(live=live, memory=memory, book=book, sessions=sessions, policies=policies)
        self.activity = ActivityLog(sessions, clock=seconds)
        self.folds = Folds(violations)
        self.geo = Geo(config.geo.files)
        self.upkeep = Upkeep(sessions=sessions, now_ms=now_ms)
        self.spooling = Spooling(db=db, live=live, changes=self.changes, now_ms=now_ms)
        device_tokens = DeviceTokens([DeviceKey(id=key.id, secret=key.secret) for key in config.keys.device])
        tally = Tally()
        aftermath = Aftermath(
            sessions=sessions,
            networks=NetworkStore(db),
            challenges=ChallengeStore(db),
            folds=self.folds,
            live=live,
            changes=self.changes,
            new_id=uuid7,
        )
        evaluation = Evaluation(
            store=sessions,
            live=live,
            book=book,
            memory=memory,
            aftermath=aftermath,
            tally=tally,
            activity=self.activity,
            tokens=device_tokens,
            geo=self.geo,
            spooling=self.spooling,
        )
        checks = Checks(
            live=live,
            book=book,
            memory=memory,
            folds=self.folds,
            activity=self.activity,
            tally=tally,
            evaluation=evaluation,
            seconds=seconds,
            deadline_s=config.server.check_deadline_ms / 1000,
        )
        self.simulations = Simulations(db=db, lookup=self.geo.lookup, new_id=uuid7, now_ms=now_ms)
        logins = Logins(
            db=db,
            live=live,
            book=book,
            changes=self.changes,
            device_tokens=device_tokens,
            session_tokens=SessionTokens([SessionKey(id=k.id, secret=k.secret) for k in config.keys.session]),
            geo=self.geo,
            identifier_key=config.keys.identifier,
            new_id=uuid7,
            seconds=seconds,
            spooling=self.spooling,
        )
        self.context = Context(
            checks=checks,
            logins=logins,
            challenges=Challenges(db=db, book=book, logins=logins, new_id=uuid7),
            operators=Operators(db=db, changes=self.changes, new_id=uuid7),
            tenancy=Tenancy(db=db, changes=self.changes, new_id=uuid7, geo=self.geo, first=first_rules(config)),
            grants=Grants(db=db, changes=self.changes, new_id=uuid7),
            addresses=Addresses(networks=NetworkStore(db), policies=policies, geo=self.geo),
            simulations=self.simulations,
            changes=self.changes,
            ready=Ready(
                db=db, live=live, memory=memory, tally=tally, geo=self.geo, spooling=self.spooling, now_ms=now_ms
            ),
            sessions=sessions,
            history=HistoryStore(db),
            members=MemberStore(db),
            enrolments=EnrolmentStore(db),
            passes=PassStore(db),
            devices=DeviceStore(db),
            violations=violations,
            policies=policies,
            jobs=JobStore(db),
            audit=AuditStore(db),
            idempotency=IdempotencyStore(db),
            book=book,
            activity=self.activity,
            folds=self.folds,
            geo=self.geo,
            spooling=self.spooling,
            keyring=_keyring(config),
            trusted=networks(config.server.trusted_networks),
            provision_tenants=config.tenants.provision is Provision.FIRST_USE,
            new_id=uuid7,
            now_ms=now_ms,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Context]:
        """Run the tasks; at the end, flush what is pending before the pools close."""
        self._memory.trusted = False
        await self.upkeep.once()
        jobs: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "listen": self.changes.listen,
            "poll": self.changes.poll,
            "spool": self.spooling.run,
            "activity": lambda: self.activity.run(FLUSH_S, held_back=lambda: self.spooling.holds_back),
            "violations": lambda: self.folds.run(FLUSH_S),
            "upkeep": self.upkeep.run,
            "geo": self.geo.run,
        }
        tasks = [asyncio.create_task(_keep(name, job)) for name, job in jobs.items()]
        try:
            yield self.context
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.simulations.stop()
            await self._last_flush()
            await self._live.close()
            await self._db.close()

    async def _last_flush(self) -> None:
        with contextlib.suppress(GuardError):
            await self.spooling.look()
        for what, flush in (("activity", self.activity.flush), ("violations", self.folds.flush)):
            try:
                await flush()
            except GuardError:
                LOG.error("pending_lost", what=what)  # noqa: TRY400 - nothing in the traceback helps


def service(context: Context, *, body_limit_bytes: int) -> web.Application:
    """The API, its document and health, as one application."""
    app = web.Application(middlewares=[boundary], client_max_size=body_limit_bytes)
    app[CONTEXT] = context
    catalogues.load()
    add_routes(app)
    add_docs(app)
    add_system(app)
    return app


def admin(context: Context) -> web.Application:
    """Metrics and health, for the admin port."""
    app = web.Application(middlewares=[boundary])
    app[CONTEXT] = context
    add_admin(app)
    return app


async def open_parts(config: Config, *, now_ms: Callable[[], int] | None = None) -> Parts:
    """Connect to the stores. Raises StartError when PostgreSQL is out of reach or its schema is another."""
    try:
        db = await Database.connect(config.database.url, size=config.database.pool_size)
        await _check_schema(config.database.url)
    except (GuardError, OSError) as error:
        raise StartError("PostgreSQL does not answer; check ACCESSGUARD_DATABASE_URL.") from error
    try:
        live = Live.connect(config.redis.url)
    except ValueError as error:
        raise StartError("ACCESSGUARD_REDIS_URL is not a redis://, rediss:// or unix:// address.") from error
    return Parts(config, db, live, now_ms=now_ms or clock_ms)


async def serve(config: Config, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is under way.

    `on_ready` is told the address once requests are answered. Raises
    StartError for a port in use or a store out of reach.
    """
    _set_up(config)
    parts = await open_parts(config)
    stop = asyncio.Event()
    with _signals(stop):
        async with parts.running() as context:
            runner = _runner(service(context, body_limit_bytes=config.server.body_limit_bytes), config)
            watching = _runner(admin(context), config)
            listening: list[asyncio.Server] = []
            try:
                await _listen_admin(watching, config)
                listening = await _listen(runner, context, config)
                port = listening[0].sockets[0].getsockname()[1]
                if on_ready is not None:
                    on_ready(f"http://{config.server.host}:{port}")
                _calm_collector()
                LOG.info("serving", version=__version__)
                await stop.wait()
                LOG.info("stopping")
            finally:
                for each in listening:
                    each.close()
                await runner.cleanup()
                await watching.cleanup()


async def migrate(database_url: str) -> None:
    """Bring the schema to this release's. Raises StartError when PostgreSQL is out of reach."""
    try:
        await migrations.migrate(database_url)
    except OSError as error:
        raise StartError("PostgreSQL does not answer; check ACCESSGUARD_DATABASE_URL.") from error


async def ensure_tenant(config: Config, tenant: str, name: str) -> None:
    """Make a tenant if it is not there."""
    db = await Database.connect(config.database.url, size=1)
    try:
        first = {uuid7(): body for body in first_rules(config)}
        await PolicyStore(db).ensure_tenant(tenant, name, at=from_ms(clock_ms()), first=first)
    finally:
        await db.close()


async def simulate(
    config: Config,
    tenant: str,
    body: RuleBody,
    *,
    since: datetime,
    until: datetime,
    progress: Callable[[int, int], None],
) -> Simulation:
    """Try a rule on what is recorded. Raises StartError, and GuardError for a rule, tenant or period that is none."""
    try:
        db = await Database.connect(config.database.url, size=1)
    except (GuardError, OSError) as error:
        raise StartError("PostgreSQL does not answer; check ACCESSGUARD_DATABASE_URL.") from error
    try:
        await _check_schema(config.database.url)
        asked = await ask(PolicyStore(db), tenant, body, since=since, until=until, language="en")
        return await simulate_alone(db, Geo(config.geo.files).lookup, asked, progress)
    finally:
        await db.close()


def first_rules(config: Config) -> tuple[RuleBody, ...]:
    """The rules that a new tenant starts with. Raises StartError for a preset that there is not."""
    if config.tenants.preset == "none":
        return ()
    found = preset(config.tenants.preset)
    if found is None:
        names = ", ".join(each.name for each in presets())
        raise StartError(f"There is no preset {config.tenants.preset!r}; there are: {names}, none.")
    return found.rules


def clock_ms() -> int:
    """The time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def _calm_collector() -> None:
    """Keep full collections away from requests: none looks at what is there now, and they become rare.

    What a worker holds is hardly ever part of a cycle, but a full collection looks at
    all of it: 30 ms with ten thousand sessions in memory, in which no request is
    answered. It comes a hundred times as seldom as Python would do it by itself;
    the young generations are collected as ever.
    """
    gc.collect()
    gc.freeze()
    youngest, young, old = gc.get_threshold()
    gc.set_threshold(youngest, young, 100 * old)


def _set_up(config: Config) -> None:
    levels = {"debug": 10, "info": 20, "warning": 30, "error": 40}
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _where,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(levels[config.log.level]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=max(levels[config.log.level], logging.WARNING), force=True)
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)  # says every second what the breaker says once
    BUILD.info({"version": __version__, "python": platform.python_version()})
    present_at_zero(outcomes=list(Outcome), codes=list(Code), effects=list(Effect))
    recognise("")  # loads the recogniser's tables before the first request needs them


async def _keep(name: str, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a job until cancelled; one that fails for a reason nobody thought of is logged and begun again."""
    while True:
        try:
            await job()
        except Exception as error:
            LOG.exception("job_failed", job=name, exc_info=error)
        await asyncio.sleep(FLUSH_S)


class JsonLines(logging.Formatter):
    """What libraries log, as one line of JSON: their sentence without its values, which may be personal."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: MutableMapping[str, Any] = {
            "event": record.msg if isinstance(record.msg, str) else type(record.msg).__name__,
            "logger": record.name,
            "level": record.levelname.lower(),
            "timestamp": time_text(from_ms(int(record.created * 1000))),
            "exc_info": record.exc_info[1] if record.exc_info else None,
        }
        return msgspec.json.encode(_where(None, "", line)).decode()


def _where(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Say where an error arose, without its message and values: they may be personal."""
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)
        event["error"] = type(error).__name__
        event["frames"] = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return event


def _keyring(config: Config) -> Keyring:
    path = config.tokens.jwks_file
    try:
        return Keyring(
            secrets=config.tokens.secrets,
            jwks=Path(path).read_bytes() if path else None,
            algorithms=config.tokens.algorithms,
            audience=config.tokens.audience,
            issuers=config.tokens.issuers,
            leeway_s=config.tokens.leeway_s,
        )
    except (OSError, ValueError) as error:
        raise StartError(f"The keys of callers' tokens cannot be used: {error}.") from error


async def _check_schema(database_url: str) -> None:
    found, needed = await migrations.revision(database_url), migrations.head()
    if found != needed:
        raise StartError(
            f"The schema is at {found or 'nothing'}, this release needs {needed}: run `accessguard migrate`."
        )


def _runner(app: web.Application, config: Config) -> web.AppRunner:
    return web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=config.server.shutdown_s,
        keepalive_timeout=KEEPALIVE_S,
    )


async def _listen(runner: web.AppRunner, context: Context, config: Config) -> list[asyncio.Server]:
    """The service's sockets, with the fast lane in front of the application."""
    server = config.server
    await runner.setup()
    factory = lane_protocol(runner, context, body_limit_bytes=server.body_limit_bytes)
    loop = asyncio.get_running_loop()
    place = f"{server.host}:{server.port}"
    try:
        listening = [await loop.create_server(factory, server.host, server.port, backlog=BACKLOG)]
        if server.unix_socket is not None:
            place = server.unix_socket
            listening.append(await loop.create_unix_server(factory, place, backlog=BACKLOG))
    except OSError as error:
        raise StartError(f"Cannot listen on {place}: {error.strerror or error}.") from error
    return listening


def lane_protocol(runner: web.AppRunner, context: Context, *, body_limit_bytes: int) -> Callable[[], FastLane]:
    """What answers a connection: the fast lane, and behind it the application of a runner that is set up."""
    if runner.server is None:
        raise RuntimeError("the runner is not set up")
    lane = Lane(context, body_limit_bytes=body_limit_bytes, keepalive_s=KEEPALIVE_S)
    return protocol(runner.server, lane, access_log=None)


async def _listen_admin(runner: web.AppRunner, config: Config) -> None:
    server = config.server
    await runner.setup()
    try:
        await web.TCPSite(runner, server.admin_host, server.admin_port, backlog=BACKLOG).start()
    except OSError as error:
        place = f"{server.admin_host}:{server.admin_port}"
        raise StartError(f"Cannot listen on {place}: {error.strerror or error}.") from error


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Any:
    loop = asyncio.get_running_loop()
    endings = (signal.SIGINT, signal.SIGTERM)
    for each in endings:
        loop.add_signal_handler(each, stop.set)
    try:
        yield
    finally:
        for each in endings:
            loop.remove_signal_handler(each)
