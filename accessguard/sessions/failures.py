"""Failed logins that rules count, and the successes that clear them, as they are read with a login."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from accessguard.rules.model import FailureFact
from accessguard.rules.networks import address

# Failures of the member ($2) after $3, and of anybody at its address ($4 to $5: the /64 of IPv6); the successes that clear them.
FAILURES: Final = """
    jsonb_build_object(
        'failed', (
            SELECT coalesce(jsonb_agg(jsonb_build_object('at', f.at, 'ip', host(f.ip), 'device_id', f.device_id, 'own', f.own)), '[]')
              FROM ((SELECT at, ip, device_id, true AS own FROM login_attempt
                      WHERE tenant = $1 AND member_id = $2 AND counted AND at > $3 ORDER BY at DESC LIMIT 500)
                    UNION ALL
                    (SELECT at, ip, device_id, false FROM login_attempt
                      WHERE tenant = $1 AND ip BETWEEN $4::inet AND $5::inet AND counted AND at > $3
                        AND ($2::text IS NULL OR member_id IS DISTINCT FROM $2)
                      ORDER BY at DESC LIMIT 500)) f),
        'succeeded', (
            SELECT coalesce(jsonb_agg(jsonb_build_object('device_id', s.device_id, 'new', s.device_new, 'at', s.at)), '[]')
              FROM (SELECT device_id, device_new, max(at) AS at
                      FROM (SELECT device_id, device_new, at FROM login_attempt
                             WHERE tenant = $1 AND member_id = $2 AND at > $3 AND outcome = 'success' AND decision = 'allow'
                             ORDER BY at DESC LIMIT 500) l
                     GROUP BY device_id, device_new) s))
"""


class Failed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One failed login as it is read."""

    at: datetime
    ip: str | None
    device_id: UUID | None
    own: bool


class Succeeded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The last successful login from one device; `new`: it was not known before."""

    device_id: UUID | None
    new: bool
    at: datetime


class Failures(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Counted failures of a member and of anybody at an address, and the successes that clear them."""

    failed: tuple[Failed, ...] = ()
    succeeded: tuple[Succeeded, ...] = ()

    @property
    def facts(self) -> tuple[FailureFact, ...]:
        """The failures as rules see them."""
        return tuple(FailureFact(at=f.at, address=address(f.ip), device_id=f.device_id, own=f.own) for f in self.failed)

    def succeeded_at(self, device_id: UUID | None) -> datetime | None:
        """The last success on the counter of that device; None: of whoever comes on a device that is not known."""
        of_counter = (s.at for s in self.succeeded if (s.new if device_id is None else s.device_id == device_id))
        return max(of_counter, default=None)
