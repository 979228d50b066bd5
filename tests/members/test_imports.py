"""Files of members and enrolments, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from aiohttp import ClientError

from accessguard.database import Database
from accessguard.jobs.model import JobKind, Portion
from accessguard.jobs.portions import PortionStore
from tests.service import Answer, Tenant

START = "2026-01-01T00:00:00.000Z"


def member(member_id: str, **fields) -> dict:
    """A line of a member."""
    return {"kind": "member", "member_id": member_id, **fields}


def enrolment(member_id: str, product_id: str = "course", **fields) -> dict:
    """A line of an enrolment."""
    return {"kind": "enrolment", "member_id": member_id, "product_id": product_id, "starts_at": START, **fields}


def ndjson(*lines: dict | str) -> bytes:
    """The lines as a file."""
    return b"".join((line if isinstance(line, str) else json.dumps(line)).encode() + b"\n" for line in lines)


async def sent(tenant: Tenant, file: bytes, kind: str = "application/x-ndjson", **headers: str) -> Answer:
    """The answer to a file."""
    headers = {"Content-Type": kind} | headers
    return await tenant.call("POST", "/v1/imports", data=file, headers=headers)


async def done(tenant: Tenant, answer: Answer) -> Answer:
    """The job of a file at its end."""
    assert answer.status == 202, answer.body
    while True:
        job = await tenant.call("GET", f"/v1/jobs/{answer['id']}")
        if job["state"] in {"done", "failed"}:
            return job
        await asyncio.sleep(0.01)


async def imported(tenant: Tenant, *lines: dict | str) -> Any:
    """What came of a file of these lines."""
    job = await done(tenant, await sent(tenant, ndjson(*lines)))
    assert job["state"] == "done", job.body
    return job["result"]


async def test_a_file_of_members_and_enrolments_is_applied(tenant):
    """Whoever is in it is there, with what it grants; ids and names are anybody's."""
    hostile = "a/b%2F?#ü\U0001f600" + "x" * 118
    name = "\u202b\u05d3\u05d5\u05d3 \U0001f469\u200d\U0001f393"

    result = await imported(
        tenant,
        member("ana", name="Ana", email="ana@example.com", phone="+39 333 123 4567", tags=["vip"], staff=True),
        member(hostile, name=name),
        enrolment("bea", ends_at="2026-02-01T00:00:00Z"),
    )

    listed = await tenant.see("/v1/members")
    found = {each["member_id"]: each for each in listed["items"]}
    assert result == {
        "lines": 3,
        "members_new": 3,
        "members_changed": 0,
        "enrolments_changed": 1,
        "refused": 0,
        "refused_lines": [],
    }
    assert found.keys() == {"ana", hostile, "bea"}
    assert (found["ana"]["email"], found["ana"]["tags"], found["ana"]["staff"]) == ("ana@example.com", ["vip"], True)
    assert found[hostile]["name"] == name
    assert found["bea"]["status_reason"] == "expired"


async def test_the_same_file_again_changes_nothing(tenant):
    """A platform may send all it has every night: nothing is new, nobody's verdict is dropped, no history grows."""
    file = (member("ana", name="Ana", phone="12", tags=["a", "b"]), enrolment("ana"), member("bea"))
    await imported(tenant, *file)
    sessions = tenant.service.context.sessions
    before = await sessions.newest_generation()

    result = await imported(tenant, *file)

    changes = await tenant.service.context.enrolments.changes(tenant.name, "ana")
    assert (result["members_new"], result["members_changed"], result["enrolments_changed"]) == (0, 0, 0)
    assert tenant.name not in {each[0] for each in await sessions.changed(before, most=1000)}
    assert len(changes) == 1


