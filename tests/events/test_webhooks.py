"""A receiver gets every event once or more, in order per member, signed; and nobody is sent where nobody may go."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from accessguard.events import webhooks as webhook_store
from accessguard.events.sender import Sender
from accessguard.events.webhooks import WebhookStore
from tests.service import Clock, Tenant, items

DAY_MS = 86_400_000
FILL = """
    WITH hook AS (
        INSERT INTO webhook (tenant, id, url, events, secret, created_at)
        SELECT $1, gen_random_uuid(), 'https://dead.example', '{}', 'x', $3 FROM generate_series(1, $2::int) RETURNING *
    )
    INSERT INTO webhook_delivery (tenant, webhook_id, member_id, kind, payload, created_at, due_at)
    SELECT tenant, id, 'm' || number, 'digest', '', $3, $3 FROM hook, generate_series(1, 2) number
"""
NAMES = ("ana/1 %2F", "مرحبا🙂")
EVENTS = ["session_ended", "violation", "device_blocked", "device_new"]


class Receiver:
    """Somebody who is told; `mode` is how it answers."""

    def __init__(self) -> None:
        self.mode = "ok"
        self.url = ""
        self.secret = ""
        self.tries: list[tuple[str, str]] = []
        self.taken: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.Response:
        """Take a message, or do not."""
        text = await request.text()
        sent, when = request.headers["webhook-id"], int(request.headers["webhook-timestamp"])
        signed = Webhook(self.secret).sign(sent, datetime.fromtimestamp(when, UTC), text)
        assert request.headers["webhook-signature"] == signed
        mode = self.mode
        self.tries.append((mode, request.path))
        if mode == "hang":
            await asyncio.sleep(5)
            return web.Response(status=500)
        if mode == "redirect":
            return web.Response(status=307, headers={"Location": self.url + "/elsewhere"})
        if mode != "ok":
            return web.Response(status=int(mode))
        self.taken.append({"id": sent, **json.loads(text)})
        return web.Response(status=204)

    def tried(self, mode: str, times: int) -> bool:
        """Whether it was tried so often while it answered so."""
        return sum(each == mode for each, _ in self.tries) >= times

    def has(self, messages: int, clock: Clock) -> bool:
        """Whether it has taken so many different ones; while not, time goes on."""
        clock.forward(60_000)
        return len({each["id"] for each in self.taken}) == messages


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on a free port of this machine."""
    made, app = Receiver(), web.Application()
    app.router.add_post("/{path:.*}", made.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def hook(tenant: Tenant, receiver: Receiver, **more: Any) -> str:
    """A webhook of the tenant's to this receiver; its path."""
    asked = {"url": receiver.url + "/hook", "events": EVENTS} | more
    made = await tenant.call("POST", "/v1/webhooks", asked, role="administrator")
    assert made.status == 201, made.body
    receiver.secret = made["secret"]
    return f"/v1/webhooks/{made['id']}"


async def sent(tenant: Tenant, there: Callable[[], bool | Awaitable[bool]]) -> None:
    """Send what is due until this is so; an event may wait for a transaction of somebody else."""
    webhooks = tenant.service.context.webhooks
    async with asyncio.timeout(20):
        while True:
            await webhooks.once()
            await asyncio.gather(*webhooks._under_way, return_exceptions=True)
            found = there()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


async def waiting(tenant: Tenant, path: str) -> list[dict[str, Any]]:
    """Messages that are still to be taken."""
    listed = await tenant.call("GET", path + "/deliveries?limit=200", role="administrator")
    return [each for each in items(listed) if each["state"] == "pending"]


@contextlib.contextmanager
def impatient(tenant: Tenant):
    """Let nobody wait for an answer for long."""
    sender = tenant.service.context.webhooks.sender
    before, sender.timeout_s = sender.timeout_s, 0.3
    yield
    sender.timeout_s = before


async def test_a_receiver_that_fails_hangs_redirects_and_comes_back_gets_everything_in_order(
    tenant: Tenant, receiver: Receiver
):
    """Over more than a day: every event once or more, in its member's order, signed; nobody else's, and no redirect followed."""
    clock = tenant.service.clock
    path = await hook(tenant, receiver)
    expected: dict[str, list[tuple[str, str]]] = defaultdict(list)
    with impatient(tenant):
        for mode, ahead_ms in (("500", 6_000), ("hang", 301_000), ("redirect", 1_801_000), ("ok", DAY_MS)):
            receiver.mode = mode
            for name in NAMES:
                login = await tenant.login(name, user_agent=f"Mozilla/5.0 {uuid4()}")
                session_id = login["session"]["id"]
                await tenant.call("POST", f"/v1/sessions/{session_id}/end", {"reason": "logout"})
                expected[name] += [("device_new", login["device"]["id"]), ("session_ended", session_id)]
            if mode != "ok":
                await sent(tenant, partial(receiver.tried, mode, len(NAMES)))
            clock.forward(ahead_ms)
    await sent(tenant, partial(receiver.has, 16, clock))
    got: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for each in {each["id"]: each for each in receiver.taken}.values():
        key = "device_id" if each["type"] == "device_new" else "session_id"
        got[each["data"]["member_id"]].append((each["type"], each["data"][key]))

    assert got == expected
    assert {mode for mode, _ in receiver.tries} == {"500", "hang", "redirect", "ok"}
    assert {at for _, at in receiver.tries} == {"/hook"}
    assert not await waiting(tenant, path)


async def test_one_member_that_cannot_be_told_of_holds_up_nobody_else(tenant: Tenant, receiver: Receiver):
    """A message that is not taken waits with those that follow of its member; others' are sent."""
    path = await hook(tenant, receiver)
    receiver.mode = "500"
    await tenant.login("ana")
    await sent(tenant, lambda: bool(receiver.tries))
    receiver.mode = "ok"
    tenant.service.clock.stop()
    again = await tenant.login("ana", user_agent="another")
    await tenant.login("bo")
    await sent(tenant, lambda: bool(receiver.taken))
    listed = await waiting(tenant, path)

    assert again.status == 200
    assert [each["data"]["member_id"] for each in receiver.taken] == ["bo"]
    assert {each["member_id"] for each in listed} == {"ana"}
    assert len(listed) >= 2


async def test_a_receiver_that_is_gone_is_left_alone_until_somebody_asks(tenant: Tenant, receiver: Receiver):
    """410 disables at once and gives up what waits; a redelivery sends the very same message and switches it on."""
    path = await hook(tenant, receiver, digest="day")
    receiver.mode = "410"
    await tenant.login("ana")
    await sent(tenant, lambda: bool(receiver.tries))
    (off,) = items(await tenant.call("GET", "/v1/webhooks", role="administrator"))
    (given_up,) = items(await tenant.call("GET", path + "/deliveries", role="administrator"))
    receiver.mode = "ok"
    again = await tenant.call("POST", f"{path}/deliveries/{given_up['id']}/redeliver", role="administrator")
    tenant.service.clock.forward(DAY_MS)
    await sent(tenant, lambda: len(receiver.taken) >= 2)
    (on,) = items(await tenant.call("GET", "/v1/webhooks", role="administrator"))
    foreign = await tenant.service.tenant().call("GET", path + "/deliveries", role="administrator")
    gone = await tenant.call("DELETE", path, role="administrator")
    audited = [each["action"] for each in items(await tenant.call("GET", "/v1/audit", role="administrator"))]

    assert (off["status"], given_up["state"], given_up["last_status"]) == ("disabled", "failed", 410)
    assert (again.status, on["status"], on["failing_since"]) == (200, "active", None)
    assert {(each["id"], each["type"]) for each in receiver.taken if each["type"] != "digest"} == {
        (given_up["id"], "device_new")
    }
    assert [each["type"] for each in receiver.taken].count("digest") == 1
    assert (foreign.status, gone.status) == (404, 204)
    assert audited == ["webhook.delete", "webhook.redeliver", "webhook.create"]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "fd00::1", "fe80::1%1", "0.0.0.0", "224.0.0.1"],
)  # fmt: skip
def test_nobody_is_sent_inside_our_own_walls(host):
    """By address, in whatever form it comes; unless the network is allowed."""
    assert not Sender().may(host)
    assert Sender().may("203.0.114.9")
    assert Sender(["127.0.0.0/8"]).may("127.0.0.1")


