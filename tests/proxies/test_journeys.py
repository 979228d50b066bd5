"""Requests through real proxies, set up by the files that users copy."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator

import pytest
from aiohttp import WSServerHandshakeError

from tests.proxies.stage import STARTS, Proxy, found, platform, proxied
from tests.proxies.test_auth import PAGE, cookies, settings
from tests.service import Answer, Service, Tenant

pytestmark = pytest.mark.slow

NAMES = [
    pytest.param(name, marks=pytest.mark.skipif(found(name) is None, reason=f"there is no {name} here"))
    for name in STARTS
]
FORGED = {
    "AccessGuard_Member": "root",
    "AccessGuard__Member": "root",
    "AccessGuard_Exempt": "true",
    "accessguard__exempt": "true",
    "AccessGuard_Tenant": "other",
    "AccessGuard_Token": "forged",
    "X_Forwarded_For": "198.51.100.7",
    "X__Forwarded__For": "198.51.100.7",
    "Forwarded": "for=198.51.100.7",
    "X_Forwarded_Host": "198.51.100.7",
    "X_Envoy_External_Address": "198.51.100.7",
    "X_Original_URI": "/courses/9",
    "X_Forwarded_Uri": "/courses/9",
}


@pytest.fixture(scope="module")
async def tenant(service: Service) -> Tenant:
    """A tenant whose paths are activities, and who has one address that is denied."""
    tenant = service.tenant()
    await tenant.login()
    await settings(
        tenant,
        login_url="https://school.example/login?next={return_to}",
        activities=[{"path": "/courses/{id}", "kind": "course_open", "resource": "course:{id}"}],
    )
    await tenant.rule("ip_deny", networks=["198.51.100.7"])
    return tenant


@pytest.fixture(scope="module")
async def login(tenant: Tenant) -> Answer:
    """A student's session."""
    return await tenant.login("ana/ü 学", session_id="s%2F1")


@pytest.fixture(scope="module")
async def barred(tenant: Tenant) -> Answer:
    """The session of a student who may not be where these tests are."""
    await tenant.call("PUT", "/v1/members/max", {"tags": ["office"]})
    rule = {
        "kind": "ip_deny",
        "mode": "enforce",
        "params": {"networks": ["127.0.0.0/8", "::1"]},
        "applies_to": {"tags": ["office"]},
        "message": "Learn from your office.",
        "confirm_lockout": True,
    }
    made = await tenant.call("POST", "/v1/rules", rule, role="administrator")
    assert made.status == 201, made.body
    return await tenant.login("max")


@pytest.fixture(scope="module", params=NAMES)
async def proxy(
    request: pytest.FixtureRequest, tenant: Tenant, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Proxy]:
    """Each proxy in turn, with a platform behind it."""
    name = request.param
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(platform())
        folder = tmp_path_factory.mktemp("proxy") / name
        program = found(name)
        assert program is not None
        yield await stack.enter_async_context(proxied(name, program, tenant, port, folder))


async def test_a_session_passes_and_the_platform_is_told_whose_it_is(proxy, tenant, login):
    """Once each, whatever the browser claims in any spelling; its path counts, forged addresses and paths do not."""
    for forged in ({}, FORGED):
        seen = await proxy.get("/courses/42?a=b", Cookie=cookies(login), **forged)

        told = [
            (name.replace("_", "-"), value) for name, value in seen.told["headers"] if name.startswith("accessguard")
        ]
        assert seen.status == 200
        assert not any("198.51.100.7" in value for name, value in seen.told["headers"] if "forwarded" in name)
        assert sorted(told) == [
            ("accessguard-device", login["device"]["id"]),
            ("accessguard-exempt", "false"),
            ("accessguard-member", "ana/%C3%BC%20%E5%AD%A6"),
            ("accessguard-session", "s%252F1"),
            ("accessguard-tenant", tenant.name),
        ]

    await tenant.service.context.activity.flush()
    kept = (await tenant.see("/v1/members/ana%2F%C3%BC%20%E5%AD%A6/activity"))["items"]
    assert {each["resource"] for each in kept} == {"course:42"}


async def test_without_a_session_the_platform_is_not_asked(proxy):
    """A script is told the reason; a browser is sent to log in, and comes back to where it was."""
    script = await proxy.get("/courses/1", Accept="*/*", **FORGED)
    browser = await proxy.get("/courses/1?a=b", Accept=PAGE)

    assert (script.status, script.headers["AccessGuard-Reason"], script.told) == (401, "no_session", None)
    assert (browser.status, browser.told) == (302, None)
    assert browser.headers["Location"] == "https://school.example/login?next=/courses/1%3Fa%3Db"


