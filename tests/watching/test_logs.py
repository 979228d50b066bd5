"""What the log says of a day's requests: by which ids they are found, and of nobody."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import structlog
from rich.console import Console

from accessguard.demo.day import Tokens, play
from accessguard.demo.plan import FEWEST, make
from accessguard.logs import REQUEST_ID, set_up_logs
from tests.service import CHROME, LAPTOP, Tenant, token

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Everything that is logged, at the level that says most, as the service writes it."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "stderr", said := io.StringIO())
    set_up_logs("debug")
    yield said
    structlog.configure(**before)
    root.handlers[:], root.level = handlers, level


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    """Each line, which is one event in JSON."""
    return [json.loads(line) for line in written.getvalue().splitlines()]


def leaves(value: Any) -> Iterator[str]:
    """Every text of a plan."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from leaves(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from leaves(each)


async def test_a_day_leaves_nobody_in_the_log(tenant: Tenant, written):
    """Names, addresses, user agents, tokens and ids of the demo's people are in no line, though each request has one."""
    plan = make(members=FEWEST, seed=5)
    tokens = Tokens(**{role: token(tenant.name, role) for role in Tokens.__struct_fields__})

    await play(tenant.service.url, tokens, plan, day_s=0, jar=None, console=Console(file=io.StringIO()))
    hostile = "zqx\nevent\u202e@example.test"
    await tenant.login(hostile[:128], identifier=hostile, user_agent=hostile)
    await tenant.see("/v1/members?q=zqx-in-a-query")
    await tenant.see("/v1/members/zqx%2Fin%2Fa%2Fpath")

    said = written.getvalue()
    assert {each["event"] for each in lines(written)} >= {"answered"}
    people = {
        each for each in leaves(msgspec.to_builtins(plan)) if len(each) > 5 and set(each) & set("@.:+- 0123456789")
    }
    assert len(people) > 100
    marked = {*people, "zqx", LAPTOP, tenant.name, "Mozilla", *msgspec.to_builtins(tokens).values()}
    assert sorted(each for each in marked if each in said) == []


@pytest.mark.parametrize("lane", ["url", "plain_url"])
async def test_a_failure_is_found_by_its_ids(tenant: Tenant, written, monkeypatch, lane):
    """The line of an error says the caller's trace and the id of the answer, on both lanes, and nothing of its message."""
    login = await tenant.login()
    checks = tenant.service.context.checks

    async def broken(*_: Any, **__: Any) -> None:
        raise ValueError("secret-person")

    monkeypatch.setattr(type(checks), "decide", broken)
    headers = {"Authorization": f"Bearer {token(tenant.name, 'platform')}", "traceparent": TRACEPARENT}
    body = {"session_id": login["session"]["id"], "ip": "198.51.100.77", "user_agent": CHROME.format(1)}
    url = getattr(tenant.service, lane)
    async with tenant.service.http.post(f"{url}/v1/check", json=body, headers=headers) as answer:
        status, request_id = answer.status, answer.headers[REQUEST_ID]

    (line,) = [each for each in lines(written) if each["event"] == "unexpected"]
    assert status == 500
    assert (line["trace_id"], line["request_id"]) == (TRACE, request_id)
    assert line["error"] == "ValueError"
    assert "secret-person" not in written.getvalue()


async def test_a_trace_that_is_none_is_not_repeated(tenant: Tenant, written):
    """What a caller writes into `traceparent` is in the log only when it is what the standard says."""
    for said in ("nonsense", f"ff-{TRACE}-00f067aa0ba902b7-01", f"00-{'0' * 32}-00f067aa0ba902b7-01", TRACEPARENT[:-1]):
        await tenant.see("/v1/members", headers={"traceparent": said})
    answer = await tenant.see("/v1/members", headers={"traceparent": TRACEPARENT})

    traced = [each for each in lines(written) if "trace_id" in each]
    assert [each["trace_id"] for each in traced] == [TRACE]
    assert traced[0]["request_id"] == answer.headers[REQUEST_ID]
    assert traced[0]["route"] == "/v1/members"
