"""Who may call what: every path for every role, tokens of every fault, tenants that see nothing of each other."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any
from uuid import uuid4

import jwt
import pytest

from accessguard.api.routes import ROUTES
from tests.service import SECRET, Answer, Service, Tenant, items, token

ROLES = ("platform", "attendant", "supervisor", "administrator", "root")
P = {"platform"}
A = {"attendant", "supervisor", "administrator", "root"}
S = A - {"attendant"}
ADMIN = {"administrator", "root"}
ROOT = {"root"}

# Written from the contract by hand, never from the code: method, path, who may.
TABLE: list[tuple[str, str, set[str]]] = [
    ("POST", "/v1/logins", P),
    ("POST", "/v1/check", P),
    ("POST", "/v1/checks", P),
    ("POST", "/v1/challenges/{challenge_id}", P),
    ("GET", "/v1/sessions/{session_id}", P | S),
    ("POST", "/v1/sessions/{session_id}/end", P | S),
    ("PUT", "/v1/members/{member_id}", P),
    ("GET", "/v1/members", A),
    ("GET", "/v1/members/{member_id}", A),
    ("PATCH", "/v1/members/{member_id}", S),
    ("GET", "/v1/members/{member_id}/logins", S),
    ("GET", "/v1/members/{member_id}/sessions", S),
    ("GET", "/v1/members/{member_id}/activity", S),
    ("GET", "/v1/members/{member_id}/devices", S),
    ("GET", "/v1/members/{member_id}/related", S),
    ("GET", "/v1/reports/sharing", S),
    ("POST", "/v1/members/{member_id}/devices/{device_id}/merge", S),
    ("GET", "/v1/members/{member_id}/violations", S),
    ("PATCH", "/v1/members/{member_id}/devices/{device_id}", S),
    ("DELETE", "/v1/members/{member_id}/devices/{device_id}", S),
    ("POST", "/v1/members/{member_id}/sessions/end", P | S),
    ("PUT", "/v1/members/{member_id}/enrolments/{product_id}", P),
    ("DELETE", "/v1/members/{member_id}/enrolments/{product_id}", P),
    ("POST", "/v1/members/{member_id}/passes", S),
    ("GET", "/v1/addresses/{ip}", S),
    ("GET", "/v1/jobs/{job_id}", P | S),
    ("POST", "/v1/members/bulk", S),
    ("POST", "/v1/members/erase", ADMIN),
    ("GET", "/v1/members/{member_id}/bundle", S),
    ("GET", "/v1/members/{member_id}/comments", S),
    ("POST", "/v1/members/{member_id}/comments", S),
    ("GET", "/v1/members/{member_id}/history", S),
    ("GET", "/v1/preferences/{name}", A),
    ("PUT", "/v1/preferences/{name}", A),
    ("DELETE", "/v1/members/{member_id}", ADMIN),
    ("GET", "/v1/members/{member_id}/export", ADMIN),
    ("PUT", "/v1/members/{member_id}/notice", P),
    ("GET", "/v1/members/{member_id}/notices", S),
    ("POST", "/v1/members/{member_id}/merge", S),
    ("GET", "/v1/members/{member_id}/enrolments", P | A),
    ("GET", "/v1/reports/access", A),
    ("GET", "/v1/reports/activity", S),
    ("GET", "/v1/reports/logins", S),
    ("GET", "/v1/reports/devices", S),
    ("GET", "/v1/reports/refusals", S),
    ("POST", "/v1/reports", S),
    ("POST", "/v1/imports", P | ADMIN),
    ("GET", "/v1/jobs/{job_id}/refused", P | ADMIN),
    ("GET", "/v1/jobs/{job_id}/result", S),
    ("PATCH", "/v1/tenants/{tenant}", ROOT),
    ("DELETE", "/v1/tenants/{tenant}", ROOT),
    ("GET", "/v1/violations", S),
    ("GET", "/v1/violations/summary", S),
    ("POST", "/v1/violations/mark", S),
    ("PATCH", "/v1/violations/{violation_id}", S),
    ("GET", "/v1/rules", ADMIN),
    ("POST", "/v1/rules", ADMIN),
    ("POST", "/v1/rules/simulate", ADMIN),
    ("GET", "/v1/rules/{rule_id}", ADMIN),
    ("PUT", "/v1/rules/{rule_id}", ADMIN),
    ("DELETE", "/v1/rules/{rule_id}", ADMIN),
    ("GET", "/v1/rules/{rule_id}/versions", ADMIN),
    ("GET", "/v1/settings", ADMIN),
    ("PUT", "/v1/settings", ADMIN),
    ("GET", "/v1/revocations", ADMIN),
    ("POST", "/v1/revocations", ADMIN),
    ("DELETE", "/v1/revocations/{revocation_id}", ADMIN),
    ("GET", "/v1/audit", ADMIN),
    ("POST", "/v1/console/links", A),
    ("GET", "/v1/stream", P),
    ("GET", "/v1/webhooks", ADMIN),
    ("POST", "/v1/webhooks", ADMIN),
    ("DELETE", "/v1/webhooks/{webhook_id}", ADMIN),
    ("GET", "/v1/webhooks/{webhook_id}/deliveries", ADMIN),
    ("POST", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", ADMIN),
    ("GET", "/v1/tenants", ADMIN),
    ("POST", "/v1/tenants", ROOT),
    ("GET", "/v1/tenants/{tenant}", ROOT),
    ("POST", "/access/v1/evaluation", P),
    ("POST", "/access/v1/evaluations", P),
]

# These find out by themselves who asks; tests/proxies tells how.
OPEN = {
    ("GET", "/restricted"),
    ("POST", "/restricted/place"),
    ("POST", "/restricted/words"),
    ("GET", "/auth/nginx"),
    ("GET", "/auth/traefik"),
    ("GET", "/auth/caddy"),
    ("*", "/auth/envoy/{path}"),
    ("GET", "/.well-known/authzen-configuration"),
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/.well-known/ssf-configuration"),
}


def filled(path: str) -> str:
    """The path with an id of nobody in each of its places."""
    return re.sub(r"\{(\w+)\}", lambda found: str(uuid4()) if found[1].endswith("_id") else "nobody", path)


def test_the_table_of_this_test_names_every_path_there_is():
    """A path that nobody thought about fails here."""
    assert {(method, path) for method, path, _ in TABLE} | OPEN == {(route.method, route.path) for route in ROUTES}
    assert {(route.method, route.path) for route in ROUTES if route.open} == OPEN


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path", "may"), [pytest.param(*row, id=f"{row[0]} {row[1]}") for row in TABLE])
async def test_a_role_may_what_is_listed_for_it_and_nothing_else(tenant: Tenant, method, path, may, role):
    """Refused before anything of the request is looked at; let in, it is judged like any other."""
    if (path, role) == ("/v1/stream", "platform"):
        return  # has no end; tests/events/test_stream.py
    asker = Tenant(tenant.service, "*") if "{tenant}" in path else tenant
    answer = await asker.call(method, filled(path), {} if method in {"POST", "PUT", "PATCH"} else None, role=role)

    if role in may:
        assert answer.status in {200, 201, 202, 204, 400, 404, 409, 415}, answer.body
    else:
        assert (answer.status, answer["type"]) == (403, "urn:accessguard:problem:forbidden")


@pytest.mark.parametrize(("method", "path", "may"), [pytest.param(*row, id=f"{row[0]} {row[1]}") for row in TABLE])
async def test_nobody_may_anything_without_a_token(service: Service, method, path, may):
    """401 with the scheme that is asked for, whatever the path."""
    async with service.http.request(method, service.url + filled(path)) as response:
        body = await response.json(content_type=None)

    assert may
    assert (response.status, response.content_type) == (401, "application/problem+json")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert body["status"] == 401


def _unsigned(tenant: str) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = jwt.decode(token(tenant, "root"), options={"verify_signature": False})
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}."


def _with(algorithm: str, secret: str) -> Any:
    def make(tenant: str) -> str:
        claims = jwt.decode(token(tenant, "root"), options={"verify_signature": False})
        return jwt.encode(claims, secret, algorithm=algorithm)

    return make


def _tampered(tenant: str) -> str:
    head, _, mac = token(tenant, "platform").split(".")
    claims = jwt.decode(token(tenant, "root"), options={"verify_signature": False})
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"{head}.{body}.{mac}"


def _claiming(**other: Any) -> Any:
    def make(tenant: str) -> str:
        claims = jwt.decode(token(tenant, "root"), options={"verify_signature": False}) | other
        return jwt.encode({name: said for name, said in claims.items() if said is not None}, SECRET, algorithm="HS256")

    return make


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(_claiming(exp=int(time.time()) - 60), id="expired"),
        pytest.param(_claiming(nbf=int(time.time()) + 3600), id="not yet"),
        pytest.param(_claiming(aud="another-service"), id="foreign audience"),
        pytest.param(_claiming(aud=["one", "other"]), id="foreign audiences"),
        pytest.param(_unsigned, id="unsigned"),
        pytest.param(_with("HS256", "x" * 40), id="foreign secret"),
        pytest.param(_with("HS512", SECRET + SECRET), id="wrong algorithm"),
        pytest.param(_with("HS384", SECRET), id="another algorithm with the right secret"),
        pytest.param(_tampered, id="tampered"),
        *(
            pytest.param(_claiming(**{name: None}), id=f"no {name}")
            for name in ("iss", "aud", "sub", "exp", "role", "tenant")
        ),
        pytest.param(_claiming(role="king"), id="unknown role"),
        pytest.param(_claiming(role=["root"]), id="role of a wrong type"),
        pytest.param(_claiming(exp="tomorrow"), id="end of a wrong type"),
        pytest.param(_claiming(sub=""), id="nobody"),
        pytest.param(_claiming(tenant=""), id="no tenant's name"),
        pytest.param(_claiming(tenant="x" * 129), id="an overlong tenant"),
        pytest.param(_claiming(sub="a\nb"), id="a subject of two lines"),
        pytest.param(lambda _: "", id="empty"),
        pytest.param(lambda _: "a.b.c", id="no token"),
        pytest.param(lambda _: "x" * 7_000, id="overlong"),
        pytest.param(lambda _: "é.é.é", id="not ASCII"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/check", "/v1/tenants"])
async def test_a_token_with_a_fault_opens_nothing(tenant: Tenant, make, path):
    """All faults get the same answer, and nothing is made: neither a tenant nor a record."""
    headers = {"Authorization": f"Bearer {make(tenant.name)}"}
    body = {"session_id": "s", "ip": "203.0.113.9"} if path == "/v1/check" else {"tenant": f"{tenant.name}-x"}

    answer = await tenant.call("POST", path, body, headers=headers)
    plain = await tenant.call("POST", path, body, headers={"Authorization": "Bearer nonsense"})

    assert (answer.status, answer.body) == (401, plain.body)
    everywhere = Tenant(tenant.service, "*")
    assert (await everywhere.call("GET", f"/v1/tenants/{tenant.name}-x", role="root")).status == 404
    assert (await everywhere.call("GET", f"/v1/tenants/{tenant.name}", role="root")).status == 404


@pytest.mark.parametrize("scheme", ["Basic", "bearer", "BEARER"])
async def test_the_scheme_is_bearer_in_any_case(tenant: Tenant, scheme):
    """RFC 9110, 11.1: the name of a scheme has no case."""
    headers = {"Authorization": f"{scheme} {token(tenant.name, 'supervisor')}"}

    answer = await tenant.call("GET", "/v1/members", headers=headers)

    assert answer.status == (401 if scheme == "Basic" else 200)


async def test_a_token_of_one_tenant_names_no_other(tenant: Tenant):
    """Its own name in the header is fine; another's is refused, known or not."""
    other = tenant.service.tenant()
    await other.login()

    answers = [
        await tenant.call("GET", "/v1/members", role="supervisor", headers={"AccessGuard-Tenant": name})
        for name in (tenant.name, other.name, "nobody", "*", "")
    ]

    assert [answer.status for answer in answers] == [200, 403, 403, 403, 403]
    assert answers[1].body == answers[2].body


