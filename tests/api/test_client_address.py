"""One way of reading an address, wherever one comes in."""

from __future__ import annotations

import ast
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientSession, UnixConnector, web

import accessguard
from accessguard.api.context import Context
from accessguard.app import service as application
from accessguard.rules.networks import networks
from tests.service import Service, Tenant, items, token

CLIENT = "203.0.113.9"
FORMS = [
    pytest.param("203.0.113.9", id="plain"),
    pytest.param("203.0.113.9:52114", id="port"),
    pytest.param("::ffff:203.0.113.9", id="mapped"),
    pytest.param("[::ffff:203.0.113.9]:52114", id="mapped, brackets, port"),
    pytest.param(" 203.0.113.9\t", id="space around it"),
]
NOT_ONE = [
    pytest.param("", id="empty"),
    pytest.param("unknown", id="a word"),
    pytest.param("203.0.113.9, 10.0.0.1", id="a chain, which is the platform's to read"),
    pytest.param("010.0.0.1", id="a leading zero, octal to some"),
    pytest.param("3405803785", id="a number"),
    pytest.param("203.0.113.9/32", id="a network"),
    pytest.param("fe80::1%eth0%eth1", id="two zones"),
]
# Of the service; the client is the platform's side.
SOURCES = sorted(each for each in Path(accessguard.__file__).parent.rglob("*.py") if "client" not in each.parent.parts)


@pytest.fixture
def trust(service: Service) -> Iterator[Callable[..., None]]:
    """Let the worker trust networks, or its Unix socket, until the test ends."""
    context = service.context
    before = (context.trusted, context.trust_unix)

    def trusted(*texts: str, unix: bool = False) -> None:
        msgspec.structs.force_setattr(context, "trusted", networks(texts))
        msgspec.structs.force_setattr(context, "trust_unix", unix)

    yield trusted
    msgspec.structs.force_setattr(context, "trusted", before[0])
    msgspec.structs.force_setattr(context, "trust_unix", before[1])


async def locks_out(tenant: Tenant, denied: str = CLIENT, **headers: str) -> bool:
    """Whether the service takes whoever saves a rule against this address to come from there."""
    body = {"kind": "ip_deny", "mode": "enforce", "params": {"networks": [denied]}}
    answer = await tenant.call("POST", "/v1/rules", body, role="administrator", headers=headers)
    assert answer.status in {201, 409}, answer.body
    return answer.status == 409


@pytest.mark.parametrize("text", FORMS)
async def test_logins_and_checks_read_an_address_in_every_form(tenant: Tenant, text):
    """The rule, the access log, the cases and the look-up all know it as one."""
    login = await tenant.login(ip=text)
    rule = await tenant.rule("ip_deny", networks=[CLIENT])

    check, again = await tenant.check(login, ip=text), await tenant.login("ben", ip=text)

    assert {each["reason"]["code"] for each in (check, again)} == {"ip_denied"}
    assert {each["reason"]["rule_id"] for each in (check, again)} == {rule["id"]}
    assert {each["ip"] for each in items(await tenant.see("/v1/members/ana/logins"))} == {CLIENT}
    assert {each["ip"] for each in items(await tenant.see("/v1/violations"))} == {CLIENT}
    assert (await tenant.see(f"/v1/addresses/{CLIENT}"))["ip"] == CLIENT


@pytest.mark.parametrize("text", NOT_ONE)
async def test_what_is_no_address_is_unknown_and_rules_on_addresses_say_so(tenant: Tenant, text):
    """Nobody is refused for it, nothing is guessed, and the answer is degraded."""
    await tenant.rule("ip_deny", networks=["203.0.113.0/24", "8.0.0.0/7", "10.0.0.0/8", "fe80::/10"])

    login = await tenant.login(ip=text)
    check = await tenant.check(login, ip=text)

    assert [(each["decision"], each["degraded"]) for each in (login, check)] == [("allow", True)] * 2
    assert [each["ip"] for each in items(await tenant.see("/v1/members/ana/logins"))] == [None]


async def test_an_unknown_address_is_no_matter_to_rules_on_something_else(tenant: Tenant):
    """They see all that they look at."""
    await tenant.rule("session_limit", max=2)

    login = await tenant.login(ip="unknown")

    assert not login["degraded"]
    assert not (await tenant.check(login, ip="unknown"))["degraded"]


async def test_a_forwarded_chain_counts_from_a_trusted_peer_alone(tenant: Tenant, trust):
    """Without a list of networks no header does, whoever sends it."""
    before = await locks_out(tenant, **{"X-Forwarded-For": CLIENT})
    trust("127.0.0.1", "10.0.0.0/8")

    assert not before
    assert await locks_out(tenant, **{"X-Forwarded-For": f"198.51.100.7, {CLIENT}, 10.0.0.2"})
    assert await locks_out(tenant, Forwarded=f'for=198.51.100.7, for="{CLIENT}:443"')


