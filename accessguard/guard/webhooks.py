"""Webhooks: made and taken away by administrators, and sent by one worker at a time."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from secrets import token_bytes
from typing import Final
from uuid import UUID

import msgspec
import structlog

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError
from accessguard.events.digests import DigestStore, boundary, zone_of
from accessguard.events.keys import HookKeys
from accessguard.events.sealed import Locked, SealedStore
from accessguard.events.sender import Sender
from accessguard.events.webhooks import Delivery, Outcome, Parcel, Webhook, WebhookStore
from accessguard.guard.acts import Act, fields, log
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Actor
from accessguard.guard.upkeep import Chore, Job
from accessguard.guard.wishes import Wish, check, made_of
from accessguard.metrics import WEBHOOKS
from accessguard.policies.store import PolicyStore

LOCK: Final = "SELECT pg_try_advisory_xact_lock($1)"
LOCK_NUMBER: Final = 0x4147_0013  # "AG" 19; any constant works, as long as every release takes the same
EVERY_S: Final = 0.5
IDLE_S: Final = 2.0
MOST_UNDER_WAY: Final = 64
MOST_PAGES: Final = 50
"""Of webhooks before what is due is sent; the rest waits for the next turn."""
SECRET_BYTES: Final = 32
RESEAL_EVERY: Final = timedelta(minutes=10)
RESEALED: Final = 200
"""Secrets that are encrypted anew in one step."""
SHOWN: Final = ("url", "events", "format", "audience", "digest", "status")
LOG: Final = structlog.get_logger("accessguard.webhooks")


class Webhooks:
    """One for each worker. Every method raises GuardError(UNAVAILABLE) when PostgreSQL is out of reach.

    `issuer` is what tokens say as `iss`; without it there are none.
    """

    def __init__(
        self,
        *,
        db: Database,
        sender: Sender,
        keys: HookKeys,
        issuer: str | None,
        new_id: Callable[[], UUID],
        now_ms: Callable[[], int],
    ) -> None:
        self._db = db
        self._store = WebhookStore(db)
        self.sender = sender
        self.keys = keys
        self.issuer = issuer
        self._new_id = new_id
        self._now_ms = now_ms
        self._under_way: dict[asyncio.Task[None], Parcel] = {}
        self._done = asyncio.Event()

    async def create(
        self,
        tenant: str,
        actor: Actor,
        webhook_id: UUID,
        wish: Wish,
        *,
        reason: str | None,
    ) -> tuple[Webhook, str]:
        """Make a webhook; it and its secret. Raises GuardError: INVALID for a wish that is none, CONFLICT for too many."""
        check(wish, inside=self.sender.inside, issuer=self.issuer)
        now = from_ms(self._now_ms())
        hook = made_of(wish, webhook_id, now)
        secret = "whsec_" + b64encode(token_bytes(SECRET_BYTES)).decode()
        async with self._db.transaction() as tx:
            # they are counted one after the other
            await PolicyStore(tx).hold(tenant)
            digest_at = None
            if hook.digest is not None:
                digest_at = boundary(now, zone_of(await DigestStore(tx).zone(tenant)), hook.digest)
            sealed = self.keys.seal(tenant, webhook_id, secret)
            made = await WebhookStore(tx).create(tenant, hook, sealed, digest_at=digest_at)
            if made is None:
                raise GuardError(ErrorCode.CONFLICT, "There are too many webhooks; delete one first.")
            stored = self._opened(made[1])
            if stored is None:
                raise GuardError(ErrorCode.CONFLICT, "The secret of this webhook cannot be opened; make another one.")
            if stored == secret:
                act = Act(
                    tenant=tenant, actor=actor, action="webhook.create", target=str(webhook_id), reason=reason, at=now
                )
                await self._log(tx, act, None, made[0])
        return made[0], stored

    async def delete(self, tenant: str, actor: Actor, webhook_id: UUID, *, reason: str | None) -> None:
        """Take a webhook away with all that waits for it. Raises GuardError(NOT_FOUND)."""
        async with self._db.transaction() as tx:
            gone = await WebhookStore(tx).delete(tenant, webhook_id)
            if gone is None:
                raise GuardError(ErrorCode.NOT_FOUND, "There is no such webhook.")
            at = from_ms(self._now_ms())
            act = Act(tenant=tenant, actor=actor, action="webhook.delete", target=str(webhook_id), reason=reason, at=at)
            await self._log(tx, act, gone, None)

    async def redeliver(self, tenant: str, actor: Actor, webhook_id: UUID, delivery_id: UUID) -> Delivery:
        """Send a message again, and switch its webhook on if it was disabled. Raises GuardError(NOT_FOUND)."""
        now = from_ms(self._now_ms())
        async with self._db.transaction() as tx:
            found = await WebhookStore(tx).redeliver(tenant, webhook_id, delivery_id, at=now)
            if found is None:
                raise GuardError(ErrorCode.NOT_FOUND, "There is no such delivery.")
            act = Act(
                tenant=tenant, actor=actor, action="webhook.redeliver", target=str(webhook_id), reason=None, at=now
            )
            await log(tx, act, None, {"delivery": str(delivery_id)}, entry_id=self._new_id())
        return found

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        try:
            while True:
                rest_s = IDLE_S
                try:
                    rest_s = EVERY_S if await self.once() else IDLE_S
                except GuardError as error:
                    LOG.warning("webhooks_wait", reason=error.code)
                self._done.clear()
                try:
                    async with asyncio.timeout(rest_s):
                        await self._done.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)
            await self.sender.close()

    async def once(self) -> bool:
        """Make out what is new and begin to send what is due; False when nobody wants to be told anything."""
        if not await self._store.active():
            return False
        await self._make_out()
        for parcel in await self._claimed():
            task = asyncio.create_task(self._deliver(parcel))
            self._under_way[task] = parcel
            task.add_done_callback(self._over)
        return True

    async def reseal(self, tx: Database) -> int:
        """Encrypt secrets by the key that encrypts now: those that a release before left as they were, or another key sealed.

        What no key opens stays as it is. How many there were.
        """
        store, first = SealedStore(tx), self.keys.first
        opened = ((each, self._opened(each)) for each in await store.locked(first, most=RESEALED))
        sealed = [(each, self.keys.seal(each.tenant, each.id, secret)) for each, secret in opened if secret is not None]
        return await store.reseal(sealed) if sealed else 0

    @property
    def chore(self) -> Chore:
        """What upkeep does of it."""
        return Chore(job=Job.SECRETS, every=RESEAL_EVERY, step=lambda tx, _: self.reseal(tx), most=RESEALED)

    async def _make_out(self) -> None:
        """Make out what is new, a page of webhooks in each transaction, then digests, unless another worker is about it."""
        now = from_ms(self._now_ms())
        for _ in range(MOST_PAGES):
            async with self._db.transaction() as tx:
                if not await tx.value(LOCK, LOCK_NUMBER):
                    return
                if not await WebhookStore(tx).make_out(now):
                    break
        await self._sum_up(now)

    async def _sum_up(self, now: datetime) -> None:
        """Make out digests that are due, each in a transaction of its own, unless another worker is about it."""
        for due in await DigestStore(self._db).due(now):
            async with self._db.transaction() as tx:
                if not await tx.value(LOCK, LOCK_NUMBER):
                    return
                await DigestStore(tx).tell(due, now)

    async def _claimed(self) -> Sequence[Parcel]:
        """What is to be sent now by this worker; nothing while another one is asking."""
        now, most = from_ms(self._now_ms()), MOST_UNDER_WAY - len(self._under_way)
        async with self._db.transaction() as tx:
            if most <= 0 or not await tx.value(LOCK, LOCK_NUMBER):
                return ()
            return await WebhookStore(tx).claim(now, busy=tuple(self._under_way.values()), most=most)

    async def _deliver(self, parcel: Parcel) -> None:
        """Send one message; when its end cannot be written down it is sent again, once its lease is over."""
        outcome = await self._sent(parcel)
        WEBHOOKS.labels("taken" if outcome.taken else "missed").inc()
        try:
            await self._store.settle(parcel, outcome, now=from_ms(self._now_ms()))
        except GuardError as error:
            LOG.warning("delivery_not_noted", reason=error.code)

    async def _sent(self, parcel: Parcel) -> Outcome:
        of = Locked(tenant=parcel.tenant, id=parcel.webhook_id, secret=parcel.secret, sealed=parcel.sealed)
        secret = self._opened(of)
        if secret is None:
            return Outcome(status=None, error="its secret cannot be opened")
        opened = msgspec.structs.replace(parcel, secret=secret, sealed=None)
        return await self.sender.send(opened, from_ms(self._now_ms()))

    def _opened(self, of: Locked) -> str | None:
        """A secret; None for one that no key here has sealed."""
        return of.secret if of.sealed is None else self.keys.open(of.tenant, of.id, of.sealed)

    def _over(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._done.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("delivery_failed", exc_info=error)

    async def _log(self, tx: Database, act: Act, before: Webhook | None, after: Webhook | None) -> None:
        await log(tx, act, fields(before, SHOWN), fields(after, SHOWN), entry_id=self._new_id())