async def test_a_token_of_all_tenants_names_one_per_call(tenant: Tenant):
    """It brings none into being, and without a name it says nothing."""
    await tenant.login()
    everywhere = Tenant(tenant.service, "*")

    async def see(**headers: str) -> Answer:
        return await everywhere.call("GET", "/v1/members", role="supervisor", headers=headers)

    named = await see(**{"AccessGuard-Tenant": tenant.name})
    unknown = await see(**{"AccessGuard-Tenant": f"{tenant.name}-x"})
    odd = [await see(**{"AccessGuard-Tenant": name}) for name in ("x" * 129, "a\tb")]

    assert [member["member_id"] for member in items(named)] == ["ana"]
    assert unknown.status == 404
    assert [(await see()).status, *(each.status for each in odd)] == [400, 400, 400]


class Estate:
    """One of everything that a tenant may have."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant

    async def build(self) -> Estate:
        """Make a session, a device, a rule, a violation."""
        self.login = await self.tenant.login(session_id="platform-1")
        self.rule = await self.tenant.rule("ip_deny", networks=["203.0.113.0/24"])
        await self.tenant.check(self.login)
        (self.case,) = items(await self.tenant.see("/v1/violations"))
        return self


def foreign(estate: Estate) -> list[tuple[str, str, Any, str]]:
    """Every call that names something of the estate: method, path, body, role."""
    device, session = estate.login["device"]["id"], "platform-1"
    rule = {"kind": "session_limit", "params": {"max": 1}}
    return [
        ("GET", f"/v1/sessions/{session}", None, "supervisor"),
        ("POST", f"/v1/sessions/{session}/end", {}, "platform"),
        ("GET", "/v1/members/ana", None, "supervisor"),
        ("PATCH", "/v1/members/ana", {"checks_enabled": False}, "supervisor"),
        *(
            ("GET", f"/v1/members/ana/{what}", None, "supervisor")
            for what in ("logins", "sessions", "activity", "devices", "violations", "related")
        ),
        ("PATCH", f"/v1/members/ana/devices/{device}", {"access": "blocked"}, "supervisor"),
        ("POST", f"/v1/members/ana/devices/{device}/merge", {"into": str(uuid4())}, "supervisor"),
        ("DELETE", f"/v1/members/ana/devices/{device}", None, "supervisor"),
        ("POST", "/v1/members/ana/sessions/end", {}, "supervisor"),
        ("PATCH", f"/v1/violations/{estate.case['id']}", {"resolution": "confirmed"}, "supervisor"),
        ("GET", f"/v1/rules/{estate.rule['id']}", None, "administrator"),
        ("PUT", f"/v1/rules/{estate.rule['id']}", rule, "administrator"),
        ("DELETE", f"/v1/rules/{estate.rule['id']}", None, "administrator"),
        ("GET", f"/v1/rules/{estate.rule['id']}/versions", None, "administrator"),
    ]


async def test_what_is_another_tenants_is_as_unknown_as_what_never_was(tenant: Tenant):
    """The same 404 to the byte, and nothing of it changes."""
    theirs = await Estate(tenant.service.tenant()).build()
    never = Estate(theirs.tenant)
    never.login = Answer(200, {"device": {"id": str(uuid4())}})
    never.rule, never.case = Answer(200, {"id": str(uuid4())}), {"id": str(uuid4())}

    found = [await tenant.call(method, path, body, role=role) for method, path, body, role in foreign(theirs)]
    unknown = [await tenant.call(method, path, body, role=role) for method, path, body, role in foreign(never)]

    assert {answer.status for answer in found} == {404}
    assert [answer.body for answer in found] == [answer.body for answer in unknown]
    await theirs.tenant.call("DELETE", f"/v1/rules/{theirs.rule['id']}", role="administrator")
    assert (await theirs.tenant.check(theirs.login))["decision"] == "allow"
    assert (await theirs.tenant.see("/v1/members/ana"))["checks_enabled"] is True


async def test_lists_counts_and_marks_hold_nothing_of_another_tenant(tenant: Tenant):
    """Neither a row nor a number tells that somebody else is there."""
    theirs = await Estate(tenant.service.tenant()).build()
    await tenant.login("ben")

    lists = {
        path: list(items(await tenant.call("GET", path, role="root")))
        for path in ("/v1/members", "/v1/members?q=ana", "/v1/violations", "/v1/rules", "/v1/audit")
    }
    summary = await tenant.see("/v1/violations/summary")
    by_id = await tenant.call(
        "POST", "/v1/violations/mark", {"ids": [theirs.case["id"]], "read": True}, role="supervisor"
    )
    by_member = await tenant.call("POST", "/v1/violations/mark", {"member_id": "ana", "read": True}, role="supervisor")
    check = await tenant.check("platform-1")

    assert [member["member_id"] for member in lists.pop("/v1/members")] == ["ben"]
    assert set(map(len, lists.values())) == {0}
    assert (summary["unread"], summary["open"], summary["by_member"]) == (0, 0, [])
    assert (by_id["marked"], by_member["marked"]) == (0, 0)
    assert (check["decision"], check["reason"]["code"], check["member_id"]) == ("deny", "unknown_session", None)
    (case,) = items(await theirs.tenant.see("/v1/violations"))
    assert case["read_by"] == []


async def test_a_device_token_of_another_tenant_is_a_new_device(tenant: Tenant):
    """It is genuine, but not here."""
    theirs = await tenant.service.tenant().login()

    mine = await tenant.login(device_token=theirs["device"]["token"])

    assert mine["device"]["new"] is True
    assert mine["device"]["id"] != theirs["device"]["id"]


async def test_a_session_id_of_the_platform_is_of_its_tenant(tenant: Tenant):
    """Two schools may use the same one; each ends its own."""
    other = tenant.service.tenant()
    here, there = await tenant.login(session_id="1"), await other.login("ben", session_id="1")

    await tenant.call("POST", "/v1/sessions/1/end")

    assert (await tenant.check(here))["reason"]["code"] == "session_ended"
    assert (await other.check(there))["member_id"] == "ben"


async def test_an_attendant_sees_no_address_no_device_and_no_restriction(tenant: Tenant):
    """Neither on a card nor in a list nor in a file."""
    await Estate(tenant).build()
    answers = [
        await tenant.call("GET", path, role="attendant", headers=headers)
        for path, headers in (
            ("/v1/members/ana", {}),
            ("/v1/members", {}),
            ("/v1/members", {"Accept": "text/csv"}),
        )
    ]

    texts = [answer.body.decode() if isinstance(answer.body, bytes) else json.dumps(answer.body) for answer in answers]

    assert {answer.status for answer in answers} == {200}
    assert answers[0]["first_access_at"] is not None
    assert [word for text in texts for word in ("203.0.113", "ip_denied", "platform-1") if word in text] == []
    assert (answers[0]["devices"], answers[0]["latest_violation"], answers[0]["unread_violations"]) == (0, None, 0)


@pytest.mark.parametrize(
    "query", ["restricted=true", "unread=true", "sort=unread", "status=active&sort=unread&order=asc"]
)
async def test_an_attendant_cannot_ask_who_is_restricted(tenant: Tenant, query):
    """What is no column is no filter and no order either."""
    asked = f"/v1/members?{query}"

    refused, seen = await tenant.call("GET", asked, role="attendant"), await tenant.see(asked)

    assert (refused.status, seen.status) == (403, 200)


@pytest.mark.parametrize("path", ["/v1", "/v1/nothing", "/v1/members/ana/nothing", "/v1/rules/1/2/3"])
async def test_an_unknown_path_is_a_problem_document(tenant: Tenant, path):
    """And a method that a path does not take says which it does."""
    unknown = await tenant.call("GET", path, role="root")
    wrong = await tenant.call("DELETE", "/v1/members", role="root")

    assert (unknown.status, unknown["type"]) == (404, "urn:accessguard:problem:not_found")
    assert (wrong.status, wrong["type"]) == (405, "urn:accessguard:problem:method_not_allowed")
    assert "GET" in wrong.headers["Allow"]
