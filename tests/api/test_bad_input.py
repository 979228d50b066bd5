"""Input that nobody should send: the right 4xx as a problem document, never a 500, nothing written."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from accessguard.api.read import to_cursor
from tests.fuzz import examples
from tests.service import CHROME, LAPTOP, Answer, Tenant, items, token

LOGIN = {"member_id": "ana", "outcome": "success", "ip": LAPTOP, "user_agent": CHROME.format(142)}
RULE = {"kind": "session_limit", "params": {"max": 1}}


async def send(
    tenant: Tenant, path: str, raw: Any, *, role: str = "platform", method: str = "POST", kind: str = "application/json"
) -> Answer:
    """Bytes as they are, to a path as it is written."""
    headers = {"Authorization": f"Bearer {token(tenant.name, role)}"} | ({"Content-Type": kind} if kind else {})
    url = URL(tenant.service.url + path, encoded=True)
    async with tenant.service.http.request(method, url, data=raw, headers=headers) as response:
        body = await response.read()
        parsed = json.loads(body) if body and "json" in response.content_type else body
        return Answer(response.status, parsed, {"Content-Type": response.content_type})


def body(**fields: Any) -> bytes:
    """A good login but for these fields."""
    return json.dumps(LOGIN | fields).encode()


def refused(answer: Answer, status: int, *pointers: str) -> None:
    """Assert that it is a problem document of that status which points there."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer["status"] == status
    assert answer["title"]
    assert answer["detail"]
    assert [each["pointer"] for each in answer.body.get("errors", [])] == [*pointers]


async def nothing_written(tenant: Tenant) -> None:
    """Assert that the tenant is as empty as on its first day."""
    for path in ("/v1/members", "/v1/rules", "/v1/audit", "/v1/violations"):
        assert list(items(await tenant.call("GET", path, role="root"))) == []


@pytest.mark.parametrize("path", ["/v1/logins", "/v1/check", "/v1/checks"])
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b'{"a":1}}', id="one brace too many"),
        pytest.param(b"{'member_id':'ana'}", id="single quotes"),
        pytest.param(b'{"member_id":NaN}', id="NaN"),
        pytest.param(b'{"member_id":"\xff"}', id="not UTF-8"),
        pytest.param(b"\xff\xfe{\x00}\x00", id="UTF-16"),
        pytest.param(b'{"member_id":"\\ud800","session_id":"\\ud800"}', id="a lone surrogate"),
        pytest.param(
            b'{"member_id":"\\udc00\\ud800","session_id":"\\udc00\\ud800"}', id="surrogates the wrong way round"
        ),
        pytest.param(b'{"member_id":"\xed\xa0\x80","session_id":"\xed\xa0\x80"}', id="a surrogate in UTF-8"),
        pytest.param(b'{"member_id":"a\x00","session_id":"a\x00"}', id="a bare NUL"),
        pytest.param(b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}", id="deep"),
        pytest.param(b'{"x":' + b'{"x":' * 50_000, id="deep and cut"),
    ],
)
async def test_what_is_no_json_is_refused(tenant: Tenant, path, raw):
    """Whatever is wrong with it."""
    answer = await send(tenant, path, raw)

    assert (answer.status, answer["type"]) == (400, "urn:accessguard:problem:invalid")
    assert answer.headers["Content-Type"] == "application/problem+json"
    await nothing_written(tenant)