@pytest.mark.parametrize("hops", range(5))
async def test_a_chain_may_be_of_any_length(tenant: Tenant, trust, hops):
    """On Kubernetes it varies from request to request, so that networks are trusted and hops are not counted."""
    trust("127.0.0.1", "10.0.0.0/8")
    chain = ", ".join([CLIENT, *(f"10.0.0.{hop}" for hop in range(hops))])

    assert await locks_out(tenant, **{"X-Forwarded-For": chain})


@pytest.mark.parametrize(
    "name",
    [
        "X-Real-IP",
        "X-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Envoy-External-Address",
        "X_Forwarded_For",
        "X-Forwarded",
        "Client-IP",
    ],
)
async def test_no_other_header_is_read(tenant: Tenant, trust, name):
    """A proxy that appends to one header lets the client's own others through, and some make of "_" a "-"."""
    trust("127.0.0.1")

    assert not await locks_out(tenant, **{name: CLIENT})
    assert await locks_out(tenant, **{name: "198.51.100.7", "X-Forwarded-For": CLIENT})


async def test_two_headers_that_disagree_are_nobodys_address(tenant: Tenant, trust):
    """One of them is the client's own."""
    trust("127.0.0.1")

    assert not await locks_out(tenant, **{"X-Forwarded-For": CLIENT, "Forwarded": "for=198.51.100.7"})


@contextlib.asynccontextmanager
async def listening(context: Context, site: Callable[[web.AppRunner], web.BaseSite]) -> AsyncIterator[web.BaseSite]:
    """The application on a site of its own."""
    runner = web.AppRunner(application(context, body_limit_bytes=1_048_576), access_log=None)
    await runner.setup()
    try:
        made = site(runner)
        await made.start()
        yield made
    finally:
        await runner.cleanup()


async def saved(tenant: Tenant, http: ClientSession, url: str, denied: str, **headers: str) -> int:
    """The status of saving a rule against an address by another way to the service."""
    body = {"kind": "ip_deny", "mode": "enforce", "params": {"networks": [denied]}}
    bearer = {"Authorization": f"Bearer {token(tenant.name, 'administrator')}"}
    async with http.post(f"{url}/v1/rules", json=body, headers=bearer | headers) as response:
        return response.status


async def test_a_peer_on_ipv6_is_read(tenant: Tenant):
    """Its socket names it in four parts instead of two."""
    await tenant.login()
    async with listening(tenant.service.context, lambda runner: web.TCPSite(runner, "::1", 0)) as site:
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        async with ClientSession() as http:
            found = [await saved(tenant, http, f"http://[::1]:{port}", denied) for denied in ("::1", "::2")]

    assert found == [409, 201]


@pytest.mark.parametrize(("trusted", "status"), [(True, 409), (False, 201)])
async def test_a_unix_socket_is_a_proxy_where_the_configuration_says_so(
    tenant: Tenant, trust, tmp_path, trusted, status
):
    """Its peer has no address: trusted, the chain tells; else nobody knows."""
    await tenant.login()
    trust(unix=trusted)
    path = str(tmp_path / "ag.sock")
    async with (
        listening(tenant.service.context, lambda runner: web.UnixSite(runner, path)),
        ClientSession(connector=UnixConnector(path)) as http,
    ):
        found = await saved(tenant, http, "http://localhost", CLIENT, **{"X-Forwarded-For": CLIENT})

    assert found == status


@functools.cache
def names(source: Path) -> set[str]:
    """The names, attributes, modules and texts in a source."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.ImportFrom(module=str(name)):
                found.add(name)
            case ast.Import(names=aliases):
                found.update(alias.name for alias in aliases)
            case ast.Constant(value=str(name)):
                found.add(name.lower())
    return found


@pytest.mark.parametrize(
    ("words", "rooms"),
    [
        # Of receivers of webhooks, where they may be and where they are; where the admin port listens; the network of an
        # address that was read already.
        pytest.param(
            {"ip_address", "ip_network", "inet_pton", "inet_aton"},
            {"config.py", "events/sender.py", "doctor/local.py", "api/addresses.py"},
            id="another parser",
        ),
        pytest.param(
            {"remote", "x-forwarded-for"},
            {"api/context.py", "api/forwarded.py", "api/proxy.py", "api/authzen.py", "api/certified.py"},
            id="the peer and its headers",
        ),
        pytest.param({"client_address"}, {"api/context.py", "api/forwarded.py"}, id="the resolver"),
        pytest.param({"x-real-ip", "true-client-ip", "cf-connecting-ip"}, set(), id="headers of others"),
    ],
)
def test_addresses_are_read_in_one_place(words, rooms):
    """A second reader, or something that rewrites the peer before it is read, would disagree with the first one day."""
    root = Path(accessguard.__file__).parent

    found = {str(source.relative_to(root)) for source in SOURCES if names(source) & words}

    assert found == rooms
