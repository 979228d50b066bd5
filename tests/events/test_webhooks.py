"""A receiver gets every event once or more, in order per member, signed; and nobody is sent where nobody may go."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from accessguard.events import webhooks as webhook_store
from accessguard.events.sender import Sender
from accessguard.events.webhooks import WebhookStore
from tests.events.receiver import Receiver, receiving, sent
from tests.events.receiver import hook as receivers_hook
from tests.service import Tenant, items

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
EVENTS = ["session_ended", "violation", "device_blocked", "device_allowed", "device_new"]
COMPLIANCE = "device-compliance-change"
TOLD = {
    "standard": {each: each for each in EVENTS},
    "caep": {"session_ended": "session-revoked", "device_blocked": COMPLIANCE, "device_allowed": COMPLIANCE},
}
UNDONE_END = "UPDATE session SET ended_at = now(), end_reason = 'undone' WHERE tenant = $1 AND id = $2"
UNDONE_BLOCK = "UPDATE device SET access = 'blocked' WHERE tenant = $1"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on a free port of this machine."""
    async with receiving() as made:
        yield made


async def hook(tenant: Tenant, receiver: Receiver, **more: Any) -> str:
    """A webhook for whatever happens."""
    return await receivers_hook(tenant, receiver, **{"events": EVENTS} | more)


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


async def ended(tenant: Tenant, member: str) -> None:
    """A session that ends."""
    login = await tenant.login(member)
    await tenant.call("POST", f"/v1/sessions/{login['session']['id']}/end", {"reason": "logout"})


async def undone(tenant: Tenant, session_id: str) -> None:
    """The end of a session, and a block of its device, that are rolled back."""
    with contextlib.suppress(LookupError):
        async with tenant.service.context.webhooks._db.transaction() as tx:
            await tx.row(UNDONE_END, tenant.name, session_id)
            await tx.row(UNDONE_BLOCK, tenant.name)
            raise LookupError("nothing of it stays")


async def happenings(tenant: Tenant, name: str) -> list[tuple[str, str]]:
    """What happens to a member: a login on a new device, its end, the device blocked and let in again; and what does not."""
    login = await tenant.login(name, user_agent=f"Mozilla/5.0 {uuid4()}")
    session_id, device_id = login["session"]["id"], login["device"]["id"]
    await undone(tenant, session_id)
    ended = await tenant.call("POST", f"/v1/sessions/{session_id}/end", {"reason": "logout"})
    changed = [await tenant.device(quote(name, safe=""), device_id, access=each) for each in ("blocked", "default")]
    assert [each.status for each in (login, ended, *changed)] == [200] * 4
    told = ("device_new", "device_blocked", "device_allowed")
    first, *others = ((kind, device_id) for kind in told)
    return [first, ("session_ended", session_id), *others]


@pytest.mark.parametrize("written", ["standard", "caep"])
async def test_a_receiver_that_fails_hangs_redirects_and_comes_back_gets_everything_in_order(
    tenant: Tenant, receiver: Receiver, written
):
    """Over more than a day: every event once or more, in its member's order, signed; nobody else's, nothing that was rolled back, and no redirect followed."""
    clock = tenant.service.clock
    path = await hook(tenant, receiver, format=written)
    expected: dict[str | None, list[tuple[str, str | None]]] = defaultdict(list)
    modes = ("500", "hang", "redirect", "invalid_key" if written == "caep" else "400", "ok")
    with impatient(tenant):
        for mode, ahead_ms in zip(modes, (6_000, 301_000, 1_801_000, 7_201_000, DAY_MS), strict=True):
            receiver.mode = mode
            for name in NAMES:
                for kind, subject in await happenings(tenant, name):
                    if kind in TOLD[written]:
                        expected[name].append((TOLD[written][kind], subject))
            if mode != "ok":
                await sent(tenant, partial(receiver.tried, mode, len(NAMES)))
            clock.forward(ahead_ms)
    await sent(tenant, partial(receiver.has, sum(map(len, expected.values())), clock))
    got: dict[str | None, list[tuple[str, str | None]]] = defaultdict(list)
    for each in receiver.once:
        got[each.member].append((each.kind, each.session if each.kind.startswith("session") else each.device))

    assert got == expected
    assert {mode for mode, _ in receiver.tries} == set(modes)
    assert {at for _, at in receiver.tries} == {"/hook"}
    assert not await waiting(tenant, path)


