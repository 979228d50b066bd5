"""What Prometheus sees: every series from the start, true counts, and nobody in them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from accessguard.app import admin
from accessguard.metrics import ENTRIES, STORES
from accessguard.rules.model import Code, Effect
from tests.service import FIREFOX, Service, Tenant

FRESH = """
from prometheus_client import generate_latest
from accessguard import config, metrics, serving
serving.set_up(config.Config())
print(generate_latest(metrics.REGISTRY).decode())
"""

# The values of a series' labels, in the order of their names; codes and effects are the engine's closed sets.
LABELLED: dict[str, set[tuple[str, ...]]] = {
    "accessguard_decisions_total": {
        *(("none", "check", "allow"), ("none", "login", "allow"), ("none", "login", "failed")),
        *((code, entry, outcome) for entry in ("check", "login") for outcome in ("deny", "challenge") for code in Code),
    },
    "accessguard_verdicts_total": {("held",), ("evaluated",), ("loaded",)},
    "accessguard_beats_total": {("moved",), ("early",)},
    "accessguard_violation_hits_total": {
        (code, effect, mode) for code in Code for effect in Effect for mode in ("observe", "enforce")
    },
    "accessguard_requests_total": {(each, status) for each in ENTRIES for status in ("2xx", "3xx", "4xx", "5xx")},
    "accessguard_request_duration_seconds_count": {(each,) for each in ENTRIES},
    "accessguard_requests_in_progress": {(each,) for each in ENTRIES},
    "accessguard_store_duration_seconds_count": {(each,) for each in STORES},
    "accessguard_store_failures_total": {(each,) for each in STORES},
    "accessguard_store_waiting": {(each,) for each in STORES},
    "accessguard_database_connections": {("idle",), ("used",)},
    "accessguard_http_responses_total": {("2xx",), ("3xx",), ("4xx",), ("5xx",)},
}
PLAIN = {
    "accessguard_degraded_decisions_total",
    "accessguard_check_duration_seconds_count",
    "accessguard_login_duration_seconds_count",
    "accessguard_login_conflicts_total",
    "accessguard_held_sessions",
    "accessguard_activity_pending",
    "accessguard_activity_flushed_total",
    "accessguard_activity_dropped_total",
    "accessguard_flush_duration_seconds_count",
    "accessguard_flush_failures_total",
    "accessguard_changes_received_total",
    "accessguard_channel_up",
    "accessguard_loop_delay_seconds_count",
    "accessguard_propagation_seconds_count",
    "accessguard_staleness_seconds",
    "accessguard_snapshot_age_seconds",
}

Samples = dict[tuple[str, tuple[str, ...]], float]


def read(text: str) -> Samples:
    """Each sample by name and the values of its labels, in the order of their names."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
