"""Callers whose genuine tokens are refused: revoked on every worker and both lanes, restored, and on the record."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import msgspec
import pytest
from aiohttp import web
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from accessguard.__main__ import main
from accessguard.api.jwks import URL, JwksUrl
from accessguard.api.keys import Keyring
from accessguard.config import Certificates as ConfigOfCertificates
from accessguard.config import CertifiedCaller, Config, ConfigError, Tokens, check_certificates, check_source
from accessguard.credentials import certificates, hook_keys, key_files, keyring_of
from accessguard.devices.cookie import DeviceKey, DeviceTokens
from accessguard.errors import GuardError
from accessguard.events import revocations
from accessguard.guard.refused import RefusedPages
from accessguard.sessions.token import SessionKey, SessionTokens
from accessguard.signing import SigningKey
from tests.service import LAPTOP, SECRET, Service, Tenant, items, listening, running, token


@pytest.fixture(scope="module")
async def other(service: Service, database_url: str, redis_url: str) -> AsyncIterator[Service]:
    """A second worker on the same stores."""
    async with running(database_url, redis_url) as worker:
        yield worker


async def until(holds: Callable[[], Awaitable[bool]], within_s: float = 5.0) -> bool:
    """Whether it comes to hold in that time; the promise of 5 s is what is tested."""
    end = time.monotonic() + within_s
    while not await holds():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True


def fixed(tenant: Tenant, role: str = "platform", **claims: Any) -> str:
    """A token that was issued a minute ago."""
    return token(tenant.name, role, f"{role}@{tenant.name}", iat=int(time.time()) - 60, **claims)


async def asked(lines: Any, url: str, session: str, shown: str, trace: str | None = None) -> int:
    """The status of one check; with a `trace` its head is like no other."""
    body = json.dumps({"session_id": session, "ip": LAPTOP}).encode()
    extra = "" if trace is None else f"X-Trace: {trace}\r\n"
    head = f"POST /v1/check HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {shown}\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    reader, writer = lines.get(url) or await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    lines[url] = reader, writer
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return int(answer.split(b" ")[1])


@pytest.fixture
async def lines() -> AsyncIterator[dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    """One connection to each place, so that the same connection's memory is asked again."""
    made: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
    yield made
    for _, writer in made.values():
        writer.close()
        await writer.wait_closed()


async def revoke(tenant: Tenant, **said: Any) -> str:
    """What an administrator revokes; its id."""
    answer = await tenant.call("POST", "/v1/revocations", said, role="administrator")
    assert answer.status == 201, answer.body
    return str(answer["id"])


@pytest.mark.parametrize("varying", [False, True], ids=["constant heads", "varying heads"])
async def test_a_revoked_token_is_refused_by_every_worker_on_both_lanes(service, other, tenant, lines, varying):
    """Heads, verdicts and connections that were remembered know the caller no more; another token of it goes on."""
    login = await tenant.login()
    session, shown = login["session"]["id"], fixed(tenant, jti="lost")
    places = (service.url, service.plain_url, other.url, other.plain_url)

    async def statuses(text: str) -> set[int]:
        return {await asked(lines, each, session, text, str(time.time_ns()) if varying else None) for each in places}

    before = [await statuses(shown) for _ in range(4)]
    await revoke(tenant, token_id="lost", reason="left in a log")

    async def refused() -> bool:
        return await statuses(shown) == {401}

    assert before == [{200}] * 4
    assert await asked(lines, service.url, session, shown) == 401, "where it was revoked it holds with the answer"
    assert await until(refused)
    assert await statuses(fixed(tenant, jti="another")) == {200}


async def test_a_caller_loses_all_it_was_given_and_nothing_that_it_is_given_afterwards(tenant):
    """By `iat`; a token that does not say when it was issued counts as one of before."""
    subject, now = f"administrator@{tenant.name}", int(time.time())
    await revoke(tenant, caller=subject)

    async def status(**claims: Any) -> int:
        headers = {"Authorization": f"Bearer {token(tenant.name, 'administrator', subject, **claims)}"}
        return int((await tenant.call("GET", "/v1/rules", headers=headers)).status)

    assert await status() == 401
    assert await status(iat=now - 60) == 401
    assert await status(iat=now + 2) == 200
    assert (await tenant.call("GET", "/v1/rules", role="administrator", subject="somebody else")).status == 200


