"""The 30-second beat as the platform and an operator see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.service import FIREFOX, Answer, Service, Tenant, items, running
from tests.sessions.topology import own_cluster


@pytest.fixture(scope="module")
async def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a cluster of three nodes."""
    async with own_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made.url


@pytest.fixture(scope="module", params=["server", "cluster"])
async def workers(
    request: pytest.FixtureRequest, service: Service, database_url: str, redis_url: str, cluster_url: str
) -> AsyncIterator[tuple[Service, Service]]:
    """Two workers whose clocks a test may stop, on one Valkey and on a cluster."""
    del service  # it has brought the schema up to date
    redis_url = redis_url if request.param == "server" else cluster_url
    async with running(database_url, redis_url) as one, running(database_url, redis_url) as other:
        yield one, other


@pytest.fixture
def here(workers: tuple[Service, Service]) -> Tenant:
    """A new tenant as the first worker serves it; no time passes but what the test says."""
    for worker in workers:
        worker.clock.stop()
        worker.clock.forward(round(time.time() * 1000) - worker.clock())
    workers[1].clock.forward(workers[0].clock() - workers[1].clock())
    return workers[0].tenant()


@pytest.fixture
def there(here: Tenant, workers: tuple[Service, Service]) -> Tenant:
    """The same tenant as the second worker serves it."""
    return Tenant(workers[1], here.name)


def forward(ms: int, *tenants: Tenant) -> None:
    """Let time pass for these workers."""
    for tenant in tenants:
        tenant.service.clock.forward(ms)


async def last(tenant: Tenant, login: Answer, *, since: int) -> int | None:
    """Last activity of a session as an operator reads it, in ms after `since`."""
    session = await tenant.see(f"/v1/sessions/{login['session']['id']}")
    at = session["last_activity_at"]
    return None if at is None else round(datetime.fromisoformat(at).timestamp() * 1000) - since


async def visit(tenant: Tenant, login: Answer, **more: Any) -> str:
    """One counted interaction; the decision."""
    answer = await tenant.check(login, activity=more.pop("activity", "lesson_open"), **more)
    assert answer.status == 200, answer.body
    decision: str = answer["decision"]
    return decision


@pytest.mark.parametrize(
    ("steps", "moved_to"),
    [
        pytest.param([0], 0, id="the first one writes"),
        pytest.param([0, 29_999], 0, id="29.999 s later does not"),
        pytest.param([0, 30_000], 30_000, id="exactly 30 s later does"),
        pytest.param([0, 10_000, 20_000, 29_999, 30_000], 30_000, id="suppressed ones do not stretch the window"),
        pytest.param([0, 29_999, 59_998], 59_998, id="nor move what it is counted from"),
        pytest.param([0, 40_000, 69_999], 40_000, id="it is counted from the one that wrote"),
        pytest.param([40_000, 0], 40_000, id="a clock that went back never moves it back"),
        pytest.param([0, 3_000_000], 3_000_000, id="much later"),
    ],
)
async def test_last_activity_moves_at_most_once_in_thirty_seconds(here, steps, moved_to):
    """To the millisecond, and every interaction is allowed all the same."""
    login, start = await here.login(), here.service.clock()

    decisions = []
    for step in steps:
        forward(start + step - here.service.clock(), here)
        decisions.append(await visit(here, login))

    assert set(decisions) == {"allow"}
    assert await last(here, login, since=start) == moved_to


