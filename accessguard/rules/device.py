"""The limit on devices, decided by rank among the devices that hold a place."""

from __future__ import annotations

from accessguard.rules.model import Access, Code, DeviceFact, DeviceLimit, Facts, Finding, Per


def too_many_devices(facts: Facts, limit: DeviceLimit) -> Finding | None:
    """Refuse a device behind as many others as the rule allows; the ones admitted first keep their place.

    A device counts while it was admitted, was seen within `limit.window` and
    is neither blocked nor expressly allowed by an operator. One that was
    refused holds no place, and one that left the window has lost it.
    """
    device = facts.device
    if device is None:
        return None
    counted = [other for other in facts.other_devices if _counts(other, facts, limit) and _same(device, other, limit)]
    held = _in_window(device, facts, limit)
    ahead = [other for other in counted if not held or other.rank(facts.now) < device.rank(facts.now)]
    if len(ahead) < limit.max:
        return None
    frees = sorted(other.last_seen for other in ahead)[len(ahead) - limit.max]
    return Finding(
        code=Code.DEVICE_LIMIT,
        subject=str(device.id),
        limit=limit.max,
        counted=len(ahead) + 1,
        retry_at=frees + limit.window if limit.window else None,
        devices=tuple(other.id for other in sorted(ahead, key=lambda o: o.rank(facts.now))),
    )


def _counts(other: DeviceFact, facts: Facts, limit: DeviceLimit) -> bool:
    return other.access is Access.DEFAULT and _in_window(other, facts, limit)


def _in_window(device: DeviceFact, facts: Facts, limit: DeviceLimit) -> bool:
    if device.admitted_at is None:
        return False
    return limit.window is None or device.last_seen > facts.now - limit.window


def _same(device: DeviceFact, other: DeviceFact, limit: DeviceLimit) -> bool:
    return limit.per is not Per.DEVICE_CLASS or device.device_class == other.device_class
