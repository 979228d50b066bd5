"""What the admin port tells of several workers: one health, one set of metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from accessguard.api.middleware import boundary
from accessguard.api.reply import SAFE_HEADERS, reply
from accessguard.control import Report
from accessguard.crew import Condition, Hand
from accessguard.exposition import Scrapes
from accessguard.ports import Ports

OWN: Final = CollectorRegistry()
WORKERS: Final = Gauge(
    "accessguard_workers", "Worker processes by condition; ready ones answer.", ("condition",), registry=OWN
)
RESTARTS: Final = Counter(
    "accessguard_worker_restarts",
    "Workers started in place of another, by reason: died, or renewed on SIGHUP.",
    ("reason",),
    registry=OWN,
)
for _reason in ("died", "renewed"):
    RESTARTS.labels(_reason)


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What `api/wire.py` has under this name, which would bring everything else along."""

    status: Literal["ok", "unavailable"]
    parts: dict[str, str]
    pending: int = 0


class Overseer:
    """Asks every worker, and says one thing."""

    def __init__(self, scrapes: Scrapes, hands: Callable[[], Sequence[Hand]], ports: Ports) -> None:
        self._scrapes = scrapes
        self._hands = hands
        self._slots = len(ports.slots)
        self._turn = asyncio.Lock()

    async def health(self) -> Health:
        """`ok` when any worker may serve; each part, up when every worker says so, and each worker, up when it answers.

        `pending` is what the one says that sees most: the spool is one for all of them.
        """
        told = await self._told()
        said = [report.parts for report in told.values()]
        down = {name for parts in said for name, state in parts.items() if state == "down"}
        parts = {name: "down" if name in down else "up" for parts in said for name in parts}
        workers = {f"worker_{slot + 1}": "up" if slot in told else "down" for slot in range(self._slots)}
        serves = any(each.get("postgres") == "up" and "schema" not in each for each in said)
        pending = max((report.pending for report in told.values()), default=0)
        return Health(status="ok" if serves else "unavailable", parts=parts | workers, pending=pending)

    async def metrics(self) -> bytes:
        """Everything that workers have counted, and how many there are, in Prometheus' text format."""
        await self._told()
        hands = self._hands()
        for condition in Condition:
            if condition is not Condition.ENDED:
                WORKERS.labels(condition).set(sum(each.condition is condition for each in hands))
        return self._scrapes.text([each.last.metrics for each in hands], OWN)

    async def _told(self) -> dict[int, Report]:
        """What each ready worker says now, by its slot; one caller at a time, so that two do not take each other's answer."""
        async with self._turn:
            hands = [each for each in self._hands() if each.condition is Condition.READY]
            reports = await asyncio.gather(*(each.state() for each in hands))
        return {hand.slot: report for hand, report in zip(hands, reports, strict=True) if report is not None}


OVERSEER: Final = web.AppKey("overseer", Overseer)


async def healthz(_: web.Request) -> web.Response:
    """Say that the supervisor lives."""
    return reply(Health(status="ok", parts={}))


async def readyz(request: web.Request) -> web.Response:
    """Say whether any worker may serve, which part or worker is down, and how many logins wait."""
    health = await request.app[OVERSEER].health()
    return reply(health, status=200 if health.status == "ok" else 503)


async def metrics(request: web.Request) -> web.Response:
    """Give every metric in Prometheus' text format."""
    headers = {"Content-Type": CONTENT_TYPE_LATEST, **SAFE_HEADERS}
    return web.Response(body=await request.app[OVERSEER].metrics(), headers=headers)


def overseen(overseer: Overseer) -> web.Application:
    """The admin port's application."""
    app = web.Application(middlewares=[boundary])
    app[OVERSEER] = overseer
    for path, handler in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", metrics)):
        app.router.add_get(path, handler)
    return app
