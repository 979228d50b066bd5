"""What handlers find on the application: the use cases and stores, and who is asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final
from uuid import UUID

import msgspec
from aiohttp import web

from accessguard.api.bounds import Bounds
from accessguard.api.certified import Certificates
from accessguard.api.keys import Caller, Keyring
from accessguard.api.origin import client_address
from accessguard.api.steps import Steps
from accessguard.devices.store import DeviceStore
from accessguard.events.audit import AuditStore
from accessguard.events.idempotency import IdempotencyStore
from accessguard.events.preferences import PreferenceStore
from accessguard.events.revocations import RevocationStore
from accessguard.events.stream import Feeds
from accessguard.events.webhooks import WebhookStore
from accessguard.geo import Geo
from accessguard.guard.addresses import Addresses
from accessguard.guard.annals import Annals
from accessguard.guard.bundle import Bundles
from accessguard.guard.card import Cards
from accessguard.guard.challenges import Challenges
from accessguard.guard.changes import Changes
from accessguard.guard.check import Checks
from accessguard.guard.entrance import Entrance
from accessguard.guard.erasure import Erasure
from accessguard.guard.explaining import Explaining
from accessguard.guard.folds import Folds
from accessguard.guard.grants import Grants
from accessguard.guard.intake import Imports
from accessguard.guard.login import Logins
from accessguard.guard.merging import Merging
from accessguard.guard.model import Actor
from accessguard.guard.operators import Operators
from accessguard.guard.ready import Ready
from accessguard.guard.refused import RefusedPages
from accessguard.guard.reporting import Reporting
from accessguard.guard.revoking import Revoking
from accessguard.guard.selecting import Bulk
from accessguard.guard.simulation import Simulations
from accessguard.guard.spooling import Spooling
from accessguard.guard.tenancy import Tenancy
from accessguard.guard.tenants import Tenants
from accessguard.guard.union import Union
from accessguard.guard.webhooks import Webhooks
from accessguard.jobs.parts import PartStore
from accessguard.jobs.store import JobStore
from accessguard.members.access import AccessStore
from accessguard.members.archive import ArchiveStore
from accessguard.members.comments import CommentStore
from accessguard.members.directory import Directory
from accessguard.members.enrolments import EnrolmentStore
from accessguard.members.notices import NoticeStore
from accessguard.members.passes import PassStore
from accessguard.members.present import PresentStore
from accessguard.members.related import RelatedStore
from accessguard.members.sharing import SharingStore
from accessguard.members.store import MemberStore
from accessguard.policies.book import PolicyBook
from accessguard.policies.host_book import HostBook
from accessguard.policies.platform_tokens import PlatformTokens
from accessguard.policies.store import PolicyStore
from accessguard.policies.tenants import TenantStore
from accessguard.rules.networks import Address, Networks
from accessguard.sessions.activity import ActivityLog
from accessguard.sessions.history import HistoryStore
from accessguard.sessions.store import SessionStore
from accessguard.sessions.token import SessionTokens
from accessguard.tallies.store import TallyStore
from accessguard.violations.store import ViolationStore


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a handler may use; one for each worker."""

    checks: Checks
    logins: Logins
    challenges: Challenges
    explaining: Explaining
    operators: Operators
    merging: Merging
    tenancy: Tenancy
    entrance: Entrance
    erasure: Erasure
    tenants: Tenants
    tenant_store: TenantStore
    archive: ArchiveStore
    notices: NoticeStore
    grants: Grants
    imports: Imports
    bulk: Bulk
    union: Union
    addresses: Addresses
    simulations: Simulations
    cards: Cards
    bundles: Bundles
    annals: Annals
    reporting: Reporting
    changes: Changes
    feeds: Feeds
    webhooks: Webhooks
    webhook_store: WebhookStore
    ready: Ready
    sessions: SessionStore
    history: HistoryStore
    present: PresentStore
    members: MemberStore
    directory: Directory
    related: RelatedStore
    sharing: SharingStore
    enrolments: EnrolmentStore
    passes: PassStore
    comments: CommentStore
    access: AccessStore
    tallies: TallyStore
    preferences: PreferenceStore
    devices: DeviceStore
    violations: ViolationStore
    policies: PolicyStore
    jobs: JobStore
    parts: PartStore
    audit: AuditStore
    book: PolicyBook
    hosts: HostBook
    activity: ActivityLog
    folds: Folds
    geo: Geo
    spooling: Spooling
    keyring: Keyring
    certificates: Certificates | None
    bounds: Bounds
    steps: Steps
    revoking: Revoking
    revocations: RevocationStore
    session_tokens: SessionTokens
    pages: RefusedPages
    platform_tokens: PlatformTokens
    trusted: Networks
    trust_unix: bool
    proxy_tenant: str | None
    provision_tenants: bool
    idempotency: IdempotencyStore
    new_id: Callable[[], UUID]
    now_ms: Callable[[], int]


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and for which tenant."""

    caller: Caller
    tenant: str

    @property
    def actor(self) -> Actor:
        """The caller as the audit log names it."""
        return Actor(subject=self.caller.subject, role=self.caller.role)


CONTEXT: Final = web.AppKey("context", Context)
ASKING: Final = web.RequestKey("asking", Asking)
TIMER: Final = web.RequestKey("timer", asyncio.Timeout)


def context(request: web.Request) -> Context:
    """The application's parts."""
    return request.app[CONTEXT]


def asking(request: web.Request) -> Asking:
    """Who asks; set before a handler runs."""
    return request[ASKING]


def unhurried(request: web.BaseRequest) -> None:
    """Let this answer take as long as it needs: it has begun, or goes on with what comes in."""
    if TIMER in request:
        request[TIMER].reschedule(None)


def origin(request: web.Request) -> Address | None:
    """Where the request comes from, by the one rule for all entry points; None when unknown."""
    return client_address(
        request.remote,
        request.headers.getall("X-Forwarded-For", []),
        request.headers.getall("Forwarded", []),
        context(request).trusted,
        trust_unix=context(request).trust_unix,
    )
