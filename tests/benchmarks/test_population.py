"""The generated population: the same from the same seed, and true to what the service itself would have written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import pytest

from accessguard.app import migrate
from accessguard.console.pages import PAGES
from accessguard.database import Database
from accessguard.embedded import Embedded
from accessguard.members.phone import e164
from accessguard.tallies.model import TallyKind
from benchmarks.inhabitants import COUNTRY, PHONES, member_id
from benchmarks.ledger import CHUNK, COLUMNS, Population
from benchmarks.lives import chunk
from benchmarks.operations import asks
from benchmarks.settling import now_ms, settle
from benchmarks.subjects import draw
from tests.benchmarks.plans import Sent, explaining, plan_of
from tests.console.test_console import signed_in
from tests.service import Answer, Tenant, items, running

TENANT = "bench"
EVENTS = "/console/live/events"
"""It goes on for ever."""
MEMBERS = 1_500
LISTS = ("logins", "sessions", "activity", "devices", "related", "violations")
MOST_READ = 300
"""Rows of one table that one statement may look at: a few pages, where the smallest of the tables has twice as many."""
WIDER = {
    "GET /v1/violations?read=": 10_000,
    "GET /v1/violations/summary": 10_000,
    "GET /v1/reports/sharing": 10_000,
}
"""What has to look at more: cases until a page of unread ones is full, counts and rankings over all members."""
ELSEWHERE = ("GET /v1/members?", "GET /v1/members ")
FILES = (
    "/v1/members?sort=name",
    "/v1/members?unread=true",
    "/v1/violations?read=false",
    "/v1/reports/access",
    "/v1/reports/access?product_id=course-3",
    "/v1/reports/sharing",
)
PRESENT_MS = 1_795_330_800_000
NAME = "population"


@pytest.fixture(scope="module")
async def populated_url(stores: Embedded) -> AsyncIterator[str]:
    """A database of its own with a small population."""
    admin = await asyncpg.connect(stores.database_url)
    await admin.execute(f"CREATE DATABASE {NAME}")
    url = stores.database_url.replace("/accessguard?", f"/{NAME}?")
    await migrate(url)
    await settle(url, Population(tenant=TENANT, members=MEMBERS, seed=5, until_ms=now_ms()))
    yield url
    await admin.execute(f"DROP DATABASE {NAME} WITH (FORCE)")
    await admin.close()


@pytest.fixture(scope="module")
async def school(stores: Embedded, populated_url: str) -> AsyncIterator[Tenant]:
    """The population's tenant, behind a worker."""
    async with running(populated_url, stores.redis_url) as worker:
        yield Tenant(worker, TENANT)


def population(**more: int) -> Population:
    """A population whose present stands still."""
    return Population(tenant=TENANT, **{"members": 2_500, "seed": 1, "until_ms": PRESENT_MS} | more)


def test_a_chunk_of_the_population_depends_on_the_seed_and_its_number_alone():
    """Made again, or in another order, it is the same to the byte; another seed makes another one."""
    again = {number: chunk(population(), number) for number in (2, 0)}

    assert again[0] == chunk(population(), 0)
    assert again[2] == chunk(population(), 2)
    assert again[0] != chunk(population(seed=2), 0)
    assert again[2]["member"].count(b"\n") == 2_500 - 2 * CHUNK


def test_a_population_has_ten_attempts_and_five_sessions_for_a_member():
    """What issue and docs promise of its proportions: attempts, sessions, those who are there now, unread cases."""
    rows = {table: text.decode().splitlines() for table, text in chunk(population(members=CHUNK), 0).items()}

    columns = {table: {name: place for place, name in enumerate(COLUMNS[table].split())} for table in COLUMNS}
    ends = [line.split("\t")[columns["session"]["expires_at"]] for line in rows["session"]]
    live = sum(end.startswith("2026-12") for end in ends)
    read = {line.split("\t")[1] for line in rows["read_mark"] if "\tbench-supervisor\t" in line}
    unread = {
        line.split("\t")[columns["violation"]["member_id"]]
        for line in rows["violation"]
        if line.split("\t")[1] not in read
    }
    assert len(rows["member"]) == CHUNK
    assert 4.9 <= len(rows["session"]) / CHUNK <= 5.4
    assert 9.5 <= len(rows["login_attempt"]) / CHUNK <= 11
    assert 0.03 <= live / CHUNK <= 0.07
    assert 0.01 <= len(unread) / CHUNK <= 0.06


def test_numbers_of_twenty_countries_are_stored_in_one_form():
    """Each number that the generator writes in two forms is one and the same to the service."""
    lines = [line.split("\t") for line in chunk(population(), 0)["member"].decode().splitlines()]

    pairs = {(line[4], line[5]) for line in lines if line[4] != "\\N"}
    assert [(raw, stored) for raw, stored in pairs if e164(raw, COUNTRY) != stored] == []
    assert len(PHONES) == 20
    assert all(any(stored.startswith(f"+{code}{begin}") for _, stored in pairs) for code, begin, _ in PHONES.values())


