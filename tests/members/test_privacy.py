"""A person sees all that is stored of it, and is forgotten everywhere."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4
from zipfile import ZipFile

import msgspec
import pytest
import redis.asyncio

from accessguard.database import Database
from accessguard.embedded import Embedded
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Login, LoginOutcome
from accessguard.jobs.model import JobKind, Portion
from accessguard.jobs.portions import PortionStore
from accessguard.members.erasure import ErasureStore
from accessguard.members.redaction import Names
from accessguard.sessions.bars import BarStore, lines_of, mark_of
from accessguard.sessions.spool import DEAD
from tests.journeys.test_card import rebuilt
from tests.members.test_imports import enrolment, imported, member
from tests.service import Answer, Tenant, items

MARK = "zqxmark"
MEMBER = f"{MARK}-member/ñ%"
PATH = f"/v1/members/{MARK}-member%2F%C3%B1%25"
IP = "198.51.100.77"
HOSTILE = "\u202eאבג/1%2F? 🦊"
AGENT = f"Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0 {MARK}-agent"

TABLES = """
    SELECT table_name::text FROM information_schema.tables
     WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' AND table_name NOT LIKE 'pg%'
"""


@pytest.fixture
async def db(tenant: Tenant, database_url: str) -> AsyncIterator[Database]:
    """Connections of this test."""
    made = await Database.connect(database_url, size=2)
    yield made
    await made.close()


@pytest.fixture
async def valkey(tenant: Tenant, redis_url: str) -> AsyncIterator[Any]:
    """The run's Valkey, as anybody sees it."""
    client = redis.asyncio.from_url(redis_url)
    yield client
    await client.aclose()


async def in_tables(db: Database, tenant: str, *marks: str) -> set[str]:
    """Every column of every table that holds one of the marks, in any letter case or as bytes; of one tenant, or ("") of all."""
    found = set[str]()
    for (name,) in await db.fetch(TABLES):
        held = f"""
            SELECT array_agg(DISTINCT e.key) FROM "{name}" x, jsonb_each_text(to_jsonb(x)) e, unnest($1::text[]) m
             WHERE ($2 = '' OR coalesce(to_jsonb(x) ->> 'tenant', $2) = $2)
               AND (position(lower(m) IN lower(e.value)) > 0 OR position(encode(convert_to(m, 'UTF8'), 'hex') IN e.value) > 0)"""
        found |= {f"{name}.{column}" for column in await db.value(held, list(marks), tenant) or ()}
    return found


async def in_valkey(client: Any, *marks: str) -> list[str]:
    """Every key that is called by one of the marks, or holds one."""
    found = []
    async for key in client.scan_iter():
        kind = (await client.type(key)).decode()
        read = {
            "string": client.get,
            "hash": client.hgetall,
            "list": lambda k: client.lrange(k, 0, -1),
            "stream": client.xrange,
            "zset": lambda k: client.zrange(k, 0, -1, withscores=True),
        }[kind]
        held = key.decode() + repr(await read(key))
        if any(mark in held for mark in marks):
            found.append(key.decode())
    return found


SAMPLES = """
    SELECT array_agg(DISTINCT tablename || '.' || attname) FROM pg_stats
     WHERE schemaname = current_schema()
       AND position($1 IN concat_ws(' ', most_common_vals::text, histogram_bounds::text, most_common_elems::text)) > 0
"""


def in_files(folder: Path, *marks: bytes) -> set[str]:
    """Every file of both stores that holds one of the marks, their logs included; the write-ahead log, which is used again in its time, left out."""
    files = (each for each in folder.rglob("*") if each.is_file() and "pg_wal" not in each.parts)
    return {str(each.relative_to(folder)) for each in files if any(mark in each.read_bytes() for mark in marks)}


async def rewritten(db: Database, valkey: Any) -> None:
    """What docs/privacy.md says to do where no byte is to be left on the disk."""
    for (name,) in await db.fetch(TABLES):
        await db.row(f"VACUUM (FULL) {name}", timeout_s=60)
    await db.row("VACUUM FULL pg_statistic", timeout_s=60)
    await db.row("CHECKPOINT", timeout_s=60)
    await valkey.bgrewriteaof()
    told = {"aof_rewrite_in_progress": 1}
    while told["aof_rewrite_in_progress"] or told["aof_rewrite_scheduled"]:
        await asyncio.sleep(0.01)
        told = await valkey.info("persistence")