@pytest.mark.parametrize("raw", [b"[]", b'"a"', b"1", b"null", b"true"])
@pytest.mark.parametrize("path", ["/v1/logins", "/v1/check", "/v1/checks"])
async def test_json_that_is_no_object_is_refused_at_its_root(tenant: Tenant, path, raw):
    """RFC 6901: the empty pointer is the whole document."""
    refused(await send(tenant, path, raw), 400, "")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        pytest.param({"member_id": 1}, "/member_id", id="a number for an id"),
        pytest.param({"member_id": ""}, "/member_id", id="an empty id"),
        pytest.param({"member_id": "x" * 129}, "/member_id", id="an overlong id"),
        pytest.param({"member_id": "a\0b"}, "/member_id", id="NUL in an id"),
        pytest.param({"member_id": None}, "/member_id", id="a success of nobody"),
        pytest.param({"outcome": "maybe"}, "/outcome", id="an unknown outcome"),
        pytest.param({"outcome": None}, "/outcome", id="no outcome"),
        pytest.param({"method": "telepathy"}, "/method", id="an unknown method"),
        pytest.param({"ip": 7}, "/ip", id="a number for an address"),
        pytest.param({"ip": "1" * 257}, "/ip", id="an overlong address"),
        pytest.param({"attempt_id": "1"}, "/attempt_id", id="no UUID"),
        pytest.param({"session_id": "x" * 129}, "/session_id", id="an overlong session"),
        pytest.param({"session_id": "a\0"}, "/session_id", id="NUL in a session"),
        pytest.param({"app": ["courses"]}, "/app", id="a list for an app"),
        pytest.param({"client_hints": {"a": 1}}, "/client_hints", id="a number for a hint"),
        pytest.param({"client_hints": []}, "/client_hints", id="a list for hints"),
        pytest.param({"host": "h" * 254}, "/host", id="an overlong host"),
        pytest.param({"failure_reason": "x\0"}, "/failure_reason", id="NUL in a reason"),
        pytest.param({"identifier": "x" * 513}, "/identifier", id="an overlong identifier"),
        pytest.param({"device_token": 10**400}, "/device_token", id="a huge number"),
    ],
)
async def test_a_login_of_wrong_fields_is_refused_where_they_stand(tenant: Tenant, fields, pointer):
    """One pointer to the field, and no trace of the attempt."""
    answer = await send(tenant, "/v1/logins", body(**fields))

    refused(answer, 400, pointer)
    await nothing_written(tenant)


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        pytest.param({"ip": LAPTOP}, "", id="no session"),
        pytest.param({"session_id": "s"}, "", id="no address"),
        pytest.param({"session_id": "s", "ip": LAPTOP, "activity": "nap"}, "/activity", id="an unknown activity"),
        pytest.param({"session_id": "s", "ip": LAPTOP, "explain": "yes"}, "/explain", id="a text for a truth"),
        pytest.param({"session_id": "s", "ip": LAPTOP, "resource": "r" * 513}, "/resource", id="an overlong resource"),
        pytest.param({"session_id": "s\0", "ip": LAPTOP}, "/session_id", id="NUL"),
        pytest.param({"session_id": "s", "ip": LAPTOP, "resource": "\0"}, "/resource", id="NUL in a resource"),
    ],
)
async def test_a_check_of_wrong_fields_is_refused_alone_and_among_others(tenant: Tenant, asked, pointer):
    """In a list the pointer says which one."""
    good = {"session_id": "s", "ip": LAPTOP}

    alone = await send(tenant, "/v1/check", json.dumps(asked).encode())
    among = await send(tenant, "/v1/checks", json.dumps({"checks": [good, asked]}).encode())

    refused(alone, 400, pointer)
    refused(among, 400, f"/checks/1{pointer}")


@pytest.mark.parametrize("many", [0, 501])
async def test_too_few_or_too_many_checks_are_refused(tenant: Tenant, many):
    """One to 500."""
    asked = {"checks": [{"session_id": "s", "ip": LAPTOP}] * many}

    refused(await send(tenant, "/v1/checks", json.dumps(asked).encode()), 400, "/checks")