async def test_tokens_say_who_did_what_and_why(tenant: Tenant, receiver: Receiver):
    """In CAEP's words, of the session, the device, the member and the tenant; what has no token is not sent."""
    await hook(tenant, receiver, format="caep")
    for name, access, reason in (("ana", ("allowed", "blocked", "allowed"), "left_school"), ("bo", (), "logout")):
        login = await tenant.login(name)
        for each in access:
            await tenant.device(name, login["device"]["id"], access=each)
        await tenant.call("POST", f"/v1/sessions/{login['session']['id']}/end", {"reason": reason})
    await sent(tenant, partial(receiver.has, 4, tenant.service.clock))
    said = {(each.member, each.kind, each.said.get("current_status")): each.said for each in receiver.once}
    (blocked, allowed) = (said["ana", "device-compliance-change", each] for each in ("not-compliant", "compliant"))
    ended = [said[name, "session-revoked", None] for name in ("ana", "bo")]

    assert (blocked["previous_status"], allowed["previous_status"]) == ("compliant", "not-compliant")
    assert [each["initiating_entity"] for each in (blocked, allowed, *ended)] == ["admin", "admin", "system", "user"]
    assert [each["reason_admin"]["en"] for each in ended] == ["left_school", "logout"]
    assert all(abs(each["event_timestamp"] - time.time()) < 3_600 for each in said.values())


async def test_a_token_that_is_refused_for_good_is_not_sent_again(tenant: Tenant, receiver: Receiver):
    """Why is on record, cut, clean and without the secret, and what follows of the same member is sent."""
    path = await hook(tenant, receiver, format="caep")
    login, receiver.mode = await tenant.login("ana"), "invalid_audience"
    await tenant.device("ana", login["device"]["id"], access="blocked")
    await sent(tenant, lambda: receiver.tried("invalid_audience", 1))
    await tenant.device("ana", login["device"]["id"], access="default")
    receiver.mode = "ok"
    await sent(tenant, lambda: bool(receiver.taken))
    listed = items(await tenant.call("GET", path + "/deliveries", role="administrator"))
    taken, refused = listed

    assert (refused["state"], refused["attempts"], refused["last_status"]) == ("failed", 1, 400)
    assert refused["last_error"].startswith("invalid_audience: no Bearer [secret] xxx")
    assert len(refused["last_error"]) == 200
    assert (taken["state"], taken["event"]) == ("delivered", "device_allowed")
    assert [each.said["current_status"] for each in receiver.once] == ["compliant"]


async def test_an_answer_that_nobody_can_read_is_a_failure_as_any_other(tenant: Tenant, receiver: Receiver):
    """JSON that is nested thousands of times: it is on record, and the message is tried again in its time."""
    path = await hook(tenant, receiver, format="caep")
    login, receiver.mode = await tenant.login("ana"), "deep"
    await tenant.device("ana", login["device"]["id"], access="blocked")
    await sent(tenant, lambda: receiver.tried("deep", 1))
    (missed,) = await waiting(tenant, path)
    receiver.mode = "ok"
    await sent(tenant, partial(receiver.has, 1, tenant.service.clock))

    assert (missed["state"], missed["last_status"], missed["last_error"]) == ("pending", 400, None)


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
    assert [each.member for each in receiver.taken] == ["bo"]
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
    assert {(each.id, each.kind) for each in receiver.taken if each.kind != "digest"} == {
        (given_up["id"], "device_new")
    }
    assert {each.kind for each in receiver.taken} == {"device_new", "digest"}
    assert (foreign.status, gone.status) == (404, 204)
    assert audited == ["webhook.delete", "webhook.redeliver", "webhook.create"]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "fd00::1", "fe80::1%1", "0.0.0.0", "224.0.0.1",
     "::7f00:1", "::ffff:0:a00:1", "fec0::1"],
)  # fmt: skip
def test_nobody_is_sent_inside_our_own_walls(host):
    """By address, in whatever form it comes; unless the network is allowed."""
    assert not Sender().may(host)
    assert Sender().may("203.0.114.9")
    assert Sender(["127.0.0.0/8"]).may("127.0.0.1")


