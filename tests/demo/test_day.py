"""A small day against the running service, over HTTP."""

import io
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from rich.console import Console

from accessguard import migrations
from accessguard.demo.client import DemoError
from accessguard.demo.day import Tokens, keep_jar, play, read_jar
from accessguard.demo.model import Character, Plan
from accessguard.demo.people import person
from accessguard.demo.plan import FEWEST, make
from tests.service import Service, Tenant, items, running, token


@pytest.fixture(scope="module")
async def service(database_url: str, redis_url: str) -> AsyncIterator[Service]:
    """One worker for these tests."""
    await migrations.migrate(database_url)
    async with running(database_url, redis_url) as worker:
        yield worker


def tokens(tenant: Tenant) -> Tokens:
    """Genuine tokens of the tenant."""
    return Tokens(**{role: token(tenant.name, role, f"{role}@{tenant.name}") for role in Tokens.__struct_fields__})


async def day(tenant: Tenant, plan: Plan, jar: Path | None = None) -> str:
    """Play the plan as fast as it goes; what the person at the terminal reads."""
    console = Console(file=io.StringIO(), width=200)
    await play(tenant.service.url, tokens(tenant), plan, day_s=0, jar=jar, console=console)
    written: str = console.file.getvalue()  # type: ignore[attr-defined]  # the file given above
    return written


def of(plan: Plan, character: Character) -> str:
    """The member of the first story of that character."""
    return next(story.members[0] for story in plan.stories if story.character is character)


@pytest.mark.slow
async def test_a_day_leaves_what_it_tells_of(service):
    """Members, refusals of every rule, a blocked device, an exemption and read marks are all there to look at."""
    tenant, plan = service.tenant(), make(members=FEWEST, seed=1)

    written = await day(tenant, plan)

    codes = {each["code"]: each for each in (await tenant.see("/v1/violations/summary"))["by_code"]}
    assert set(codes) == {"device_limit", "session_limit", "ip_denied", "device_blocked"}
    effects = {each["effect"] for each in items(await tenant.see("/v1/violations?limit=200"))}
    assert effects == {"denied", "evicted", "logged", "exempt"}
    assert len(list(items(await tenant.see("/v1/members?limit=200")))) == FEWEST
    updated = of(plan, Character.UPDATED_BROWSER)
    assert len(list(items(await tenant.see(f"/v1/members/{updated}/devices")))) == 1
    card = await tenant.see(f"/v1/members/{of(plan, Character.CHECKS_OFF)}")
    assert card["checks_enabled"] is False
    marked = await tenant.see("/v1/violations?read=true", subject=f"supervisor@{tenant.name}")
    assert list(items(marked))
    assert "20 members, seed 1" in written


async def test_the_lines_to_paste_are_complete(service):
    """Every curl line has its address and one of the two tokens that are printed before it."""
    tenant = service.tenant()

    written = await day(tenant, make(members=FEWEST, seed=4))

    lines = [shlex.split(line) for line in written.splitlines() if line.startswith("curl")]
    assert len(lines) == 9
    for _, _, url, _, header in lines:
        assert url.startswith(f"{service.url}/v1/")
        assert header in {"Authorization: Bearer $SUPPORT", "Authorization: Bearer $ADMIN"}
    assert {line.partition("=")[0] for line in written.splitlines() if "=eyJ" in line} == {"SUPPORT", "ADMIN"}


async def test_the_second_day_knows_the_browsers_of_the_first(service, tmp_path):
    """The same members, the same rules, and only private windows are new devices again."""
    tenant, plan, jar = service.tenant(), make(members=FEWEST, seed=1), tmp_path / "jar.json"
    ordinary = of(plan, Character.ORDINARY)

    for _ in range(2):
        await day(tenant, plan, jar)

    assert len(list(items(await tenant.see(f"/v1/members/{ordinary}/devices")))) == 1
    assert len(list(items(await tenant.call("GET", "/v1/rules", role="administrator")))) == len(plan.rules)
    assert len(list(items(await tenant.see("/v1/members?limit=200")))) == FEWEST


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        pytest.param("http://127.0.0.1:9", "No service answers at http://127.0.0.1:9", id="nobody there"),
        pytest.param("127.0.0.1", "is no address of a service", id="no address"),
    ],
)
async def test_a_service_that_is_not_there_is_one_sentence(url, sentence):
    """The person at the terminal learns what to do."""
    secret = Tokens(platform="p", supervisor="s", administrator="a")

    with pytest.raises(DemoError, match=sentence):
        await play(url, secret, make(members=FEWEST, seed=1), day_s=0, jar=None, console=Console(file=io.StringIO()))


async def test_a_token_that_the_service_refuses_is_one_sentence(service):
    """A demo from another folder signs with another secret."""
    foreign = Tokens(platform="p", supervisor="s", administrator="a")
    plan, console = make(members=FEWEST, seed=1), Console(file=io.StringIO())

    with pytest.raises(DemoError, match="refuses the token of the administrator"):
        await play(service.url, foreign, plan, day_s=0, jar=None, console=console)


def test_a_jar_keeps_no_private_window(tmp_path):
    """A private window's cookies end with it; the others are for their owner alone."""
    plan, jar = make(members=FEWEST, seed=1), tmp_path / "jar.json"

    keep_jar(jar, plan, {"stranger": "t", "stu-1-0001/1": "u"})

    assert read_jar(jar) == {"stu-1-0001/1": "u"}
    assert jar.stat().st_mode & 0o777 == 0o600


def test_a_damaged_jar_is_one_sentence(tmp_path):
    """It is said which file to remove."""
    (tmp_path / "jar.json").write_text("[")

    with pytest.raises(DemoError, match=r"jar\.json"):
        read_jar(tmp_path / "jar.json")


def test_a_token_is_not_shown_by_accident():
    """A trace or a log line with the tokens in it tells nothing."""
    assert "secret" not in repr(Tokens(platform="secret", supervisor="secret", administrator="secret"))


def test_a_person_tells_the_service_all_that_it_takes():
    """The names of the fields are those of the contract."""
    fields = set(msgspec.structs.asdict(person(1, 1))) - {"member_id"}

    assert fields == {"name", "email", "phone", "tags", "locale", "time_zone", "staff"}


async def test_something_else_at_the_address_is_one_sentence():
    """A web server that is no AccessGuard is told from one."""

    async def hello(_: web.Request) -> web.Response:
        return web.json_response({"hello": "world"})

    app = web.Application()
    app.router.add_get("/healthz", hello)
    secret = Tokens(platform="p", supervisor="s", administrator="a")

    async with TestServer(app) as other:
        with pytest.raises(DemoError, match="is not AccessGuard"):
            await play(
                str(other.make_url("")),
                secret,
                make(members=FEWEST, seed=1),
                day_s=0,
                jar=None,
                console=Console(quiet=True),
            )