@pytest.mark.parametrize(
    ("method", "path", "role", "sent", "pointer"),
    [
        pytest.param("POST", "/v1/rules", "administrator", {"kind": "magic"}, "/kind", id="an unknown kind"),
        pytest.param("POST", "/v1/rules", "administrator", RULE | {"mode": "on"}, "/mode", id="an unknown mode"),
        pytest.param("POST", "/v1/rules", "administrator", RULE | {"action": "log2"}, "/action", id="an unknown action"),
        pytest.param("POST", "/v1/rules", "administrator", RULE | {"colour": 1}, "", id="an unknown field"),
        pytest.param("POST", "/v1/rules", "administrator", {"kind": "session_limit", "params": {"max": 0}}, "/params/max", id="a limit of 0"),
        pytest.param("POST", "/v1/rules", "administrator", {"kind": "session_limit", "params": {"max": 10**60}}, "/params/max", id="a huge limit"),
        pytest.param("POST", "/v1/rules", "administrator", {"kind": "session_limit", "params": {"max": 1.5}}, "/params/max", id="half a place"),
        pytest.param("POST", "/v1/rules", "administrator", RULE | {"priority": 10**30}, "/priority", id="a huge priority"),
        pytest.param("POST", "/v1/rules", "administrator", RULE | {"message": "\0"}, "/message", id="NUL in a message"),
        pytest.param("POST", "/v1/rules", "administrator", RULE | {"applies_to": {"tags": ["\0"]}}, "/applies_to/tags/0", id="NUL in a tag"),
        pytest.param("POST", "/v1/rules", "administrator", RULE | {"applies_to": {"device_classes": ["car"]}}, "/applies_to/device_classes/0", id="an unknown class"),
        pytest.param("POST", "/v1/rules", "administrator", {"kind": "ip_deny", "params": {"networks": ["1.2.3.4", "here"]}}, "/params/networks/1", id="no network"),
        pytest.param("PUT", "/v1/settings", "administrator", {"failure_mode": "ajar"}, "/failure_mode", id="an unknown setting"),
        pytest.param("PUT", "/v1/settings", "administrator", {"session": {"idle_ttl_s": 1}}, "/session/idle_ttl_s", id="too short a life"),
        pytest.param("PUT", "/v1/settings", "administrator", {"cookie": {"domain": "school.example"}}, "/cookie/domain", id="a domain with __Host-"),
        pytest.param("PUT", "/v1/settings", "administrator", {"cookie": {"prefix": "__Secure-", "domain": ".School.example"}}, "/cookie/domain", id="a domain no browser takes"),
        pytest.param("PUT", "/v1/settings", "administrator", {"cookie": {"prefix": "", "domain": "a..b"}}, "/cookie/domain", id="a domain that is none"),
        pytest.param("PUT", "/v1/members/ben", "platform", {"tags": "vip"}, "/tags", id="a text for tags"),
        pytest.param("PUT", "/v1/members/ben", "platform", {"tags": [1]}, "/tags/0", id="a number for a tag"),
        pytest.param("PUT", "/v1/members/ben", "platform", {"name": "\0"}, "/name", id="NUL in a name"),
        pytest.param("PUT", "/v1/members/ben", "platform", {"staff": 1}, "/staff", id="a number for a truth"),
        pytest.param("PUT", "/v1/members/ben", "platform", {"surname": "x"}, "", id="an unknown field of a member"),
        pytest.param("POST", "/v1/violations/mark", "supervisor", {"ids": ["x"], "read": True}, "/ids/0", id="no id"),
        pytest.param("POST", "/v1/violations/mark", "supervisor", {"ids": [], "read": True}, "/ids", id="no ids"),
        pytest.param("POST", "/v1/violations/mark", "supervisor", {"member_id": "a"}, "", id="neither read nor unread"),
        pytest.param("POST", "/v1/violations/mark", "supervisor", {"up_to": "2026-01-01T00:00:00", "read": True}, "/up_to", id="a time of no zone"),
        pytest.param("POST", "/v1/violations/mark", "supervisor", {"up_to": "yesterday", "read": True}, "/up_to", id="no time"),
        pytest.param("POST", "/v1/tenants", "root", {"tenant": ""}, "/tenant", id="a tenant without a name"),
        pytest.param("POST", "/v1/tenants", "root", {"tenant": "a\0"}, "/tenant", id="NUL in a tenant"),
    ],
)  # fmt: skip
async def test_every_other_body_is_refused_where_it_is_wrong(tenant: Tenant, *, method, path, role, sent, pointer):
    """And changes nothing."""
    answer = await send(tenant, path, json.dumps(sent).encode(), role=role, method=method)

    refused(answer, 400, pointer)
    await nothing_written(tenant)