async def filled(tenant: Tenant, valkey: Any, *, wholly: bool = False) -> dict[str, Any]:
    """A member of whom there is something everywhere, all of it with the mark; what its sessions are called."""
    profile = {"name": f"{MARK} Ána \u202eعربي", "email": f"{MARK}@old.example", "phone": "+39 06 6982 0001"}
    for email in (f"{MARK}@old.example", f"{MARK}@new.example"):
        assert (await tenant.call("PUT", PATH, profile | {"email": email, "tags": [f"{MARK}-tag"]})).status == 200
    notice = {"version": f"{MARK}-v3", "shown_at": "2026-11-01T10:00:00.000Z"}
    assert (await tenant.call("PUT", PATH + "/notice", notice)).status == 200
    enrolled = {"starts_at": "2026-01-01T00:00:00Z", "status": "active", "reason": f"{MARK}-bought"}
    assert (await tenant.call("PUT", PATH + "/enrolments/course-1", enrolled)).status == 200
    await tenant.rule("device_limit", "deny_new", max=1)
    said: dict[str, Any] = {"member": MEMBER, "ip": IP, "user_agent": AGENT, "identifier": f"{MARK}@new.example"}
    first = await tenant.login(**said, session_id=f"{MARK}-session", attempt_id=str(uuid4()))
    await tenant.login(**said, headers={"Idempotency-Key": f"{MARK}-key"})
    await tenant.login(**said, outcome="failure", failure_reason=f"{MARK} forgot")
    other = await tenant.login(**said | {"user_agent": AGENT.replace("Linux", "Windows")}, app=f"{MARK}-app")
    checked = {"activity": "lesson_open", "resource": f"{MARK}/lesson:7?run={MARK}", "product_id": "course-1"}
    await tenant.check(first, ip=IP, user_agent=AGENT, device_token=first["device"]["token"], **checked)
    note = {"note": f"{MARK} owes a book", "tags": [f"{MARK}-tag"], "reason": f"{MARK} called"}
    assert (await tenant.call("PATCH", PATH, note, role="supervisor")).status == 200
    named = {"access": "allowed", "name": f"{MARK}'s laptop", "reason": f"{MARK} asked"}
    device = f"{PATH}/devices/{first['device']['id']}"
    assert (await tenant.call("PATCH", device, named, role="supervisor")).status == 200
    passed = {
        "kind": "extra_device",
        "until": (datetime.now(UTC) + timedelta(days=3)).isoformat(),
        "reason": f"{MARK} travels",
    }
    given = await tenant.call(
        "POST", PATH + "/passes", passed, role="supervisor", headers={"Idempotency-Key": f"{MARK}-p"}
    )
    assert given.status == 201, given.body
    case = other["violations"][0]
    await tenant.call("PATCH", f"/v1/violations/{case}", {"note": f"{MARK} shares"}, role="supervisor")
    await tenant.call("POST", "/v1/violations/mark", {"ids": [case], "read": True}, role="supervisor")
    await tenant.login("bystander")
    about = {"note": "sits beside", "reason": f"told by {MARK}@new.example, {MEMBER}"}
    await tenant.call("PATCH", "/v1/members/bystander", about, role="supervisor")
    if wholly:
        await worked_on(tenant)
    await waiting(tenant)
    await valkey.rpush(
        DEAD, json.dumps({"unreadable": MEMBER, "tenant": tenant.name}, ensure_ascii=False, separators=(",", ":"))
    )
    return {"session": first, "case": case, "said": said}


async def over(tenant: Tenant, job: Answer) -> None:
    """Until an operator's job has come to its end."""
    while (await tenant.see(f"/v1/jobs/{job['id']}"))["state"] != "done":
        await asyncio.sleep(0.01)


async def worked_on(tenant: Tenant) -> None:
    """What imports, bulk actions, reports, merges and operators leave behind of a member."""
    other = member(f"{MARK}-former", email=f"{MARK}@former.example")
    await imported(tenant, member(MEMBER, city=f"{MARK} city", tags=[f"{MARK}-tag"]), enrolment(MEMBER), other)
    comment = {"text": f"{MARK} rang"}
    assert (await tenant.call("POST", PATH + "/comments", comment, role="supervisor")).status == 201
    kept = {"value": {"q": f"{MARK}@new.example"}}
    assert (await tenant.call("PUT", "/v1/preferences/members", kept, role="supervisor")).status == 200
    tagged = {"action": "tag", "ids": [MEMBER], "tags": [f"{MARK}-tag2"], "reason": f"for {MARK}@new.example"}
    await over(tenant, await tenant.call("POST", "/v1/members/bulk", tagged, role="supervisor"))
    asked = {"action": "end_sessions", "ids": [MEMBER, "bystander"]}
    assert (await tenant.call("POST", "/v1/members/bulk", asked, role="supervisor"))["members"] == 2
    await over(tenant, await tenant.call("POST", "/v1/reports", {"report": "access"}, role="supervisor"))
    into, merge = {"into": MEMBER}, f"/v1/members/{MARK}-former/merge"
    while (merged := await tenant.call("POST", merge, into, role="supervisor")).status == 409:
        await asyncio.sleep(0.05)  # what another test has left waiting is written first
    assert merged.status == 200, merged.body
    await tenant.see(f"/v1/members?q={MARK}")
    await rebuilt(tenant)