async def test_what_nobody_thought_of_does_not_end_deliveries(
    tenant: Tenant, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    """The job that sends begins anew after a failure; what comes then is sent, on connections of its own."""
    await hook(tenant, receiver, events=["session_ended"])
    webhooks, failed = tenant.service.context.webhooks, asyncio.Event()
    await ended(tenant, "ana")
    await sent(tenant, lambda: len(receiver.taken) == 1)

    async def fails() -> bool:
        failed.set()
        raise RuntimeError("nobody thought of it")

    monkeypatch.setattr(webhooks, "once", fails)
    await asyncio.wait_for(failed.wait(), 20)
    monkeypatch.undo()
    await ended(tenant, "ben")
    await sent(tenant, lambda: len(receiver.taken) == 2)

    assert len(receiver.taken) == 2


@pytest.mark.parametrize("written", ["standard", "caep"])
async def test_a_name_that_leads_inside_is_refused_when_it_is_called(tenant: Tenant, receiver: Receiver, written):
    """The address is looked at where the connection is made, so that a name cannot change its mind in between."""
    path = await hook(tenant, receiver, format=written, events=["session_ended"])
    webhooks = tenant.service.context.webhooks
    allowed, webhooks.sender = webhooks.sender, Sender(keys=webhooks.keys, issuer=webhooks.issuer)
    try:
        login = await tenant.login("ana")
        await tenant.call("POST", f"/v1/sessions/{login['session']['id']}/end", {"reason": "logout"})

        async def tried() -> bool:
            return any(each["last_error"] for each in await waiting(tenant, path))

        await sent(tenant, tried)
        (first,) = await waiting(tenant, path)
    finally:
        await webhooks.sender.close()
        webhooks.sender = allowed

    assert not receiver.tries
    assert (first["last_error"], first["last_status"], first["attempts"]) == ("the address is private", None, 1)


async def test_a_tenant_has_twenty_webhooks_however_many_are_made_at_once(tenant: Tenant):
    """Who comes later is told so; the audit log has those that there are."""
    asked = {"url": "https://school.example/hook", "events": ["violation"]}
    calls = (tenant.call("POST", "/v1/webhooks", asked, role="administrator") for _ in range(30))
    made = Counter(each.status for each in await asyncio.gather(*calls))
    there = items(await tenant.call("GET", "/v1/webhooks", role="administrator"))
    audited = items(await tenant.call("GET", "/v1/audit?action=webhook.create", role="administrator"))

    assert made == {201: 20, 409: 10}
    assert (len(list(there)), len(list(audited))) == (20, 20)


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


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        pytest.param({"audience": "x"}, "/audience", id="an audience without tokens"),
        pytest.param({"format": "caep", "audience": "a\u202eb"}, "/audience", id="one that nobody can see"),
        pytest.param({"format": "caep", "digest": "day"}, "/digest", id="a digest as a token"),
        pytest.param(
            {"format": "caep", "events": ["violation", "device_new"]}, "/events", id="nothing that has a token"
        ),
        pytest.param({"format": "risc"}, "/format", id="a format that there is not"),
    ],
)
async def test_what_a_format_cannot_say_is_refused(tenant: Tenant, asked, pointer):
    """With a pointer to the field."""
    refused = await tenant.call(
        "POST", "/v1/webhooks", {"url": "https://hook.example/", "events": EVENTS} | asked, role="administrator"
    )

    assert (refused.status, refused["errors"][0]["pointer"]) == (400, pointer)