@pytest.mark.parametrize(
    ("sent", "pointer"),
    [
        pytest.param(
            {"checks_disabled_until": "2026-01-01T00:00:00"}, "/checks_disabled_until", id="a time of no zone"
        ),
        pytest.param({"checks_disabled_until": 5}, "/checks_disabled_until", id="a number for a time"),
        pytest.param({"checks_enabled": "no"}, "/checks_enabled", id="a text for a truth"),
        pytest.param({"checks_enabled": None}, "/checks_enabled", id="neither on nor off"),
        pytest.param({"note": "x" * 10_001}, "/note", id="an overlong note"),
        pytest.param({"tags": ["x"] * 101}, "/tags", id="too many tags"),
        pytest.param({"reason": "\0"}, "/reason", id="NUL in a reason"),
    ],
)
async def test_a_member_is_not_changed_by_what_is_wrong(tenant: Tenant, sent, pointer):
    """The card is as it was, the audit log is empty."""
    tenant.service.clock.stop()  # a card tells the time
    await tenant.login()
    before = await tenant.see("/v1/members/ana")

    answer = await send(tenant, "/v1/members/ana", json.dumps(sent).encode(), role="supervisor", method="PATCH")

    refused(answer, 400, pointer)
    assert (await tenant.see("/v1/members/ana")).body == before.body
    assert list(items(await tenant.call("GET", "/v1/audit", role="root"))) == []


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_time_beyond_the_calendar_is_refused(tenant: Tenant, time):
    """In a body, in a query, in a mark."""
    await tenant.login()
    sent = {"checks_enabled": False, "checks_disabled_until": time}

    answers = [
        await send(tenant, "/v1/members/ana", json.dumps(sent).encode(), role="supervisor", method="PATCH"),
        await send(tenant, f"/v1/violations?from={quote(time)}", b"", role="supervisor", method="GET"),
        await send(tenant, f"/v1/audit?to={quote(time)}", b"", role="administrator", method="GET"),
        await send(
            tenant, "/v1/violations/mark", json.dumps({"up_to": time, "read": True}).encode(), role="supervisor"
        ),
    ]

    assert [answer.status for answer in answers] == [400] * 4
    assert (await tenant.see("/v1/members/ana"))["checks_enabled"] is True


@pytest.mark.parametrize("size", [1_048_577, 2_000_000])
async def test_a_body_that_is_too_large_is_refused(tenant: Tenant, size):
    """Whatever is in it, and however it comes."""
    raw = b'{"member_id":"' + b"x" * size + b'"}'

    answers = [await send(tenant, path, io.BytesIO(raw)) for path in ("/v1/logins", "/v1/check", "/v1/checks")]
    chunked = await send(tenant, "/v1/logins", _pieces(raw))

    for answer in (*answers, chunked):
        refused(answer, 413)
    await nothing_written(tenant)


async def _pieces(raw: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(raw), 65_536):
        yield raw[start : start + 65_536]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_another_content_type_is_refused(tenant: Tenant, kind):
    """A form is no JSON, whatever it holds."""
    answers = [await send(tenant, path, body(), kind=kind) for path in ("/v1/logins", "/v1/check")]

    for answer in answers:
        refused(answer, 415)
    await nothing_written(tenant)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/vnd.api+json", ""])
async def test_json_by_any_of_its_names_is_taken(tenant: Tenant, kind):
    """And what says nothing of itself."""
    assert (await send(tenant, "/v1/logins", body(), kind=kind)).status == 200


