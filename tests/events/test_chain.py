"""The chain of the audit log: whole whatever the service does, broken by whatever else is done to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import asyncpg
import pytest
import structlog

from accessguard import migrations
from accessguard.audit import heads, noted, told, verify, written
from accessguard.database import Database
from accessguard.errors import GuardError
from accessguard.events.audit import AuditStore, Entry
from accessguard.events.chain import ChainStore
from accessguard.events.links import Head, Kind, Link, Words, digest_of, hash_of
from accessguard.guard.auditing import Auditing, Fault, Verdict, Wrong
from accessguard.guard.upkeep import Job, Upkeep
from tests.members.test_bulk import asked, done
from tests.members.test_imports import imported, member
from tests.migrations.databases import connected, empty_database
from tests.service import Tenant, config
from tests.test_command_line import accessguard

AT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
HOSTILE = ("\u202eאבג/1%2F? 🦊", "5:five-", "a\\%_'\"\n\t", "-", "", "ñ" * 128)
PAST = "SET LOCAL session_replication_role = replica"
"""No trigger fires for whoever says so, which a superuser may."""


@pytest.fixture
async def db(tenant: Tenant, database_url: str) -> AsyncIterator[Database]:
    """Connections of this test."""
    made = await Database.connect(database_url, size=2)
    yield made
    await made.close()


def entry(number: int, **said: Any) -> Entry:
    """The entry of that number, whose id tells it."""
    plain: dict[str, Any] = {
        "id": UUID(int=number),
        "at": AT + timedelta(minutes=number),
        "actor": "kim",
        "role": "supervisor",
        "action": "member.change",
        "target_kind": "member",
        "target_id": f"stu-{number}",
        "before": {"note": f"before {number}"},
        "after": {"note": f"after {number}"},
        "reason": f"reason {number}",
    }
    return Entry(**plain | said)


async def log(db: Database, tenant: Tenant, *numbers: int) -> None:
    """Write entries of these numbers, each in a transaction of its own."""
    for number in numbers:
        await AuditStore(db).add(tenant.name, entry(number), member_id=f"stu-{number}")


async def verdict(db: Database, tenant: Tenant, *kept: Head) -> Verdict:
    """What there is to say of the tenant's log."""
    return await Auditing(ChainStore(db)).verify(tenant.name, kept, step=lambda _: None)


async def head(db: Database, tenant: Tenant) -> Head:
    """How far it goes."""
    found = await ChainStore(db).head(tenant.name)
    assert found is not None
    return found


async def tamper(url: str, tenant: Tenant, *statements: str) -> None:
    """Have the owner of the tables do this in one transaction; `$1` is the tenant."""
    async with connected(url) as owner, owner.transaction():
        for statement in statements:
            await owner.execute(statement, *([tenant.name] if "$1" in statement else []))


def test_the_form_of_digest_and_hash_is_fixed():
    """Whoever verifies with another program finds the same ones; a new form gets a new number."""
    words = Words(salt="s", before=None, after='{"a": 1}', tenant="t", id="i", at=AT, actor="ö", role="r", action="a",
                  target_kind="k", target_id="x", reason=None, member_id="m")  # fmt: skip
    link = Link(tenant="t", seq=2, form=1, kind="written", at=AT, entry_id="i", entries=None, digest="d" * 64, hash="")

    assert (digest_of(words), hash_of(link, "b" * 64)) == (
        "0f4ae2e1e2626639f6a32b0a57f6af384107c33490217d05d7a38aeea84fbbcf",
        "baf62196bc462ec4cbf8deaaca5c35e8c8983317a17e11cc68bb3bbae9d61ba6",
    )


async def test_sql_and_python_say_the_same_of_hostile_texts(tenant, db):
    """Other scripts, signs of the form itself, JSON of every kind, nothing at all."""
    for number, text in enumerate(HOSTILE, 1):
        said = {
            "actor": text,
            "target_id": text,
            "reason": text,
            "before": {text: [text, None, 1.5, -0.0, 2**70]},
            "after": text,
        }
        await AuditStore(db).add(tenant.name, entry(number, **said), member_id=text)
    await AuditStore(db).add(tenant.name, entry(99, before=None, after=None, reason=None))

    found = await verdict(db, tenant)

    assert (found.fault, found.entries, found.head and found.head.seq) == (None, len(HOSTILE) + 1, len(HOSTILE) + 1)


