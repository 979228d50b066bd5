"""Whether a device may be one that was seen before and lost its cookie. Pure; a suggestion, and never more than that."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from accessguard.devices.browser import kin
from accessguard.rules.model import Access

LATELY: Final = timedelta(days=30)
"""How long the earlier one may have been away: as long as a place is held by default (api.md, `window_days`)."""

SLACK: Final = timedelta(minutes=5)
"""Last activity is written in steps of 30 s, and a page that was open may ask once more."""

HANDHELD: Final = frozenset({"mobile", "tablet"})


class Sighted(msgspec.Struct, frozen=True, kw_only=True):
    """A device as it shows itself; `places` are the networks it was used from (IPv4 address, IPv6 /64)."""

    id: UUID
    access: Access
    browser: str
    os: str
    device_class: str
    model: str | None
    screen: str | None
    first_seen_at: datetime
    last_seen_at: datetime
    places: frozenset[str]


class SameAs(msgspec.Struct, frozen=True, kw_only=True):
    """Which device it seems to be, and in which respects the two agree."""

    id: UUID
    because: tuple[str, ...]


def same_as(device: Sighted, others: Sequence[Sighted]) -> SameAs | None:
    """The device that this one seems to be: of those that agree in everything, the one seen last; None without one."""
    kept = [(other, agreements(device, other)) for other in others if other.id != device.id]
    found = [(other, reasons) for other, reasons in kept if reasons]
    if not found:
        return None
    other, reasons = max(found, key=lambda each: (each[0].last_seen_at, each[0].id))
    return SameAs(id=other.id, because=reasons)


def agreements(device: Sighted, other: Sighted) -> tuple[str, ...]:
    """In words, why `device` may be `other` without its cookie; empty when it may not.

    Two that were in use at the same time are two, however alike. The screen
    speaks against it where both tell it, and for it where both tell the same.
    """
    away = device.first_seen_at - other.last_seen_at
    if not -SLACK <= away <= LATELY or other.first_seen_at >= device.first_seen_at:
        return ()
    if (kin(device.browser), device.os, device.device_class, device.model) != (
        kin(other.browser),
        other.os,
        other.device_class,
        other.model,
    ):
        return ()
    screens = {device.screen, other.screen} - {None}
    if len(screens) > 1 or not device.places & other.places:
        return ()
    reasons = [f"browser: {kin(device.browser)}", f"system: {device.os}", f"class: {device.device_class}"]
    reasons += [f"model: {device.model}"] if device.model else []
    reasons += [f"screen: {device.screen}"] if device.screen and other.screen else []
    return (
        *reasons,
        "network: seen at the same address",
        f"time: first seen {_span(away)} after the other was seen last",
    )


def _span(away: timedelta) -> str:
    minutes = max(0, int(away.total_seconds() // 60))
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} days"
