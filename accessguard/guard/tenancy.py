"""What administrators decide for a whole tenant: its rules, its settings, that it is there at all."""

from __future__ import annotations

IMPORTS


class Tenancy:
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
        checked = _checked(body, rule_id, origin, confirmed=confirmed, now=now)
        async with self._db.transaction() as tx:
            store = PolicyStore(tx)
            made = await store.create(tenant, rule_id, checked, at=now, actor=actor.subject, reason=reason)
            if made is not None:
                act = Act(tenant=tenant, actor=actor, action="rule.create", target=str(rule_id), reason=reason, at=now)
                await self._audit(tx, act, None, made.body)
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
        checked = _checked(body, rule_id, origin, confirmed=confirmed, now=now)
        async with self._db.transaction() as tx:
            store = PolicyStore(tx)
            before = await store.rule(tenant, rule_id)
            after = await store.replace(tenant, rule_id, checked, at=now, actor=actor.subject, reason=reason)
            if before is None or after is None:
                raise _no_rule()
            target = str(rule_id)
            act = Act(tenant=tenant, actor=actor, action="rule.replace", target=target, reason=reason, at=now)
            await self._audit(tx, act, before.body, after.body)
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
            await self._audit(tx, act, gone.body, None)
        await self._changes.announce(Change(tenant=tenant, kind="policy_changed"))

    async def save_settings(
        self, tenant: str, actor: Actor, settings: Settings, *, reason: str | None, now_ms: int
    ) -> Settings:
        """Replace the tenant's settings."""
        _check_cookie(settings.cookie)
        async with self._db.transaction() as tx:
            store = PolicyStore(tx)
            before = await store.settings(tenant)
            after = await store.save_settings(tenant, settings)
            if after is None:
                raise GuardError(ErrorCode.NOT_FOUND, "There is no such tenant.")
            now = from_ms(now_ms)
            act = Act(tenant=tenant, actor=actor, action="settings.replace", target=tenant, reason=reason, at=now)
            await self._audit(tx, act, before, after)
        await self._changes.announce(Change(tenant=tenant, kind="policy_changed"))
        return after

    async def create_tenant(self, actor: Actor, tenant: str, name: str, *, reason: str | None, now_ms: int) -> None:
        """Make a tenant; one that is there stays as it is."""
        now = from_ms(now_ms)
        async with self._db.transaction() as tx:
            if await PolicyStore(tx).ensure_tenant(tenant, name, at=now):
                act = Act(tenant=tenant, actor=actor, action="tenant.create", target=tenant, reason=reason, at=now)
                await self._audit(tx, act, None, {"name": name})
        await self._changes.announce(Change(tenant=tenant, kind="policy_changed"))

    async def _audit(self, tx: Database, act: Act, before: Any, after: Any) -> None:
        entry = Entry(
            id=self._new_id(),
            at=act.at,
            actor=act.actor.subject,
            role=act.actor.role,
            action=act.action,
            target_kind=act.action.partition(".")[0],
            target_id=act.target,
            before=before,
            after=after,
            reason=act.reason,
        )
        await AuditStore(tx).add(act.tenant, entry)


def _check_cookie(asked: CookieChoice) -> None:
    """Refuse what no browser would keep, before a login stumbles over it."""
    try:
        CookieSettings(prefix=asked.prefix, domain=asked.domain, same_site=asked.same_site)
    except ValueError as error:
        problem = Problem(pointer="/cookie/domain", detail=str(error))
        raise GuardError(ErrorCode.INVALID, "The settings were refused.", problem) from None


def _checked(body: RuleBody, rule_id: UUID, origin: Address | None, *, confirmed: bool, now: datetime) -> RuleBody:
    """The body with its defaults; refused when it would lock out its author, unless that is confirmed."""
    full = normalised(body)
    rule = parse(full, id=rule_id, version=1)
    if confirmed or rule.mode is not Mode.ENFORCE or rule.kind not in {Kind.IP_DENY, Kind.IP_ALLOW_ONLY}:
        return full
    session = SessionFact(id="author", device_id=None, started_at=now, last_activity=now)
    facts = Facts(now=now, stage=Stage.LOGIN, session=session, device=None, address=origin)
    everybody = msgspec.structs.replace(rule, scope=type(rule.scope)())
    if judge((everybody,), facts).outcome is Outcome.ALLOW:
        return full
    detail = (
        'this list would lock you out at your present address; send "confirm_lockout": true to save it all the same'
    )
    raise GuardError(ErrorCode.CONFLICT, "The rule was refused.", Problem(pointer="/params/networks", detail=detail))


def _no_rule() -> GuardError:
    return GuardError(ErrorCode.NOT_FOUND, "There is no such rule.")
