"""What proxies are told, asked as they ask; both lanes, no proxy in between."""

from __future__ import annotations

import time
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from accessguard.api.forwarded import Dialect, Told
from accessguard.api.refusing import Refusal, refusing
from accessguard.metrics import REGISTRY
from tests.service import CHROME, LAPTOP, Answer, Tenant, token

NAMES = ("Tenant", "Member", "Session", "Device", "Exempt")
COOKIE = "__Host-ag_session"
PAGE = "text/html,application/xhtml+xml"
KEY = ec.generate_private_key(ec.SECP256R1())
JWK = ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True) | {"kid": "k1", "alg": "ES256"}


async def ask(tenant: Tenant, dialect: str = "nginx", *, fast: bool = True, **headers: Any) -> Answer:
    """One question of a proxy that shows a caller's token; None takes a header out."""
    said: dict[str, Any] = {
        "AccessGuard-Token": token(tenant.name, "platform"),
        "X-Forwarded-For": LAPTOP,
        "X-Envoy-External-Address": LAPTOP,
        "User-Agent": CHROME.format(142),
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    base = tenant.service.url if fast else tenant.service.plain_url
    path = headers.pop("path", None) or f"/auth/{dialect}" + ("/courses/42?a=b" if dialect == "envoy" else "")
    kept = {name: value for name, value in said.items() if value is not None and name != "path"}
    async with tenant.service.http.get(base + path, headers=kept, allow_redirects=False) as response:
        return Answer(response.status, await response.read(), dict(response.headers))


def cookies(login: Answer, name: str = COOKIE) -> str:
    """What the browser sends after a login."""
    return f"theme=dark; {name}={login['session']['token']}; __Host-ag_device={login['device']['token']}"


async def settings(tenant: Tenant, **proxy: Any) -> None:
    """Save what the tenant says about its proxies."""
    answer = await tenant.call("PUT", "/v1/settings", {"proxy": proxy}, role="administrator")
    assert answer.status == 200, answer.body


def identity(answer: Answer) -> dict[str, str]:
    """The identity headers of an allow."""
    return {name: answer.headers[f"AccessGuard-{name}"] for name in NAMES}


@pytest.mark.parametrize(("dialect", "status"), [("nginx", 204), ("traefik", 204), ("caddy", 204), ("envoy", 200)])
async def test_a_session_passes_with_every_identity_header(tenant, dialect, status):
    """The first time through the stores, then from memory, in both lanes: the same each time."""
    login = await tenant.login()
    whole = {
        "Tenant": tenant.name,
        "Member": "ana",
        "Session": login["session"]["id"],
        "Device": login["device"]["id"],
        "Exempt": "false",
    }

    answers = [
        await ask(tenant, dialect, fast=fast, Cookie=cookies(login)) for fast in (False, True, True, True, False)
    ]

    assert [answer.status for answer in answers] == [status] * 5
    assert [identity(answer) for answer in answers] == [whole] * 5
    assert {answer.body for answer in answers} == {b""}


@pytest.fixture
def configured(tenant):
    """The service is told whose proxies those are that show no token."""
    context = tenant.service.context
    before = context.proxy_tenant
    msgspec.structs.force_setattr(context, "proxy_tenant", tenant.name)
    yield
    msgspec.structs.force_setattr(context, "proxy_tenant", before)


async def test_a_proxy_that_nobody_vouches_for_is_refused(tenant):
    """However genuine the cookie: what a browser brings does not say whose proxy it passed. In both lanes, held or not."""
    login = await tenant.login()
    await ask(tenant, Cookie=cookies(login))

    answers = [await ask(tenant, fast=fast, Cookie=cookies(login), AccessGuard_Token=None) for fast in (True, False)]

    assert [(each.status, each.headers["AccessGuard-Reason"]) for each in answers] == [(403, "unknown_proxy")] * 2


async def test_a_single_school_may_be_named_in_the_configuration(tenant, configured):
    """Then its own sessions pass without a token, and those of no other tenant."""
    other = tenant.service.tenant()
    own, strange = await tenant.login(), await other.login()

    answers = [
        await ask(tenant, fast=fast, Cookie=cookies(login), AccessGuard_Token=None)
        for login in (own, strange)
        for fast in (False, True, True)
    ]

    assert [each.status for each in answers] == [204, 204, 204, 401, 401, 401]
    assert {identity(each)["Tenant"] for each in answers[:3]} == {tenant.name}


async def test_a_proxy_without_a_token_may_be_told_by_the_host(schools):
    """Where the configuration says so, and not otherwise; its word on the address is not believed for that."""
    one, context = schools[0], schools[0].service.context
    mine = cookies(await one.login("ana"))
    await one.rule("ip_deny", networks=["198.51.100.7"])
    before = context.proxy_tenant

    msgspec.structs.force_setattr(context, "proxy_tenant", "*")
    try:
        found = [
            await at(one, host, mine, AccessGuard_Token=None, X_Forwarded_For="198.51.100.7")
            for host in (f"{one.name}.example", "nobody.example")
        ]
    finally:
        msgspec.structs.force_setattr(context, "proxy_tenant", before)

    assert [answer.status for answer in found] == [204, 403]


@pytest.fixture
async def schools(service):
    """Two schools on one service, each with a host of its own, and one host that is no longer in use."""
    found = service.tenant(), service.tenant()
    for number, school in enumerate(found):
        await school.login(f"m{number}")
        own = [{"host": f"{school.name}.example", "primary": True}]
        off = [{"host": f"off.{school.name}.example", "status": "inactive"}]
        saved = await school.call("PUT", "/v1/settings", {"hosts": own + off}, role="administrator")
        assert saved.status == 200, saved.body
    await service.context.hosts.read()
    return found


async def at(school: Tenant, host: str, cookie: str | None, dialect: str = "nginx", **more: Any) -> Answer:
    """What a proxy of many schools asks about a visit to `host`."""
    said = {"Host": host} if dialect == "envoy" else {"X_Forwarded_Host": host}
    shown = {"AccessGuard_Token": token("*", "platform")} | said | more
    return await ask(school, dialect, Cookie=cookie, **shown)


@pytest.mark.parametrize("dialect", ["nginx", "caddy", "envoy"])
async def test_a_proxy_of_many_schools_is_answered_by_the_host(schools, dialect):
    """With a token for all of them: each host lets its own school's sessions pass, in both lanes, however it is written."""
    one, other = schools
    mine, theirs = cookies(await one.login("ana")), cookies(await other.login("ana"))
    await at(one, f"{one.name}.example", mine, dialect, fast=False)

    passed = [
        await at(one, host, mine, dialect, fast=fast)
        for host in (f"{one.name}.example", f"{one.name.upper()}.Example.:443")
        for fast in (False, True, True, True)
    ]
    crossed = [await at(one, f"{other.name}.example", mine, dialect), await at(one, f"{one.name}.example", theirs)]

    assert {(answer.status, answer.headers["AccessGuard-Tenant"]) for answer in passed} == {
        (200 if dialect == "envoy" else 204, one.name)
    }
    assert [(answer.status, answer.headers["AccessGuard-Reason"]) for answer in crossed] == [(401, "no_session")] * 2


async def test_a_host_of_nobodys_lets_nobody_pass(schools):
    """One that no school lists, one out of use, none at all; without the token for all nobody may say a host."""
    one, _ = schools
    mine = cookies(await one.login("ana"))

    answers = [await at(one, host, mine) for host in ("nobody.example", f"off.{one.name}.example", "")]
    unknown = await at(one, f"{one.name}.example", mine, AccessGuard_Token=None)
    student = await at(
        one,
        f"{one.name}.example",
        mine,
        AccessGuard_Token=None,
        Authorization=f"Bearer {token('*', 'platform')}",
    )

    assert {(answer.status, answer.headers["AccessGuard-Reason"]) for answer in answers} == {(403, "unknown_host")}
    assert [each.headers["AccessGuard-Reason"] for each in (unknown, student)] == ["unknown_proxy"] * 2


async def test_a_host_that_moves_to_another_school_takes_nobody_along(schools):
    """The one that let it go is believed no longer, within seconds; until then nobody else can take it."""
    one, other = schools
    host = f"{one.name}.example"
    mine, theirs = cookies(await one.login("ana")), cookies(await other.login("ana"))
    before = [await at(one, host, mine) for _ in range(3)]

    moved = [{"host": host, "primary": True}]
    taken = await other.call("PUT", "/v1/settings", {"hosts": moved}, role="administrator")
    await one.call("PUT", "/v1/settings", {"hosts": []}, role="administrator")
    saved = await other.call("PUT", "/v1/settings", {"hosts": moved}, role="administrator")
    await one.service.context.hosts.read()
    one.service.clock.forward(5_000)
    after = [await at(one, host, mine), await at(one, host, theirs)]

    assert [answer.status for answer in before] == [204] * 3
    assert (taken.status, taken["errors"][0]["pointer"], saved.status) == (400, "/hosts/0/host", 200)
    assert [answer.status for answer in after] == [401, 204]


async def test_a_host_may_have_an_identity_of_its_own(schools):
    """One host by the platform's token, the other by the cookie, each with its own page to log in."""
    one, _ = schools
    app: dict[str, Any] = {
        "host": f"app.{one.name}.example",
        "identity": "jwt",
        "jwt": {"keys": [JWK], "algorithms": ["ES256"]},
        "login_url": "https://app.example/",
    }
    await settings(one, login_url="https://learn.example/", hosts=[app])
    login = await one.login("ana", session_id="s-1")
    bearer: dict[str, Any] = {"Authorization": f"Bearer {platform_token()}"}

    there = [
        await ask(one, Cookie=cookie, X_Forwarded_Host=app["host"], Accept=PAGE, **more)
        for cookie, more in ((None, bearer), (cookies(login), {}))
    ]
    here = [await ask(one, Accept=PAGE, **bearer), await ask(one, Cookie=cookies(login), Accept=PAGE)]
    same = await one.call(
        "PUT", "/v1/settings", {"proxy": {"hosts": [app, app | {"host": app["host"].upper()}]}}, role="administrator"
    )

    assert [each.status for each in there] == [204, 401]
    assert [each.status for each in here] == [401, 204]
    assert [each.headers["Location"] for each in (there[1], here[0])] == [
        "https://app.example/",
        "https://learn.example/",
    ]
    assert (same.status, same["errors"][0]["pointer"]) == (400, "/proxy/hosts/1/host")


async def test_a_session_of_one_tenant_is_nobodys_at_another(tenant):
    """However genuine: the proxy's token says whose proxy it is."""
    other = tenant.service.tenant()
    login = await tenant.login()
    await other.login()

    answer = await ask(other, Cookie=cookies(login))

    assert (answer.status, answer.headers["AccessGuard-Reason"]) == (401, "no_session")


@pytest.mark.parametrize(
    "cookie",
    [
        pytest.param(None, id="none"),
        pytest.param("theme=dark", id="none of ours"),
        pytest.param(f"{COOKIE}=v1.s1.YQ.YQ.AAAA", id="forged"),
        pytest.param("session=@", id="under another name"),
        pytest.param(f"{COOKIE}=@; {COOKIE}=@other", id="two sessions"),
        pytest.param(f"{COOKIE}=@device", id="a device token"),
        pytest.param(f"{COOKIE}", id="no pair"),
    ],
)
@pytest.mark.parametrize("dialect", ["nginx", "envoy"])
async def test_without_a_usable_cookie_there_is_no_session(tenant, dialect, cookie):
    """401, and nothing of the member."""
    login, other = await tenant.login(), await tenant.login("ben")
    words = {"@other": other["session"]["token"], "@device": login["device"]["token"], "@": login["session"]["token"]}
    for word, meaning in words.items():
        cookie = cookie and cookie.replace(word, meaning)

    answer = await ask(tenant, dialect, Cookie=cookie)

    assert (answer.status, answer.headers["AccessGuard-Reason"]) == (401, "no_session")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert not any(name.startswith("AccessGuard-M") for name in answer.headers)


async def test_a_request_without_a_session_touches_no_store(tenant):
    """Not even one of a tenant that nobody has heard of: PostgreSQL and Valkey could be away."""
    stranger, before = tenant.service.tenant(), _asked()

    answers = [await ask(stranger, Cookie="a=b"), await ask(stranger, AccessGuard_Token=None)]

    assert [answer.status for answer in answers] == [401, 403]
    assert _asked() == before


def _asked() -> float | None:
    return REGISTRY.get_sample_value("accessguard_verdicts_total", {"source": "loaded"})


async def test_each_kind_of_no_has_its_status_and_reason(tenant):
    """Ended is 401, blocked 403, and the same in both lanes."""
    blocked, ended = await tenant.login(), await tenant.login("ben")
    await ask(tenant, Cookie=cookies(blocked))
    await tenant.device("ana", blocked["device"]["id"], access="blocked")
    await tenant.call("POST", f"/v1/sessions/{ended['session']['id']}/end", {"reason": "logout"})

    answers = [await ask(tenant, fast=fast, Cookie=cookies(one)) for one in (blocked, ended) for fast in (True, False)]

    assert [(answer.status, answer.headers["AccessGuard-Reason"]) for answer in answers] == [
        (403, "device_blocked"),
        (403, "device_blocked"),
        (401, "session_ended"),
        (401, "session_ended"),
    ]
    assert {answer.body for answer in answers} == {b""}


async def test_a_challenge_lets_nobody_pass_until_it_is_settled(tenant):
    """The rule's code, whether a person or a script asks, and the way is free where it was; a person is sent to the page."""
    await tenant.rule("network_limit", "challenge", max=1, window_s=3600, unit="ip")
    login = await tenant.login()
    home = await ask(tenant, Cookie=cookies(login))

    away = [
        await ask(tenant, dialect, Cookie=cookies(login), X_Forwarded_For="198.51.100.8", Accept=accept)
        for dialect in ("nginx", "caddy")
        for accept in (PAGE, "*/*")
    ]
    back = await ask(tenant, Cookie=cookies(login))

    assert [home.status, back.status] == [204, 204]
    assert [each.status for each in away] == [403, 403, 302, 403]
    assert {each.headers["AccessGuard-Reason"] for each in away} == {"network_limit"}


async def test_a_browser_is_sent_to_the_page_that_says_why_and_a_script_is_told(tenant):
    """The student's page, with what the school wrote escaped, or a problem document; nothing that may be kept."""
    login = await tenant.login()
    rule = {"kind": "ip_deny", "mode": "enforce", "params": {"networks": [LAPTOP]}, "message": "<b>no</b>"}
    await tenant.call("POST", "/v1/rules", rule, role="administrator")

    sent = await ask(tenant, "traefik", Cookie=cookies(login), Accept=PAGE)
    told = await ask(tenant, "caddy", Cookie=cookies(login), Accept="application/json")
    silent = await ask(tenant, Cookie=cookies(login), Accept=PAGE)

    assert (sent.status, told.status, silent.status) == (302, 403, 403)
    there = sent.headers["Location"].removeprefix("https://guard.example")
    async with tenant.service.http.get(tenant.service.url + there) as page:
        assert "&lt;b&gt;no" in await page.text()
    assert silent.headers["Location"].startswith("https://guard.example/restricted?t=")
    assert msgspec.json.decode(told.body)["detail"] == "<b>no</b>"
    assert {answer.headers["Cache-Control"] for answer in (sent, told)} == {"no-store"}


def test_a_browser_that_cannot_be_sent_anywhere_is_told_on_the_spot():
    """A page of one sentence, with what the school wrote escaped, where the service is not reached by browsers."""
    say = Told(
        method="GET",
        target="/",
        host="",
        ip="",
        cookies="",
        user_agent="",
        accept=PAGE,
        authorization="",
        languages=None,
    )

    page = refusing(Dialect.TRAEFIK, say, Refusal(status=403, reason="ip_denied", detail="<b>no</b>"))

    assert (page.status, "&lt;b&gt;no" in (page.text or "")) == (403, True)
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("target", "back"),
    [
        ("/courses/1?a=b&c=%C3%A9", "/courses/1%3Fa%3Db%26c%3D%25C3%25A9"),
        ("//evil.example/x", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example/", "/"),
    ],
)
async def test_a_browser_is_sent_to_log_in_and_never_anywhere_else(tenant, target, back):
    """With the path it came for, as far as that is one of the same host; nginx gets the address for its `error_page`."""
    await settings(tenant, login_url="https://school.example/login?next={return_to}")
    await tenant.login()
    await tenant.check("nobody")

    there = await ask(tenant, "traefik", Accept=PAGE, X_Forwarded_Uri=target)
    nginx = await ask(tenant, "nginx", Accept=PAGE, X_Original_URI=target)
    script = await ask(tenant, "traefik", Accept="*/*", X_Forwarded_Uri=target)

    assert (there.status, nginx.status, script.status) == (302, 401, 401)
    assert there.headers["Location"] == nginx.headers["Location"] == f"https://school.example/login?next={back}"
    assert "Location" not in script.headers


@pytest.mark.parametrize(
    ("proxy", "pointer"),
    [
        pytest.param({"login_url": "//evil.example"}, "/proxy/login_url", id="another host"),
        pytest.param({"login_url": "javascript:alert(1)"}, "/proxy/login_url", id="a script"),
        pytest.param({"login_url": "https://a@b.example/"}, "/proxy/login_url", id="a host in disguise"),
        pytest.param({"identity": "jwt"}, "/proxy/jwt", id="a token of no keys"),
        pytest.param({"jwt": {"keys": [{"kty": "oct", "k": "AA"}]}}, "/proxy/jwt/keys/0", id="a secret"),
        pytest.param({"jwt": {"keys": [{"kty": "RSA"}]}}, "/proxy/jwt/keys/0", id="no key"),
        pytest.param({"polling": ["/a/**/b"]}, "/proxy/polling/0", id="a rest in the middle"),
        pytest.param(
            {"activities": [{"path": "/c/{id}", "kind": "course_open", "product": "x"}]},
            "/proxy/activities/0/product",
            id="no such place",
        ),
    ],
)
async def test_settings_that_could_not_be_used_are_refused(tenant, proxy, pointer):
    """With a pointer to what is wrong."""
    answer = await tenant.call("PUT", "/v1/settings", {"proxy": proxy}, role="administrator")

    assert answer.status == 400
    assert answer["errors"][0]["pointer"] == pointer


async def test_paths_become_activity_and_polling_does_not(tenant):
    """The kind, the resource and the product of a path, however it is written; a poll moves nothing."""
    await settings(
        tenant,
        activities=[
            {"path": "/courses/{id}", "kind": "course_open", "resource": "course:{id}", "product": "id"},
            {"path": "/courses/*/**", "kind": "lesson_open"},
        ],
        polling=["/courses/*/unread"],
    )
    login = await tenant.login()
    seen = []

    for target in ("/courses/7/unread", "/courses/%F0%9F%93%9A%2F1?x=/y", "/about"):
        await ask(tenant, "caddy", Cookie=cookies(login), X_Forwarded_Uri=target, X_Forwarded_Method="GET")
        await tenant.service.context.activity.flush()
        seen.append([(each["kind"], each["resource"], each["product_id"]) for each in (await _activity(tenant))])

    assert seen == [[], [("course_open", "course:📚/1", "📚/1")], [("course_open", "course:📚/1", "📚/1")]]


async def _activity(tenant: Tenant) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await tenant.see("/v1/members/ana/activity"))["items"]
    return items


