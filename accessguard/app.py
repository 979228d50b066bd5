"""The composition root: the only file that knows every room."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime
from typing import Any, Final

import structlog
from aiohttp import web
from uuid_utils.compat import uuid7

from accessguard import migrations
from accessguard.api.bounds import Bounds
from accessguard.api.context import CONTEXT, Context
from accessguard.api.docs import add_docs
from accessguard.api.middleware import boundary
from accessguard.api.routing import add_routes
from accessguard.api.steps import Steps
from accessguard.api.system import add_admin, add_system
from accessguard.api.timely import begun, stepwise, timely
from accessguard.api.watching import watched
from accessguard.breaker import Store
from accessguard.challenges.store import ChallengeStore
from accessguard.config import Config, Provision
from accessguard.console.pages import add_console
from accessguard.credentials import certificates, hook_keys, key_files, keyring_of, published_keys, rates
from accessguard.database import Database
from accessguard.devices.cookie import DeviceKey, DeviceTokens
from accessguard.devices.inquiry import Inquiry
from accessguard.devices.recogniser import Recogniser
from accessguard.devices.recognitions import RecognitionStore
from accessguard.devices.refinement import recogniser as recogniser_version
from accessguard.devices.store import DeviceStore
from accessguard.errors import GuardError, StartError
from accessguard.events.audit import AuditStore
from accessguard.events.idempotency import IdempotencyStore
from accessguard.events.outbox import OutboxStore
from accessguard.events.preferences import PreferenceStore
from accessguard.events.revocations import RevocationStore
from accessguard.events.sender import Sender
from accessguard.events.stream import Feeds
from accessguard.events.webhooks import WebhookStore
from accessguard.geo import Geo
from accessguard.guard.acting import Acting
from accessguard.guard.addresses import Addresses
from accessguard.guard.aftermath import Aftermath
from accessguard.guard.annals import Annals
from accessguard.guard.bulk import BulkAction
from accessguard.guard.bundle import Bundles
from accessguard.guard.card import Cards
from accessguard.guard.challenges import Challenges
from accessguard.guard.changes import Changes
from accessguard.guard.check import Checks
from accessguard.guard.clock import Clock
from accessguard.guard.confirmation import Confirmations
from accessguard.guard.entrance import Entrance
from accessguard.guard.erasure import Erasure
from accessguard.guard.evaluate import Evaluation
from accessguard.guard.explaining import Explaining
from accessguard.guard.facts import from_ms
from accessguard.guard.figures import Figures
from accessguard.guard.folds import Folds
from accessguard.guard.grants import Grants
from accessguard.guard.intake import Imports, Intake
from accessguard.guard.login import Logins
from accessguard.guard.memory import Memory
from accessguard.guard.merging import Merging
from accessguard.guard.operators import Operators
from accessguard.guard.ready import Ready
from accessguard.guard.refused import RefusedPages
from accessguard.guard.reporting import Reporting
from accessguard.guard.revoking import Revoking
from accessguard.guard.risk import Risk
from accessguard.guard.room import Room
from accessguard.guard.running import Runner
from accessguard.guard.schema import SchemaWatch, schema
from accessguard.guard.selecting import Bulk, BulkStep
from accessguard.guard.sharing import Sharing
from accessguard.guard.shown import Shown
from accessguard.guard.simulation import Simulation, Simulations, ask, simulate_alone
from accessguard.guard.spooling import Spooling
from accessguard.guard.tally import Tally
from accessguard.guard.tenancy import Tenancy
from accessguard.guard.tenants import Tenants
from accessguard.guard.union import Union
from accessguard.guard.upkeep import Upkeep
from accessguard.guard.webhooks import Webhooks
from accessguard.jobs.model import JobKind
from accessguard.jobs.parts import PartStore
from accessguard.jobs.store import JobStore
from accessguard.members.access import AccessStore
from accessguard.members.archive import ArchiveStore
from accessguard.members.comments import CommentStore
from accessguard.members.directory import Directory
from accessguard.members.enrolments import EnrolmentStore
from accessguard.members.notices import NoticeStore
from accessguard.members.pages import PageStore
from accessguard.members.passes import PassStore
from accessguard.members.present import PresentStore
from accessguard.members.related import RelatedStore
from accessguard.members.sharing import SharingStore
from accessguard.members.store import MemberStore
from accessguard.policies.book import PolicyBook
from accessguard.policies.host_book import HostBook, HostStore
from accessguard.policies.model import RuleBody
from accessguard.policies.platform_tokens import PlatformTokens
from accessguard.policies.presets import preset, presets
from accessguard.policies.store import PolicyStore
from accessguard.policies.tenants import TenantStore
from accessguard.replica import REPLICA_S, Reading
from accessguard.rules.networks import networks
from accessguard.sessions.activity import ActivityLog
from accessguard.sessions.history import HistoryStore
from accessguard.sessions.live import Live
from accessguard.sessions.networks import NetworkStore
from accessguard.sessions.store import SessionStore
from accessguard.sessions.token import SessionKey, SessionTokens
from accessguard.signing import SigningKey
from accessguard.tallies.store import TallyStore
from accessguard.violations.store import ViolationStore
from accessguard.words import catalogues

FLUSH_S: Final = 1.0
LAST_WRITES_S: Final = 1.0
"""How long a stop waits for writes that no answer waited for."""
LAST_DRAIN_S: Final = 3.0
"""How long it drains: with a long spool that could go on for minutes, and another worker goes on with it."""
LOG: Final = structlog.get_logger("accessguard")


class Parts:
    """Everything one worker is made of, and the tasks that keep it up to date."""

    def __init__(
        self, config: Config, db: Database, live: Live, *, now_ms: Callable[[], int], lists: Database | None = None
    ) -> None:
        lists = lists or db
        memory = Memory()
        now_ms = Clock(now_ms, memory.drop_all)
        sessions, policies, violations = SessionStore(db), PolicyStore(db), ViolationStore(db)
        book = PolicyBook(policies)
        hosts = HostBook(HostStore(db))
        book.on_drop = hosts.expire
        seconds = time.perf_counter
        self._db, self._lists, self._live, self._memory = db, lists, live, memory
        self.changes = Changes(live=live, memory=memory, book=book, sessions=sessions, policies=policies)
        self.keyring = keyring_of(config)
        self.revoking = Revoking(db=db, changes=self.changes, new_id=uuid7, on_told=self.keyring.hear)
        self.feeds = Feeds(OutboxStore(db))
        self.changes.on_change = self.feeds.wake
        hooks, issuer = hook_keys(config), config.server.public_url
        sender = Sender(config.webhooks.allow_networks, keys=hooks, issuer=issuer)
        self.webhooks = Webhooks(db=db, sender=sender, keys=hooks, issuer=issuer, new_id=uuid7, now_ms=now_ms)
        self.activity = ActivityLog(sessions, clock=seconds)
        self.folds = Folds(violations)
        self.geo = Geo(config.geo.files, now_s=lambda: now_ms() / 1000, on_change=self.changes.places)
        self.recogniser = Recogniser(
            store=RecognitionStore(db, version=recogniser_version()), inquiry=Inquiry(), now_ms=now_ms, at=from_ms
        )
        self.upkeep = Upkeep(db, now_ms=now_ms)
        self.figures = Figures(lists, wanted=config.metrics.tenants)
        self.schema = SchemaWatch(db, migrations.objection)
        self.sharing, self.risk = Sharing(db=db, now_ms=now_ms), Risk(db=db, now_ms=now_ms)
        self.spooling = Spooling(db=db, live=live, changes=self.changes, now_ms=now_ms)
        device_tokens = DeviceTokens([DeviceKey(id=key.id, secret=key.secret) for key in config.keys.device])
        session_tokens = SessionTokens([SessionKey(id=key.id, secret=key.secret) for key in config.keys.session])
        pages = RefusedPages(config.keys.session, config.server.public_url)
        self.keys = key_files(config, device_tokens, session_tokens, pages, hooks=hooks, callers=self.keyring)
        self.jwks = published_keys(config, self.keyring)
        self.shown = Shown(DeviceStore(db))
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
        self._evaluation = evaluation = Evaluation(
            store=sessions,
            live=live,
            book=book,
            memory=memory,
            aftermath=aftermath,
            tally=tally,
            activity=self.activity,
            tokens=device_tokens,
            shown=self.shown,
            geo=self.geo,
            spooling=self.spooling,
            bars=self.changes.bars,
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
        self.reporting = Reporting(db=db, now_ms=now_ms)
        room = Room(db=db, most=config.limits.devices_per_member, now_ms=now_ms)
        logins = Logins(
            db=db,
            live=live,
            book=book,
            changes=self.changes,
            device_tokens=device_tokens,
            session_tokens=session_tokens,
            geo=self.geo,
            recogniser=self.recogniser,
            identifier_key=config.keys.identifier,
            new_id=uuid7,
            seconds=seconds,
            spooling=self.spooling,
            room=room,
        )
        intake = Intake(
            db=db,
            book=book,
            changes=self.changes,
            key=config.keys.identifier,
            new_id=uuid7,
            now_ms=now_ms,
        )
        erasure = Erasure(
            db=db,
            live=live,
            changes=self.changes,
            spooling=self.spooling,
            key=config.keys.identifier,
            new_id=uuid7,
        )
        actions = {**Acting(db=db, changes=self.changes, new_id=uuid7).actions, BulkAction.ERASE: erasure.batch}
        self.runner = Runner(
            db=db,
            steps={
                JobKind.IMPORT: intake,
                JobKind.BULK: BulkStep(db=db, actions=actions, now_ms=now_ms),
            },
            new_id=uuid7,
            now_ms=now_ms,
        )
        self.union = Union(db=db, book=book, changes=self.changes, spooling=self.spooling, new_id=uuid7)
        self.changes.on_erased = self.folds.forget
        tenants = Tenants(
            db=db,
            live=live,
            changes=self.changes,
            spooling=self.spooling,
            confirmations=Confirmations(config.keys.session),
            new_id=uuid7,
        )
        self.upkeep.chores = (*self.upkeep.chores, tenants.chore, self.webhooks.chore, room.chore)
        challenges = Challenges(db=db, book=book, logins=logins, new_id=uuid7)
        self.context = Context(
            checks=checks,
            logins=logins,
            challenges=challenges,
            explaining=Explaining(
                challenges=challenges, history=HistoryStore(db), devices=DeviceStore(db), violations=violations
            ),
            operators=Operators(db=db, changes=self.changes, new_id=uuid7),
            merging=Merging(db=db, book=book, changes=self.changes, new_id=uuid7),
            tenancy=Tenancy(db=db, changes=self.changes, new_id=uuid7, geo=self.geo, first=first_rules(config)),
            entrance=Entrance(db=db, keys=config.keys.session, new_id=uuid7),
            erasure=erasure,
            tenants=tenants,
            tenant_store=TenantStore(db),
            archive=ArchiveStore(lists),
            notices=NoticeStore(db),
            grants=Grants(db=db, changes=self.changes, new_id=uuid7),
            imports=Imports(db=db, runner=self.runner, new_id=uuid7, now_ms=now_ms),
            bulk=Bulk(
                db=db,
                members=Directory(db),
                book=book,
                actions=actions,
                confirmations=Confirmations([SigningKey(id=key.id, secret=key.secret) for key in config.keys.session]),
                runner=self.runner,
                now_ms=now_ms,
            ),
            union=self.union,
            addresses=Addresses(networks=NetworkStore(db), policies=policies, geo=self.geo),
            simulations=self.simulations,
            cards=Cards(
                history=HistoryStore(db),
                devices=DeviceStore(db),
                violations=violations,
                comments=CommentStore(db),
                pages=PageStore(db),
                related=RelatedStore(db),
                geo=self.geo,
            ),
            bundles=Bundles(history=HistoryStore(db), devices=DeviceStore(db), violations=violations, geo=self.geo),
            annals=Annals(db=db, new_id=uuid7),
            reporting=self.reporting,
            changes=self.changes,
            feeds=self.feeds,
            webhooks=self.webhooks,
            webhook_store=WebhookStore(db),
            ready=Ready(
                db=db,
                live=live,
                memory=memory,
                changes=self.changes,
                tally=tally,
                geo=self.geo,
                keys=self.keys,
                spooling=self.spooling,
                schema=self.schema,
                now_ms=now_ms,
            ),
            sessions=sessions,
            history=HistoryStore(lists),
            present=PresentStore(db),
            members=MemberStore(db),
            directory=Directory(db, lists),
            related=RelatedStore(lists),
            sharing=SharingStore(lists),
            enrolments=EnrolmentStore(db),
            passes=PassStore(db),
            comments=CommentStore(lists),
            access=AccessStore(lists),
            tallies=TallyStore(db, lists),
            preferences=PreferenceStore(db),
            devices=DeviceStore(db),
            violations=ViolationStore(db, lists),
            policies=policies,
            jobs=JobStore(db),
            parts=PartStore(db),
            audit=AuditStore(lists),
            idempotency=IdempotencyStore(db),
            book=book,
            hosts=hosts,
            activity=self.activity,
            folds=self.folds,
            geo=self.geo,
            spooling=self.spooling,
            keyring=self.keyring,
            certificates=certificates(config),
            bounds=Bounds(rates(config), clock=time.monotonic),
            steps=Steps(self._live.leave),
            revoking=self.revoking,
            revocations=RevocationStore(db),
            session_tokens=session_tokens,
            pages=pages,
            platform_tokens=PlatformTokens(),
            trusted=networks(config.server.trusted_networks),
            trust_unix=config.server.trust_unix_socket,
            proxy_tenant=config.server.proxy_tenant,
            provision_tenants=config.tenants.provision is Provision.FIRST_USE,
            new_id=uuid7,
            now_ms=now_ms,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Context]:
        """Run the tasks; at the end, flush what is pending before the pools close."""
        self._memory.trusted = False
        await self.upkeep.once()
        await self.revoking.look()
        if self.jwks is not None:
            await self.jwks.refresh()
        jobs: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "listen": self.changes.listen,
            "poll": self.changes.poll,
            "bars": self.changes.leave,
            "revoked": self.revoking.run,
            "stream": self.feeds.run,
            "webhooks": self.webhooks.run,
            "awake": self.changes.stay_awake,
            "spool": self.spooling.run,
            "activity": lambda: self.activity.run(FLUSH_S, held_back=lambda: self.spooling.holds_back),
            "violations": lambda: self.folds.run(FLUSH_S),
            "upkeep": self.upkeep.run,
            "schema": self.schema.run,
            "figures": self.figures.run,
            "sharing": self.sharing.run,
            "risk": self.risk.run,
            "jobs": self.runner.run,
            "geo": self.geo.run,
            "keys": self.keys.run,
            "shown": lambda: self.shown.run(FLUSH_S),
            "recognition": self.recogniser.run,
        }
        if self.jwks is not None:
            jobs["jwks"] = self.jwks.run
        tasks = [asyncio.create_task(_keep(name, job)) for name, job in jobs.items()]
        try:
            yield self.context
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.simulations.stop()
            await self.reporting.stop()
            await self.runner.stop()
            await self.union.stop()
            await self.recogniser.stop()
            await self._last_flush()
            await self._live.close()
            await self._db.close()
            if self._lists is not self._db:
                await self._lists.close()

    async def _last_flush(self) -> None:
        """Write what is pending. Logins that wait do so in Valkey, where they are safe; the beats of their sessions come after them."""
        await self._evaluation.finish(LAST_WRITES_S)
        with contextlib.suppress(GuardError, TimeoutError):
            async with asyncio.timeout(LAST_DRAIN_S):
                await self.spooling.look()
        pending = {"activity": self.activity.flush, "violations": self.folds.flush, "tokens": self.shown.flush}
        for what, flush in pending.items():
            try:
                await flush()
            except Exception as error:
                LOG.exception("pending_lost", what=what, exc_info=error)


def service(context: Context, *, body_limit_bytes: int) -> web.Application:
    """The API, its document and health, as one application."""
    app = web.Application(middlewares=[stepwise, watched, boundary, timely], client_max_size=body_limit_bytes)
    app[CONTEXT] = context
    app.on_response_prepare.append(begun)
    catalogues.load()
    add_routes(app)
    add_docs(app)
    add_system(app)
    add_console(app)
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
        db = await _database(config, size=config.database.pool_size)
        await _check_schema(db)
        if wanting := await db.unsettled():
            LOG.warning("database_settings", on=wanting)
    except (GuardError, OSError) as error:
        raise StartError("PostgreSQL does not answer; check ACCESSGUARD_DATABASE_URL.") from error
    try:
        live = Live.connect(config.redis.url)
    except ValueError as error:
        raise StartError(
            "ACCESSGUARD_REDIS_URL is not a redis://, rediss://, unix://, redis+cluster:// or redis+sentinel:// address."
        ) from error
    return Parts(config, db, live, now_ms=now_ms or clock_ms, lists=await _lists(config, db))


async def migrate(database_url: str, *, patience_s: float = migrations.PATIENCE_S) -> None:
    """Bring the schema to this release's, trying for `patience_s`. Raises StartError when that or PostgreSQL is out of reach."""
    try:
        await migrations.migrate(database_url, patience_s=patience_s)
    except OSError as error:
        raise StartError("PostgreSQL does not answer; check ACCESSGUARD_DATABASE_URL.") from error


