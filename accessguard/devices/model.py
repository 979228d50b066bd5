"""A device as operators see it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from accessguard.rules.model import Access


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One browser profile or app install of one member; `name` is an operator's, `label` says browser and system.

    `used_by` counts the other members who use the same browser, `merged_ids`
    are devices that became part of this one. `same_as` is the device that it
    seems to be without its cookie, `same_as_because` in what they agree; only
    a list says so.
    """

    id: UUID
    name: str | None
    label: str
    browser: str
    browser_version: str | None
    os: str
    device_class: str
    model: str | None
    access: Access
    access_reason: str | None
    access_by: str | None
    access_at: datetime | None
    first_seen_at: datetime
    last_seen_at: datetime
    last_ip: str | None
    admitted_at: datetime | None
    active_sessions: int
    used_by: int
    merged_ids: tuple[UUID, ...] = ()
    same_as: UUID | None = None
    same_as_because: tuple[str, ...] = ()