async def test_the_address_is_what_a_trusted_proxy_says_and_nothing_else(tenant, configured):
    """The nearest hop that is not trusted; a browser's own words in front of it, and in other headers, count for nothing."""
    login = await tenant.login()
    await tenant.rule("ip_deny", networks=["198.51.100.7"])
    forged: dict[str, Any] = {
        "X_Forwarded_For": f"198.51.100.7, {LAPTOP}",
        "X_Real_IP": "198.51.100.7",
        "Forwarded": "for=198.51.100.7",
    }

    lied = await ask(tenant, Cookie=cookies(login), **forged)
    there = await ask(tenant, Cookie=cookies(login), X_Forwarded_For="198.51.100.7")
    alone = await ask(tenant, Cookie=cookies(login), X_Forwarded_For="198.51.100.7", AccessGuard_Token=None)
    envoy = await ask(tenant, "envoy", Cookie=cookies(login), X_Envoy_External_Address="198.51.100.7")
    other = await ask(tenant, "envoy", Cookie=cookies(login), X_Forwarded_For="198.51.100.7")

    assert [each.status for each in (lied, there, alone, envoy, other)] == [204, 403, 204, 403, 200]


@pytest.mark.parametrize("name", ["a/b%2F c", "имя 学生", "🙂\u202e", 'q"\\,;', "x" * 128, "é\u0301"])
async def test_any_id_travels_in_a_header(tenant, name):
    """Percent-encoded UTF-8: decoded once, it is the id again."""
    from urllib.parse import unquote

    login = await tenant.login(name, session_id=f"{name[:100]}-s")

    answer = await ask(tenant, Cookie=cookies(login))

    assert answer.status == 204
    assert unquote(identity(answer)["Member"], errors="strict") == name
    assert unquote(identity(answer)["Session"], errors="strict") == f"{name[:100]}-s"
    assert identity(answer)["Member"].isascii()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"role": "supervisor"}, id="an operator's"),
        pytest.param({"exp": 1}, id="over"),
    ],
)
async def test_a_proxys_token_that_is_none_opens_nothing(tenant, said):
    """403, whatever the cookie: somebody has to look at the configuration."""
    login = await tenant.login()
    shown = token(tenant.name, said.get("role", "platform"), **{"exp": said["exp"]} if "exp" in said else {})

    answer = await ask(tenant, Cookie=cookies(login), AccessGuard_Token=shown)

    assert (answer.status, answer.headers["AccessGuard-Reason"]) == (403, "unknown_proxy")


