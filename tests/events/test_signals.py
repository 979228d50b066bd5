"""Secrets of webhooks at rest, digests by the school's calendar, members at risk."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest

from accessguard.events.digests import boundary, zone_of
from accessguard.events.keys import DERIVED, HookKeys, derived
from accessguard.guard.risk import Risk
from accessguard.members.risk import RiskStore
from accessguard.signing import SigningKey
from tests.events.receiver import Message, Receiver, hook, receiving, sent
from tests.service import Tenant, items

DAY_MS = 86_400_000
OLD, NEW = (SigningKey(id=each, secret=each * 12) for each in ("old", "new"))
IDENTIFIER = "i" * 40
"""As in tests/service.py."""
ROW = "SELECT to_jsonb(w)::text FROM webhook w WHERE tenant = $1 AND id = $2"
AS_BEFORE = "UPDATE webhook SET secret = $3, sealed = NULL WHERE tenant = $1 AND id = $2"
CASES = """
    WITH there AS (INSERT INTO member (tenant, id, created_at) VALUES ($1, $4, $5) ON CONFLICT DO NOTHING)
    INSERT INTO violation (tenant, id, code, mode, effect, member_id, first_at, last_at, hits, resolution)
    SELECT $1, gen_random_uuid(), $2, 'enforce', $3, $4, $5, $5, 1, $6 FROM generate_series(1, $7::int)
