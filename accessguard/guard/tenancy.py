"""What administrators decide for a whole tenant: its rules, its settings, that it is there at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.devices.cookie import CookieSettings
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.geo import Geo
from accessguard.guard.acts import Act, log
from accessguard.guard.changes import Changes
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Actor
from accessguard.policies.branding import brand_problems
from accessguard.policies.contradictions import Contradiction, contradicted
from accessguard.policies.host_book import HostStore
from accessguard.policies.hosts import Host, host_problems, plain
from accessguard.policies.model import CookieChoice, RuleBody, RuleRecord, Settings, normalised, parse
from accessguard.policies.platform_tokens import key_problems
from accessguard.policies.proxying import problems as proxy_problems
from accessguard.policies.retention import retention_problems, window_problems
from accessguard.policies.store import PolicyStore
from accessguard.policies.tenants import TenantStatus, TenantStore
from accessguard.rules.engine import judge
from accessguard.rules.model import Facts, Kind, Mode, Outcome, SessionFact, Stage
from accessguard.rules.networks import Address
from accessguard.sessions.live import Change
from accessguard.words.moments import zone
from accessguard.words.template import problems_of

MOST_PROBLEMS: Final = 20

OF_PLACES: Final = {
    Kind.IP_DENY: "networks",
    Kind.IP_ALLOW_ONLY: "networks",
    Kind.COUNTRY_DENY: "countries",
    Kind.COUNTRY_ALLOW_ONLY: "countries",
    Kind.ASN_DENY: "asns",
}
"""Rules that can shut out an address, the author's own among others, and the parameter that does it."""