async def test_the_last_line_wins_and_what_is_left_out_stays(tenant):
    """Within a file as between files; null empties, and a former e-mail is found."""
    await imported(tenant, member("ana", name="Ana", email="old@example.com", locale="it"))

    await imported(
        tenant,
        member("ana", email="typo@example.com", locale=None),
        enrolment("ana", status="frozen"),
        member("ana", email="new@example.com"),
        enrolment("ana"),
    )

    found = await tenant.see("/v1/members?q=old@example.com")
    card = await tenant.see("/v1/members/ana")
    assert [each["member_id"] for each in found["items"]] == ["ana"]
    assert (card["name"], card["email"], card["locale"]) == ("Ana", "new@example.com", None)
    assert [each["status"] for each in card["enrolments"]] == ["active"]


async def test_times_past_the_calendar_are_refused(tenant):
    """PostgreSQL would keep the year 10000, and nobody could read it again."""
    late, early = "9999-12-31T23:59:59-03:00", "0001-01-01T00:00:00+14:00"

    result = await imported(tenant, enrolment("ana", ends_at=late), enrolment("bea", starts_at=early))

    assert [(each["pointer"], each["detail"]) for each in result["refused_lines"]] == [
        ("/ends_at", "is past the calendar"),
        ("/starts_at", "is past the calendar"),
    ]


async def test_refused_lines_are_told_and_the_others_are_applied(tenant):
    """By number and reason, and never with what they said."""
    job = await done(
        tenant,
        await sent(
            tenant,
            ndjson(
                member("ana"),
                "{broken",
                "",
                {"kind": "member", "member_id": ""},
                enrolment("bea", status="secret@example.com"),
                enrolment("bea", ends_at="2025-01-01T00:00:00Z"),
                member("cia", name="a\0b"),
                "x" * 70_000,
                {"kind": "member", "member_id": "dee", "secret@example.com": 1},
                '{"kind": "member", "member_id": "eve", "name": "\\ud800"}',
                member("zoe"),
            ),
        ),
    )

    told = job["result"]["refused_lines"]
    raw = await tenant.call("GET", f"/v1/jobs/{job['id']}/refused")
    members = (await tenant.see("/v1/members"))["items"]
    assert [(each["line"], each["pointer"]) for each in told] == [
        (2, ""),
        (4, "/member_id"),
        (5, "/status"),
        (6, "/ends_at"),
        (7, "/name"),
        (8, ""),
        (9, ""),
        (10, ""),
    ]
    assert job["result"]["refused"] == 8
    assert [json.loads(line) for line in raw.body.splitlines()] == told
    assert "secret" not in raw.body.decode()
    assert {each["member_id"] for each in members} == {"ana", "zoe"}


async def test_a_spreadsheet_is_a_file(tenant):
    """Rows with commas, quotes and line breaks; the tags in one cell; numbers of refused rows are those of an editor."""
    members = (
        "\ufeffmember_id,name,tags,staff,last_activity\r\n"
        'ana,"Rossi, ""Ana""\nof Rome",vip;alumni,true,\r\n'
        'bea,\'=Bea,"[""vip""]",,x\r\n'
        "too,few\r\n"
        'cia,"never closed\r\n'
    )
    enrolments = f"member_id,product_id,starts_at,ends_at,status\nana,c,{START},,\nbea,c,soon,,frozen\n"

    first = (await done(tenant, await sent(tenant, members.encode(), "text/csv")))["result"]
    second = (await done(tenant, await sent(tenant, enrolments.encode(), "text/csv; charset=utf-8")))["result"]

    found = {each["member_id"]: each for each in (await tenant.see("/v1/members"))["items"]}
    assert [(each["line"]) for each in first["refused_lines"]] == [5, 6]
    assert [(each["line"], each["pointer"]) for each in second["refused_lines"]] == [(3, "/starts_at")]
    assert (found["ana"]["name"], found["ana"]["tags"], found["ana"]["staff"]) == (
        'Rossi, "Ana"\nof Rome',
        ["vip", "alumni"],
        True,
    )
    assert (found["bea"]["name"], found["bea"]["tags"], found["bea"]["staff"]) == ("=Bea", ["vip"], False)