def about(number: int) -> str:
    """The entry of that number, in SQL."""
    return f"tenant = $1 AND id = '{UUID(int=number)}'"


AGAIN = """
    INSERT INTO audit (tenant, id, at, actor, role, action, target_kind, target_id)
    SELECT $1, '{}', now(), 'eve', 'root', 'x', 'x', 'x'
"""
REMOVE = f"DELETE FROM audit WHERE {about(3)}"
RECORD = "DELETE FROM audit_chain WHERE tenant = $1 AND seq {}"


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        pytest.param([PAST, f"UPDATE audit SET after = '{{}}' WHERE {about(3)}"], (Wrong.CHANGED, 3), id="words past the triggers"),
        pytest.param([PAST, f"UPDATE audit SET actor = 'eve' WHERE {about(3)}"], (Wrong.CHANGED, 3), id="who"),
        pytest.param([PAST, f"UPDATE audit SET at = at - interval '1 us' WHERE {about(3)}"], (Wrong.CHANGED, 3), id="when"),
        pytest.param([PAST, f"UPDATE audit SET salt = gen_random_uuid() WHERE {about(3)}"], (Wrong.CHANGED, 3), id="its salt"),
        pytest.param([f"UPDATE audit SET reason = 'another' WHERE {about(3)}"], (Wrong.REWRITTEN, 3), id="words"),
        pytest.param([f"UPDATE audit SET before = '{{\"note\": \"b\"}}' WHERE {about(3)}"], (Wrong.REWRITTEN, 3), id="words left out"),
        pytest.param([f"UPDATE audit SET action = 'member.read' WHERE {about(3)}"], (Wrong.REWRITTEN, 3), id="what"),
        pytest.param([f"UPDATE audit SET target_id = 'stu-9' WHERE {about(3)}"], (Wrong.REWRITTEN, 3), id="to whom"),
        pytest.param([REMOVE], (Wrong.REMOVED, 3), id="removed"),
        pytest.param([REMOVE, AGAIN.format(UUID(int=3))], (Wrong.WRITTEN_AGAIN, 3), id="removed and written again"),
        pytest.param([REMOVE, RECORD.format("= 3")], (Wrong.MISSING, 4), id="removed with its record"),
        pytest.param([RECORD.format("= 1")], (Wrong.MISSING, 2), id="its first record"),
        pytest.param([RECORD.format("> 3")], (Wrong.INSERTED, 5), id="the end of the chain alone"),
        pytest.param([RECORD.format("> 0")], (Wrong.INSERTED, 5), id="the whole chain alone"),
        pytest.param([PAST, AGAIN.format(UUID(int=0))], (Wrong.INSERTED, 0), id="inserted past the triggers, before all"),
        pytest.param([PAST, AGAIN.format(UUID(int=2**128 - 1))], (Wrong.INSERTED, 2**128 - 1), id="and after all"),
        pytest.param(["UPDATE audit_chain SET seq = CASE seq WHEN 2 THEN -3 ELSE -2 END WHERE tenant = $1 AND seq IN (2, 3)",
                      "UPDATE audit_chain SET seq = -seq WHERE tenant = $1 AND seq < 0"], (Wrong.BROKEN, 3), id="the order"),
        pytest.param(["UPDATE audit_chain SET at = at - interval '1 day' WHERE tenant = $1 AND seq = 3"], (Wrong.BROKEN, 3), id="a record"),
        pytest.param(["UPDATE audit_chain SET kind = 'redacted' WHERE tenant = $1 AND seq = 3"], (Wrong.BROKEN, 3), id="its kind"),
    ],
)  # fmt: skip
async def test_each_kind_of_tampering_is_found_and_where(tenant, db, database_url, statements, expected):
    """Done by the owner of the tables; the first entry that is concerned is named with its time."""
    await log(db, tenant, 1, 2, 3, 4, 5)
    before = await verdict(db, tenant)

    await tamper(database_url, tenant, *statements)

    fault = (await verdict(db, tenant)).fault
    assert before.fault is None
    assert fault is not None
    assert (fault.wrong, fault.entry_id) == (expected[0], str(UUID(int=expected[1])))
    assert fault.at is not None


