"""Two schools that have the same ids: whatever the roles of one ask, in any order, nothing of the other is seen or changed."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Coroutine
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from accessguard.api.keys import Role
from accessguard.api.routes import ROUTES, UUIDS, Route
from accessguard.app import migrate
from accessguard.console.pages import PAGES
from accessguard.database import Database, _Transaction
from accessguard.embedded import Embedded
from accessguard.logs import ASKED as ASKING
from accessguard.sessions.live import Live
from tests.fuzz import examples
from tests.migrations.databases import empty_database
from tests.schools.calls import BODIES, Picked, accepted, late
from tests.schools.world import MEMBERS, School, World, named, open_world

ENDLESS = "/v1/stream"
"""Followed all the while, by each school."""
ASKED = tuple(route for route in ROUTES if route.path != ENDLESS)
AT_ONCE = 12
"""Calls by every role, after which the other school is counted."""

each_school = st.sampled_from((0, 1))
each_role = st.sampled_from(list(Role))


@pytest.fixture(scope="module")
async def world(stores: Embedded) -> AsyncIterator[World]:
    """A worker with a database that nobody else writes to."""
    url = await empty_database(stores)
    await migrate(url)
    async with open_world(url, stores.redis_url) as found:
        yield found


def test_every_call_with_a_body_has_one_here():
    """A call that nobody thought about fails here."""
    assert set(BODIES) == {f"{route.method} {route.path}" for route in ROUTES if route.body or route.stream}


async def asked(
    one: School, other: School, route: Route, role: Role, *, whose: Picked, accept: str, key: str | None
) -> bool:
    """One call; whether it was answered well. Asserts that its role, and whose things it is about, were looked at."""
    foreign = whose["tenant"] == other.tenant.name
    status, text = await one.ask(route, role, whose, accept=accept, key=key)
    assert status < 500, text
    if not route.open and role not in route.roles:
        assert status == 403, text
    elif foreign and named(route):
        assert status == 404, text
    elif foreign and route.path.startswith("/auth/"):
        assert status in {401, 302}, text
    elif foreign and "{tenant}" in route.path:
        assert status == 403, text
    return status < 400


@pytest.mark.slow
async def test_no_role_of_a_school_sees_or_changes_anything_of_another(world: World):
    """Every call of the table, by every role, in every form, about what is one's own and about what is the other's."""
    schools = await world.two()
    well: set[str] = set()
    for one, other in itertools.permutations(schools):
        await world.remember(other)
        for number, route in enumerate(sorted(ASKED, key=late)):
            for role, whose in itertools.product(Role, (other, one)):
                if whose is other and not (
                    route.open or (role in route.roles and (named(route) or "{tenant}" in route.path))
                ):
                    continue
                forms = accepted(route) if role is Role.ROOT else ("application/json",)
                for accept, choice in itertools.product(forms, whose.about(route)):
                    if await asked(one, other, route, role, whose=choice, accept=accept, key=_key(route)):
                        well.add(f"{route.method} {route.path}")
            if number % AT_ONCE == 0:
                await world.unchanged(other, route)
        await world.unchanged(other, "the last ones")

    assert {f"{route.method} {route.path}" for route in ASKED} - well == set()


@pytest.mark.parametrize("role", [Role.ATTENDANT, Role.ADMINISTRATOR])
async def test_no_page_of_the_console_shows_anything_of_another_school(world: World, role: Role):
    """Each page about one's own things, and about those of the other, which are not there."""
    one, other = await world.two()
    cookie = await one.sign_in(role)
    pages = [page for page in PAGES if page.method == "GET" and page.like and page.path != "/console/live/events"]

    await world.remember(other)
    statuses = {
        (page.path, whose is one): await one.look(page.path, whose.latest(), cookie)
        for page, whose in itertools.product(pages, (one, other))
    }

    await world.unchanged(other)
    assert max(statuses.values()) < 500
    assert len([status for (_, own), status in statuses.items() if own and status == 200]) > (
        3 if role is Role.ATTENDANT else 25
    )


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What requests ask of the stores, in order."""
    said: list[str] = []

    def note(kind: type, name: str) -> None:
        call = getattr(kind, name)

        def noted(self: Any, statement: str, *values: object, **more: Any) -> Any:
            if ASKING.get() is not None:
                said.append(statement)
            return call(self, statement, *values, **more)

        monkeypatch.setattr(kind, name, noted)

    for kind in (Database, _Transaction):
        note(kind, "fetch")
        note(kind, "row")
    note(Live, "_asked")
    return said


@pytest.mark.parametrize("strange", ["things", "members and sessions"])
async def test_what_is_anothers_is_looked_for_like_what_never_was(world: World, statements: list[str], strange: str):
    """The stores are asked the same questions for it, and the answer is the same; so nobody learns of it by waiting."""
    one, other = await world.two()
    names = UUIDS if strange == "things" else frozenset({"member_id", "session_id"})
    foreign = await _only(other)
    differ = []
    for route in ASKED:
        if route.open or not set(re.findall(r"\{(\w+)\}", route.path)) & names:
            continue
        answers = []
        for known in (False, True, False):
            missing = {name: str(uuid4()) for name in names} | {"member_id": f"only-{uuid4().hex[:12]}"}
            theirs_or_none = {name: (foreign if known else missing)[name] for name in names}
            await world.settle()
            statements.clear()
            status, text = await one.ask(route, min(route.roles), {**one.latest(), **theirs_or_none})
            answers.append((status, _bare(text, theirs_or_none), tuple(statements)))
        if route.method == "PUT":  # now it is there, in both
            foreign = await _only(other)
        unknown, found, again = answers
        if found != again:
            differ.append((f"{route.method} {route.path}", unknown, found, again))

    assert differ == []


class Schools(RuleBasedStateMachine):
    """The two, who do whatever comes to mind; `world` and `loop` are set by the test."""

    world: World
    loop: asyncio.AbstractEventLoop

    @initialize()
    def found(self) -> None:
        """Both are there and have the same."""
        self.schools = self._wait(self.world.two())
        for each in self.schools:
            self._wait(self.world.remember(each))

    @rule(
        school=each_school,
        whose=each_school,
        role=each_role,
        route=st.sampled_from(ASKED),
        data=st.data(),
    )
    def ask(self, school: int, whose: int, role: Role, route: Route, data: st.DataObject) -> None:
        """Any call by any role, about anything that is somebody's."""
        choice = {name: data.draw(st.sampled_from(ids), label=name) for name, ids in self.schools[whose].ids.items()}
        accept = data.draw(st.sampled_from(accepted(route)))
        one, other = self.schools[school], self.schools[1 - school]
        if whose == school and role in route.roles:
            role = data.draw(st.sampled_from(sorted(route.roles)))
        key = _key(route) if data.draw(st.booleans()) else None
        self._wait(self._done(one, asked(one, other, route, role, whose=choice, accept=accept, key=key), route))

    @rule(school=each_school, role=each_role, route=st.sampled_from(ASKED), data=st.data())
    def do_well(self, school: int, role: Role, route: Route, data: st.DataObject) -> None:
        """A call by one who may, about one's own."""
        one, other = self.schools[school], self.schools[1 - school]
        role = data.draw(st.sampled_from(sorted(route.roles))) if route.roles else role
        call = asked(one, other, route, role, whose=one.latest(), accept="application/json", key=None)
        self._wait(self._done(one, call, route))

    @rule(school=each_school, member=st.sampled_from(MEMBERS[:2]))
    def log_in(self, school: int, member: str) -> None:
        """A member comes again."""
        one = self.schools[school]
        self._wait(self._done(one, one.log_in(member), "login"))

    @rule(school=each_school)
    def be_denied(self, school: int) -> None:
        """A member comes from where nobody may."""
        one = self.schools[school]
        self._wait(self._done(one, one.be_denied(), "denial"))

    @rule(school=each_school, role=each_role, route=st.sampled_from([route for route in ASKED if not route.open]))
    def speak_for_the_other(self, school: int, role: Role, route: Route) -> None:
        """A call whose token is of one and whose header names the other."""
        one, other = self.schools[school], self.schools[1 - school]
        self._wait(self._done(one, self._misnamed(one, other, route, role), route))

    async def _misnamed(self, one: School, other: School, route: Route, role: Role) -> None:
        status, text = await one.ask(route, role, other.latest(), tenant=other.tenant.name)
        assert status == 403 or (route.installation and status < 500), text

    async def _done(self, one: School, doing: Coroutine[Any, Any, Any], what: object) -> None:
        """Do it; then the other has what it had."""
        await doing
        (other,) = (each for each in self.schools if each is not one)
        await self.world.unchanged(other, what)
        await self.world.remember(one)

    def teardown(self) -> None:
        """Nobody listens any more."""
        self.loop.call_soon_threadsafe(self.world.forget)

    def _wait(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(120)


@pytest.mark.hypothesis
async def test_whatever_two_schools_do_in_any_order_stays_among_themselves(world: World):
    """After each step of either, the other has what it had, and has heard of nothing."""
    Schools.world, Schools.loop = world, asyncio.get_running_loop()

    await asyncio.to_thread(
        run_state_machine_as_test, Schools, settings=settings(examples(2, 400), stateful_step_count=20)
    )


async def _only(school: School) -> Picked:
    """A school's things with a member and a session that no other has."""
    member = f"only-{uuid4().hex[:12]}"
    login = await school.log_in(member)
    return school.latest() | {"member_id": member, "session_id": login["session"]["id"]}


def _bare(text: str, ids: Picked) -> str:
    """The body of an answer without the ids that were asked for, those made for it, and times."""
    body = text.partition("\n\n")[2]
    for name, value in ids.items():
        body = body.replace(value, name)
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[\d:.]+Z|[\w.-]{40,}", "?", body)


def _key(route: Route) -> str | None:
    """The same key in both schools."""
    return f"once {route.path}" if route.creates else None