async def ensure_tenant(config: Config, tenant: str, name: str) -> None:
    """Make a tenant if it is not there."""
    db = await _database(config, size=1)
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
        db = await _database(config, size=1)
    except (GuardError, OSError) as error:
        raise StartError("PostgreSQL does not answer; check ACCESSGUARD_DATABASE_URL.") from error
    try:
        await _check_schema(db)
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


async def _keep(name: str, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a job until cancelled; one that fails for a reason nobody thought of is logged and begun again."""
    while True:
        try:
            await job()
        except Exception as error:
            LOG.exception("job_failed", job=name, exc_info=error)
        await asyncio.sleep(FLUSH_S)


async def _database(config: Config, *, size: int) -> Database:
    return await Database.connect(config.database.url, size=size, pooled=config.database.pgbouncer)


async def _lists(config: Config, db: Database) -> Database:
    """Where lists are read from: the replica, when there is one."""
    if not config.database.replica_url:
        return db
    replica = await Database.connect(
        config.database.replica_url,
        size=config.database.pool_size,
        timeout_s=REPLICA_S,
        pooled=config.database.pgbouncer,
        store=Store.REPLICA,
    )
    return Reading(db, replica)


async def _check_schema(db: Database) -> None:
    why = migrations.objection(await schema(db))
    if why is not None:
        raise StartError(why)