async def test_a_worker_reads_every_list_of_generated_members(school):
    """Members of every kind of id are found, and what is listed of them agrees with what their card counts."""
    for number in (0, 1, 7, 32, 57, 82, 107, 132, 157, 182, 387):
        member = quote(member_id(number), safe="")
        card = await school.see(f"/v1/members/{member}")
        lists = {name: await school.see(f"/v1/members/{member}/{name}?limit=200") for name in LISTS}

        assert card.status == 200, card.body
        assert card["member_id"] == member_id(number)
        told = {name: list(items(found)) for name, found in lists.items()}
        assert card["devices"] == len(told["devices"])
        assert card["active_sessions"] == sum(each["status"] == "open" for each in told["sessions"])
        assert {each["session_id"] for each in told["logins"]} - {None} == {each["id"] for each in told["sessions"]}
        assert {each["session_id"] for each in told["activity"]} <= {each["id"] for each in told["sessions"]}
        assert {each["device_id"] for each in told["sessions"]} <= {each["id"] for each in told["devices"]}


async def test_a_generated_member_goes_on_living(school: Tenant):
    """A login of such a member is decided and recorded like any other, and its open session may go on."""
    there: Answer = await school.see("/v1/members?sort=last_activity&limit=1")
    (member,) = items(there)
    session = member["last_activity"]["session_id"]

    checked = await school.check(session)
    entered = await school.login(member["member_id"])

    assert (checked.status, checked["member_id"]) == (200, member["member_id"])
    assert entered.status == 200, entered.body
    assert entered["decision"] in {"allow", "deny"}


async def test_no_list_card_or_report_reads_more_than_its_page(school, populated_url, monkeypatch):
    """Whatever operators ask is answered from indexes: as planned for the values asked for, and as planned once for all."""
    asked = {ask.name: ask for subject in await draw(populated_url, TENANT, 6) for ask in asks(subject)}
    sent: dict[Sent, str] = {}
    for name, ask in asked.items():
        if not f"{name} ".startswith(ELSEWHERE):
            with monkeypatch.context() as patch:
                note(patch, sent, name)
                assert (await school.call("GET", ask.path, role=ask.role)).status == 200, name

    dear = {}
    for mode in ("force_generic_plan", "force_custom_plan"):
        async with explaining(populated_url, mode) as connection:
            for statement, name in sent.items():
                plan = await plan_of(connection, statement)
                most = max(plan.read.values(), default=0)
                if plan.whole or most > bound(name):
                    dear[f"{name}, {mode}"] = (dict(plan.read), plan.whole, " ".join(statement[0].split())[:300])

    assert len(sent) > 40
    assert dear == {}


async def test_no_page_of_the_console_and_no_file_reads_a_table_from_end_to_end(school, populated_url, monkeypatch):
    """Every page that is opened, the lists that are streamed as CSV, and what reports count before they are written."""
    subject = next(each for each in await draw(populated_url, TENANT, 6) if each.keys() >= {"rule_id", "name"})
    subject = {name: quote(value, safe="") for name, value in subject.items()}
    subject |= {"code": "device_limit", "language": "en", "section": "school", "version": "1", "at": "0"}
    subject |= dict.fromkeys(("job_id", "webhook_id"), str(uuid4()))  # there is none of either
    paths = {each.path for each in PAGES if each.method == "GET" and each.like is not None and each.path != EVENTS}
    more = ("/console/contacts?sort=unread", "/console/contacts?q={name}&sort=name", "/console/restrictions?show=all")
    pages = [path.format_map(subject) for path in (*sorted(paths), *more)]
    browser = await signed_in(school, "administrator")
    sent: dict[Sent, str] = {}
    with monkeypatch.context() as patch:
        note(patch, sent, "console")
        opened = [(await browser.get(page)).status for page in pages]
    for path in FILES:
        with monkeypatch.context() as patch:
            note(patch, sent, path)
            streamed = await school.call("GET", path, role="administrator", headers={"Accept": "text/csv"})
            assert streamed.status == 200, path
    with monkeypatch.context() as patch:
        note(patch, sent, "reports")
        ctx = school.service.context
        await ctx.access.count(TENANT, product_id=None, member_id=None)
        await ctx.tallies.count(TENANT, TallyKind.LOGIN, since=date(2020, 1, 1), until=date(2100, 1, 1))

    whole = {}
    for mode in ("force_generic_plan", "force_custom_plan"):
        async with explaining(populated_url, mode) as connection:
            for statement, name in sent.items():
                if (plan := await plan_of(connection, statement)).whole:
                    whole[f"{name}, {mode}"] = (plan.whole, " ".join(statement[0].split())[:300])

    unknown = {page for page, status in zip(pages, opened, strict=True) if status == 404}
    assert set(opened) <= {200, 303, 404}, dict(zip(pages, opened, strict=True))
    assert len(unknown) == 3  # the job, the webhook, and the preset
    assert len(pages) > 15
    assert len(sent) > 60
    assert whole == {}


def bound(name: str) -> int:
    """Rows of one table that a statement of this call may look at."""
    return next((most for begin, most in WIDER.items() if name.startswith(begin)), MOST_READ)


def note(patch: pytest.MonkeyPatch, sent: dict[Sent, str], name: str) -> None:
    """Write down what a worker reads from PostgreSQL, but not the line by which a read is recorded."""
    fetch, row = Database.fetch, Database.row

    def keep(statement: str, values: tuple[object, ...]) -> None:
        if not statement.lstrip().startswith("INSERT INTO audit"):
            sent[statement, tuple(tuple(each) if isinstance(each, list) else each for each in values)] = name

    async def fetched(self: Database, statement: str, *values: object, **more: float) -> Any:
        keep(statement, values)
        return await fetch(self, statement, *values, **more)

    async def rowed(self: Database, statement: str, *values: object, **more: float) -> Any:
        keep(statement, values)
        return await row(self, statement, *values, **more)

    patch.setattr(Database, "fetch", fetched)
    patch.setattr(Database, "row", rowed)
