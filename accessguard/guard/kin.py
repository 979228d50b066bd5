"""What a challenged student may say of a device: "this is my old one", where everything agrees that it may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from msgspec.structs import replace

from accessguard.devices.hints import screen
from accessguard.devices.kinship import HANDHELD, Sighted, agreements
from accessguard.guard.model import Choice, Verdict
from accessguard.guard.plan import Plan
from accessguard.guard.visit import Visit
from accessguard.rules.model import Access, Code, Outcome


def may_offer(planned: Plan) -> bool:
    """Whether a login was challenged for its device, and its member may free a place."""
    decision = planned.decision
    challenged = decision.outcome is Outcome.CHALLENGE and decision.code is Code.DEVICE_LIMIT
    return challenged and decision.swaps_left >= 1


def offering(planned: Plan, visit: Visit, sighted: Sequence[Sighted]) -> Plan:
    """The same, with the choices marked that the device of this login may be."""
    refusal, device_id = planned.refusal, planned.device_id
    if refusal is None or device_id is None:
        return planned
    me = next((each for each in sighted if each.id == device_id), None) or _seen(visit, device_id)
    alike = {str(each.id) for each in sighted if may_be(me, each)}
    return replace(planned, refusal=_marked(refusal, alike))


def may_be(device: Sighted, other: Sighted) -> bool:
    """Whether a member may say so himself: they agree, and no operator has said anything of either."""
    default = device.access is Access.DEFAULT and other.access is Access.DEFAULT
    return default and device.id != other.id and bool(agreements(device, other))


def _marked(refusal: Verdict, alike: Iterable[str]) -> Verdict:
    chosen = frozenset(alike)
    return replace(refusal, choices=tuple(_mark(choice, chosen) for choice in refusal.choices))


def _mark(choice: Choice, alike: frozenset[str]) -> Choice:
    return replace(choice, same=choice.kind == "device" and choice.id in alike)


def _seen(visit: Visit, device_id: UUID) -> Sighted:
    """The device of a login that is not stored yet."""
    browser = visit.browser
    return Sighted(
        id=device_id,
        access=Access.DEFAULT,
        browser=browser.family,
        os=browser.os,
        device_class=browser.device_class,
        model=browser.model,
        screen=screen(visit.asked.client_hints, handheld=browser.device_class in HANDHELD),
        first_seen_at=visit.now,
        last_seen_at=visit.now,
        places=frozenset({visit.address.place.removesuffix("/64")} if visit.address else ()),
    )