async def test_each_kind_of_denial_reaches_the_browser(proxy, tenant):
    """A blocked device is 403, an ended session 401, both with their reasons, from one request to the next."""
    blocked, ended = await tenant.login("ben"), await tenant.login("eva")
    before = [await proxy.get("/", Cookie=cookies(one), Accept="*/*") for one in (blocked, ended)]

    await tenant.device("ben", blocked["device"]["id"], access="blocked")
    await tenant.call("POST", f"/v1/sessions/{ended['session']['id']}/end", {"reason": "logout"})
    after = [await proxy.get("/", Cookie=cookies(one), Accept="*/*") for one in (blocked, ended)]
    await tenant.device("ben", blocked["device"]["id"], access="default")

    assert [seen.status for seen in before] == [200, 200]
    assert [(seen.status, seen.headers["AccessGuard-Reason"], seen.told) for seen in after] == [
        (403, "device_blocked", None),
        (401, "session_ended", None),
    ]


async def test_a_rule_shows_a_browser_why_and_a_script_the_reason(proxy, tenant, barred):
    """The browser is sent to the student's page, and the platform asked by neither."""
    browser = await proxy.get("/", Cookie=cookies(barred), Accept=PAGE)
    script = await proxy.get("/", Cookie=cookies(barred), Accept="*/*")

    assert [(seen.status, seen.headers["AccessGuard-Reason"], seen.told) for seen in (browser, script)] == [
        (302, "ip_denied", None),
        (403, "ip_denied", None),
    ]
    assert "/restricted?t=" in browser.headers["Location"]


async def test_an_upload_goes_to_the_platform_and_never_to_the_service(proxy, login):
    """A megabyte, of which the service hears the head alone."""
    before = proxy.wire.heard

    seen = await proxy.get("/upload", method="POST", data=b"x" * 1_048_576, Cookie=cookies(login))

    assert (seen.status, seen.told["size"]) == (200, 1_048_576)
    assert 0 < proxy.wire.heard - before < 20_000


async def test_a_refused_upload_is_refused(proxy):
    """Without a session nobody reads it."""
    seen = await proxy.get("/upload", method="POST", data=b"x" * 1_000, Accept="*/*")

    assert (seen.status, seen.told) == (401, None)


async def test_a_websocket_opens_for_a_session_alone(proxy, login):
    """The question comes before the upgrade, which reaches the platform."""
    async with proxy.http.ws_connect(proxy.url + "/ws", headers={"Cookie": cookies(login)}) as socket:
        await socket.send_str("hello")
        heard = await socket.receive_str()
    with pytest.raises(WSServerHandshakeError) as refused:
        await proxy.http.ws_connect(proxy.url + "/ws", headers={"Accept": "*/*"})

    assert heard == "hello"
    assert refused.value.status == 401


@pytest.mark.skipif(found("curl") is None, reason="there is no curl here")
async def test_http_2_passes_like_any_other(proxy, login):
    """With a browser's cookies in lines of their own, as HTTP/2 sends them."""
    version = "--http2-prior-knowledge" if proxy.url.startswith("http:") else "--http2"
    first, *rest = cookies(login).split("; ")
    command = [found("curl") or "curl", "-sk", version, "-o", "/dev/null", "-w", "%{http_version} %{http_code}"]
    pairs = [argument for pair in (first, *rest) for argument in ("-H", f"Cookie: {pair}")]

    answer = await asyncio.to_thread(subprocess.run, [*command, *pairs, proxy.url], capture_output=True, check=False)

    assert answer.stdout == b"2 200"


async def test_connections_to_the_service_are_kept(proxy, login):
    """Eighty requests, eight at once, open a few; Traefik keeps two and no more, and HAProxy's script opens one for each."""
    before = proxy.wire.opened

    for _ in range(10):
        seen = await asyncio.gather(*(proxy.get("/", Cookie=cookies(login)) for _ in range(8)))
        assert {each.status for each in seen} == {200}

    assert proxy.wire.opened - before <= {"haproxy": 80, "traefik": 80}.get(proxy.name, 20)


@pytest.mark.parametrize("mode", ["cut", "slow", "failing", "broken"])
async def test_a_service_that_is_away_closes_the_way_and_says_so(proxy, login, mode):
    """A server's error, with 503 wherever the proxy can, never 401, so that nobody logs in again; open as soon as it is back."""
    if (proxy.name, mode) == ("traefik", "slow"):
        pytest.skip("Traefik waits for half a minute, which nobody can change")
    proxy.wire.become(mode)
    try:
        seen = await proxy.get("/", Cookie=cookies(login), Accept="*/*")
    finally:
        proxy.wire.become("through")
    again = await proxy.get("/", Cookie=cookies(login))

    passed_on = (mode == "broken" and proxy.name in {"caddy", "traefik"}) or (proxy.name, mode) == ("traefik", "cut")
    assert (seen.status, seen.told) == (500 if passed_on else 503, None)
    assert again.status == 200