async def waiting(tenant: Tenant) -> None:
    """A login of the member that was kept while PostgreSQL was out, and waits to be written."""
    ctx = tenant.service.context
    policy = await ctx.book.policy(tenant.name)
    assert policy is not None
    login = Login(member_id=MEMBER, outcome=LoginOutcome.SUCCESS, ip=IP, user_agent=AGENT, session_id=f"{MARK}-spooled")
    asked = ctx.logins.asked(policy, login, from_ms(ctx.now_ms()))
    await ctx.spooling.take(policy, asked.visit, asked.salt, None, None)


async def test_of_an_erased_member_nothing_is_left_anywhere(
    tenant: Tenant, db: Database, valkey: Any, stores: Embedded, capfd: pytest.CaptureFixture[str]
):
    """Every column of every table, every key of Valkey (the spool among them) and all logs are searched for what only this member had.

    So are the planner's samples, once upkeep has been there, and all files of both stores, once they are rewritten.
    """
    made = await filled(tenant, valkey, wholly=True)
    marks = (MARK, "66982000", IP, made["session"]["session"]["id"], made["session"]["device"]["id"], made["case"])
    held = await in_tables(db, "", *marks)
    bars = BarStore(tenant.service.context.erasure._live)
    lines = lines_of(tenant.name, [f"session:{MARK}-session", f"device:{made['session']['device']['id']}"])
    await bars.keep(dict.fromkeys(lines, mark_of(1, stands=True)))
    await db.row("ANALYZE", timeout_s=60)
    sampled = await db.value(SAMPLES, MARK)
    await db.row("CHECKPOINT", timeout_s=60)
    there = in_files(stores.folder, MARK.encode())

    erased = await tenant.call("DELETE", f"{PATH}?mode=erase&reason=asked+by+{MARK}@new.example", role="administrator")

    assert erased.status == 200, erased.body
    tables = {each.partition(".")[0] for each in held}
    assert len(held) > 40, held  # what was searched for was there
    assert tables >= {"comment", "preference", "job_part", "job_portion", "member_merge", "member_page"}
    assert tables >= {"member_search", "member_notice", "product_access", "run_access", "enrolment_change", "audit"}
    assert await bars.marks(lines) == [None] * len(lines)
    assert await in_tables(db, "", *marks) == set()
    assert await in_valkey(valkey, MARK, IP) == []
    assert MARK not in "".join(capfd.readouterr())
    logs = [each for each in stores.folder.rglob("*.log") if "appendonlydir" not in each.parts]
    assert {each.name for each in logs} == {"postgres.log", "valkey.log"}
    assert [each.name for each in logs if MARK in each.read_text("utf-8", "replace")] == []
    await db.row("SELECT pg_stat_reset()")  # as if nothing had been sampled lately
    while await ErasureStore(db).sample_anew():
        pass
    assert len(sampled) > 10
    assert await db.value(SAMPLES, MARK) is None
    await rewritten(db, valkey)
    ids = [UUID(each).bytes for each in (made["session"]["device"]["id"], made["case"])]
    assert len(there) > 30  # heaps and indexes
    assert in_files(stores.folder, MARK.encode(), *ids) == set()


async def test_after_an_erasure_sessions_are_unknown_and_a_login_is_somebody_new(tenant: Tenant, valkey: Any):
    """No worker's memory lets the session on; the id may come back, with nothing of what was."""
    made = await filled(tenant, valkey)
    before = await tenant.call("POST", "/v1/check", {"session_id": f"{MARK}-session", "ip": IP})

    await tenant.call("DELETE", f"{PATH}?mode=erase", role="administrator")
    after = await tenant.call("POST", "/v1/check", {"session_id": f"{MARK}-session", "ip": IP})
    gone = await tenant.see(PATH)
    again = await tenant.call("DELETE", f"{PATH}?mode=erase", role="administrator")
    login = await tenant.login(**made["said"], device_token=made["session"]["device"]["token"])
    card = await tenant.see(PATH)

    assert before["member_id"] == MEMBER
    assert (after["decision"], after["reason"]["code"]) == ("deny", "unknown_session")
    assert (gone.status, again.status) == (404, 404)
    assert (login["decision"], login["device"]["new"]) == ("allow", True)
    assert (card["email"], card["note"], card["tags"], card["devices"], card["enrolments"]) == (None, "", [], 1, [])


