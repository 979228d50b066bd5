"""What cannot be undone is asked twice: the first call says what it would do, the second one shows the token it got."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Actor
from accessguard.jobs.model import SILENT
from accessguard.signing import Signer, SigningKey

LASTS: Final = SILENT
"""How long a token is good: as long as a job waits for somebody to begin it."""
UUID_BYTES: Final = 16
TIME_BYTES: Final = 8


class Confirmation(msgspec.Struct, frozen=True, kw_only=True):
    """A token that stands for "yes, do that", and until when it does."""

    token: str
    expires_at: datetime


class Confirmations:
    """Tokens bound to an operator, its tenant, what was asked for word for word, and the id it was prepared under.

    Signed, and nothing is stored: every worker reads what any of them gave. A
    token may be shown twice, so whoever acts on it sees to it that the second
    time does nothing (the job of that id has begun).
    """

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self._signer = Signer(keys, purpose="confirmation")

    def give(self, tenant: str, actor: Actor, what: bytes, *, about: UUID, now: datetime) -> Confirmation:
        """A token for `what` (the action and its selection, as bytes that are the same whenever it is), under the id `about`."""
        expires_ms = int((now + LASTS).timestamp() * 1000)
        token = self._signer.sign(_digest(tenant, actor, what), about.bytes, expires_ms.to_bytes(TIME_BYTES))
        return Confirmation(token=token, expires_at=from_ms(expires_ms))

    def read(self, token: str, tenant: str, actor: Actor, what: bytes, *, now: datetime) -> UUID:
        """The id that it was given under.

        Raises GuardError(INVALID) for one that is forged, another operator's or
        tenant's, for something else than `what`, or too old.
        """
        parts = self._signer.read(token)
        if parts is None or len(parts) != 3 or parts[0] != _digest(tenant, actor, what):
            raise _refused("is not one that you were given for exactly this")
        if from_ms(int.from_bytes(parts[2])) <= now:
            raise _refused("has expired; ask again without it")
        return UUID(bytes=parts[1])


def _digest(tenant: str, actor: Actor, what: bytes) -> bytes:
    """Each part with its length, so that no two lists of parts are the same bytes (SHA-256)."""
    parts = (tenant.encode(), actor.subject.encode(), what)
    return hashlib.sha256(b"".join(len(part).to_bytes(TIME_BYTES) + part for part in parts)).digest()


def _refused(detail: str) -> GuardError:
    problem = Problem(pointer="/confirmation", detail=detail)
    return GuardError(ErrorCode.INVALID, "The confirmation was refused.", problem)