@pytest.mark.parametrize(
    "user_agent",
    [
        pytest.param("x" * 100_000, id="100 KB"),
        pytest.param("Mozilla/5.0 " + "(" * 50_000, id="brackets"),
        pytest.param("a\0b" * 1_000, id="NUL"),
        pytest.param("\u202e\U0001f600" * 5_000, id="emoji cut in the middle"),
        pytest.param("", id="empty"),
        pytest.param("\r\n<script>", id="two lines"),
    ],
)
async def test_an_absurd_user_agent_is_accepted_and_cut(tenant: Tenant, user_agent):
    """A client may send what it likes; 512 bytes without NUL are kept."""
    login = await tenant.login(user_agent=user_agent, client_hints={"Sec-CH-UA-Model": "\0" + user_agent})
    check = await tenant.check(login, user_agent=user_agent, activity="lesson_open")

    (line,) = items(await tenant.see("/v1/members/ana/logins"))
    (device,) = items(await tenant.see("/v1/members/ana/devices"))
    assert (login["decision"], check["decision"]) == ("allow", "allow")
    assert len(line["user_agent"].encode()) <= 512
    assert user_agent.replace("\0", "").startswith(line["user_agent"])
    assert device["model"] is None or "\0" not in device["model"]


@pytest.mark.parametrize(
    "device_token",
    ["", "\0", "x" * 100_000, "v1.d1.AAAA.AAAA.AAAA", "é", "null", "v1." + "." * 1_000],
)
async def test_a_device_token_that_is_none_is_a_new_device(tenant: Tenant, device_token):
    """Never an error, neither at a login nor at a check."""
    login = await tenant.login(device_token=device_token)
    check = await tenant.check(login, device_token=device_token)

    assert (login["decision"], login["device"]["new"], check["decision"]) == ("allow", True, "allow")


@pytest.mark.parametrize("ip", ["", "here", "1.2.3", "1.2.3.4.5", "::g", "203.0.113.9, 10.0.0.1", "x" * 256])
async def test_an_address_that_is_none_is_unknown(tenant: Tenant, ip):
    """The platform could not tell; rules on addresses fail open and say so."""
    login = await tenant.login()
    await tenant.rule("ip_deny", networks=["203.0.113.0/24"])

    check = await tenant.check(login, ip=ip)

    assert (check["decision"], check["degraded"]) == ("allow", True)


LISTS = [
    ("/v1/members", "supervisor"),
    ("/v1/members?sort=name", "supervisor"),
    ("/v1/members?sort=unread", "supervisor"),
    ("/v1/members?sort=first_access", "supervisor"),
    ("/v1/members/ana/logins", "supervisor"),
    ("/v1/members/ana/sessions", "supervisor"),
    ("/v1/members/ana/activity", "supervisor"),
    ("/v1/members/ana/devices", "supervisor"),
    ("/v1/members/ana/violations", "supervisor"),
    ("/v1/violations", "supervisor"),
    ("/v1/audit", "administrator"),
    ("/v1/tenants", "root"),
]
NOW, ID = "2026-01-01T00:00:00Z", str(uuid4())
CURSORS = [
    pytest.param("%21%21", id="no base64"),
    pytest.param("abc", id="no JSON"),
    pytest.param(to_cursor([]), id="empty"),
    pytest.param(to_cursor([1, 2, 3]), id="numbers"),
    pytest.param(to_cursor([{}, []]), id="structures"),
    pytest.param(to_cursor(["\0", "\0"]), id="NUL"),
    pytest.param(to_cursor([NOW, "\0"]), id="NUL in an id"),
    pytest.param(to_cursor(["0001-01-01T00:00:00+14:00", ID]), id="before the calendar"),
    pytest.param("A" * 2_001, id="overlong"),
]