async def test_an_anonymised_member_leaves_its_counts_and_no_name(tenant: Tenant, db: Database, valkey: Any):
    """As many attempts, interactions, cases and enrolments as before, all of nobody; no value leads back."""
    made = await filled(tenant, valkey, wholly=True)
    await tenant.see(PATH + "/activity")  # what is pending is written
    counts = """
        SELECT (SELECT count(*) FROM activity WHERE tenant = $1) AS activity, (SELECT sum(hits) FROM violation WHERE tenant = $1) AS hits,
               (SELECT count(*) FROM enrolment WHERE tenant = $1) AS enrolments, (SELECT count(*) FROM member WHERE tenant = $1) AS members,
               (SELECT array_agg(outcome || ' ' || decision || ' ' || at ORDER BY at) FROM login_attempt WHERE tenant = $1
                   AND session_id IS DISTINCT FROM $2) AS logins
    """
    before = await db.row(counts, tenant.name, f"{MARK}-spooled")

    done = await tenant.call("DELETE", f"{PATH}?mode=anonymise", role="administrator")

    assert (done.status, done["mode"]) == (200, "anonymise")
    after = await db.row(counts, tenant.name, f"{MARK}-spooled")
    assert before is not None
    assert after is not None
    assert [after[name] for name in ("activity", "hits", "enrolments", "members")] == [
        before[name] for name in ("activity", "hits", "enrolments", "members")
    ]
    assert set(before["logins"]) <= set(after["logins"])
    ids = (made["session"]["device"]["id"], made["case"], made["session"]["attempt_id"])
    assert await in_tables(db, tenant.name, MARK, "66982000", IP, *ids) == set()


async def test_the_receipt_and_what_operators_did_stay_without_the_name(tenant: Tenant, valkey: Any):
    """Who did what and when is there; the member only as a keyed hash, the same in every line; others keep their lines."""
    await filled(tenant, valkey)

    receipt = await tenant.call(
        "DELETE", f"{PATH}?mode=erase&reason=letter+of+{MARK}@new.example", role="administrator"
    )

    lines = list(items(await tenant.call("GET", "/v1/audit?limit=200", role="administrator")))
    about = [each for each in lines if each["target_id"] == receipt["subject"]]
    assert {each["action"] for each in about} >= {"member.erase", "member.change", "device.change", "violation.resolve"}
    assert next(each for each in about if each["action"] == "member.erase")["reason"] == "letter of [erased]"
    other = next(each for each in lines if each["target_id"] == "bystander")
    assert (other["after"]["note"], other["reason"]) == ("sits beside", "told by [erased], [erased]")


async def test_an_archive_holds_all_that_is_stored_and_no_secret(tenant: Tenant, valkey: Any):
    """By account: every list as JSON and CSV with a page that explains them; by address: what came from there alone."""
    await filled(tenant, valkey)
    await tenant.login(MEMBER, ip="192.0.2.200", user_agent=AGENT)
    await tenant.call("POST", "/v1/logins", {"outcome": "failure", "ip": IP, "identifier": "whoever"})

    whole = await tenant.call("GET", PATH + "/export?reason=letter", role="administrator")
    part = await tenant.call("GET", f"{PATH}/export?ip={IP}", role="administrator")
    refused = await tenant.see(PATH + "/export")

    assert (whole.status, whole.headers["Content-Type"], refused.status) == (200, "application/zip", 403)
    files = ZipFile(io.BytesIO(whole.body))
    assert files.testzip() is None
    lists = {name: json.loads(files.read(name)) for name in files.namelist() if name.endswith(".json")}
    assert lists["member.json"][0]["email"] == f"{MARK}@new.example"
    assert {each["email"] for each in lists["member_alias.json"]} == {f"{MARK}@old.example"}
    assert {each["version"] for each in lists["member_notice.json"]} == {f"{MARK}-v3"}
    assert {each["ip"] for each in lists["login_attempt.json"]} == {IP, "192.0.2.200"}
    assert {each["target_kind"] for each in lists["audit.json"]} >= {"member", "device", "pass"}
    assert not {"tally_past.json", "member_search.json"} & set(lists)
    rows = list(csv.DictReader(io.StringIO(files.read("login_attempt.csv").decode())))
    assert len(rows) == len(lists["login_attempt.json"])
    assert all("hash" not in name and "seed" not in name for each in lists.values() for row in each for name in row)
    assert MARK in files.read("index.html").decode()
    found = ZipFile(io.BytesIO(part.body))
    assert {each["ip"] for each in json.loads(found.read("login_attempt.json"))} == {IP}
    assert len(json.loads(found.read("unknown_user.json"))) == 1
    (line, *_) = items(await tenant.call("GET", "/v1/audit?action=member.export&order=asc", role="administrator"))
    assert (line["target_id"], line["reason"]) == (MEMBER, "letter")


