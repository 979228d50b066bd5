"""One action on many members: what there is to do, and what whoever does it has to offer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol, TypeAlias
from uuid import UUID

import msgspec

from accessguard.guard.model import Actor


class BulkAction(StrEnum):
    """What can be done to many members at once."""

    TAG = "tag"
    UNTAG = "untag"
    EXEMPT = "exempt"
    UNEXEMPT = "unexempt"
    END_SESSIONS = "end_sessions"
    DEACTIVATE = "deactivate"
    ERASE = "erase"


class ErasureMode(StrEnum):
    """Whether nothing is left of a member, or counts without a name."""

    ERASE = "erase"
    ANONYMISE = "anonymise"


CONFIRMED: Final = frozenset({BulkAction.END_SESSIONS, BulkAction.DEACTIVATE, BulkAction.ERASE})
"""What cannot be undone, and is asked twice: who comes back from it comes back by a login, a purchase, or not at all."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done to each member; of the fields only those that the action takes are there.

    `until` ends an exemption (None: not by itself); `product_id` None
    deactivates every enrolment.
    """

    action: BulkAction
    tags: tuple[str, ...] = ()
    until: datetime | None = None
    product_id: str | None = None
    mode: ErasureMode | None = None
    reason: str | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the members (200 at most, in the order of their ids), for whom `order` is carried out at `at` by `actor`."""

    tenant: str
    job_id: UUID
    member_ids: tuple[str, ...]
    order: Order
    actor: Actor
    at: datetime


class Action(Protocol):
    """Carries an order out for one batch.

    It begins its own transactions, locks members in the order of their ids,
    writes a line of the audit log for each member that it changed, and tells
    the workers after its commit. The same batch may come twice (a worker that
    died in between), and the second time changes nothing. A member that is not
    there (any more) is passed over. Raises GuardError(UNAVAILABLE), and is tried again.
    """

    async def __call__(self, batch: Batch) -> int:
        """How many members this changed."""


Actions: TypeAlias = Mapping[BulkAction, Action]