class Tenancy:
    """Every method raises GuardError: NOT_FOUND for what is not the tenant's, INVALID, CONFLICT, UNAVAILABLE."""

    def __init__(
        self, *, db: Database, changes: Changes, new_id: Callable[[], UUID], geo: Geo, first: Sequence[RuleBody]
    ) -> None:
        self._db = db
        self._geo = geo
        self._first = first
        self._changes = changes
        self._new_id = new_id

    async def create_rule(
        self,
        tenant: str,
        actor: Actor,
        rule_id: UUID,
        body: RuleBody,
        *,
        origin: Address | None,
        confirmed: bool,
        reason: str | None,
        now_ms: int,
    ) -> RuleRecord:
        """Save a new rule; with an id that is already stored (a retry), answer what is stored."""
        now = from_ms(now_ms)
        checked = self._checked(body, rule_id, origin, confirmed=confirmed, now=now)
        async with self._db.transaction() as tx:
            store = PolicyStore(tx)
            await _check(store, tenant, checked, rule_id)
            made = await store.create(tenant, rule_id, checked, at=now, actor=actor.subject, reason=reason)
            if made is not None:
                act = Act(tenant=tenant, actor=actor, action="rule.create", target=str(rule_id), reason=reason, at=now)
                await log(tx, act, None, made.body, entry_id=self._new_id())
            found = made or await store.rule(tenant, rule_id)
        if found is None:
            raise GuardError(ErrorCode.CONFLICT, "The rule of that idempotency key has been deleted since.")
        await self._changes.announce(Change(tenant=tenant, kind="policy_changed"))
        return found

    async def replace_rule(
        self,
        tenant: str,
        actor: Actor,
        rule_id: UUID,
        body: RuleBody,
        *,
        origin: Address | None,
        confirmed: bool,
        reason: str | None,
        now_ms: int,
    ) -> RuleRecord:
        """Save the next version of a rule."""
        now = from_ms(now_ms)
        checked = self._checked(body, rule_id, origin, confirmed=confirmed, now=now)
        async with self._db.transaction() as tx:
            store = PolicyStore(tx)
            await _check(store, tenant, checked, rule_id)
            before = await store.rule(tenant, rule_id)
            after = await store.replace(tenant, rule_id, checked, at=now, actor=actor.subject, reason=reason)
            if before is None or after is None:
                raise _no_rule()
            target = str(rule_id)
            act = Act(tenant=tenant, actor=actor, action="rule.replace", target=target, reason=reason, at=now)
            await log(tx, act, before.body, after.body, entry_id=self._new_id())
        await self._changes.announce(Change(tenant=tenant, kind="policy_changed"))
        return after

    async def delete_rule(self, tenant: str, actor: Actor, rule_id: UUID, *, reason: str | None, now_ms: int) -> None:
        """Take a rule out of force; its versions stay."""
        now = from_ms(now_ms)
        async with self._db.transaction() as tx:
            gone = await PolicyStore(tx).delete(tenant, rule_id, at=now, actor=actor.subject, reason=reason)
            if gone is None:
                raise _no_rule()
            act = Act(tenant=tenant, actor=actor, action="rule.delete", target=str(rule_id), reason=reason, at=now)
            await log(tx, act, gone.body, None, entry_id=self._new_id())
        await self._changes.announce(Change(tenant=tenant, kind="policy_changed"))

    async def save_settings(
        self,
        tenant: str,
        actor: Actor,
        settings: Settings,
        *,
        reason: str | None,
        now_ms: int,
        seen: Callable[[Settings], bool] | None = None,
    ) -> Settings:
        """Replace the tenant's settings; CONFLICT where `seen` says that the stored ones are not those the caller saw."""
        check_settings(settings)
        async with self._db.transaction() as tx:
            store = PolicyStore(tx)
            await store.hold(tenant)
            _refuse("The settings were refused.", retention_problems(settings.retention, await store.rules(tenant)))
            before = await store.settings(tenant)
            _refuse("The settings were refused.", await _taken(HostStore(tx), tenant, settings.hosts, before))
            if seen is not None and before is not None and not seen(before):
                raise GuardError(
                    ErrorCode.CONFLICT,
                    "Somebody else has changed the settings since this page was opened; open it again.",
                )
            after = await store.save_settings(tenant, settings)
            if after is None:
                raise GuardError(ErrorCode.NOT_FOUND, "There is no such tenant.")
            now = from_ms(now_ms)
            act = Act(tenant=tenant, actor=actor, action="settings.replace", target=tenant, reason=reason, at=now)
            await log(tx, act, before, after, entry_id=self._new_id())
        await self._changes.announce(Change(tenant=tenant, kind="policy_changed"))
        return after

    async def create_tenant(self, actor: Actor, tenant: str, name: str, *, reason: str | None, now_ms: int) -> None:
        """Make a tenant; one that is there stays as it is. CONFLICT for one that was deleted."""
        now = from_ms(now_ms)
        async with self._db.transaction() as tx:
            if await PolicyStore(tx).ensure_tenant(tenant, name, at=now, first=self._first_rules()):
                act = Act(tenant=tenant, actor=actor, action="tenant.create", target=tenant, reason=reason, at=now)
                await log(tx, act, None, {"name": name}, entry_id=self._new_id())
            found = await TenantStore(tx).one(tenant)
            if found is None or found.status is TenantStatus.DELETING:
                raise GuardError(
                    ErrorCode.CONFLICT, "A tenant of this name was deleted; its tokens would open this one."
                )
        await self._changes.announce(Change(tenant=tenant, kind="policy_changed"))

    async def provision(self, tenant: str, *, now_ms: int) -> bool:
        """Make a tenant that a token named for the first time; False when it was suspended, or deleted for good."""
        store = PolicyStore(self._db)
        made = await store.ensure_tenant(tenant, tenant, at=from_ms(now_ms), first=self._first_rules())
        if not made:
            return await store.load(tenant) is not None
        await self._changes.announce(Change(tenant=tenant, kind="policy_changed"))
        return True

    def _first_rules(self) -> dict[UUID, RuleBody]:
        """The rules that a new tenant starts with, under ids of its own."""
        return {self._new_id(): body for body in self._first}

    def _checked(
        self, body: RuleBody, rule_id: UUID, origin: Address | None, *, confirmed: bool, now: datetime
    ) -> RuleBody:
        """The body with its defaults; refused when it would lock out its author, unless that is confirmed."""
        full = normalised(body)
        rule = parse(full, id=rule_id, version=1)
        if confirmed or rule.mode is not Mode.ENFORCE or rule.kind not in OF_PLACES:
            return full
        session = SessionFact(id="author", device_id=None, started_at=now, last_activity=now)
        place = self._geo.lookup(origin)
        facts = Facts(now=now, stage=Stage.LOGIN, session=session, device=None, address=origin, place=place)
        everybody = msgspec.structs.replace(rule, scope=type(rule.scope)())
        if judge((everybody,), facts).outcome is Outcome.ALLOW:
            return full
        detail = (
            'this list would lock you out at your present address; send "confirm_lockout": true to save it all the same'
        )
        raise GuardError(
            ErrorCode.CONFLICT,
            "The rule was refused.",
            Problem(pointer=f"/params/{OF_PLACES[rule.kind]}", detail=detail),
        )