async def scrape_url(service: Service) -> AsyncIterator[str]:
    """The admin port of the run's worker."""
    runner = web.AppRunner(admin(service.context), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def scrape(service: Service, url: str) -> str:
    """What Prometheus reads."""
    async with service.http.get(f"{url}/metrics") as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        return await response.text()


def test_every_series_is_there_at_zero_from_the_start():
    """So that a rate is right from the first event, and an alert on nothing is possible."""
    answer = subprocess.run(
        [sys.executable, "-c", FRESH], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )

    samples = read(answer.stdout)

    for name, labels in LABELLED.items():
        assert {found for said, found in samples if said == name} >= labels, name
    assert {name for name, _ in samples} >= PLAIN
    counted = {each: value for each, value in samples.items() if "_info" not in each[0] and "_created" not in each[0]}
    assert set(counted.values()) == {0.0}
    (build,) = [labels for name, labels in samples if name == "accessguard_build_info"]
    assert len(build) == 2


async def test_counters_tell_what_happened(tenant: Tenant, scrape_url: str):
    """Each decision once, from memory or not; each beat, each hit, each answer."""
    before = read(await scrape(tenant.service, scrape_url))

    login = await tenant.login()
    for _ in range(3):
        await tenant.check(login, activity="lesson_open")
    await tenant.check("nobody")
    await tenant.login(outcome="failure")
    await tenant.rule("ip_deny", networks=["203.0.113.0/24"])
    for _ in range(2):
        await tenant.check(login)
    between = read(await scrape(tenant.service, scrape_url))
    await tenant.login(user_agent=FIREFOX)
    await tenant.service.context.activity.flush()
    after = read(await scrape(tenant.service, scrape_url))

    def grown(name: str, *labels: str) -> float:
        return after[name, labels] - before.get((name, labels), 0.0)

    assert grown("accessguard_decisions_total", "none", "check", "allow") == 3
    assert grown("accessguard_decisions_total", "unknown_session", "check", "deny") == 1
    assert grown("accessguard_decisions_total", "ip_denied", "check", "deny") == 2
    assert grown("accessguard_decisions_total", "ip_denied", "login", "deny") == 1
    assert grown("accessguard_decisions_total", "none", "login", "allow") == 1
    assert grown("accessguard_decisions_total", "none", "login", "failed") == 1
    assert sum(grown("accessguard_verdicts_total", source) for source in ("held", "evaluated", "loaded")) == 6
    assert grown("accessguard_verdicts_total", "held") == 3
    assert grown("accessguard_beats_total", "moved") == 1
    assert grown("accessguard_activity_flushed_total") == 1
    assert grown("accessguard_violation_hits_total", "ip_denied", "denied", "enforce") == 3
    assert grown("accessguard_requests_total", "check", "2xx") == 6
    assert grown("accessguard_requests_total", "login", "2xx") == 3
    assert grown("accessguard_requests_total", "operator", "2xx") == 1
    assert grown("accessguard_request_duration_seconds_count", "check") == 6
    assert after["accessguard_requests_in_progress", ("check",)] == 0
    for store in ("postgres", "valkey"):
        assert grown("accessguard_store_duration_seconds_count", store) >= 3, store
    assert grown("accessguard_propagation_seconds_count") >= 1
    assert after["accessguard_staleness_seconds", ()] == 0
    assert 0 <= after["accessguard_snapshot_age_seconds", ()] < 60
    assert between["accessguard_cache_entries", ("hot",)] >= 1
    assert grown("accessguard_login_duration_seconds_count") == 3
    assert after["accessguard_channel_up", ()] == 1
    assert between["accessguard_held_sessions", ()] >= 1


async def test_there_is_nobody_in_a_scrape(tenant: Tenant, scrape_url: str):
    """No member, address, device, session, tenant or token, whatever has happened."""
    login = await tenant.login(
        "secret-person", identifier="secret@person.example", app="secret-app", host="secret.host"
    )
    await tenant.check(login, resource="secret-resource", product_id="secret-product", activity="lesson_open")
    await tenant.rule("ip_deny", networks=["203.0.113.0/24"])
    refused = await tenant.check(login)
    await tenant.see("/v1/members/secret-person")

    text = await scrape(tenant.service, scrape_url)

    personal = [
        *("secret-", "secret@", "secret.host", "203.0.113", "Mozilla", tenant.name, "supervisor@"),
        *(login["session"]["id"], login["session"]["token"], login["device"]["id"], login["device"]["token"]),
        *(refused["violation_id"], refused["reason"]["rule_id"]),
    ]
    assert [each for each in personal if each in text] == []


async def test_the_admin_port_tells_health_and_nothing_else(tenant: Tenant, scrape_url: str):
    """And the service's own port tells no metrics."""
    statuses = {}
    for base, path in (
        (scrape_url, "/healthz"),
        (scrape_url, "/readyz"),
        (scrape_url, "/v1/members"),
        (tenant.service.url, "/healthz"),
        (tenant.service.url, "/readyz"),
        (tenant.service.url, "/metrics"),
    ):
        async with tenant.service.http.get(base + path) as response:
            statuses[base == scrape_url, path] = (response.status, response.content_type)

    assert statuses == {
        (True, "/healthz"): (200, "application/json"),
        (True, "/readyz"): (200, "application/json"),
        (True, "/v1/members"): (404, "application/problem+json"),
        (False, "/healthz"): (200, "application/json"),
        (False, "/readyz"): (200, "application/json"),
        (False, "/metrics"): (404, "application/problem+json"),
    }