@pytest.mark.parametrize(("path", "role"), [pytest.param(*row, id=row[0]) for row in LISTS])
@pytest.mark.parametrize("cursor", CURSORS)
async def test_a_cursor_that_no_list_gave_is_refused(tenant: Tenant, path, role, cursor):
    """With a pointer to it, whatever it was made of; what might be a place in that list is taken for one."""
    await tenant.login()
    joint = "&" if "?" in path else "?"

    answer = await send(tenant, f"{path}{joint}cursor={cursor}", b"", role=role, method="GET")

    if answer.status != 200:
        refused(answer, 400, "/cursor")
    else:
        assert path.partition("?")[0] in {"/v1/members", "/v1/tenants"}


@pytest.mark.parametrize("key", ["abc", "", "9" * 400, "294277-01-01", "-infinity2", "1e400"])
@pytest.mark.parametrize("sort", ["last_activity", "first_access", "last_access", "unread"])
async def test_a_cursor_of_a_key_that_cannot_be_is_refused(tenant: Tenant, sort, key):
    """Made by hand, or taken from a list of another sort."""
    answer = await tenant.see(f"/v1/members?sort={sort}&cursor={to_cursor([key, 'ana'])}")

    refused(Answer(answer.status, answer.body, {"Content-Type": answer.headers["Content-Type"]}), 400, "/cursor")


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        pytest.param("limit=0", "/limit", id="no rows"),
        pytest.param("limit=201", "/limit", id="too many rows"),
        pytest.param("limit=-1", "/limit", id="a negative number"),
        pytest.param("limit=ten", "/limit", id="a word"),
        pytest.param(f"limit={'9' * 5000}", "/limit", id="a huge number"),
        pytest.param("limit=1&limit=2", "/limit", id="twice"),
        pytest.param("sort=colour", "/sort", id="an unknown sort"),
        pytest.param("order=up", "/order", id="an unknown order"),
        pytest.param("unread=maybe", "/unread", id="no truth"),
        pytest.param("q=%00", "/q", id="NUL"),
        pytest.param(f"q={'x' * 255}", "/q", id="overlong"),
        pytest.param("colour=red", "", id="an unknown name"),
        pytest.param("status=asleep", "/status", id="an unknown status"),
    ],
)
async def test_a_query_that_is_wrong_is_refused_where_it_is(tenant: Tenant, query, pointer):
    """Names that are not known are refused too: a misspelt filter must not show everything."""
    refused(await send(tenant, f"/v1/members?{query}", b"", role="supervisor", method="GET"), 400, pointer)


@pytest.mark.parametrize("name", ["%00", "%FF", "%ED%A0%80", "x" * 129, quote("é" * 129)])
@pytest.mark.parametrize("path", ["/v1/members/{}", "/v1/sessions/{}", "/v1/members/{}/logins", "/v1/rules/{}"])
async def test_a_path_that_names_what_cannot_be_is_not_found(tenant: Tenant, path, name):
    """As anything else that is not there."""
    refused(await send(tenant, path.format(name), b"", role="administrator", method="GET"), 404)


WORDS = st.text(max_size=20) | st.sampled_from(["\0", "'; DROP TABLE member; --", "%", "\\", "$1", "\u202e", "﷽"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [*LOGIN, "method", "app", "host", "identifier", "failure_reason", "client_hints", "device_token"]
)


@given(st.dictionaries(NAMES, VALUES | WORDS, max_size=4), st.sampled_from(["/v1/logins", "/v1/check"]))
@examples(150, 20_000)
async def test_whatever_is_sent_is_answered_and_never_with_a_500(tenant: Tenant, fields, path):
    """A value of any shape in any field."""
    answer = await send(tenant, path, json.dumps(LOGIN | {"session_id": "s"} | fields).encode())

    assert answer.status in {200, 400, 409}, answer.body


@given(WORDS, st.sampled_from(["last_activity", "name", "unread"]))
@examples(100, 5_000)
async def test_whatever_is_searched_for_is_answered_and_never_with_a_500(tenant: Tenant, words, sort):
    """It is a text to find, never a pattern or a statement."""
    answer = await tenant.call("GET", "/v1/members", role="supervisor", params={"q": words, "sort": sort})

    assert answer.status == (400 if "\0" in words else 200), answer.body
