"""OpenID AuthZEN Authorization API 1.0: the standard's requests, answered by checks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service import LAPTOP, Answer, Tenant


def asked(subject: Any, **more: Any) -> dict[str, Any]:
    """One evaluation of the standard's shape."""
    if isinstance(subject, Answer):
        subject = {"type": "session", "id": subject["session"]["id"]}
    return {
        "subject": subject,
        "action": {"name": "course_open"},
        "resource": {"type": "course", "id": "42"},
        "context": {"ip": LAPTOP, "time": "2026-11-21T18:55Z"},
    } | more


async def evaluate(tenant: Tenant, body: Any, path: str = "evaluation", **headers: str) -> Answer:
    """Ask as a policy enforcement point does."""
    return await tenant.call("POST", f"/access/v1/{path}", body, headers=headers)


async def test_an_evaluation_decides_and_says_why(tenant):
    """A session, a user with a session of its own, somebody else's, nobody's; our reasons stand in `context`."""
    login = await tenant.login()
    session = login["session"]["id"]
    user = {"type": "user", "id": "ana", "properties": {"session_id": session}}

    answers = [
        await evaluate(tenant, asked(subject))
        for subject in (
            login,
            user,
            user | {"id": "ben"},
            {"type": "user", "id": "ana"},
            {"type": "session", "id": "x"},
        )
    ]

    assert [(answer.status, answer["decision"]) for answer in answers] == [
        (200, True),
        (200, True),
        (200, False),
        (200, False),
        (200, False),
    ]
    assert answers[0]["context"]["member_id"] == "ana"
    assert {answer["context"]["reason"]["code"] for answer in answers[2:]} == {"unknown_session"}


async def test_an_activity_of_the_standards_action_is_recorded(tenant):
    """The action's name is one of the six; the resource is written as `type:id`."""
    login = await tenant.login()

    await evaluate(tenant, asked(login))
    await tenant.service.context.activity.flush()
    items = (await tenant.see("/v1/members/ana/activity"))["items"]

    assert [(each["kind"], each["resource"]) for each in items] == [("course_open", "course:42")]


@pytest.mark.parametrize(
    ("semantic", "order", "decisions"),
    [
        (None, "adad", [True, False, True, False]),
        ("execute_all", "da", [False, True]),
        ("deny_on_first_deny", "aada", [True, True, False]),
        ("deny_on_first_deny", "aa", [True, True]),
        ("permit_on_first_permit", "ddad", [False, False, True]),
        ("permit_on_first_permit", "dx", [False, False]),
    ],
)
async def test_evaluations_follow_the_three_semantics(tenant, semantic, order, decisions):
    """With what an evaluation leaves out taken from the top; one that cannot be evaluated is a denial with an error."""
    login = await tenant.login()
    whole = asked(login)
    parts: dict[str, Any] = {
        "a": {},
        "d": {"subject": {"type": "session", "id": "nobody"}},
        "x": {"resource": None},
    }
    above = {name: whole[name] for name in ("subject", "action", "context")}
    body = above | {"evaluations": [{"resource": whole["resource"]} | parts[each] for each in order]}
    body |= {"options": {"evaluations_semantic": semantic}} if semantic else {}

    answer = await evaluate(tenant, body, "evaluations")

    assert answer.status == 200, answer.body
    assert [each["decision"] for each in answer["evaluations"]] == decisions
    assert ("error" in answer["evaluations"][-1]["context"]) is order.endswith("x")


async def test_evaluations_without_a_list_are_one(tenant):
    """The standard's way back to the single request."""
    answer = await evaluate(tenant, asked(await tenant.login()), "evaluations")

    assert (answer.status, answer["decision"]) == (200, True)


async def test_a_request_that_names_too_little_is_refused_and_its_id_echoed(tenant):
    """400 with a pointer to what is missing; the id is the same in every answer, also of those that refuse."""
    login = await tenant.login()

    bare = [
        await evaluate(tenant, {k: v for k, v in asked(login).items() if k != name}) for name in ("subject", "action")
    ]
    said = "bfe9eb29 " + "x" * 300
    path = "/access/v1/evaluation"
    named = {"X-Request-ID": said}
    found = [
        await evaluate(tenant, asked(login), **named),
        await evaluate(tenant, {}, **named),
        await tenant.call("POST", path, {}, headers=named | {"Authorization": "Bearer x"}),
        await tenant.call("POST", path, asked(login), role="attendant", headers=named),
        await tenant.call("GET", path, headers=named),
        await tenant.call("GET", "/.well-known/authzen-configuration", headers=named),
    ]
    odd = await evaluate(tenant, asked(login), **{"X-Request-ID": "ü"})

    assert [answer.status for answer in bare] == [400, 400]
    assert [answer.status for answer in found] == [200, 400, 401, 403, 405, 200]
    assert {answer.headers["X-Request-ID"] for answer in found} == {said}
    assert "X-Request-ID" not in odd.headers


async def test_the_metadata_says_where_to_ask(tenant):
    """Without a token, by the address that the caller used."""
    service = tenant.service
    async with service.http.get(f"{service.url}/.well-known/authzen-configuration") as response:
        found = await response.json()

    assert found == {
        "policy_decision_point": service.url,
        "access_evaluation_endpoint": f"{service.url}/access/v1/evaluation",
        "access_evaluations_endpoint": f"{service.url}/access/v1/evaluations",
    }