def platform_token(**claims: Any) -> str:
    """A token of the platform's own."""
    said = {"iss": "school", "aud": "app", "sub": "ana", "sid": "s-1", "exp": int(time.time()) + 600} | claims
    kept = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(kept, claims.pop("key", KEY), algorithm="ES256", headers={"kid": "k1"})


async def test_the_platforms_own_token_names_the_session(tenant):
    """With the key, algorithm, issuer and audience of the settings, and for the session's own member alone."""
    said = {"keys": [JWK], "algorithms": ["ES256"], "issuer": "school", "audience": "app"}
    await settings(tenant, identity="jwt", jwt=said)
    login = await tenant.login(session_id="s-1")
    none = jwt.encode({"sub": "ana", "sid": "s-1", "exp": 1 << 33}, "", algorithm="none")
    public = jwt.encode({"sub": "ana", "sid": "s-1", "exp": 1 << 33}, JWK["x"] * 2, algorithm="HS256")
    bad = [
        platform_token(iss="other"),
        platform_token(aud="other"),
        platform_token(exp=1),
        platform_token(exp=None),
        platform_token(nbf=1 << 33),
        platform_token(sub="ben"),
        platform_token(sid=None),
        platform_token(sid="nobody"),
        platform_token()[:-4] + "AAAA",
        none,
        public,
        "x",
    ]

    good = [await ask(tenant, dialect, Authorization=f"Bearer {platform_token()}") for dialect in ("nginx", "envoy")]
    refused = [await ask(tenant, Authorization=f"Bearer {each}") for each in bad]
    cookie = await ask(tenant, Cookie=cookies(login))

    assert [(each.status, identity(each)["Member"]) for each in good] == [(204, "ana"), (200, "ana")]
    assert [each.status for each in refused] == [401] * len(bad)
    assert cookie.status == 401
