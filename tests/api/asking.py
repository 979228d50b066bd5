"""Who asks the fast lane on one connection, and what changes its answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.api.lanes import Lanes, lanes, one, question, request
from tests.service import CHROME, FIREFOX, Answer, Tenant
from tests.sessions.own import until

ELSEWHERE = "198.51.100.7"
FAR_S = 10_000_000_000
PUSHED_S = 0.9
"""Less than any poll takes to find out."""


class Asker:
    """Asks the fast lane, on one connection."""

    def __init__(self, tenant: Tenant, both: Lanes, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self.tenant = tenant
        self.both = both
        self._reader, self._writer = streams

    async def ask(self, session: Answer | str, **fields: Any) -> tuple[str, str | None, bool]:
        """The decision, its reason's code, and whether the member is exempt."""
        session_id = session if isinstance(session, str) else session["session"]["id"]
        asked = question(session_id, user_agent=CHROME.format(142)) | fields
        self._writer.write(request(self.tenant.name, asked, exp=FAR_S))
        body = (await one(self._reader)).body
        return body["decision"], (body["reason"] or {}).get("code"), body["exempt"]

    async def batch(self, *sessions: Answer, **fields: Any) -> list[str | None]:
        """The codes of a batch, None for each that is allowed."""
        asked = [question(each["session"]["id"], user_agent=CHROME.format(142)) | fields for each in sessions]
        self._writer.write(request(self.tenant.name, {"checks": asked}, path="/v1/checks", exp=FAR_S))
        return [(each["reason"] or {}).get("code") for each in (await one(self._reader)).body["results"]]

    async def raw(self, sent: bytes) -> int:
        """The status of what these bytes are answered with."""
        self._writer.write(sent)
        return (await one(self._reader)).status

    async def code(self, session: Answer | str, **fields: Any) -> str | None:
        """The code of the refusal, None when it is allowed."""
        return (await self.ask(session, **fields))[1]

    async def by_heart(self, session: Answer, **fields: Any) -> None:
        """Ask until the answer is known by the bytes of the question."""
        for _ in range(2):
            assert await self.code(session, **fields) is None
        before = self.both.context.checks.tally.answers
        assert await self.code(session, **fields) is None
        assert self.both.context.checks.tally.answers > before, "it was not the fast lane that answered"
        held = self.both.context.checks.memory.verdict(self.tenant.name, session["session"]["id"])
        assert held is not None
        assert held.other is None


@contextlib.asynccontextmanager
async def asking(tenant: Tenant) -> AsyncIterator[Asker]:
    """An asker of the tenant's worker."""
    context = tenant.service.context
    await until(lambda: context.checks.memory.trusted)
    await context.book.policy(tenant.name)
    async with lanes(context) as both:
        streams = await asyncio.open_connection("127.0.0.1", both.fast)
        await asyncio.sleep(0.001)  # its first bytes come when the connection is there
        yield Asker(tenant, both, streams)
        streams[1].close()


async def block(tenant: Tenant, login: Answer) -> Answer:
    """A supervisor blocks the device."""
    return await tenant.device("ana", login["device"]["id"], access="blocked")


async def deny(tenant: Tenant, _: Answer) -> Answer:
    """An administrator denies the address."""
    return await tenant.rule("ip_deny", networks=["203.0.113.0/24"])


async def end(tenant: Tenant, login: Answer) -> Answer:
    """The platform ends the session."""
    return await tenant.call("POST", f"/v1/sessions/{login['session']['id']}/end", {"reason": "logout"})


async def end_all(tenant: Tenant, _: Answer) -> Answer:
    """A supervisor ends all."""
    return await tenant.call("POST", "/v1/members/ana/sessions/end", role="supervisor")


async def forget(tenant: Tenant, login: Answer) -> Answer:
    """A supervisor forgets the device."""
    return await tenant.call("DELETE", f"/v1/members/ana/devices/{login['device']['id']}", role="supervisor")


async def evict(tenant: Tenant, _: Answer) -> Answer:
    """Another login takes the only place."""
    await tenant.rule("session_limit", "evict_oldest", max=1)
    return await tenant.login(user_agent=FIREFOX)
