"""How far a device token is behind the one that its device holds, and what it is still good for. Pure.

See docs/decisions/0005-device-token.md.
"""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from accessguard.devices.cookie import Claim, secret_hash
from accessguard.rules.model import Grade, TokenFact
from accessguard.sessions.model import MARK_BYTES, ClaimedDevice, Device

GRACE: Final = timedelta(seconds=30)
"""A token rotates at login; the one before is good for 30 s more (design.md, "Client address, cookie, keys")."""


class TokenState(StrEnum):
    """What a device token turned out to be; kept in the access log."""

    NONE = "none"
    CURRENT = "current"
    PREVIOUS = "previous"
    LATE_PREVIOUS = "late_previous"
    DISPLACED = "displaced"
    STALE = "stale"
    FOREIGN = "foreign"


GRADES: Final = {
    TokenState.LATE_PREVIOUS: Grade.LATE_PREVIOUS,
    TokenState.DISPLACED: Grade.DISPLACED,
    TokenState.STALE: Grade.STALE,
}


def claimed_state(claimed: ClaimedDevice | None, claim: Claim | None, now: datetime) -> TokenState:
    """Compare the secret of a genuine token with the hashes that are stored, in constant time."""
    if claim is None or claimed is None:
        return TokenState.FOREIGN
    return hashed_state(claimed, secret_hash(claim.secret), now)


def hashed_state(claimed: ClaimedDevice, shown: bytes, now: datetime) -> TokenState:
    """The same of a secret of which the hash is known."""
    if claimed.forgotten:
        return TokenState.STALE
    if hmac.compare_digest(shown, claimed.secret_hash):
        return TokenState.CURRENT
    if claimed.previous_hash is not None and hmac.compare_digest(shown, claimed.previous_hash):
        return _previous(claimed.rotated_at, now)
    return TokenState.DISPLACED if _behind(shown, claimed.older_hashes) is not None else TokenState.STALE


def shown_state(device: Device, claim: Claim, now: datetime) -> TokenState:
    """The same at a check, which has the beginnings of the hashes alone: it gives nothing, it only finds.

    A device that waits for PostgreSQL has none: then there is nothing to find.
    """
    if not device.marks:
        return TokenState.CURRENT
    behind = _behind(secret_hash(claim.secret), device.marks)
    if behind is None:
        return TokenState.STALE
    if behind == 0 or device.rotated_at is None:
        return TokenState.CURRENT
    return _previous(device.rotated_at, now) if behind == 1 else TokenState.DISPLACED


def trusted(claimed: ClaimedDevice, state: TokenState) -> bool:
    """Whether a token in this state is its device's: the present one, or one whose successor may not have arrived."""
    if state is TokenState.LATE_PREVIOUS:
        return not claimed.shown
    return state in {TokenState.CURRENT, TokenState.PREVIOUS}


def token_fact(of: ClaimedDevice | Device | None, state: TokenState) -> TokenFact | None:
    """What rules are told of an old token; None of one that is as it should be."""
    grade = GRADES.get(state)
    if of is None or grade is None:
        return None
    return TokenFact(device_id=of.id, grade=grade, lost=grade is Grade.LATE_PREVIOUS and not of.shown)


def _previous(rotated_at: datetime, now: datetime) -> TokenState:
    return TokenState.PREVIOUS if now - rotated_at <= GRACE else TokenState.LATE_PREVIOUS


def _behind(shown: bytes, marks: bytes) -> int | None:
    """The place of a hash among the beginnings of hashes, newest first; None when it is not one of them."""
    mark = shown[:MARK_BYTES]
    places = range(len(marks) // MARK_BYTES)
    same = (place for place in places if hmac.compare_digest(marks[place * MARK_BYTES :][:MARK_BYTES], mark))
    return next(same, None)