PAST = """
    INSERT INTO login_attempt (tenant, id, at, member_id, outcome, method, device_token, decision, ip)
    SELECT $1, gen_random_uuid(), $2::timestamptz - n * interval '1 minute', $3, 'success', 'password', 'none', 'allow', '192.0.2.1'
      FROM generate_series(1, $4) n
"""


async def test_a_member_with_very_many_attempts_is_erased_in_portions(tenant: Tenant, db: Database):
    """None of five thousand is left, over several months, and none of anybody else is taken."""
    await tenant.login("busy")
    await tenant.login("other")
    for each in ("busy", "other"):
        await db.row(PAST, tenant.name, datetime.now(UTC), each, 5_000 if each == "busy" else 3)

    erased = await tenant.call("DELETE", "/v1/members/busy?mode=erase", role="administrator")
    left = await db.fetch("SELECT member_id, count(*) FROM login_attempt WHERE tenant = $1 GROUP BY 1", tenant.name)

    assert erased["rows"]["login_attempt"] == 5_001
    assert [tuple(row) for row in left] == [("other", 4)]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        pytest.param("told by silva@example.com.", "told by [erased].", id="the end of a sentence"),
        pytest.param("ana.silva@example.com", "ana.silva@example.com", id="another's address"),
        pytest.param("stu-1, (STU-1) session:stu-1", "[erased], ([erased]) session:[erased]", id="between signs"),
        pytest.param("stu-1-b stu-10 x-stu-1 stu-1.b", "stu-1-b stu-10 x-stu-1 stu-1.b", id="others' ids"),
        pytest.param({"stu-1": ["stu-1", 1]}, {"stu-1": ["[erased]", 1]}, id="a key"),
        pytest.param("call +39 06 6982!", "call [erased]!", id="a telephone number"),
    ],
)
def test_a_name_is_taken_out_as_a_whole_word_and_nothing_else(text: Any, left: Any):
    """What joins letters to one id or address, joins; keys of JSON stay."""
    names = Names(["stu-1", "silva@example.com", "+39 06 6982"])

    assert names.out_of(text) == left


async def test_who_is_erased_while_members_are_imported_is_not_brought_back(tenant: Tenant):
    """One or many, at once; of the file their lines alone are refused, and a file that comes afterwards makes somebody new."""
    ctx = tenant.service.context
    for each in ("ana", HOSTILE, "cleo"):
        await tenant.login(each)
    job_id, at = uuid4(), from_ms(ctx.now_ms())
    store = PortionStore(ctx.jobs._db)
    said = [member("ana"), member("bo"), enrolment(HOSTILE), member("ana", name="Ana"), member("cleo")]
    body = b"".join(msgspec.json.encode(each) + b"\n" for each in said)
    form = {"form": "ndjson", "columns": None}
    await store.begin(tenant.name, job_id, JobKind.IMPORT, actor="p", role="platform", asked=form, at=at)
    await store.put(tenant.name, job_id, Portion(number=0, first_line=1, lines=5, body=body), at=at)

    erased = await tenant.call("DELETE", "/v1/members/ana?mode=erase", role="administrator")
    asked = {"ids": [HOSTILE], "mode": "anonymise"}
    preview = await tenant.call("POST", "/v1/members/erase", asked, role="administrator")
    confirmed = asked | {"confirmation": preview["confirmation"]}
    await over(tenant, await tenant.call("POST", "/v1/members/erase", confirmed, role="administrator"))
    await store.ready(tenant.name, job_id, at=at)
    ctx.imports._runner.start(tenant.name, job_id)
    await ctx.imports._runner.wait(job_id)
    job = await tenant.call("GET", f"/v1/jobs/{job_id}", role="administrator")
    left = [(await tenant.see(f"/v1/members/{quote(each, safe='')}")).status for each in ("ana", HOSTILE, "bo", "cleo")]
    await imported(tenant, member("ana"))

    assert (erased.status, left) == (200, [404, 404, 200, 200])
    assert [(each["line"], each["pointer"]) for each in job["result"]["refused_lines"]] == [
        (1, "/member_id"),
        (3, "/member_id"),
        (4, "/member_id"),
    ]
    assert (await tenant.see("/v1/members/ana")).status == 200
