"""What machines ask: alive, ready, metrics, the contract."""

from __future__ import annotations

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from accessguard.api.context import CONTEXT
from accessguard.api.reply import reply
from accessguard.api.wire import Health
from accessguard.metrics import REGISTRY


async def healthz(_: web.Request) -> web.Response:
    """Say that the process lives."""
    return reply(Health(status="ok", parts={}))


async def readyz(request: web.Request) -> web.Response:
    """Say whether this worker may serve, and which part is down.

    Without Valkey checks go on, slower; without PostgreSQL logins wait. Only
    without both is it 503, and on a schema that does not fit this release.
    """
    ready = request.app[CONTEXT].ready
    parts = await ready.parts()
    up = "up" in (parts["postgres"], parts["valkey"]) and "schema" not in parts
    health = Health(status="ok" if up else "unavailable", parts=parts, pending=ready.pending)
    return reply(health, status=200 if up else 503)


async def metrics(request: web.Request) -> web.Response:
    """Give every metric in Prometheus' text format."""
    request.app[CONTEXT].ready.measure()
    return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


def add_system(app: web.Application) -> None:
    """Health on the service's own port."""
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)


def add_admin(app: web.Application) -> None:
    """Health and metrics on the admin port."""
    add_system(app)
    app.router.add_get("/metrics", metrics)
