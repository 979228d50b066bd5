"""The secrets of a login: derived, never stored, and put into the answer last, so that a retry gets the same ones."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.devices.cookie import SECRET_BYTES, CookieSettings, DeviceTokens, cookie
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.model import (
    CookieParts,
    EndedSession,
    Login,
    LoginDevice,
    LoginVerdict,
    OpenedSession,
)
from accessguard.guard.plan import Plan
from accessguard.guard.visit import Visit
from accessguard.policies.model import Policy
from accessguard.sessions.model import KeyRow, Replay
from accessguard.sessions.token import SessionTokens
from accessguard.signing import begun, mac

SEED_BYTES: Final = SECRET_BYTES + 16
"""A salt, and the id of an attempt."""


class Seal:
    """Derives secrets with `key` and writes the tokens of answers."""

    def __init__(self, key: bytes, *, device_tokens: DeviceTokens, session_tokens: SessionTokens) -> None:
        self._key = begun(key)
        self._device_tokens = device_tokens
        self._session_tokens = session_tokens

    def secret(self, salt: bytes, attempt_id: UUID) -> bytes:
        """The device's next secret: as hard to guess as the salt, and the same for a retry of the same attempt.

        A seed in place of the salt gives the secret that it belongs to.
        """
        return mac(self._key, b"device" + seed(salt, attempt_id))

    def identifier_hash(self, identifier: str | None) -> str | None:
        """What is kept of who an unknown user claimed to be, in PostgreSQL's text form of bytea."""
        if identifier is None:
            return None
        return "\\x" + mac(self._key, b"identifier" + identifier.strip().lower().encode()).hex()

    def answered(self, tenant: str, policy: Policy, answer: LoginVerdict, secret: bytes) -> LoginVerdict:
        """The answer with its tokens."""
        session, device = answer.session, answer.device
        if session is not None:
            session = msgspec.structs.replace(session, token=self._session_tokens.issue(tenant, session.id))
        if device is not None:
            token = self._device_tokens.issue(device.id, secret)
            device = msgspec.structs.replace(device, token=token, cookie=_cookie(token, policy))
        return msgspec.structs.replace(answer, session=session, device=device)

    def again(self, tenant: str, policy: Policy, asked: Login, attempt_id: UUID, earlier: Replay) -> LoginVerdict:
        """The answer that was given before. Raises GuardError(CONFLICT) when that was to another content."""
        if not hmac.compare_digest(earlier.fingerprint, fingerprint(asked)):
            problem = Problem(pointer="/attempt_id", detail="this attempt was recorded with another content")
            raise GuardError(ErrorCode.CONFLICT, "The login was refused.", problem)
        answer = msgspec.json.decode(earlier.answer, type=LoginVerdict)
        return self.answered(tenant, policy, answer, self.secret(earlier.salt, attempt_id))


def seed(salt: bytes, attempt_id: UUID) -> bytes:
    """All that a device's secret is derived from but the key, 48 bytes; what is one already stays as it is."""
    return salt if len(salt) == SEED_BYTES else salt + attempt_id.bytes


def fingerprint(asked: Login) -> bytes:
    """What a retry must have in common with the attempt it repeats."""
    same: tuple[Any, ...] = (asked.member_id, asked.identifier, asked.outcome, asked.method, asked.session_id)
    return hashlib.sha256(msgspec.json.encode(same)).digest()


def key_row(visit: Visit, salt: bytes, answer: LoginVerdict) -> KeyRow | None:
    """What makes a retry safe; None when the caller gave no id to retry with."""
    if visit.asked.attempt_id is None:
        return None
    return KeyRow(
        attempt_id=visit.attempt_id,
        fingerprint="\\x" + fingerprint(visit.asked).hex(),
        salt="\\x" + salt.hex(),
        answer=answer,
        at=visit.now,
    )


def unsealed(planned: Plan, visit: Visit, before: Sequence[EndedSession] = ()) -> LoginVerdict:
    """The answer without its secrets, which are put in last and never stored; `before` ended on the way to it."""
    row = planned.rows.session
    return LoginVerdict(
        outcome=planned.decision.outcome,
        attempt_id=visit.attempt_id,
        exempt=planned.decision.exempt,
        degraded=planned.decision.degraded,
        session=None if row is None else OpenedSession(id=row.id, token="", expires_at=row.expires_at),
        device=None if planned.device_id is None else _unsealed(planned.device_id, new=planned.device_new),
        ended_sessions=(*before, *(EndedSession(id=e.id, reason=e.reason) for e in planned.rows.ended if e.by is None)),
        violations=(),
        refusal=planned.refusal,
    )


def _unsealed(device_id: UUID, *, new: bool) -> LoginDevice:
    blank = CookieParts(name="", value="", max_age_s=0, header="")
    return LoginDevice(id=device_id, new=new, token="", cookie=blank)


def _cookie(token: str, policy: Policy) -> CookieParts:
    choice = policy.settings.cookie
    settings = CookieSettings(
        prefix=choice.prefix, domain=choice.domain, same_site=choice.same_site, partitioned=choice.partitioned
    )
    made = cookie(token, settings)
    return CookieParts(name=made.name, value=made.value, max_age_s=made.max_age_s, header=made.header)