"""
EVIDENCE = """
    WITH there AS (INSERT INTO member (tenant, id, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING)
    INSERT INTO sharing_day (tenant, member_id, day, parallel_activity, parallel_devices, far_places, new_devices, last_at)
    SELECT $1, $2, $3::timestamptz::date, $4, 0, $5, 0, $3::timestamptz
"""
DUE = "SELECT EXISTS (SELECT FROM webhook WHERE tenant = $1 AND coalesce(risk_at, '-infinity') <= $2::timestamptz - interval '15 minutes')"
HOSTILE = "ana/1 %2F مرحبا🙂" + "x" * 100


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on a free port of this machine."""
    async with receiving() as made:
        yield made


def db(tenant: Tenant) -> Any:
    """The service's own PostgreSQL."""
    return tenant.service.context.webhooks._db


async def ended(tenant: Tenant) -> None:
    """A session that ends."""
    login = await tenant.login()
    await tenant.call("POST", f"/v1/sessions/{login['session']['id']}/end", {"reason": "logout"})


async def test_no_secret_is_readable_at_rest_and_one_from_before_is_encrypted_on_the_side(
    tenant: Tenant, receiver: Receiver
):
    """Both sign as before, through a change of the keys; without the key nothing is sent with another one."""
    webhooks = tenant.service.context.webhooks
    keys = webhooks.keys
    path = await hook(tenant, receiver, events=["session_ended"])
    hook_id = UUID(path.rpartition("/")[2])
    rows = [await db(tenant).value(ROW, tenant.name, hook_id)]
    await db(tenant).row(AS_BEFORE, tenant.name, hook_id, receiver.secret)
    await ended(tenant)
    await sent(tenant, lambda: len(receiver.taken) == 1)
    try:
        for each in ((derived(IDENTIFIER),), (OLD, derived(IDENTIFIER)), (NEW, OLD), (derived(IDENTIFIER), NEW)):
            keys.take(each)
            async with db(tenant).transaction() as tx:
                await webhooks.reseal(tx)
            rows.append(await db(tenant).value(ROW, tenant.name, hook_id))
        keys.take((NEW,))
        await ended(tenant)

        async def failed() -> bool:
            listed = await tenant.call("GET", path + "/deliveries", role="administrator")
            return bool(next(items(listed))["last_error"] == "its secret cannot be opened")

        await sent(tenant, failed)
    finally:
        keys.take((derived(IDENTIFIER),))
    tries = len(receiver.tries)
    await sent(tenant, partial(receiver.has, 2, tenant.service.clock))
    shown = await tenant.call("GET", "/v1/webhooks", role="administrator")

    assert tries == 1
    assert [json.loads(each)["sealed"].split(".")[1] for each in rows] == [DERIVED, DERIVED, "old", "new", DERIVED]
    assert not [each for each in (*rows, json.dumps(shown.body)) if receiver.secret[6:] in each]


def test_keys_rotate_and_a_secret_is_one_webhooks_own():
    """The first key encrypts, all decrypt, and what is another webhook's opens nothing; the key that signs is published first."""
    hook_id, keys = uuid4(), HookKeys((OLD,))
    sealed, before = keys.seal("t", hook_id, "whsec_x"), keys.published
    keys.take((NEW, OLD))
    opened = [keys.open(*each, sealed) for each in (("t", hook_id), ("u", hook_id), ("t", uuid4()))]
    again = keys.seal("t", hook_id, "whsec_x")
    published = keys.published
    keys.take((NEW,))

    assert opened == ["whsec_x", None, None]
    assert (keys.open("t", hook_id, sealed), keys.open("t", hook_id, again)) == (None, "whsec_x")
    assert (published[1:], keys.published) == (before, published[:1])
    with pytest.raises(ValueError, match="id of its own"):
        keys.take((NEW, NEW))
    assert keys.open("t", hook_id, again) == "whsec_x"


async def test_who_sends_tokens_is_described(tenant: Tenant):
    """Without a token of a caller's; the issuer is the public address, and no key's private half is shown."""
    found = {}
    for name in ("ssf-configuration", "jwks.json"):
        async with tenant.service.http.get(f"{tenant.service.url}/.well-known/{name}") as response:
            assert response.status == 200
            found[name] = await response.json(content_type=None)

    assert found["ssf-configuration"] == {
        "spec_version": "1_0",
        "issuer": "https://guard.example",
        "jwks_uri": "https://guard.example/.well-known/jwks.json",
        "delivery_methods_supported": ["urn:ietf:rfc:8935"],
    }
    assert all(each.keys() == {"kty", "crv", "x", "y", "use", "alg", "kid"} for each in found["jwks.json"]["keys"])


@pytest.mark.parametrize(
    ("zone", "after", "days", "weeks"),
    [
        pytest.param(None, "2026-01-01T00:00Z", "2026-01-02T00:00Z", "2026-01-05T00:00Z", id="none"),
        pytest.param("No/Such", "2026-01-01T09:00Z", "2026-01-02T00:00Z", "2026-01-05T00:00Z", id="unknown"),
        pytest.param("Europe/Kyiv", "2026-03-28T22:00Z", "2026-03-29T21:00Z", "2026-03-29T21:00Z", id="23 hours"),
        pytest.param("Europe/Kyiv", "2026-10-24T21:00Z", "2026-10-25T22:00Z", "2026-10-25T22:00Z", id="25 hours"),
        pytest.param("Africa/Cairo", "2026-04-23T12:00Z", "2026-04-23T22:00Z", "2026-04-26T21:00Z", id="no midnight"),
        pytest.param("Pacific/Kiritimati", "2026-01-04T09:59Z", "2026-01-04T10:00Z", "2026-01-04T10:00Z", id="UTC+14"),
    ],
)
def test_a_digest_ends_at_the_schools_own_midnight(zone, after, days, weeks):
    """Of each day, or of Sunday to Monday; also where a clock is changed."""
    found = [boundary(datetime.fromisoformat(after), zone_of(zone), each) for each in ("day", "week")]

    assert found == [datetime.fromisoformat(each) for each in (days, weeks)]


async def test_every_day_has_one_digest_also_when_nobody_was_there_to_make_it(tenant: Tenant, receiver: Receiver):
    """In order, each from the end of the one before, of the cases of its time; those more than a week old are left out."""
    clock = tenant.service.clock
    clock.stop()
    await tenant.call("PUT", "/v1/settings", {"time_zone": "America/Sao_Paulo"}, role="administrator")
    begun = datetime.fromtimestamp(clock() / 1000, UTC)
    await hook(tenant, receiver, events=["session_ended"], digest="day")
    first = boundary(begun, zone_of("America/Sao_Paulo"), "day")
    for at, cases in ((begun + (first - begun) / 2, 2), (first, 3), (first + timedelta(days=2, hours=1), 1)):
        await db(tenant).row(CASES, tenant.name, "device_limit", "denied", "ana", at, "open", cases)
    clock.forward(3 * DAY_MS)
    await sent(tenant, lambda: len(receiver.taken) == 3)
    told = list(receiver.once)
    clock.forward(30 * DAY_MS)
    await sent(tenant, lambda: len(receiver.once) == 10)
    await sent(tenant, lambda: True)
    later = receiver.once[3:]

    ends = [first, first + timedelta(days=1), first + timedelta(days=2)]
    assert [_period(each) for each in told] == list(zip([begun, *ends], ends, strict=False))
    assert [each.said["violations"] for each in told] == [{"device_limit": 2}, {"device_limit": 3}, {}]
    assert [each.said["members"] for each in told] == [1, 1, 0]
    assert {each.said["time_zone"] for each in told} == {"America/Sao_Paulo"}
    assert all(a.said["to"] == b.said["from"] for a, b in pairwise(later))
    assert _period(later[-1])[1] == ends[0] + timedelta(days=32)


async def test_a_member_at_risk_is_told_of_once_a_month(tenant: Tenant, receiver: Receiver):
    """By evidence that agrees, or by many cases; with the reasons; below the threshold nobody is told of anybody."""
    clock = tenant.service.clock
    await hook(tenant, receiver, events=["member_at_risk"])
    now = datetime.fromtimestamp(clock() / 1000, UTC) - timedelta(minutes=1)
    for name, activity, places in ((HOSTILE, 15, 4), ("bo", 15, 3)):
        await db(tenant).row(EVIDENCE, tenant.name, name, now, activity, places)
    for name, cases, effect, resolution in (
        ("cy", 10, "denied", "open"), (HOSTILE, 10, "logged", "open"), ("di", 9, "denied", "open"),
        ("ed", 10, "exempt", "open"), ("fe", 10, "denied", "false_alarm"),
    ):  # fmt: skip
        await db(tenant).row(CASES, tenant.name, "device_limit", effect, name, now, resolution, cases)
    await looked(tenant)
    await sent(tenant, lambda: len(receiver.taken) == 2)
    clock.forward(16 * 60_000)
    await looked(tenant)
    await sent(tenant, lambda: True)
    told = {each.member: each.said for each in receiver.taken}
    clock.forward(31 * DAY_MS)
    await db(tenant).row(EVIDENCE, tenant.name, HOSTILE, now + timedelta(days=31), 15, 4)
    await looked(tenant)
    await sent(tenant, lambda: len(receiver.taken) == 3)

    assert told.keys() == {HOSTILE, "cy"}
    assert told[HOSTILE]["score"] == 50
    assert [(each["kind"], each["weight"]) for each in told[HOSTILE]["reasons"]] == [
        ("parallel_activity", 30),
        ("far_places", 20),
        ("restrictions", 0),
    ]
    assert (told["cy"]["score"], told["cy"]["reasons"][0]["amount"]) == (None, 10)
    assert receiver.taken[-1].member == HOSTILE


async def test_a_member_at_risk_is_a_high_risk_in_the_words_of_tokens(tenant: Tenant, receiver: Receiver):
    """A change of its level, of the user."""
    await hook(tenant, receiver, events=["member_at_risk"], format="caep")
    now = datetime.fromtimestamp(tenant.service.clock() / 1000, UTC) - timedelta(minutes=1)
    await db(tenant).row(EVIDENCE, tenant.name, HOSTILE, now, 15, 4)
    await looked(tenant)
    await sent(tenant, lambda: len(receiver.taken) == 1)
    (told,) = receiver.taken

    assert (told.kind, told.member) == ("risk-level-change", HOSTILE)
    assert (told.said["principal"], told.said["current_level"]) == ("USER", "HIGH")
    assert told.said["risk_reason"] == "parallel_activity, far_places"


async def test_whom_others_were_told_of_keeps_no_place_and_whoever_was_erased_is_nobody(tenant: Tenant):
    """Of more members than one look tells of, the next look has the others; a note of somebody erased meanwhile would stay."""
    await tenant.login("ana")
    now = datetime.fromtimestamp(tenant.service.clock() / 1000, UTC)
    before, store = now - timedelta(minutes=1), RiskStore(db(tenant))
    for name, cases in (("ana", 12), ("bo", 11)):
        await db(tenant).row(CASES, tenant.name, "device_limit", "denied", name, before, "open", cases)
    looks = []
    for _ in range(3):
        looks.append(list(await store.restricted(tenant.name, now=now, most=1)))
        assert await store.mark(tenant.name, [*looks[-1], "gone"], at=now) == set(looks[-1])

    assert looks == [["ana"], ["bo"], []]


async def looked(tenant: Tenant) -> None:
    """Look at every tenant that is due, until this one was looked at."""
    clock = tenant.service.clock
    risk, now = Risk(db=db(tenant), now_ms=clock), datetime.fromtimestamp(clock() / 1000, UTC)
    async with asyncio.timeout(20):
        while await risk.once() or await db(tenant).value(DUE, tenant.name, now):
            await asyncio.sleep(0.01)


def _period(message: Message) -> tuple[datetime, datetime]:
    """What a digest is about, to the millisecond."""
    begin, end = (datetime.fromisoformat(message.said[each]) for each in ("from", "to"))
    return begin, end
