"""Files of members and enrolments, over HTTP."""

from __future__ import annotations

import asyncio
import json

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


async def imported(tenant: Tenant, *lines: dict | str) -> dict:
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