async def test_what_one_tenant_revokes_is_another_ones_token_still(service, tenant):
    """Ids of tokens and callers are the issuer's words; they mean nothing in another tenant."""
    foreign = service.tenant()
    await foreign.login()

    await revoke(tenant, token_id="same")
    await revoke(tenant, caller=f"platform@{foreign.name}")

    headers = {"Authorization": f"Bearer {fixed(foreign, jti='same')}"}
    assert (await foreign.call("POST", "/v1/check", {"session_id": "s", "ip": LAPTOP}, headers=headers)).status == 200


async def test_a_revocation_is_listed_lifted_and_on_the_record(tenant):
    """Whoever revokes is named, and so is who restores; a foreign tenant finds nothing to lift."""
    made = await revoke(tenant, token_id="x\u202e/%=1+1", reason="=cmd()")
    foreign = tenant.service.tenant()

    stolen = await foreign.call("DELETE", f"/v1/revocations/{made}", role="administrator")
    listed = list(items(await tenant.call("GET", "/v1/revocations", role="administrator")))
    lifted = await tenant.call("DELETE", f"/v1/revocations/{made}?reason=found", role="administrator")
    again = await tenant.call("DELETE", f"/v1/revocations/{made}", role="administrator")
    log = list(items(await tenant.call("GET", "/v1/audit", role="administrator")))

    assert (stolen.status, lifted.status, again.status) == (404, 204, 404)
    assert [(each["kind"], each["name"], each["tenant"]) for each in listed] == [
        ("token", "x\u202e/%=1+1", tenant.name)
    ]
    assert [(each["action"], each["reason"]) for each in log] == [
        ("token.restore", "found"),
        ("token.revoke", "=cmd()"),
    ]


async def test_a_token_for_all_tenants_is_revoked_by_one_of_its_kind_alone(service, tenant):
    """An administrator of one tenant cannot shut out those who look after all of them."""
    await tenant.login()
    everywhere = Tenant(service, "*")
    shown = {"Authorization": f"Bearer {fixed(everywhere, 'root', jti='of-root')}", "AccessGuard-Tenant": tenant.name}

    await revoke(tenant, token_id="of-root")
    still = (await tenant.call("GET", "/v1/rules", headers=shown)).status
    made = await everywhere.call(
        "POST", "/v1/revocations", {"token_id": "of-root"}, role="root", subject="another root"
    )
    gone = (await tenant.call("GET", "/v1/rules", headers=shown)).status

    assert (still, made.status, made["tenant"], gone) == (200, 201, "*", 401)


async def test_whoever_signed_in_to_the_console_with_a_revoked_token_is_signed_out(tenant):
    """The session in the browser rests on the token."""
    await tenant.login()
    shown = fixed(tenant, "supervisor", jti="pasted")
    http, url = tenant.service.http, tenant.service.url
    async with http.post(f"{url}/console/sign-in", data={"token": shown}, allow_redirects=False) as response:
        cookie = {"Cookie": f"__Host-ag_console={response.cookies['__Host-ag_console'].value}"}

    async def home() -> int:
        async with http.get(f"{url}/console/account", headers=cookie, allow_redirects=False) as answer:
            return int(answer.status)

    before = await home()
    await revoke(tenant, token_id="pasted")

    assert (before, await home()) == (200, 303)


async def test_a_retry_revokes_once_and_a_body_that_names_nobody_or_two_is_refused(tenant):
    """`Idempotency-Key` as everywhere; neither or both of the two is no revocation."""
    key = {"Idempotency-Key": "once"}
    first, second = [
        await tenant.call("POST", "/v1/revocations", {"token_id": "t"}, role="administrator", headers=key) for _ in "12"
    ]
    wrong = [
        await tenant.call("POST", "/v1/revocations", said, role="administrator")
        for said in ({}, {"token_id": "a", "caller": "b"}, {"token_id": ""}, {"token_id": "x" * 256})
    ]

    assert first.body == second.body
    assert [each.status for each in wrong] == [400] * 4


async def test_a_worker_that_starts_later_knows_what_was_revoked_before(service, tenant, database_url, redis_url):
    """It reads all there is before it answers anybody; what was lifted is not among it."""
    await tenant.login()
    await revoke(tenant, token_id="early")
    lifted = await revoke(tenant, token_id="lifted")
    await tenant.call("DELETE", f"/v1/revocations/{lifted}", role="administrator")

    async with running(database_url, redis_url) as late:
        statuses = []
        for name in ("early", "lifted"):
            headers = {"Authorization": f"Bearer {fixed(tenant, jti=name)}"}
            async with late.http.post(
                f"{late.url}/v1/check", json={"session_id": "s", "ip": LAPTOP}, headers=headers
            ) as answer:
                statuses.append(answer.status)

    assert statuses == [401, 200]