@pytest.mark.parametrize(
    "kind", ["course_open", "lesson_open", "offer_open", "payment_open", "video_watch", "assignment_complete"]
)
async def test_each_of_the_six_interactions_counts(here, kind):
    """And is kept with what was opened, and where from."""
    login, start = await here.login(), here.service.clock()

    await visit(here, login, activity=kind, resource="course:42", product_id="p1")

    card = await here.see("/v1/members/ana")
    (line,) = items(await here.see("/v1/members/ana/activity"))
    written = datetime.fromtimestamp(start / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert card["last_activity"] == {"at": written, "kind": kind, "session_id": login["session"]["id"]}
    assert (line["kind"], line["resource"], line["product_id"], line["ip"]) == (kind, "course:42", "p1", "203.0.113.9")


async def test_a_check_without_activity_never_moves_it(here):
    """Neither the first nor one a quarter of an hour later."""
    login, start = await here.login(), here.service.clock()
    for _ in range(3):
        await here.check(login)
        forward(900_000, here)
    untouched = await last(here, login, since=start)

    await visit(here, login)
    forward(60_000, here)
    await here.check(login)

    assert untouched is None
    assert await last(here, login, since=start) == 3 * 900_000


@pytest.mark.parametrize("order", ["login first", "check first"])
async def test_the_beat_is_each_sessions_own(here, order):
    """Another session of the same member has its own 30 s."""
    one, start = await here.login(), here.service.clock()
    other = await here.login(user_agent=FIREFOX)
    pair = (one, other) if order == "login first" else (other, one)

    await visit(here, pair[0])
    forward(1_000, here)
    await visit(here, pair[1])

    assert [await last(here, each, since=start) for each in pair] == [0, 1_000]


async def test_two_workers_at_one_instant_move_it_once(here, there):
    """Whoever is second finds that it has been moved, and answers all the same."""
    login = await here.login()
    start = here.service.clock()

    decisions = await asyncio.gather(*(visit(each, login) for each in (here, there) * 10))
    forward(29_999, here, there)
    early = await asyncio.gather(*(visit(each, login) for each in (here, there)))
    before = await last(here, login, since=start)
    forward(1, here, there)
    due = await asyncio.gather(*(visit(each, login) for each in (there, here)))

    assert {*decisions, *early, *due} == {"allow"}
    await there.service.context.activity.flush()
    lines = list(items(await here.see("/v1/members/ana/activity")))
    assert before == 0
    assert [round(datetime.fromisoformat(line["at"]).timestamp() * 1000) - start for line in lines] == [30_000, 0]


async def test_a_late_worker_does_not_move_it_back(here, there):
    """Its clock is half a minute behind; what is stored is newer."""
    login, start = await here.login(), here.service.clock()
    forward(60_000, here)
    await visit(here, login)

    decision = await visit(there, login)
    await there.service.context.activity.flush()

    assert decision == "allow"
    assert await last(here, login, since=start) == 60_000
    forward(-60_000, here)


async def test_a_refused_interaction_is_no_activity(here):
    """It moves nothing, and the next one that is allowed is due at once."""
    login, start = await here.login(), here.service.clock()
    rule = await here.rule("ip_deny", networks=["203.0.113.0/24"])

    refused = await visit(here, login)
    after_refusal = await last(here, login, since=start)
    await here.call("DELETE", f"/v1/rules/{rule['id']}", role="administrator")
    forward(1_000, here)
    allowed = await visit(here, login)

    assert (refused, after_refusal, allowed) == ("deny", None, "allow")
    assert await last(here, login, since=start) == 1_000


async def test_a_beat_opens_no_window_for_what_is_forbidden(here):
    """Right after a beat a new rule, a blocked device and an ended session are honoured, not 30 s later."""
    login = await here.login()
    await visit(here, login)
    forward(1_000, here)

    rule = await here.rule("ip_deny", networks=["203.0.113.0/24"])
    by_rule = await here.check(login, activity="lesson_open")
    await here.call("DELETE", f"/v1/rules/{rule['id']}", role="administrator")
    lifted = await here.check(login, activity="lesson_open")
    await here.call("POST", f"/v1/sessions/{login['session']['id']}/end", {"reason": "password_changed"})
    ended = await here.check(login, activity="lesson_open")

    assert by_rule["reason"]["code"] == "ip_denied"
    assert lifted["decision"] == "allow"
    assert (ended["reason"]["code"], ended["reason"]["end_reason"]) == ("session_ended", "password_changed")


async def test_an_address_that_changed_inside_the_beat_is_judged(here):
    """The verdict held was for another place."""
    login = await here.login(ip="192.0.2.1")
    await here.rule("ip_deny", networks=["203.0.113.0/24"])

    decisions = [(await here.check(login, ip=ip))["decision"] for ip in ("192.0.2.1", "203.0.113.1", "192.0.2.1")]

    assert decisions == ["allow", "deny", "allow"]


async def test_valkey_may_be_flushed_between_two_beats(here, there):
    """The 30 s go on, on the worker that knew and on the one that has to ask PostgreSQL."""
    login, start = await here.login(), here.service.clock()
    await visit(here, login)
    await here.service.context.activity.flush()
    await here.service.context.ready._live._call("FLUSHDB")

    forward(29_999, here, there)
    early = [await visit(each, login) for each in (here, there)]
    before = await last(here, login, since=start)
    forward(1, here, there)
    await here.service.context.ready._live._call("FLUSHDB")
    due = [await visit(each, login) for each in (there, here)]
    await there.service.context.activity.flush()

    assert {*early, *due} == {"allow"}
    assert before == 0
    assert await last(here, login, since=start) == 30_000


async def test_a_flush_of_valkey_lets_nobody_else_in(here, there):
    """Who holds a place is known from PostgreSQL, so an empty Valkey changes no verdict."""
    await here.rule("session_limit", "deny_new", max=1)
    first = await here.login()
    await visit(here, first)
    await here.service.context.activity.flush()

    await here.service.context.ready._live._call("FLUSHDB")
    second = await there.login(user_agent=FIREFOX)

    assert second["decision"] == "deny"
    assert await visit(there, first) == "allow"


async def test_use_keeps_a_place_and_idleness_loses_it(here, there):
    """The newer session is the one that was idle longer; a login on the other worker ends that one."""
    await here.rule("session_limit", "evict_idle", max=2, window_s=1800)
    first, second = await here.login(), await here.login(user_agent=FIREFOX)
    forward(60_000, here, there)
    await visit(here, first)
    await here.service.context.activity.flush()

    third = await there.login(user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0")

    assert [each["id"] for each in third["ended_sessions"]] == [second["session"]["id"]]


async def test_a_clean_stop_loses_no_beat(service, database_url, redis_url):
    """What a worker had gathered is in PostgreSQL when it has stopped."""
    async with running(database_url, redis_url) as worker:
        tenant = worker.tenant()
        login = await tenant.login()
        await visit(tenant, login)

    session = await Tenant(service, tenant.name).see(f"/v1/sessions/{login['session']['id']}")

    assert session["last_activity_kind"] == "lesson_open"


async def test_impersonation_leaves_no_activity(here):
    """Support that looks in as the student is not the student."""
    login = await here.login(method="impersonation")

    answer = await here.check(login, activity="lesson_open")

    assert (answer["decision"], answer["exempt"]) == ("allow", True)
    assert list(items(await here.see("/v1/members/ana/activity"))) == []
    card = await here.see("/v1/members/ana")
    assert (card["last_activity"], card["first_access_at"], card["active_sessions"]) == (None, None, 0)
