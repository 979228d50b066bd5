"""The calls a benchmark makes beside the load: rules, blocks, and one careful look at the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import aiohttp
import msgspec

from benchmarks.model import BenchError
from benchmarks.people import Person, check

RULES = (
    {
        "kind": "ip_deny",
        "name": "Known abuse",
        "mode": "enforce",
        "action": "deny",
        "params": {"networks": ["203.0.113.0/24", "2001:db8::/32"]},
    },
    {
        "kind": "session_limit",
        "name": "Three at a time",
        "mode": "enforce",
        "action": "evict_oldest",
        "params": {"max": 3, "window_s": 1800},
    },
)


class CheckAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a check's answer that must be right before anything is measured."""

    decision: str
    member_id: str
    session_id: str
    device_id: str | None
    degraded: bool
    violation_id: str | None


class Operator:
    """A client of one worker with one token; use with `async with`."""

    def __init__(self, url: str, token: str) -> None:
        self._client = aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {token}"})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def make_rules(self) -> None:
        """Give the tenant the two rules that nobody of the benchmark breaks."""
        for rule in RULES:
            await self._ask("POST", "/v1/rules", rule)

    async def set_access(self, person: Person, access: str) -> None:
        """Block (`blocked`) the person's device, or put it back (`default`)."""
        await self._ask("PATCH", device_path(person), {"access": access, "reason": "benchmark"})

    async def status(self, path: str, headers: Mapping[str, str]) -> int:
        """Return the status that a GET is answered with."""
        async with self._client.get(path, headers=headers) as reply:
            return reply.status

    async def _ask(self, method: str, path: str, body: Mapping[str, object]) -> None:
        async with self._client.request(method, path, json=body) as reply:
            if reply.status >= 300:
                raise BenchError(f"{method} {path} was answered {reply.status}: {await reply.text()}")


def device_path(person: Person) -> str:
    """Return the path of the person's device for operators."""
    return f"/v1/members/{person.member_id}/devices/{person.device.id}"


async def probe_checks(url: str, headers: Mapping[str, str], people: Sequence[Person]) -> None:
    """Ask about some and read the answers whole; raises BenchError unless each allows the right person, undegraded."""
    async with aiohttp.ClientSession(url, headers=headers) as client:
        for person in people:
            async with client.post("/v1/check", data=msgspec.json.encode(check(person, activity=False))) as reply:
                body = await reply.read()
            expected = CheckAnswer(
                decision="allow",
                member_id=person.member_id,
                session_id=person.session.id,
                device_id=person.device.id,
                degraded=False,
                violation_id=None,
            )
            if reply.status != 200 or msgspec.json.decode(body, type=CheckAnswer) != expected:
                raise BenchError(f"a check was answered {reply.status}: {body[:400]!r}")