async def test_the_command_line_revokes_lists_and_lifts(tenant, monkeypatch):
    """As an operator at a terminal does in a hurry."""
    await tenant.login()
    monkeypatch.setenv("ACCESSGUARD_TOKEN_SECRETS", SECRET)
    ours = ("revoke", "--url", tenant.service.url, "--tenant", tenant.name)

    def run(*words: str) -> str:
        return CliRunner().invoke(main, [*ours, *words], catch_exceptions=False).output

    made = await asyncio.to_thread(run, "--token-id", "cli", "--reason", "\x1b[2Jgone")
    revocation_id = made.split("5 s: ")[1].split()[0]
    listed = await asyncio.to_thread(run, "--list")
    lifted = await asyncio.to_thread(run, "--lift", revocation_id)
    empty = await asyncio.to_thread(run, "--list")

    assert "cli" in made
    assert revocation_id in listed
    assert "\x1b" not in listed, "nothing of it moves the cursor"
    assert "Lifted" in lifted
    assert empty == ""


@pytest.mark.parametrize(
    ("networks", "sent", "status"),
    [
        pytest.param(["127.0.0.1/32"], ["CN=ours"], 200, id="from the proxy"),
        pytest.param(["10.9.9.9/32"], ["CN=ours"], 401, id="from elsewhere"),
        pytest.param(["127.0.0.1/32"], ["CN=theirs"], 401, id="nobody's"),
        pytest.param(["127.0.0.1/32"], ["cn=OURS"], 401, id="nearly the text"),
        pytest.param(["127.0.0.1/32"], ["CN=ours", "CN=ours"], 401, id="twice"),
        pytest.param(["127.0.0.1/32"], [], 401, id="none"),
    ],
)
async def test_a_certificate_counts_as_the_proxy_names_it_and_from_the_proxy_alone(tenant, networks, sent, status):
    """Also for a check, which the fast lane leaves to the other one then; a token that is shown counts instead."""
    await tenant.login()
    ours = CertifiedCaller(name="CN=ours", subject="platform-1", role="platform", tenant=tenant.name)
    said = ConfigOfCertificates(header="X-Client-Subject", networks=tuple(networks), callers=(ours,))
    context = msgspec.structs.replace(
        tenant.service.context, certificates=certificates(msgspec.structs.replace(Config(), certificates=said))
    )
    async with (
        listening(context) as (url, _),
        tenant.service.http.post(
            f"{url}/v1/check",
            json={"session_id": "s", "ip": LAPTOP},
            headers=[("X-Client-Subject", each) for each in sent],
        ) as answer,
    ):
        found = answer.status
    async with tenant.service.http.post(
        f"{tenant.service.url}/v1/check",
        json={"session_id": "s", "ip": LAPTOP},
        headers={"X-Client-Subject": "CN=ours"},
    ) as answer:
        switched_off = answer.status

    assert (found, switched_off) == (status, 401)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"networks": ()}, id="from nowhere"),
        pytest.param({"networks": ("0.0.0.0/0",)}, id="from everywhere"),
        pytest.param({"callers": ()}, id="nobody"),
        pytest.param({"header": "authorization"}, id="the token's header"),
    ],
)
def test_a_header_that_anybody_could_send_is_refused_at_the_start(said):
    """A mistake there lets everybody in as everybody."""
    ours = CertifiedCaller(name="CN=ours", subject="p", role="platform", tenant="t")
    good = ConfigOfCertificates(header="X-Client-Subject", networks=("10.0.0.1/32",), callers=(ours,))

    check_certificates(good)
    with pytest.raises(ConfigError):
        check_certificates(msgspec.structs.replace(good, **said))


class Source:
    """An identity provider: its keys, and what it does when it is asked."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.mode = "up"
        self.asked = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The set, or what is wrong with it."""
        self.asked += 1
        match self.mode:
            case "down":
                raise web.HTTPServiceUnavailable
            case "elsewhere":
                raise web.HTTPFound("/other.json")
            case "endless":
                response = web.StreamResponse()
                await response.prepare(request)
                with contextlib.suppress(ConnectionError):
                    while True:
                        await response.write(b" " * 65_536)
                return response
            case "nonsense":
                return web.Response(text="<html>")
        return web.json_response({"keys": self.keys})


