"""A platform with its operators, as it calls the service: at one host or the other, again when nobody answered."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import aiohttp
import msgspec

from tests.chaos.ledger import Ledger
from tests.chaos.stage import Host, seconds
from tests.service import token

TENANT: Final = "school"
PATIENCE_S: Final = 90.0
"""How long a call is repeated: longer than any fault lasts."""
CALL_S: Final = 10.0
NOT_ANSWERED: Final = (aiohttp.ClientError, TimeoutError, OSError)
AGAIN: Final = frozenset({404, 409, 429, 502, 503, 504})
"""404 and 409, too: a login that still waits has no device for an operator, and two retries may meet."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that counts: when it was first asked for, and after how many tries."""

    sent: float
    tries: int
    status: int
    body: Any


class Platform:
    """Calls with a connection pool of its own, until `close`."""

    def __init__(self, hosts: tuple[Host, ...], ledger: Ledger, dice: random.Random) -> None:
        self._hosts, self._ledger, self._dice = hosts, ledger, dice
        roles = ("platform", "supervisor", "administrator")
        self._bearers = {role: f"Bearer {token(TENANT, role, role)}" for role in roles}
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_S))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.close()

    async def once(
        self, host: Host, method: str, path: str, body: Any = None, *, role: str = "platform", **more: Any
    ) -> tuple[int, Any]:
        """One try at one host; raises what NOT_ANSWERED names."""
        headers = {"Authorization": self._bearers[role]} | more.pop("headers", {})
        async with self._http.request(method, host.url + path, json=body, headers=headers, **more) as said:
            raw = await said.read()
            if said.status == 500:
                self._ledger.breach("never a 500", f"{method} {path}: {raw[:300]!r}")
            return said.status, msgspec.json.decode(raw) if raw else None

    async def persist(self, method: str, path: str, body: Any = None, **more: Any) -> Told | None:
        """The first answer that is one, after as many tries at any host as it takes; None when patience ends."""
        sent, tries, began = self._ledger.now(), 0, seconds()
        host = self._dice.choice(self._hosts)
        while seconds() - began < PATIENCE_S:
            tries += 1
            try:
                status, told = await self.once(host, method, path, body, **more)
            except NOT_ANSWERED as error:
                self._ledger.refused[type(error).__name__] += 1
            else:
                if status < 300:
                    return Told(sent=sent, tries=tries, status=status, body=told)
                self._ledger.refused[str(status)] += 1
                if status not in AGAIN and status != 500:
                    self._ledger.breach("right calls are taken", f"{method} {path}: {status} {told}")
                    return None
            host = self._hosts[(self._hosts.index(host) + 1) % len(self._hosts)]
            await asyncio.sleep(self._dice.uniform(0.05, 0.3))
        self._ledger.breach("everything is answered in the end", f"{method} {path} after {tries} tries")
        return None

    async def every(self, path: str, role: str = "supervisor") -> list[Any]:
        """All items of a list, page by page, from a host that answers."""
        found, cursor = list[Any](), ""
        while True:
            told = await self.persist("GET", f"{path}{'&' if '?' in path else '?'}limit=200{cursor}", role=role)
            if told is None:
                return found
            found += told.body["items"]
            if told.body["next_cursor"] is None:
                return found
            cursor = f"&cursor={told.body['next_cursor']}"
