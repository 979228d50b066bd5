"""Devices of a member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from aiohttp import web
from msgspec.structs import replace

from accessguard.api.context import asking, context
from accessguard.api.paging import page
from accessguard.api.read import body, path_id, path_text, query
from accessguard.api.reply import nothing, reply
from accessguard.api.wire import DeleteQuery, DevicePatch, ListQuery, MergeRequest
from accessguard.devices.kinship import Sighted, same_as
from accessguard.devices.model import Device
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.facts import from_ms
from accessguard.guard.operators import DeviceChange


async def listed(request: web.Request) -> web.StreamResponse:
    """List the devices of a member."""
    asked = query(request, ListQuery)
    ctx, tenant, member_id = context(request), asking(request).tenant, path_text(request, "member_id")
    await ctx.activity.flush()
    if not await ctx.members.exists(tenant, member_id):
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such member.")

    async def fetch(after: tuple[datetime, UUID] | None, limit: int) -> Sequence[tuple[Device, tuple[datetime, UUID]]]:
        now, descending = from_ms(ctx.now_ms()), asked.order == "desc"
        rows = await ctx.devices.listed(tenant, member_id, now=now, after=after, limit=limit, descending=descending)
        sighted = {each.id: each for each in await ctx.devices.sighted(tenant, member_id)}
        return [(alike(row, sighted), (row.last_seen_at, row.id)) for row in rows]

    return await page(request, asked, Device, tuple[datetime, UUID], fetch)


def alike(device: Device, sighted: Mapping[UUID, Sighted]) -> Device:
    """The device with the one that it seems to be."""
    found = same_as(sighted[device.id], tuple(sighted.values())) if device.id in sighted else None
    return device if found is None else replace(device, same_as=found.id, same_as_because=found.because)


async def patch(request: web.Request) -> web.Response:
    """Block a device, allow it, set it back to default, give it a name."""
    asked = await body(request, DevicePatch)
    ctx, who = context(request), asking(request)
    changed = await ctx.operators.change_device(
        who.tenant,
        who.actor,
        path_text(request, "member_id"),
        path_id(request, "device_id"),
        DeviceChange(access=asked.access, name=asked.name),
        reason=asked.reason,
        now_ms=ctx.now_ms(),
    )
    return reply(changed)


async def merge(request: web.Request) -> web.Response:
    """Make a device part of another one of its member, as which it is known from then on.

    Its sessions, logins, networks and violations become the other's, and its
    cookie is recognised as the other's. A block of either holds. Asked again,
    the answer is the same. Raises INVALID (400) for one and the same,
    CONFLICT (409) when it is part of a third one.
    """
    asked = await body(request, MergeRequest)
    ctx, who = context(request), asking(request)
    await ctx.activity.flush()
    await ctx.folds.flush()
    one = await ctx.merging.merge(
        who.tenant,
        who.actor,
        path_text(request, "member_id"),
        path_id(request, "device_id"),
        asked.into,
        reason=asked.reason,
        now_ms=ctx.now_ms(),
    )
    return reply(one)


async def forget(request: web.Request) -> web.Response:
    """Forget a device: its slot is free, its sessions end."""
    asked = query(request, DeleteQuery)
    ctx, who = context(request), asking(request)
    await ctx.operators.forget_device(
        who.tenant,
        who.actor,
        path_text(request, "member_id"),
        path_id(request, "device_id"),
        reason=asked.reason,
        now_ms=ctx.now_ms(),
    )
    return nothing()