async def test_a_stream_that_breaks_off_has_changed_nothing(tenant, database_url):
    """Neither the lines before it nor a job are there."""

    async def broken():
        yield ndjson(*(member(f"m{number}") for number in range(2000)))
        raise ConnectionResetError

    with contextlib.suppress(ClientError, ConnectionError):
        await sent(tenant, broken())

    db = await Database.connect(database_url, size=1)
    while await db.value("SELECT count(*) FROM job WHERE tenant = $1", tenant.name):
        await asyncio.sleep(0.01)
    await db.close()
    assert (await tenant.see("/v1/members"))["items"] == []


async def test_a_held_verdict_is_dropped_by_an_import(tenant):
    """An enrolment that ends by a file ends at the next check."""
    await tenant.rule("enrolment", "deny", products=None)
    await imported(tenant, enrolment("ana"))
    session = await tenant.login("ana")
    before = await tenant.check(session)

    await imported(tenant, enrolment("ana", status="deactivated"))

    after = await tenant.check(session)
    assert (before["decision"], after["decision"]) == ("allow", "deny")


async def test_the_same_call_is_carried_out_once(tenant):
    """A retry under one Idempotency-Key leads to the same job; with another file it is refused."""
    key = {"Idempotency-Key": "night 1"}
    first = await sent(tenant, ndjson(member("ana")), **key)

    again = await sent(tenant, ndjson(member("ana")), **key)
    other = await sent(tenant, ndjson(member("bea")), **key)

    members = (await tenant.see("/v1/members"))["items"]
    assert first["id"] == again["id"]
    assert other.status == 422
    assert "bea" not in {each["member_id"] for each in members}


async def test_another_worker_goes_on_where_one_died(tenant, database_url):
    """With the first portion that is left, each of which is applied once; what never came to its end is given up."""
    context, clock = tenant.service.context, tenant.service.clock
    await tenant.login("x")
    db = await Database.connect(database_url, size=1)
    store, at = PortionStore(db), datetime.fromtimestamp(clock() / 1000, UTC)
    left, cut = uuid4(), uuid4()
    for job_id in (left, cut):
        await store.begin(
            tenant.name, job_id, JobKind.IMPORT, actor="p", role="platform", asked={"form": "ndjson"}, at=at
        )
        for number in range(3):
            body = ndjson(member(f"{job_id}-{number}"))
            await store.put(
                tenant.name, job_id, Portion(number=number, first_line=number + 1, lines=1, body=body), at=at
            )
    await store.ready(tenant.name, left, at=at)

    clock.forward(301_000)
    await context.imports._runner.look()
    await context.imports._runner.wait(left)

    jobs = [await context.jobs.one(tenant.name, job_id, now=at) for job_id in (left, cut)]
    waiting = await db.value("SELECT count(*) FROM job_portion WHERE tenant = $1", tenant.name)
    await db.close()
    members = {each["member_id"] for each in (await tenant.see("/v1/members"))["items"]}
    assert [(job.state, job.progress, job.error) for job in jobs] == [("done", 3, None), ("failed", 0, "interrupted")]
    assert jobs[0].result["members_new"] == 3
    assert waiting == 0
    assert members == {"x", *(f"{left}-{number}" for number in range(3))}


async def test_the_list_of_members_as_csv_may_come_back_and_a_line_is_found_at_once(tenant):
    """Every column of the list is known, none changes anything; nobody waits for upkeep to be found."""
    result = await imported(
        tenant, member("=stu/%-\u0639\U0001f989", name="Zo\u00eb", country="BR", city="Recife", tags=["a;b"])
    )

    found = (await tenant.see("/v1/members?q=zoe"))["items"]
    card = await tenant.see("/v1/members/%3Dstu%2F%25-\u0639\U0001f989")
    file = (await tenant.see("/v1/members", headers={"Accept": "text/csv"})).body
    again = (await done(tenant, await sent(tenant, file, "text/csv")))["result"]

    assert result["members_new"] == len(found) == 1
    assert (card["whereabouts"]["profile_country"], card["whereabouts"]["profile_city"]) == ("BR", "Recife")
    assert (again["lines"], again["members_new"], again["members_changed"], again["refused"]) == (1, 0, 0, 0)