async def _taken(store: HostStore, tenant: str, hosts: Sequence[Host], before: Settings | None) -> Sequence[Problem]:
    """Refuse a host that is another school's; one that was there before stays, so that nobody is kept from saving."""
    kept = {plain(each.host) for each in (before.hosts if before else ()) if each.status == "active"}
    new = {plain(each.host): place for place, each in enumerate(hosts) if each.status == "active"}
    if new.keys() <= kept:
        return ()
    await store.hold()
    theirs = {each.host for each in await store.hosts() if each.tenant != tenant}
    detail = "is another school's host"
    return [
        Problem(pointer=f"/hosts/{place}/host", detail=detail)
        for host, place in new.items()
        if host in theirs and host not in kept
    ]


def check_settings(settings: Settings) -> None:
    """Refuse settings that no store need be asked about. Raises GuardError(INVALID) that points at the fields."""
    _check_cookie(settings.cookie)
    _check_messages(settings)
    _refuse("The settings were refused.", host_problems(settings.hosts))
    _check_proxy(settings)
    if zone(settings.time_zone) is None:
        problem = Problem(pointer="/time_zone", detail="is no time zone such as Europe/Rome")
        raise GuardError(ErrorCode.INVALID, "The settings were refused.", problem)
    found = brand_problems(settings.brand)
    _refuse("The settings were refused.", (Problem(pointer=pointer, detail=detail) for pointer, detail in found))


def _check_cookie(asked: CookieChoice) -> None:
    """Refuse what no browser would keep, before a login stumbles over it."""
    try:
        CookieSettings(
            prefix=asked.prefix, domain=asked.domain, same_site=asked.same_site, partitioned=asked.partitioned
        )
    except ValueError as error:
        problem = Problem(pointer="/cookie/domain", detail=str(error))
        raise GuardError(ErrorCode.INVALID, "The settings were refused.", problem) from None


def _check_messages(settings: Settings) -> None:
    """Refuse a text that could not be filled in, before a student would have to read it."""
    _refuse("The settings were refused.", _message_problems(settings))


def _check_proxy(settings: Settings) -> None:
    """Refuse patterns, addresses and keys that could not be used."""
    said = settings.proxy
    found = [*proxy_problems(said), *key_problems(said)]
    _refuse("The settings were refused.", (Problem(pointer=pointer, detail=detail) for pointer, detail in found))


def _message_problems(settings: Settings) -> Iterator[Problem]:
    for code, texts in settings.messages.items():
        for language, wording in texts.items():
            for detail in problems_of(wording.text):
                yield Problem(pointer=f"/messages/{code}/{language}/text", detail=detail)


async def _check(store: PolicyStore, tenant: str, body: RuleBody, rule_id: UUID) -> None:
    """Refuse a rule that looks back further than is kept, or contradicts another one.

    Holds the tenant, so that nobody changes its settings or its rules meanwhile.
    """
    await store.hold(tenant)
    settings = await store.settings(tenant) or Settings()
    rule = parse(body, id=rule_id, version=1)
    _refuse("The rule was refused.", window_problems(rule, settings.retention))
    stored = {record.id: record for record in await store.rules(tenant)}
    others = [parse(record.body, id=record.id, version=record.version) for record in stored.values()]
    found = contradicted(rule, others)
    if found:
        problems = (_contradiction(each, stored, rule_id) for each in found[:MOST_PROBLEMS])
        raise GuardError(ErrorCode.CONFLICT, "The rule contradicts another one.", *problems)


def _contradiction(found: Contradiction, stored: Mapping[UUID, RuleRecord], rule_id: UUID) -> Problem:
    other = stored[found.other if found.one == rule_id else found.one]
    detail = f"{found.detail} (the other rule: {other.body.name or other.body.kind}, {other.id})"
    return Problem(pointer="/params", detail=detail)


def _refuse(message: str, problems: Iterable[Problem]) -> None:
    found = tuple(islice(problems, MOST_PROBLEMS))
    if found:
        raise GuardError(ErrorCode.INVALID, message, *found)


def _no_rule() -> GuardError:
    return GuardError(ErrorCode.NOT_FOUND, "There is no such rule.")
