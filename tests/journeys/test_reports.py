"""Reports over all members: counted by day, first and last access; as JSON, as CSV, as a job that writes a file."""

from __future__ import annotations

import asyncio
import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from accessguard.guard.facts import to_ms
from accessguard.sessions.activity import INTERVAL
from accessguard.tallies.past import PastStore
from tests.service import FIREFOX, Answer, Tenant, items

REPORTS = "/v1/reports/"
EVIDENCE = """
    INSERT INTO sharing_day (tenant, member_id, day, parallel_activity, parallel_devices, far_places, new_devices, last_at)
    SELECT tenant, id, now()::date, 9, 9, 9, 9, now() - interval '1 minute' FROM member WHERE tenant = $1
"""


async def opened(tenant: Tenant, session: Answer, **more: Any) -> None:
    """One counted interaction, long enough after the one before."""
    tenant.service.clock.forward(31_000)
    checked = await tenant.check(session, **({"activity": "lesson_open"} | more))
    assert checked["decision"] == "allow", checked.body
    await tenant.service.context.activity.flush()


async def at(tenant: Tenant, time: datetime) -> None:
    """The service's clock says this time."""
    tenant.service.clock.stop()
    tenant.service.clock.forward(to_ms(time) - tenant.service.clock())


async def rows(tenant: Tenant, report: str, *columns: str) -> list[tuple[Any, ...]]:
    """These columns of a report by day, the first day first."""
    listed = items(await tenant.see(f"{REPORTS}{report}?order=asc"))
    return [tuple(each[name] for name in columns) for each in listed]


async def test_first_and_last_access_by_product_outlive_what_they_were_seen_by(tenant: Tenant):
    """With every raw row gone they are what they were; a later access moves the last one alone, a late one the first."""
    await tenant.call("PUT", "/v1/members/ana", {"name": "Ana", "email": "ana@example.com"})
    bought = {"starts_at": "2026-01-01T00:00:00Z", "purchased_at": "2025-12-24T10:00:00.000Z"}
    await tenant.call("PUT", "/v1/members/ana/enrolments/course-1", bought)
    await tenant.call("PUT", "/v1/members/ana/enrolments/never%2Fopened", bought)
    session, other = await tenant.login("ana"), await tenant.login("bea", user_agent=FIREFOX)
    await opened(tenant, session, product_id="course-1")
    await opened(tenant, session, product_id="course-1")
    before = list(items(await tenant.call("GET", REPORTS + "access", role="attendant")))
    db = tenant.service.context.jobs._db
    for table in ("activity", "login_attempt"):
        await db.row(f"DELETE FROM {table} WHERE tenant = $1", tenant.name)

    after = list(items(await tenant.call("GET", REPORTS + "access", role="attendant")))
    await opened(tenant, session, product_id="course-1")
    moved = list(items(await tenant.see(REPORTS + "access?product_id=course-1")))

    assert before == after
    assert [(each["member_id"], each["product_id"]) for each in after] == [
        ("ana", "course-1"),
        ("ana", "never/opened"),
        ("bea", None),
    ]
    assert after[0]["purchased_at"] == "2025-12-24T10:00:00.000Z"
    assert after[0]["first_access_at"] < after[0]["last_access_at"]
    assert (after[1]["first_access_at"], after[1]["last_access_at"]) == (None, None)
    assert after[2]["member_first_access_at"] is not None
    assert other["decision"] == "allow"
    assert [each["first_access_at"] for each in moved] == [after[0]["first_access_at"]]
    assert moved[0]["last_access_at"] > after[0]["last_access_at"]


async def test_every_page_of_the_access_report_goes_on_where_the_last_one_ended(tenant: Tenant):
    """Whatever the size of a page, each member and product comes once, also of one member and of one product."""
    begun = {"starts_at": "2026-01-01T00:00:00Z"}
    pairs = [("ana", "a"), ("ana", "b"), ("ana", "c"), ("bé/%", "b"), ("dora", None), ("eva", "b")]
    for member, product in pairs:
        if product is None:
            await tenant.call("PUT", f"/v1/members/{member}", {})
        else:
            name = member.replace("%", "%25").replace("/", "%2F")
            await tenant.call("PUT", f"/v1/members/{name}/enrolments/{product}", begun)

    async def walked(limit: int, more: str = "") -> list[tuple[str, str | None]]:
        found, cursor = [], ""
        while True:
            answer = await tenant.see(f"{REPORTS}access?limit={limit}{more}{cursor}")
            found += [(each["member_id"], each["product_id"]) for each in items(answer)]
            if answer["next_cursor"] is None:
                return found
            cursor = f"&cursor={answer['next_cursor']}"

    assert [await walked(limit) for limit in (1, 2, 5)] == [pairs] * 3
    assert await walked(1, "&product_id=b") == [pair for pair in pairs if pair[1] == "b"]
    assert await walked(2, "&member_id=ana") == pairs[:3]
    assert await walked(1, "&member_id=ana&product_id=b") == [("ana", "b")]