async def test_a_name_that_leads_inside_is_refused_when_it_is_called(tenant: Tenant, receiver: Receiver):
    """The address is looked at where the connection is made, so that a name cannot change its mind in between."""
    path = await hook(tenant, receiver)
    webhooks = tenant.service.context.webhooks
    allowed, webhooks.sender = webhooks.sender, Sender()
    try:
        await tenant.login("ana")

        async def tried() -> bool:
            return any(each["last_error"] for each in await waiting(tenant, path))

        await sent(tenant, tried)
        (first,) = await waiting(tenant, path)
    finally:
        await webhooks.sender.close()
        webhooks.sender = allowed

    assert not receiver.tries
    assert (first["last_error"], first["last_status"], first["attempts"]) == ("the address is private", None, 1)


async def test_the_receivers_of_one_tenant_leave_room_for_those_of_others(tenant: Tenant):
    """Twenty that never answer hold sixteen places at most, in one turn or in several."""
    now, other = datetime.now(UTC), tenant.service.tenant().name
    counts: list[Counter[str]] = []
    with contextlib.suppress(LookupError):
        async with tenant.service.context.webhooks._db.transaction() as tx:
            store = WebhookStore(tx)
            for name, hooks in ((tenant.name, 20), (other, 1)):
                await tx.row(FILL, name, hooks, now)
            first = await store.claim(now, busy=(), most=10_000)
            again = await store.claim(now, busy=first, most=10_000)
            counts += [Counter(each.tenant for each in found) for found in (first, again)]
            raise LookupError("nothing of it stays")

    assert [(each[tenant.name], each[other]) for each in counts] == [(16, 2), (0, 0)]


async def test_messages_are_made_out_for_all_webhooks_page_by_page(
    tenant: Tenant, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    """However many there are, each transaction is about a few, and one look is about all."""
    monkeypatch.setattr(webhook_store, "PAGE", 2)
    paths = [await hook(tenant, receiver, url=f"{receiver.url}/{number}") for number in range(5)]
    await tenant.login("ana")

    made: list[int] = []
    async with asyncio.timeout(20):
        while not any(made):  # the login may wait for a transaction of somebody else
            await tenant.service.context.webhooks._make_out()
            made = [len(await waiting(tenant, path)) for path in paths]

    assert all(made)


async def test_a_url_that_is_none_is_refused(tenant: Tenant):
    """With a pointer to the field."""
    for url in ("ftp://example.com", "https://user@example.com/", "https://", "javascript:alert(1)", "https://a b/"):
        refused = await tenant.call("POST", "/v1/webhooks", {"url": url, "events": EVENTS}, role="administrator")

        assert (refused.status, refused["errors"][0]["pointer"]) == (400, "/url"), url
