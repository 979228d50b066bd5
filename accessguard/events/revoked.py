"""What a revocation says; apart from where it is stored, as the command line reads tokens and loads no driver for it."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

KEPT: Final = timedelta(hours=1)
"""How long one that is lifted, or whose token has ended, stays; by then every worker has read of it."""


class Revoked(StrEnum):
    """What is refused: one token, by its `jti`; or a caller, by the `sub` of its tokens."""

    TOKEN = "token"  # noqa: S105 - a kind of thing
    CALLER = "caller"


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """One refusal. Of a caller, tokens issued (`iat`) up to `issued_until` are meant, and those that do not say when.

    `tenant` is what the tokens are bound to, "*" for all tenants. `expires_at`
    is when the token ends by itself; None when that is not known.
    """

    id: UUID
    tenant: str
    kind: Revoked
    name: str
    issued_until: datetime
    expires_at: datetime | None
    at: datetime
    actor: str
    reason: str | None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A revocation as a worker hears of it; `stands` is False for one that was lifted."""

    revocation: Revocation
    stands: bool
