"""What a refused student carries to the page that explains it: all that was told, sealed into the page's address.

Nothing is stored for it, so that a refusal costs no write and can be explained
when no store answers. Whoever holds the address is taken for that student, and
may do there what the student may: read, free a place, write a sentence. It is
good for an hour; a refusal is held for half a minute at most, so every address
that is handed out is good for nearly all of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from accessguard.guard.facts import from_ms, to_ms
from accessguard.guard.model import Verdict
from accessguard.rules.model import Code, Outcome
from accessguard.signing import Sealer, SigningKey

LASTS_MS: Final = 3_600_000
STEP_MS: Final = 60_000
"""The time is told in whole minutes: who asks again within one is given the same address."""
PATH: Final = "/restricted"
PURPOSE: Final = "student page"


class Refused(msgspec.Struct, frozen=True, kw_only=True, array_like=True, omit_defaults=True):
    """One refusal as its student was told it, `at_ms` since the epoch; ids of ours as their 16 bytes.

    New fields go to the end, with a default: an older address is read as well.
    """

    tenant: str
    at_ms: int
    code: Code
    challenged: bool
    member_id: str | None
    session_id: str | None
    device: bytes | None
    rule: bytes | None
    violation: bytes | None
    challenge: bytes | None
    limit: int | None
    counted: int | None
    retry_ms: int | None
    end_reason: str | None
    lapse: str | None
    locale: str | None
    time_zone: str | None

    @property
    def at(self) -> datetime:
        """When it was told."""
        return from_ms(self.at_ms)

    @property
    def violation_id(self) -> UUID | None:
        """The case that it was added to."""
        return _id(self.violation)

    @property
    def challenge_id(self) -> UUID | None:
        """The challenge that was put."""
        return _id(self.challenge)

    @property
    def device_id(self) -> UUID | None:
        """The device that was refused, where it is known."""
        return _id(self.device)

    @property
    def rule_id(self) -> UUID | None:
        """The rule that refused."""
        return _id(self.rule)

    def verdict(self, message: str | None) -> Verdict:
        """The refusal again; `message` is the rule's own text."""
        return Verdict(
            outcome=Outcome.CHALLENGE if self.challenged else Outcome.DENY,
            session_id=self.session_id,
            code=self.code,
            member_id=self.member_id,
            device_id=self.device_id,
            rule_id=self.rule_id,
            limit=self.limit,
            counted=self.counted,
            retry_at=None if self.retry_ms is None else from_ms(self.retry_ms),
            message=message,
            end_reason=self.end_reason,
            violation_id=self.violation_id,
            challenge_id=self.challenge_id,
            lapse=self.lapse,
            locale=self.locale,
            time_zone=self.time_zone,
        )


ENCODE: Final = msgspec.msgpack.Encoder().encode
DECODE: Final = msgspec.msgpack.Decoder(Refused).decode


class RefusedPages:
    """Makes and reads the addresses of that page; none is made where `public_url` is None."""

    def __init__(self, keys: Sequence[SigningKey], public_url: str | None) -> None:
        self._sealer = Sealer(keys, purpose=PURPOSE)
        self._start = None if public_url is None else f"{public_url.rstrip('/')}{PATH}?t="

    def take(self, keys: Sequence[SigningKey]) -> None:
        """Use these keys from now on; raises ValueError as `Signer` does."""
        self._sealer.take(keys)

    def url(self, tenant: str, verdict: Verdict, now_ms: int) -> str | None:
        """Where this refusal is explained; None when the service is not reached by browsers, or nothing was refused."""
        if self._start is None or verdict.code is None:
            return None
        return self._start + self._sealer.seal(ENCODE(_refused(tenant, verdict, verdict.code, now_ms)))

    def read(self, token: str | None, now_ms: int) -> Refused | None:
        """What an address says; None for one that is forged, cut, from elsewhere or over."""
        content = self._sealer.open(token)
        if content is None:
            return None
        try:
            found = DECODE(content)
        except (msgspec.DecodeError, UnicodeDecodeError):  # of another release
            return None
        return found if now_ms < found.at_ms + LASTS_MS else None


def _refused(tenant: str, verdict: Verdict, code: Code, now_ms: int) -> Refused:
    return Refused(
        tenant=tenant,
        at_ms=now_ms // STEP_MS * STEP_MS,
        code=code,
        challenged=verdict.outcome is Outcome.CHALLENGE,
        member_id=verdict.member_id,
        session_id=verdict.session_id,
        device=_bytes(verdict.device_id),
        rule=_bytes(verdict.rule_id),
        violation=_bytes(verdict.violation_id),
        challenge=_bytes(verdict.challenge_id),
        limit=verdict.limit,
        counted=verdict.counted,
        retry_ms=None if verdict.retry_at is None else to_ms(verdict.retry_at),
        end_reason=verdict.end_reason,
        lapse=verdict.lapse,
        locale=verdict.locale,
        time_zone=verdict.time_zone,
    )


def _bytes(of: UUID | None) -> bytes | None:
    return None if of is None else of.bytes


def _id(of: bytes | None) -> UUID | None:
    return None if of is None or len(of) != 16 else UUID(bytes=of)