async def test_days_are_those_of_the_tenants_time_zone_and_outlive_the_rows(tenant: Tenant):
    """What happens at 01:30 UTC belongs to the day before in Recife; with every raw row gone the counts are the same."""
    await tenant.call("PUT", "/v1/settings", {"time_zone": "America/Recife"}, role="administrator")
    night = datetime.now(UTC).replace(hour=1, minute=30, second=0, microsecond=0) + timedelta(days=2)
    first, second = str(night.date() - timedelta(days=1)), str(night.date())
    await at(tenant, night)
    rule = await tenant.rule("ip_deny", networks=["198.51.100.0/24"])
    session = await tenant.login("ana")
    await tenant.login("ana", ip="198.51.100.7", device_token=session["device"]["token"])
    await tenant.login("ana", outcome="failure", user_agent="Guess/1.0")
    await opened(tenant, session)
    await opened(tenant, session, activity="video_watch")
    tenant.service.clock.forward(5_400_000)
    await opened(tenant, session)
    await tenant.login("ana", device_token=session["device"]["token"])
    before = [await tenant.see(f"{REPORTS}{each}") for each in ("activity", "logins", "devices", "refusals")]
    db = tenant.service.context.jobs._db
    for table in ("activity", "login_attempt", "violation"):
        await db.row(f"DELETE FROM {table} WHERE tenant = $1", tenant.name)

    after = [await tenant.see(f"{REPORTS}{each}") for each in ("activity", "logins", "devices", "refusals")]

    assert [each.body for each in after] == [each.body for each in before]
    assert await rows(tenant, "activity", "day", "kind", "count") == [
        (first, "lesson_open", 1),
        (first, "video_watch", 1),
        (second, "lesson_open", 1),
    ]
    assert await rows(tenant, "logins", "day", "outcome", "decision", "count") == [
        (first, "failure", "allow", 1),
        (first, "success", "allow", 1),
        (first, "success", "deny", 1),
        (second, "success", "allow", 1),
    ]
    assert await rows(tenant, "devices", "day", "device_class", "browser", "logins", "new_devices") == [
        (first, "desktop", "Chrome", 1, 1),
        (second, "desktop", "Chrome", 1, 0),
    ]
    refused = await rows(tenant, "refusals", "day", "rule_id", "code", "effect", "hits")
    assert (first, rule["id"], "ip_denied", "denied", 1) in refused
    days = f"{REPORTS}activity?from={second}&to={night.date() + timedelta(days=1)}"
    assert [each["day"] for each in items(await tenant.see(days))] == [second]


async def test_what_was_recorded_before_anybody_counted_is_counted_once(tenant: Tenant):
    """From the logs alone the same reports come out, but for logins of nobody known; counted again, nothing is added."""
    session = await tenant.login("ana")
    await tenant.rule("ip_deny", networks=["198.51.100.0/24"])
    await tenant.login("bea", ip="198.51.100.7")
    await opened(tenant, session, product_id="course-1", resource="webinar:7?run=1")
    await opened(tenant, session, product_id="course-1", activity="video_watch")
    paths = [REPORTS + each for each in ("access", "activity", "logins", "devices", "refusals")]
    before = [(await tenant.see(path)).body for path in (*paths, "/v1/members/ana")]
    db = tenant.service.context.jobs._db
    for table in ("day_tally", "product_access", "run_access"):
        await db.row(f"DELETE FROM {table} WHERE tenant = $1", tenant.name)
    await db.row("INSERT INTO tally_past (tenant, before) VALUES ($1, now() + interval '1 day')", tenant.name)

    async with db.transaction() as tx:
        while await PastStore(tx).count(most=1):
            pass
    after = [(await tenant.see(path)).body for path in (*paths, "/v1/members/ana")]

    assert after[:-1] == before[:-1]
    assert after[-1]["runs"] == before[-1]["runs"]


async def test_an_interaction_that_is_told_twice_is_counted_once(tenant: Tenant):
    """A flush whose answer was lost is done again, by who knows how many workers at once, and adds nothing."""
    session = await tenant.login("ana")
    store = tenant.service.context.sessions
    tenant.service.clock.forward(31_000)
    await tenant.check(session, activity="lesson_open", product_id="course-1")
    beats = list(tenant.service.context.activity._pending)

    await asyncio.gather(*(store.flush(beats, INTERVAL) for _ in range(4)))
    counted = await rows(tenant, "activity", "kind", "count")

    assert counted == [("lesson_open", 1)]