@pytest.fixture
async def source() -> AsyncIterator[tuple[Source, str]]:
    """One that answers on a free port, and its address."""
    made, app = Source(), web.Application()
    app.router.add_get("/{any}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield made, f"http://127.0.0.1:{runner.addresses[0][1]}/jwks.json"
    await runner.cleanup()


class Trial:
    """A keyring that lives on published keys, and its source, with a clock of its own."""

    def __init__(self, url: str) -> None:
        self.now_s = 1_000.0
        self.ring = Keyring(
            secrets=(),
            jwks=None,
            algorithms=("RS256", "ES256", "EdDSA"),
            audience="accessguard",
            issuers=(),
            leeway_s=0,
            later=True,
        )
        self.jwks = JwksUrl(
            url, lambda found: self.ring.take_jwks(URL, found), max_age_s=3600, clock=lambda: self.now_s
        )
        self.ring.on_unknown = self.jwks.wanted

    def admits(self, kid: str, key: Any, algorithm: str = "ES256") -> bool:
        """Whether a token of that key is one of a caller's."""
        claims = {
            "iss": "i",
            "aud": "accessguard",
            "sub": "s",
            "role": "platform",
            "tenant": "t",
            "exp": 10_000_000_000,
        }
        try:
            self.ring.verify(jwt.encode(claims, key, algorithm, headers={"kid": kid}), now=time.time())
        except GuardError:
            return False
        return True


OLD, NEW = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


def public(key: ec.EllipticCurvePrivateKey, kid: str) -> dict[str, Any]:
    """Its public half as a JWK."""
    return {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid}


async def test_a_key_that_is_withdrawn_takes_every_token_with_it_that_it_signed(source):
    """Rotation by `kid`: the new one beside the old, then the old one gone, remembered tokens with it."""
    provider, url = source
    trial = Trial(url)

    provider.keys = [public(OLD, "old")]
    await trial.jwks.refresh()
    first = trial.admits("old", OLD), trial.admits("new", NEW)
    provider.keys = [public(OLD, "old"), public(NEW, "new")]
    await trial.jwks.refresh()
    both = trial.admits("old", OLD), trial.admits("new", NEW), trial.admits("old", NEW)
    provider.keys = [public(NEW, "new")]
    await trial.jwks.refresh()

    assert first == (True, False)
    assert both == (True, True, False)
    assert (trial.admits("old", OLD), trial.admits("new", NEW)) == (False, True)


@pytest.mark.parametrize("mode", ["down", "elsewhere", "endless", "nonsense"])
async def test_keys_outlive_their_source_for_as_long_as_is_configured_and_no_longer(source, mode):
    """What it answers then, redirects and endless bodies included, changes nothing; too old, they are let go."""
    provider, url = source
    trial = Trial(url)
    provider.keys = [public(OLD, "old")]
    await trial.jwks.refresh()

    provider.mode = mode
    trial.now_s += 3_600
    await trial.jwks.refresh()
    within = trial.admits("old", OLD)
    trial.now_s += 1
    await trial.jwks.refresh()
    beyond = trial.admits("old", OLD)
    provider.mode = "up"
    await trial.jwks.refresh()

    assert (within, beyond, trial.admits("old", OLD)) == (True, False, True)


async def test_unknown_kids_make_the_source_be_asked_once_in_a_while_only(source):
    """A new key is found without waiting for the next round; a flood of invented ones is not passed on."""
    provider, url = source
    trial = Trial(url)
    running_s = asyncio.create_task(trial.jwks.run())
    try:
        assert await until(lambda: _is(provider.asked == 1))
        provider.keys = [public(NEW, "new")]
        flood = [trial.admits(f"invented-{number}", OLD) for number in range(200)]
        await asyncio.sleep(0)
        asked_in_flood = provider.asked
        trial.now_s += 10
        trial.admits("new", NEW)

        assert await until(lambda: _is(trial.admits("new", NEW)))
        assert (any(flood), asked_in_flood, provider.asked) == (False, 1, 2)
    finally:
        running_s.cancel()


async def _is(truth: bool) -> bool:
    return truth


@pytest.mark.parametrize(
    ("url", "good"),
    [
        pytest.param("https://id.example.com/jwks.json", True, id="TLS"),
        pytest.param("http://127.0.0.1:9/jwks.json", True, id="this machine"),
        pytest.param("http://[::1]/jwks.json", True, id="this machine, IPv6"),
        pytest.param("http://id.example.com/jwks.json", False, id="no TLS"),
        pytest.param("http://127.0.0.1.example.com/jwks.json", False, id="a name like an address"),
        pytest.param("https://user:word@id.example.com/jwks.json", False, id="a password"),
        pytest.param("file:///etc/passwd", False, id="a file"),
        pytest.param("https://[", False, id="no address"),
    ],
)
def test_published_keys_come_over_tls_or_from_this_machine(url, good):
    """Whoever can change them on the way is every caller."""
    try:
        check_source(url)
    except ConfigError:
        assert not good
    else:
        assert good


async def test_shared_secrets_and_key_files_rotate_without_a_restart(tmp_path):
    """The files are looked at every few seconds; a secret that is taken out takes its tokens with it."""
    old, new, jwks = "old-of-the-tests-0123456789-abcdef", "new-of-the-tests-0123456789-abcdef", tmp_path / "jwks.json"
    secrets_file = tmp_path / "secrets"
    secrets_file.write_text(old)
    jwks.write_text(json.dumps({"keys": [public(OLD, "old")]}))
    said = Config(
        tokens=Tokens(
            secrets=(old,), secrets_file=str(secrets_file), jwks_file=str(jwks), algorithms=("HS256", "ES256")
        )
    )
    ring = keyring_of(said)
    secret = "of-the-tests-0123456789-abcdefghi"
    files = key_files(
        said,
        DeviceTokens([DeviceKey(id="d", secret=secret)]),
        SessionTokens([SessionKey(id="s", secret=secret)]),
        RefusedPages([SigningKey(id="s", secret=secret)], None),
        hooks=hook_keys(said),
        callers=ring,
    )
    claims = {"iss": "i", "aud": "accessguard", "sub": "s", "role": "platform", "tenant": "t", "exp": 10_000_000_000}
    shown = {
        "old secret": jwt.encode(claims, old, "HS256"),
        "new secret": jwt.encode(claims, new, "HS256"),
        "old key": jwt.encode(claims, OLD, "ES256", headers={"kid": "old"}),
        "new key": jwt.encode(claims, NEW, "ES256", headers={"kid": "new"}),
    }

    def good() -> set[str]:
        found = set()
        for name, text in shown.items():
            with contextlib.suppress(GuardError):
                ring.verify(text, now=time.time())
                found.add(name)
        return found

    before = good()
    secrets_file.write_text(f"{new}\n")
    jwks.write_text(json.dumps({"keys": [public(NEW, "new")], "more": 1}))
    await files.refresh()
    await asyncio.sleep(0)
    after = good()
    secrets_file.write_text("weak")
    jwks.write_text("{")
    await files.refresh()

    assert before == {"old secret", "old key"}
    assert after == {"new secret", "new key"}
    assert good() == after
    assert files.up is False


async def test_a_token_that_made_room_for_others_is_refused_as_well(service, tenant, lines):
    """The verifier holds ten thousand and lets the first go; heads and whole requests that know of it are forgotten too."""
    login = await tenant.login()
    session, shown = login["session"]["id"], fixed(tenant, jti="of ten thousand")
    before = [await asked(lines, service.url, session, shown) for _ in range(4)]
    service.context.keyring._held.clear()

    await revoke(tenant, token_id="of ten thousand")

    assert before == [200] * 4
    assert await asked(lines, service.url, session, shown) == 401


async def test_what_has_ended_by_itself_takes_nobodys_place(service, tenant, monkeypatch):
    """With all places taken by tokens that have ended since, there is room again, in the store and in every worker."""
    await tenant.login()
    monkeypatch.setattr(revocations, "MOST", 2)
    keyring = service.context.keyring
    soon = {"expires_at": (datetime.now(UTC) + timedelta(minutes=1)).isoformat()}
    for each in "ab":
        await revoke(tenant, token_id=each, **soon)
    service.clock.forward(2 * 3_600_000)

    await revoke(tenant, token_id="c")
    listed = list(items(await tenant.call("GET", "/v1/revocations", role="administrator")))

    assert [each["name"] for each in listed] == ["c"]
    assert [name for of, _, name in keyring._revoked if of == tenant.name] == ["c"]