async def test_what_the_database_alone_cannot_show_is_shown_by_a_head_that_was_kept(tenant, db, database_url):
    """An end that was cut off with its entries, and a chain that was written anew, are as good as new without one."""
    await log(db, tenant, 1, 2, 3)
    kept = await head(db, tenant)
    await log(db, tenant, 4)
    whole = await verdict(db, tenant, kept)
    cut_off = f"DELETE FROM audit WHERE tenant = $1 AND id >= '{UUID(int=3)}'"

    await tamper(database_url, tenant, cut_off, RECORD.format(">= 3"))
    cut = [(await verdict(db, tenant, *known)).fault for known in ((), (kept,))]
    await log(db, tenant, 5, 6)
    anew = [(await verdict(db, tenant, *known)).fault for known in ((), (kept,))]

    assert whole.fault is None
    assert cut == [None, Fault(wrong=Wrong.CUT, seq=3)]
    assert anew[0] is None
    assert anew[1] is not None
    assert (anew[1].wrong, anew[1].seq, anew[1].entry_id) == (Wrong.OTHER, 3, str(UUID(int=5)))


async def test_operators_and_a_bulk_at_the_same_time_make_one_chain(tenant, db):
    """Forty calls of operators beside a portion of many members: nobody fails, no number is missing or twice."""
    await imported(tenant, *(member(f"m{n}", name="Rossi") for n in range(60)))
    job = await asked(tenant, action="tag", filter={"q": "rossi"}, tags=["new"])

    answers = await asyncio.gather(
        *(
            tenant.call("PATCH", f"/v1/members/m{n % 60}", {"note": str(n)}, role="supervisor", subject=f"op{n % 5}")
            for n in range(40)
        )
    )
    changed = (await done(tenant, job))["changed"]

    found = await verdict(db, tenant)
    assert {answer.status for answer in answers} == {200}
    assert (found.fault, changed, found.entries >= 101) == (None, 60, True)
    assert found.head is not None
    assert found.head.seq == found.entries