async def test_a_report_is_written_as_a_job_and_fetched_as_a_file(tenant: Tenant):
    """The file is what the list streams; the same key begins it once; no attendant and no other tenant gets it."""
    for member in ("ana", "=cmd", "zoë 🦉"):
        await tenant.call("PUT", f"/v1/members/{member}", {"name": '+name, "quoted"\n\u0623\u0646\u0627'})
    key = {"Idempotency-Key": f"k-{tenant.name}"}
    asked = {"report": "access"}

    begun = [await tenant.call("POST", "/v1/reports", asked, role="supervisor", headers=key) for _ in range(2)]
    job = await done(tenant, begun[0]["id"])
    file = await tenant.see(f"/v1/jobs/{job['id']}/result")
    streamed = await tenant.see(REPORTS + "access", headers={"Accept": "text/csv"})
    other = await tenant.service.tenant().see(f"/v1/jobs/{job['id']}/result")
    refused = [
        await tenant.call("POST", "/v1/reports", asked, role="attendant"),
        await tenant.call("GET", f"/v1/jobs/{job['id']}", role="platform"),
    ]
    tenant.service.clock.forward(8 * 86_400_000)
    expired = await tenant.see(f"/v1/jobs/{job['id']}/result")

    assert [each.status for each in begun] == [202, 202]
    assert begun[0]["id"] == begun[1]["id"]
    assert (job["result"]["rows"], job["result"]["bytes"], job["progress"]) == (3, len(file.body), 3)
    assert job["result"]["path"] == f"/v1/jobs/{job['id']}/result"
    assert file.body == streamed.body
    assert file.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert file.headers["Content-Length"] == str(len(file.body))
    parsed = list(csv.DictReader(io.StringIO(file.body.decode(), newline="")))
    assert [each["member_id"] for each in parsed] == ["'=cmd", "ana", "zoë 🦉"]
    assert [other.status, expired.status, *(each.status for each in refused)] == [404, 404, 403, 404]


async def test_files_that_name_members_go_when_one_is_erased(tenant: Tenant):
    """Its job says why; a report of days, which names nobody, stays."""
    await tenant.login("ana")
    begun = [
        await tenant.call("POST", "/v1/reports", {"report": each}, role="supervisor") for each in ("access", "logins")
    ]
    named, counted = [await done(tenant, each["id"]) for each in begun]

    await tenant.service.context.parts.drop_names(tenant.name)
    gone = await tenant.see(f"/v1/jobs/{named['id']}")
    file = await tenant.see(f"/v1/jobs/{named['id']}/result")
    stays = await tenant.see(f"/v1/jobs/{counted['id']}/result")
    await tenant.service.context.parts.put(tenant.name, UUID(named["id"]), 0, b"late")
    left = await tenant.service.context.parts.get(tenant.name, UUID(named["id"]), 0)

    assert (gone["state"], gone["error"]) == ("failed", "a member was erased since")
    assert (file.status, stays.status, left) == (409, 200, None)


async def test_every_report_says_how_much_there_is_to_write(tenant: Tenant):
    """As many rows as its list has: of accesses, of a ranking, of days; of one product or one member too."""
    for number in range(3):
        await tenant.login(f"ana/{number}%")
        await tenant.call(
            "PUT", f"/v1/members/ana%2F{number}%25/enrolments/p{number}", {"starts_at": "2026-01-01T00:00:00Z"}
        )
    await tenant.service.context.sharing._db.row(EVIDENCE, tenant.name)
    asked = (
        {"report": "access"},
        {"report": "access", "product_id": "p1"},
        {"report": "access", "member_id": "ana/2%"},
        {"report": "sharing"},
        {"report": "logins"},
    )

    jobs = [
        await done(tenant, (await tenant.call("POST", "/v1/reports", each, role="supervisor"))["id"]) for each in asked
    ]

    lists = ("access", "access?product_id=p1", "access?member_id=ana%2F2%25", "sharing", "logins")
    rows = [len(list(items(await tenant.see(REPORTS + each)))) for each in lists]
    assert [(job["total"], job["progress"]) for job in jobs] == [(each, each) for each in rows]
    assert rows[:4] == [3, 1, 1, 3]


@pytest.mark.parametrize(
    ("asked", "pointers"),
    [
        ({"report": "access", "from": "2026-01-01", "to": "2026-02-01"}, ["/from", "/to"]),
        ({"report": "logins", "member_id": "ana"}, ["/member_id"]),
        ({"report": "sharing", "product_id": "p"}, ["/product_id"]),
        ({"report": "refusals", "product_id": "p"}, ["/product_id"]),
    ],
)
async def test_a_report_takes_no_field_that_means_nothing_to_it(
    tenant: Tenant, asked: dict[str, str], pointers: list[str]
):
    """Whoever asks for one member's logins does not get a file of everybody's."""
    refused = await tenant.call("POST", "/v1/reports", asked, role="supervisor")

    assert (refused.status, [each["pointer"] for each in refused["errors"]]) == (400, pointers)


@pytest.mark.parametrize("report", ["activity", "logins", "devices", "refusals"])
async def test_reports_by_day_are_not_for_attendants(tenant: Tenant, report: str):
    """They name no member, and still are no business of who may only search."""
    refused = await tenant.call("GET", REPORTS + report, role="attendant")
    wrong = await tenant.see(f"{REPORTS}{report}?from=yesterday")
    empty = await tenant.see(REPORTS + report)

    assert (refused.status, wrong.status, empty.body) == (403, 400, {"items": [], "next_cursor": None})


async def done(tenant: Tenant, job_id: str) -> Answer:
    """The job when it has come to its end."""
    while True:
        job = await tenant.see(f"/v1/jobs/{job_id}")
        if job["state"] in {"done", "failed"}:
            assert job["state"] == "done", job.body
            return job
        await asyncio.sleep(0.01)
