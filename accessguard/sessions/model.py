"""Sessions as they stand, and the snapshot of a member that a verdict is made from."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from accessguard.rules.model import Access, Activity
from accessguard.sessions.failures import Failures
from accessguard.sessions.past import NO_EVIDENCE, Evidence

BEAT_MS = 30_000
"""Last activity moves at most once in 30 s (design.md, "The 30-second heartbeat"), in milliseconds."""

WAITING = 1 << 20
"""Among a snapshot's parts: a login of it is not in PostgreSQL yet."""

IMPERSONATION = "impersonation"

TWIN = "twin"
"""By whom a session was ended: by a login of the same browser at the same time, of which nobody knows whose answer arrives last."""

MARK_BYTES = 8
"""Of a hash, the beginning by which it is known again; nothing is proved by it."""


class Session(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One login of the platform on one device; times are aware UTC, None means not yet."""

    id: str
    device_id: UUID | None
    device_class: str
    app: str | None
    method: str
    started_at: datetime
    expires_at: datetime
    last_activity_at: datetime | None
    last_activity_kind: Activity | None = None
    ended_at: datetime | None = None
    end_reason: str | None = None


class Device(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One device of the member, as far as verdicts and their explanation need it.

    `marks` are the beginnings (8 bytes each) of the hashes of its token's
    secret and of those before, newest first; `rotated_at` is since when it
    has the present one, `shown` whether anybody has come with that since;
    `merged_ids` are the devices that became part of it.
    """

    id: UUID
    browser_id: UUID
    access: Access
    label: str
    browser: str
    os: str
    device_class: str
    admitted_at: datetime | None
    last_seen_at: datetime
    first_admitted_at: datetime | None = None
    marks: bytes = b""
    rotated_at: datetime | None = None
    shown: bool = False
    merged_ids: tuple[UUID, ...] = ()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything PostgreSQL knows of one member that a verdict depends on, read in one statement.

    `generation` grows with every change of it. `sessions` are the open ones,
    and the one that was asked for even when it has ended. `parts` says which
    parts of `evidence` were read (the numbers of `Need`), `read_ms` when, where
    that matters (ms since the epoch). `fresh` are the devices of the last first
    logins that wait, the newest first, while nobody has shown their tokens.
    """

    tenant: str
    member_id: str
    generation: int
    staff: bool
    tags: tuple[str, ...]
    locale: str | None
    time_zone: str | None = None
    checks_enabled: bool
    checks_disabled_until: datetime | None
    sessions: tuple[Session, ...]
    devices: tuple[Device, ...]
    parts: int = 0
    evidence: Evidence | None = None
    read_ms: int = 0
    fresh: tuple[DeviceRow, ...] = ()

    @property
    def open(self) -> int:
        """How many sessions have not ended."""
        return sum(session.ended_at is None for session in self.sessions)

    @property
    def waits(self) -> bool:
        """Whether some of it is not in PostgreSQL yet."""
        return self.parts & WAITING != 0

    @property
    def past(self) -> Evidence:
        """What was read of the member besides its sessions and devices."""
        return self.evidence or NO_EVIDENCE

    def exempt(self, now: datetime) -> bool:
        """Whether the checks are switched off for this member, by an operator or by a pass."""
        until = self.checks_disabled_until
        off = not self.checks_enabled and (until is None or until > now)
        return off or self.past.live("suspend_checks", now) > 0

    def changes_at(self, now: datetime) -> datetime | None:
        """When the member's exemption or its first pass ends by itself; None when none does."""
        ends = (None if self.checks_enabled else self.checks_disabled_until, self.past.next_end(now))
        return min((at for at in ends if at is not None and at > now), default=None)

    def session(self, session_id: str) -> Session | None:
        """The member's session of that id, if it is in the snapshot."""
        return next((session for session in self.sessions if session.id == session_id), None)

    def device(self, device_id: UUID | None) -> Device | None:
        """The member's device of that id, or the one that it was merged into; None when unknown or forgotten."""
        found = (device for device in self.devices if device.id == device_id or device_id in device.merged_ids)
        return next(found, None)


class ClaimedDevice(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The device that a token names, whoever's it is, with the hashes of its secret and of the one before.

    `older_hashes` are the beginnings (8 bytes each) of those before that,
    newest first. The present secret is derived from `seed`, None when that is
    not known; `shown`: somebody has come with it. Of a merged device the
    present secret is its survivor's: `survivor_hash`, since `survivor_rotated_at`.
    """

    id: UUID
    member_id: str
    browser_id: UUID
    forgotten: bool
    secret_hash: bytes
    previous_hash: bytes | None
    rotated_at: datetime
    older_hashes: bytes = b""
    seed: bytes | None = None
    shown: bool = False
    survivor_hash: bytes | None = None
    survivor_rotated_at: datetime | None = None


class Replay(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A login that was recorded before under the same attempt id."""

    fingerprint: bytes
    salt: bytes
    answer: msgspec.Raw


class Knock(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a login asks about before it is decided; None for what it does not name.

    `failures_since` is there when a rule counts failed logins; they are read
    of the member and of the addresses from `first_ip` to `last_ip`.
    `needs` are the parts of the member's past to be read, in the numbers of
    `Need`; of networks, those used after `since`.
    A first login asks by `twin_since` for a device that others have logged in
    from since then, the first of them at most a minute before, from the address
    `ip` by the browser of that family, version and system.
    """

    tenant: str
    member_id: str | None
    device_id: UUID | None
    session_id: str | None
    attempt_id: UUID | None
    failures_since: datetime | None = None
    first_ip: str | None = None
    last_ip: str | None = None
    needs: int = 0
    since: datetime | None = None
    twin_since: datetime | None = None
    ip: str | None = None
    browser: str | None = None
    browser_version: str | None = None
    os: str | None = None


class Opening(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a login is decided on: its member, and whose the device and the session are that it names."""

    snapshot: Snapshot
    claimed: ClaimedDevice | None = None
    session_owner: str | None = None


class Reading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was read for a login in one statement; no `opening` when there is no such member.

    `failures` is there when it was asked for.
    """

    opening: Opening | None
    replay: Replay | None
    failures: Failures | None = None


class Ended(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session that was ended, and why; `by` is TWIN when it may come back."""

    id: str
    reason: str
    by: str | None = None


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One login attempt as it is stored; `identifier_hash` is PostgreSQL's text form of bytea.

    `counted`: it failed, and rules on failed logins count it.
    """

    id: UUID
    at: datetime
    member_id: str | None
    identifier_hash: str | None
    outcome: str
    failure_reason: str | None
    method: str
    app: str | None
    host: str | None
    ip: str | None
    user_agent: str | None
    browser: str
    os: str
    device_class: str
    device_id: UUID | None
    device_new: bool
    device_token: str
    session_id: str | None
    decision: str
    code: str | None
    rule_id: UUID | None
    rule_version: int | None
    exempt: bool
    degraded: bool
    counted: bool = False
    country: str | None = None
    asn: int | None = None
    city: str | None = None


class DeviceRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A device as a login stores it: new, or with its new secret; hashes and seed are PostgreSQL's text form of bytea.

    The same `secret_hash` again leaves its token as it is. `previous_hash` is
    of the secret that was shown, None for the one that is stored. `through` is
    another device by whose token this one came (one that was merged into it):
    what was shown is that one's, which takes the new secret too.
    """

    id: UUID
    member_id: str
    browser_id: UUID
    secret_hash: str
    rotated_at: datetime
    label: str
    browser: str
    browser_version: str | None
    os: str
    device_class: str
    model: str | None
    first_seen_at: datetime
    last_seen_at: datetime
    last_ip: str | None
    admitted_at: datetime | None
    secret_seed: str | None = None
    previous_hash: str | None = None
    screen: str | None = None
    through: UUID | None = None


class SessionRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session as a login opens it."""

    id: str
    member_id: str
    device_id: UUID | None
    device_class: str
    app: str | None
    host: str | None
    method: str
    ip: str | None
    user_agent: str | None
    started_at: datetime
    expires_at: datetime


class KeyRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What makes a retry of a login safe: the answer without its secrets, and the salt they are derived from."""

    attempt_id: UUID
    fingerprint: str
    salt: str
    answer: Any
    at: datetime


class LoginRows(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything one login writes, if its member is still at `generation`.

    A login that claims nothing has none: one that the platform refused, unless
    a rule counts it. `challenge` is one that it is answered with.
    `counted` is whether it is an access of the member: a session begins, and
    nobody impersonates.
    """

    tenant: str
    member_id: str | None
    generation: int | None
    at: datetime
    counted: bool
    attempt: AttemptRow
    device: DeviceRow | None
    session: SessionRow | None
    ended: tuple[Ended, ...]
    violations: tuple[Any, ...]
    key: KeyRow | None
    network: NetworkRow | None = None
    challenge: Any = None


class Beat(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One counted interaction, on its way to PostgreSQL."""

    tenant: str
    member_id: str
    session_id: str
    at: datetime
    kind: Activity
    resource: str | None
    product_id: str | None
    ip: str | None


class NetworkRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One use of an address at `at`, as it is stored; `session_id` is empty for a login that got no session.

    `admitted_at` is since when it has its place, None when it was refused; then nothing of a stored row moves.
    """

    member_id: str
    session_id: str
    ip: str
    device_id: UUID | None
    at: datetime
    admitted_at: datetime | None
    country: str | None = None
    asn: int | None = None
    city: str | None = None
    latitude: float | None = None
    longitude: float | None = None
