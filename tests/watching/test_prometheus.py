"""The files for Prometheus and Grafana against a real Prometheus that scrapes a real service after a day of the demo."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import math
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, web
from rich.console import Console

from accessguard.app import admin
from accessguard.demo.day import Tokens, play
from accessguard.demo.plan import FEWEST, make
from accessguard.guard.figures import MOST_TENANTS, Figures
from accessguard.metrics import REGISTRY, TENANT_VIOLATIONS
from accessguard.overseeing import OWN
from accessguard.serving import every_series
from tests.service import Service, token

ROOT = Path(__file__).parents[2]
RULES = ROOT / "config" / "prometheus"
DASHBOARDS = sorted((ROOT / "config" / "grafana").glob("*.json"))
TESTS = ("tests.yaml", "tests_days.yaml")
WITHIN_S = 60
MOST_SERIES = 2_000
"""Of one worker, without tenants: what the closed sets of labels come to, with room for more."""

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="Prometheus is not installed (Debian: prometheus)",
)


def panels(path: Path) -> Iterator[tuple[str, str]]:
    """Title and query of each panel."""
    for panel in json.loads(path.read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def filled(query: str) -> str:
    """A query as Grafana sends it, over the whole of the test."""
    return query.replace("$__rate_interval", "5m").replace("$job", ".+").replace("$tenant", ".+")


def promtool(*arguments: str, said: str = "") -> str:
    """What it says of something that is well."""
    done = subprocess.run(
        ["promtool", *arguments], input=said, cwd=RULES, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """A running one."""

    def __init__(self, service: Service, url: str) -> None:
        self._http, self._url = service.http, url

    async def ask(self, path: str, **query: str) -> Any:
        """The data of an answer; None while it is not up."""
        try:
            async with self._http.get(f"{self._url}/api/v1/{path}", params=query) as answer:
                said = await answer.json()
        except (ClientError, ValueError):
            return None
        assert said["status"] == "success", said
        return said["data"]

    async def numbers(self, query: str) -> list[float]:
        """What a query finds, without what is no number."""
        data = await self.ask("query", query=query)
        found = [float(each["value"][1]) for each in data["result"]] if data else []
        return [each for each in found if not math.isnan(each)]

    async def scrapes(self) -> float:
        """How many times it has looked."""
        return sum(await self.numbers('count_over_time(up{job="accessguard"}[5m])'))

    async def until(self, scrapes: float) -> None:
        """Wait until it has looked so often."""
        async with asyncio.timeout(WITHIN_S):
            while await self.scrapes() < scrapes:
                await asyncio.sleep(0.1)


@pytest.fixture
async def scraped(service: Service) -> AsyncIterator[str]:
    """The admin port of the run's worker, as host and port."""
    runner = web.AppRunner(admin(service.context), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@contextlib.asynccontextmanager
async def prometheus(service: Service, target: str, folder: Path) -> AsyncIterator[Prometheus]:
    """One with the rules of the repository, which looks every half second."""
    said = (RULES / "prometheus.yaml").read_text()
    said = said.replace("127.0.0.1:9090", target).replace(": 15s", ": 500ms")
    (folder / "prometheus.yaml").write_text(said)
    for name in ("recording.yaml", "alerts.yaml"):
        rules = (RULES / name).read_text()
        (folder / name).write_text(rules.replace("interval: 1m\n", "interval: 500ms\n"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    options = ("--config.file=prometheus.yaml", f"--web.listen-address={place}", "--storage.tsdb.path=data")
    process = await asyncio.create_subprocess_exec(
        "prometheus", *options, "--log.level=error", cwd=folder, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield Prometheus(service, f"http://{place}")
    finally:
        process.kill()
        await process.wait()


async def a_day(service: Service) -> None:
    """The smallest of the demo, as fast as it goes."""
    tenant = service.tenant()
    tokens = Tokens(**{role: token(tenant.name, role, f"{role}@{tenant.name}") for role in Tokens.__struct_fields__})
    plan = make(members=FEWEST, seed=3)
    await play(service.url, tokens, plan, day_s=0, jar=None, console=Console(file=io.StringIO(), width=200))


@needs_prometheus
@pytest.mark.slow
async def test_each_panel_and_rule_finds_data_after_a_day_of_the_demo(service, scraped, tmp_path):
    """No query names what there is not; promtool has nothing to say against what is scraped, which is bounded."""
    every_series()  # as a service does when it starts
    async with prometheus(service, scraped, tmp_path) as watching:
        await watching.until(1)
        try:
            await Figures(service.context.violations._db, wanted=True).once()
            await a_day(service)
            await Figures(service.context.violations._db, wanted=True).once()
            await watching.until(await watching.scrapes() + 4)
            async with service.http.get(f"http://{scraped}/metrics") as response:
                text = await response.text()
        finally:
            tenants = len(list(TENANT_VIOLATIONS.collect()[0].samples)) / 2  # type: ignore[index]
            TENANT_VIOLATIONS.clear()
        empty = [
            f"{path.stem}: {title}: {query}"
            for path in DASHBOARDS
            for title, query in panels(path)
            if not await watching.numbers(filled(query))
        ]
        groups = (await watching.ask("rules"))["groups"]

    assert not empty, "\n".join(empty)
    rules = [rule for group in groups for rule in group["rules"]]
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    firing = {rule["name"] for rule in rules if rule["type"] == "alerting" and rule["state"] == "firing"}
    assert firing & {"AccessGuardDown", "AccessGuardChannelDown", "AccessGuardStoreSilent"} == set()
    assert 1 <= tenants <= MOST_TENANTS
    promtool("check", "metrics", said=text)
    series = [line for line in text.splitlines() if not line.startswith(("#", "accessguard_tenant_"))]
    assert len(series) < MOST_SERIES


@needs_prometheus
@pytest.mark.slow
def test_each_alert_fires_when_it_should_and_is_quiet_when_all_is_well():
    """As promtool plays it, and every alert is played."""
    tests = "".join((RULES / name).read_text() for name in TESTS)

    alerts = re.findall(r"- alert: (\w+)", (RULES / "alerts.yaml").read_text())

    assert alerts
    assert [each for each in alerts if not re.search(rf"alertname: {each}\n +exp_alerts:\n +- ", tests)] == []
    promtool("check", "rules", "recording.yaml", "alerts.yaml")
    assert "SUCCESS" in promtool("test", "rules", *TESTS)


def test_each_alert_has_its_paragraph():
    """The runbook's link leads to a heading that is there."""
    headings = {
        line.removeprefix("### ").lower() for line in (ROOT / "docs" / "operations.md").read_text().splitlines()
    }

    links = re.findall(r"runbook_url: docs/operations\.md#(\w+)", (RULES / "alerts.yaml").read_text())

    assert len(links) == (RULES / "alerts.yaml").read_text().count("- alert: ")
    assert [each for each in links if each not in headings] == []


def test_no_query_names_a_metric_that_there_is_not():
    """Also where neither Prometheus nor Grafana is installed."""
    names = {sample for registry in (REGISTRY, OWN) for sample in names_of(registry)}
    queries = "\n".join(
        [
            *(query for path in DASHBOARDS for _, query in panels(path)),
            (RULES / "alerts.yaml").read_text(),
            (RULES / "recording.yaml").read_text(),
        ]
    )

    asked = {
        each
        for each in re.findall(r"\baccessguard_[a-z0-9_]+(?=[{\[ )\n])", queries)
        if not each.endswith(("_recorded", "_objectives", "_alerts"))
    }

    assert len(asked) > 30
    assert asked - names == set()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path):
    """Panels have ids of their own, lie beside each other, and ask the source that is chosen; the name of the file is the uid."""
    board = json.loads(path.read_text())

    places = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert board["uid"] == path.stem
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {"${datasource}"}


def names_of(registry: Any) -> Iterator[str]:
    """The names of all series that may come of a registry."""
    for family in registry.collect():
        yield from {
            "counter": (f"{family.name}_total",),
            "histogram": tuple(f"{family.name}_{part}" for part in ("bucket", "count", "sum")),
            "info": (f"{family.name}_info",),
        }.get(family.type, (family.name,))