async def test_what_is_rolled_back_leaves_no_gap(tenant, db):
    """The next entry takes its place; two entries of one transaction have a record each."""
    await log(db, tenant, 1)

    async def failing() -> None:
        async with db.transaction() as tx:
            await log(tx, tenant, 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await failing()
    async with db.transaction() as tx:
        await log(tx, tenant, 3, 4)

    found = await verdict(db, tenant)

    assert (found.fault, found.entries, found.head and found.head.seq) == (None, 3, 3)


async def test_erasing_and_merging_leave_it_whole_and_nothing_to_guess_a_name_by(tenant, db):
    """One by one, many at once, as nobody, and two who were one; hostile names in others' entries. Each salt is a new one."""
    names = [HOSTILE[0], "100%_ \\ of 'x'", "ñ" * 128, "anna", "bobby", "cydney", "daniel"]
    await imported(tenant, *(member(each, name=f"Name of {each}") for each in names))
    for each in names:
        path = f"/v1/members/{quote(each, safe='')}"
        await tenant.call("PATCH", path, {"note": f"is {each}", "reason": f"as {each} asked"}, role="supervisor")
        said = {"note": f"knows {each} and Name of {each}; {each}", "reason": f"100%_ {each}\\"}
        await tenant.call("PATCH", "/v1/members/daniel", said, role="supervisor")
    salts = "SELECT array_agg(salt::text) FROM audit WHERE tenant = $1 AND action = 'member.change'"
    before = await db.value(salts, tenant.name)

    calls = [
        await tenant.call("POST", "/v1/members/bobby/merge", {"into": "anna"}, role="supervisor"),
        *[
            await tenant.call("DELETE", f"/v1/members/{quote(each, safe='')}?mode={mode}", role="administrator")
            for each, mode in ((names[0], "erase"), (names[1], "anonymise"))
        ],
    ]
    many = {"ids": [names[2], "cydney", "anna"], "mode": "erase", "reason": "asked"}
    preview = await tenant.call("POST", "/v1/members/erase", many, role="administrator")
    job = await tenant.call(
        "POST", "/v1/members/erase", many | {"confirmation": preview["confirmation"]}, role="administrator"
    )
    await done(tenant, job)

    found = await verdict(db, tenant)
    after = await db.value(salts, tenant.name)
    assert {answer.status for answer in calls} <= {200, 202}, calls
    assert (found.fault, found.unexplained) == (None, 0)
    assert found.redacted > len(names)
    assert found.moved > 0
    assert len(set(before) & set(after)) < len(before) - len(names)


async def test_words_taken_out_without_a_receipt_and_times_of_long_ago_are_told(tenant, db, database_url):
    """By whoever may reword and insert: the log is whole, and says that an erasure seems to be unfinished."""
    await log(db, tenant, 1, 2)

    await tamper(database_url, tenant, f"UPDATE audit SET before = NULL, after = NULL WHERE {about(1)}")

    found = await verdict(db, tenant)
    assert (found.fault, found.redacted, found.unexplained, found.strayed) == (None, 1, 1, 2)
    assert "no receipt of an erasure" in " ".join(told(found))
    assert "2 entries say a time" in " ".join(told(found))


async def test_heads_that_moved_are_told_to_the_log_once_and_hold_from_then_on(tenant, db, database_url, service):
    """Tenant, number and hash, nothing else; an end that is cut off below the last one is found without another."""
    upkeep = Upkeep(db, now_ms=service.clock)
    (chore,) = (each for each in upkeep.chores if each.job is Job.AUDIT_HEADS)

    async def lines() -> list[Any]:
        await db.row("DELETE FROM upkeep WHERE job = $1", Job.AUDIT_HEADS)
        with structlog.testing.capture_logs() as captured:
            await upkeep.attempt(chore)
        return [each for each in captured if each["event"] == "audit_head" and each["tenant"] == tenant.name]

    await tenant.login()
    await log(db, tenant, 1, 2)
    first, second = await lines(), await lines()
    await tamper(database_url, tenant, f"DELETE FROM audit WHERE {about(2)}", RECORD.format("= 2"))

    now = (await verdict(db, tenant)).fault
    kept = first[0]["hash"]
    assert first == [{"event": "audit_head", "log_level": "info", "tenant": tenant.name, "seq": 2, "hash": kept}]
    assert second == []
    assert now == Fault(wrong=Wrong.CUT, seq=2)


def test_heads_are_read_from_what_was_printed_and_from_the_log():
    """Other lines of the log are passed over; names of tenants may have spaces."""
    digits = "0a" * 32
    lines = [
        f"school of art 7 {digits}",
        f'{{"event": "audit_head", "tenant": "t", "seq": 8, "hash": "{digits}"}}',
        '{"event": "serving"}',
        "{cut off",
        "",
    ]

    assert [(each.tenant, each.seq, each.hash) for each in noted(lines)] == [
        ("school of art", 7, digits),
        ("t", 8, digits),
    ]


@pytest.mark.parametrize(
    "name", [":ant", "\u202eאב\x1b[31m\u2028", ' "a" ', "evil\nline 7 " + "0a" * 32, "{}", "[bold]%2F/🦊"]
)
async def test_a_tenant_of_any_name_has_its_log_told_in_one_line_that_is_read_again(
    tenant, db, database_url, capsys, name
):
    """Nothing of a name acts on a terminal or passes for another line."""
    named = '"' * name.startswith(" ") + tenant.name + name
    await AuditStore(db).add(named, entry(1))
    said = config(database_url, "")
    await heads(said, named)
    found = list(noted(_printed(capsys)))
    whole = await verify(said, named, found)
    told_line, *_ = _printed(capsys)

    assert whole
    assert [each.tenant for each in found] == [named]
    assert told_line == f"{written(named)}: whole, 1 entries; head {found[0].seq}:{found[0].hash}"
    assert told_line.isprintable()


def _printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a command printed, without the log of the service, which tells how far logs go as well."""
    lines = capsys.readouterr().out.splitlines()
    return [each for each in lines if not each.startswith("[")]


async def test_the_command_tells_by_words_and_exit_code(tenant, db, database_url, tmp_path, capsys):
    """Whole, by the heads that it printed itself. Broken: 1, with the entry and what is wrong. No such tenant: a sentence."""
    await log(db, tenant, 1, 2, 3)
    said = config(database_url, "")
    await heads(said, tenant.name)
    printed = capsys.readouterr().out

    whole = await verify(said, tenant.name, list(noted(printed.splitlines())))
    told_of_whole = capsys.readouterr().out
    await tamper(database_url, tenant, PAST, f"UPDATE audit SET reason = 'x' WHERE {about(2)}")
    words = ("audit", "verify", "--tenant", tenant.name)
    broken = await asyncio.to_thread(accessguard, *words, folder=tmp_path, database_url=database_url)

    _, seq, digits = printed.split()
    assert (whole, broken.returncode) == (True, 1), broken.stderr
    assert f"{tenant.name}: whole, 3 entries; head {seq}:{digits}" in told_of_whole
    assert f"record 2 entry {UUID(int=2)} of 2026-03-01 12:02:00.123456 UTC: {Wrong.CHANGED}" in broken.stdout
    with pytest.raises(GuardError, match="There is no audit log of a tenant 'nobody'"):
        await heads(said, "nobody")


async def test_entries_from_before_the_chain_are_counted_once(stores, tenant):
    """What the release before wrote is covered by its number: none is put in or removed unseen, and a reworded one is chained."""
    url = await empty_database(stores)
    await migrations.migrate(url, to="0018")
    async with connected(url) as owner:
        for number in (1, 2, 3):
            await owner.execute(AGAIN.format(UUID(int=number)), "old")
    await migrations.migrate(url)
    await tamper(url, tenant, f"UPDATE audit SET target_id = 'erased-{'0' * 32}' WHERE id = '{UUID(int=2)}'")
    db = await Database.connect(url, size=1)
    try:
        auditing = Auditing(ChainStore(db))

        async def old() -> Verdict:
            return await auditing.verify("old", step=lambda _: None)

        verdicts = [await old()]
        async with connected(url) as owner:
            await owner.execute(f"DELETE FROM audit WHERE id = '{UUID(int=1)}'")
        verdicts.append(await old())
        async with connected(url) as owner, owner.transaction():
            await owner.execute(PAST)
            for number in (4, 5):
                await owner.execute(AGAIN.format(UUID(int=number)), "old")
        await migrations.migrate(url)
        verdicts.append(await old())
        on = [await ChainStore(db).on()]
        async with connected(url) as owner:
            await owner.execute("TRUNCATE audit, audit_chain, audit_head")
            await owner.execute("ALTER TABLE audit DISABLE TRIGGER audit_chained")
            await owner.execute("INSERT INTO tenant (id, name, created_at, deleted_at) VALUES ('*', '', now(), now())")
        on.append(await ChainStore(db).on())
        nothing = [await auditing.verify(each, step=lambda _: None) async for each in auditing.tenants()]
    finally:
        await db.close()

    first, removed, inserted = verdicts
    assert (first.fault, first.entries, first.earlier, first.redacted) == (None, 0, 3, 1)
    assert removed.fault == Fault(wrong=Wrong.EARLIER)
    assert inserted.fault is not None
    assert inserted.fault.wrong is Wrong.INSERTED
    assert on == [True, False]
    assert [(each.tenant, each.fault) for each in nothing] == [("*", Fault(wrong=Wrong.NEVER))]


async def test_every_kind_of_record_is_one_that_the_verification_knows(database_url, tenant):
    """What the SQL calls a record, Python calls so, too."""
    async with connected(database_url) as connection:
        source: str = await connection.fetchval(
            "SELECT string_agg(prosrc, ' ') FROM pg_proc WHERE proname IN ('audit_rewording', 'chain_audit')"
        )

    assert all(f"'{kind}'" in source for kind in Kind if kind is not Kind.BEGAN)


async def test_a_second_transaction_that_reads_no_more_than_it_began_with_is_refused_and_not_forked(
    tenant, db, database_url
):
    """REPEATABLE READ sees an old head: its commit fails, and the chain has one end."""
    await log(db, tenant, 1)

    async with connected(database_url) as other:
        late = other.transaction(isolation="repeatable_read")
        await late.start()
        await other.execute(AGAIN.format(UUID(int=7)), tenant.name)
        await log(db, tenant, 2)
        with pytest.raises((asyncpg.UniqueViolationError, asyncpg.SerializationError)):
            await late.commit()

    found = await verdict(db, tenant)
    assert (found.fault, found.entries) == (None, 2)
