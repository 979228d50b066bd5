"""The limits on devices and on new devices, decided by rank among those that were admitted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from accessguard.rules.model import (
    Access,
    Code,
    Count,
    DeviceChurn,
    DeviceFact,
    DeviceLimit,
    Facts,
    Finding,
    Per,
    Rule,
)


def too_many_devices(facts: Facts, limit: DeviceLimit) -> Finding | None:
    """Refuse a device behind as many others as the rule allows; the ones admitted first keep their place.

    A device counts while it was admitted, was seen within `limit.window` and
    is neither forgotten, nor blocked, nor expressly allowed by an operator. One
    that was refused holds no place, and one that left the window has lost it.
    """
    device, most = facts.device, limit.max + facts.extra_devices
    if device is None or len(facts.other_devices) < most:
        return None
    horizon = _horizon(facts, limit)
    ahead = counted_devices(facts, limit)
    if _held(device, horizon):
        mine = device.rank(facts.now)
        ahead = [other for other in ahead if other.rank(facts.now) < mine]
    if len(ahead) < most:
        return None
    frees = sorted(other.last_seen for other in ahead)[len(ahead) - most]
    ranked = sorted(ahead, key=lambda other: other.rank(facts.now))
    return Finding(
        code=Code.DEVICE_LIMIT,
        subject=str(device.id),
        limit=most,
        counted=len(ahead) + 1,
        retry_at=frees + limit.window if limit.window else None,
        devices=tuple(other.id for other in ranked),
        times=tuple(other.last_seen for other in ranked),
    )


def counted_devices(facts: Facts, limit: DeviceLimit) -> list[DeviceFact]:
    """The member's other devices that hold a place under the limit."""
    horizon = _horizon(facts, limit)
    counted = [other for other in facts.other_devices if other.access is Access.DEFAULT and _held(other, horizon)]
    if facts.device is None or limit.per is not Per.DEVICE_CLASS:
        return counted
    return [other for other in counted if other.device_class == facts.device.device_class]


def count_devices(facts: Facts, limit: DeviceLimit) -> Count:
    """What the limit counts, the device asked about among them."""
    counted = sorted(counted_devices(facts, limit), key=lambda other: other.rank(facts.now))
    return Count(
        limit=limit.max + facts.extra_devices,
        counted=len(counted) + (facts.device is not None),
        devices=tuple(other.id for other in counted),
        times=tuple(other.last_seen for other in counted),
    )


def too_many_new_devices(facts: Facts, limit: DeviceChurn) -> Finding | None:
    """Refuse a new device once as many others were new within the window; the first ones stay (L14).

    Forgotten and blocked devices count too, or forgetting one would give
    another for free. A device known before the window is never new again.
    """
    device, most = facts.device, limit.max_new + facts.extra_devices
    if device is None or len(facts.other_devices) < most:
        return None
    horizon, first = facts.now - limit.window, device.first
    if first is not None and first <= horizon:
        return None
    ahead = [each for each in _newcomers(facts, horizon) if first is None or each < (first, str(device.id))]
    if len(ahead) < most:
        return None
    ahead.sort()
    return Finding(
        code=Code.DEVICE_CHURN,
        subject=str(device.id),
        limit=most,
        counted=len(ahead) + 1,
        retry_at=ahead[len(ahead) - most][0] + limit.window,
        devices=_ids(ahead),
        times=tuple(at for at, _ in ahead),
    )


def place_since(held: datetime | None, last_seen: datetime, rules: Iterable[Rule], now: datetime) -> datetime:
    """When a device that is let in now has its place since: it keeps one it still has, else takes one now.

    `held` and `last_seen` are what is stored of it. It has lost its place when
    it left the shortest window of a limit on devices.
    """
    if held is None:
        return now
    windows = [rule.params.window for rule in rules if isinstance(rule.params, DeviceLimit)]
    shortest = min((window for window in windows if window is not None), default=None)
    return now if shortest is not None and last_seen <= now - shortest else held


def count_new_devices(facts: Facts, limit: DeviceChurn) -> Count:
    """What the limit on new devices counts; the device asked about is among them unless it was known before."""
    horizon = facts.now - limit.window
    newcomers = sorted(_newcomers(facts, horizon))
    first = facts.device.first if facts.device else None
    new = facts.device is not None and (first is None or first > horizon)
    return Count(
        limit=limit.max_new + facts.extra_devices,
        counted=len(newcomers) + new,
        devices=_ids(newcomers),
        times=tuple(at for at, _ in newcomers),
    )


def _horizon(facts: Facts, limit: DeviceLimit) -> datetime | None:
    return None if limit.window is None else facts.now - limit.window


def _held(device: DeviceFact, horizon: datetime | None) -> bool:
    """Whether the device has a place: admitted, not forgotten, and seen since `horizon` (None: for ever)."""
    if device.admitted_at is None or device.forgotten:
        return False
    return horizon is None or device.last_seen > horizon


def _newcomers(facts: Facts, horizon: datetime) -> list[tuple[datetime, str]]:
    """Rank of every other device first admitted since `horizon`, save those that an operator vouches for."""
    return [
        (other.first, str(other.id))
        for other in facts.other_devices
        if other.first is not None and other.first > horizon and other.access is not Access.ALLOWED
    ]


def _ids(ranks: Sequence[tuple[datetime, str]]) -> tuple[UUID, ...]:
    return tuple(UUID(each) for _, each in ranks)
