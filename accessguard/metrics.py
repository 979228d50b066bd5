"""What Prometheus sees. Labels come from closed sets; nothing personal is ever in one; every series is there at zero."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics

from accessguard.timings import BulkHistogram, Timings

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each, of no use to Prometheus itself
REGISTRY: Final = CollectorRegistry()

# From a verdict held in memory (10 us) to the deadline of a check and the timeouts behind it.
CHECK_BUCKETS: Final = (0.00001, 0.00005, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
STORE_BUCKETS: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)
LOGIN_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

BUILD: Final = Info("accessguard_build", "Version of the service and of Python.", registry=REGISTRY)
DECISIONS: Final = Counter(
    "accessguard_decisions",
    "Decisions by entry, outcome (failed: the platform refused the credentials) and code (none for an allow).",
    ("entry", "outcome", "code"),
    registry=REGISTRY,
)
DEGRADED: Final = Counter(
    "accessguard_degraded_decisions", "Decisions made while some state could not be read.", registry=REGISTRY
)


ENTRIES: Final = ("check", "checks", "login", "gate", "platform", "operator", "stream", "console", "other")
"""Ways in: single checks, batches of them, logins, proxies' questions, the platform's other calls, operators' calls, streams
of events, the console; the document, health and what there is not."""
STATUSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")
STORES: Final = ("postgres", "valkey", "replica")
CACHES: Final = ("hot", "resting", "members", "questions", "tenants")

REQUESTS: Final = Counter(
    "accessguard_requests", "Requests answered, by entry and class of status.", ("entry", "status"), registry=REGISTRY
)
REQUEST_SECONDS: Final = Timings(
    "accessguard_request_duration_seconds",
    "Time to answer a request, by entry; answers from memory, which take microseconds, are counted in the least bucket.",
    "entry",
    ENTRIES,
    CHECK_BUCKETS,
)
REGISTRY.register(REQUEST_SECONDS)
IN_PROGRESS: Final = Gauge(
    "accessguard_requests_in_progress", "Requests that are being answered, by entry.", ("entry",), registry=REGISTRY
)
STORE_SECONDS: Final = Timings(
    "accessguard_store_duration_seconds",
    "Time of one call or transaction of a store, the wait for a connection included.",
    "store",
    STORES,
    STORE_BUCKETS,
)
REGISTRY.register(STORE_SECONDS)
STORE_FAILURES: Final = Counter(
    "accessguard_store_failures", "Calls to a store that got no answer in time.", ("store",), registry=REGISTRY
)
STORE_WAITING: Final = Gauge(
    "accessguard_store_waiting", "Calls that wait for a connection or an answer.", ("store",), registry=REGISTRY
)
LOOP_SECONDS: Final = Histogram(
    "accessguard_loop_delay_seconds",
    "How late a worker comes to what it meant to do, looked at twice a second: what a new request waits for.",
    buckets=CHECK_BUCKETS,
    registry=REGISTRY,
)
PROPAGATION: Final = Histogram(
    "accessguard_propagation_seconds",
    "Time from a change to a worker that is told of it, by the clocks of both.",
    buckets=STORE_BUCKETS,
    registry=REGISTRY,
)
STALENESS: Final = Gauge(
    "accessguard_staleness_seconds",
    "How long memory has not been trusted, as pushed changes may be missing; 0 while they arrive.",
    registry=REGISTRY,
)
SNAPSHOT_AGE: Final = Gauge(
    "accessguard_snapshot_age_seconds",
    "How long ago the numbers of what has changed were last read from PostgreSQL; every 2 s.",
    registry=REGISTRY,
)
CACHE: Final = Gauge(
    "accessguard_cache_entries",
    "What a worker holds: verdicts in use (hot) and at rest, members, questions known by their bytes, tenants' rules.",
    ("cache",),
    registry=REGISTRY,
)

CHECK_SECONDS: Final = BulkHistogram(
    "accessguard_check_duration_seconds", "Time to decide a check that was not held in memory.", CHECK_BUCKETS
)
REGISTRY.register(CHECK_SECONDS)
LOGIN_SECONDS: Final = Histogram(
    "accessguard_login_duration_seconds", "Time to decide and record a login.", buckets=LOGIN_BUCKETS, registry=REGISTRY
)
LOGIN_RETRIES: Final = Counter(
    "accessguard_login_conflicts", "Logins decided again because the member had changed meanwhile.", registry=REGISTRY
)
VERDICTS: Final = Counter(
    "accessguard_verdicts", "Checks by where their verdict came from.", ("source",), registry=REGISTRY
)
HELD: Final = Gauge("accessguard_held_sessions", "Sessions whose verdict this worker holds.", registry=REGISTRY)
BEATS: Final = Counter(
    "accessguard_beats",
    "Heartbeats by result: moved, or early (another worker was first).",
    ("result",),
    registry=REGISTRY,
)
ACTIVITY_PENDING: Final = Gauge("accessguard_activity_pending", "Beats not yet in PostgreSQL.", registry=REGISTRY)
ACTIVITY_FLUSHED: Final = Counter("accessguard_activity_flushed", "Beats written to PostgreSQL.", registry=REGISTRY)
ACTIVITY_DROPPED: Final = Counter("accessguard_activity_dropped", "Beats given up at the bound.", registry=REGISTRY)
FLUSH_SECONDS: Final = Histogram(
    "accessguard_flush_duration_seconds", "Time of one bulk write of beats.", buckets=LOGIN_BUCKETS, registry=REGISTRY
)
FLUSH_FAILURES: Final = Counter(
    "accessguard_flush_failures", "Bulk writes that failed and stay pending.", registry=REGISTRY
)
VIOLATIONS: Final = Counter(
    "accessguard_violation_hits",
    "Findings recorded, by effect, code, and mode of the rule (observe: it would have refused).",
    ("effect", "code", "mode"),
    registry=REGISTRY,
)
TENANT_VIOLATIONS: Final = Gauge(
    "accessguard_tenant_violations",
    "Cases of a tenant, of its newest 10,000, that are open, or that no operator has read; only where tenants are named.",
    ("tenant", "state"),
    registry=REGISTRY,
)
FOLDS_DROPPED: Final = Counter(
    "accessguard_folds_dropped", "Repeated hits of cases given up at the bound.", registry=REGISTRY
)
JWKS_FETCHES: Final = Counter(
    "accessguard_jwks_fetches", "Fetches of callers' published keys, by result.", ("result",), registry=REGISTRY
)
JWKS_AGE: Final = Gauge(
    "accessguard_jwks_age_seconds",
    "Age of callers' published keys that were fetched; -1 without any.",
    registry=REGISTRY,
)
THROTTLED: Final = Counter(
    "accessguard_throttled_calls", "Calls refused for a bound, by what was exceeded.", ("bound",), registry=REGISTRY
)
DEVICES_FORGOTTEN: Final = Counter(
    "accessguard_devices_forgotten", "Devices forgotten as their member had too many.", registry=REGISTRY
)
LATE: Final = Counter(
    "accessguard_late_answers", "Requests given up as they took too long to answer.", registry=REGISTRY
)
CONNECTIONS: Final = Gauge("accessguard_open_connections", "Connections open now.", registry=REGISTRY)
CONNECTIONS_CUT: Final = Counter(
    "accessguard_connections_cut", "Connections closed for a bound, by which.", ("why",), registry=REGISTRY
)
CHANGES: Final = Counter("accessguard_changes_received", "Pushed changes received.", registry=REGISTRY)
CHANNEL_UP: Final = Gauge("accessguard_channel_up", "1 while pushed changes arrive.", registry=REGISTRY)
POOL: Final = Gauge(
    "accessguard_database_connections", "Connections to PostgreSQL by state.", ("state",), registry=REGISTRY
)
REPLICA_READS: Final = Counter(
    "accessguard_replica_reads",
    "Reads for lists and reports, by who answered them; the primary does for a replica that is out or behind.",
    ("source",),
    registry=REGISTRY,
)
POOL_REFUSED: Final = Counter(
    "accessguard_database_refused",
    "Calls that got no connection in time because all were in use (wait), or because too many waited (queue).",
    ("reason",),
    registry=REGISTRY,
)
BREAKER_OPEN: Final = Gauge(
    "accessguard_breaker_open",
    "1 while a store is left alone because it does not answer.",
    ("store",),
    registry=REGISTRY,
)
BREAKER_OPENED: Final = Counter(
    "accessguard_breaker_opened", "Times that a store stopped answering.", ("store",), registry=REGISTRY
)
BREAKER_REFUSED: Final = Counter(
    "accessguard_breaker_refused", "Calls to a store that were not even tried.", ("store",), registry=REGISTRY
)
DEADLINE_MISSES: Final = Counter(
    "accessguard_deadline_misses",
    "Checks that went on without a store because it took too long.",
    ("entry",),
    registry=REGISTRY,
)
SPOOL_LENGTH: Final = Gauge("accessguard_spool_length", "Logins that wait in Valkey for PostgreSQL.", registry=REGISTRY)
SPOOL_AGE: Final = Gauge(
    "accessguard_spool_oldest_age_seconds", "How long the oldest of them has waited.", registry=REGISTRY
)
SPOOLED: Final = Counter(
    "accessguard_spooled_logins",
    "Logins by what became of them while PostgreSQL was out: kept, again (a retry), full (503), unsynced (kept, but "
    "Valkey has no append-only file), drained, dead.",
    ("result",),
    registry=REGISTRY,
)
GEO_FILES: Final = Gauge("accessguard_geo_files", "Configured geo files by state.", ("state",), registry=REGISTRY)
GEO_AGE: Final = Gauge(
    "accessguard_geo_age_seconds", "Age of the oldest geo file in use, by its own date of build.", registry=REGISTRY
)
GEO_FAULTS: Final = Counter("accessguard_geo_faults", "Lookups that a damaged geo file failed.", registry=REGISTRY)
KEY_FILES: Final = Gauge("accessguard_key_files", "Watched files of keys by state.", ("state",), registry=REGISTRY)
RECOGNITIONS: Final = Counter(
    "accessguard_recognitions",
    "Browsers of logins by where their class came from: memory, the database, or the first look alone (provisional).",
    ("source",),
    registry=REGISTRY,
)
REFINEMENTS: Final = Counter(
    "accessguard_refinements",
    "Second looks at a user agent by how they ended; after all but told and elsewhere the first answer stands.",
    ("result",),
    registry=REGISTRY,
)
REFINEMENTS_PENDING: Final = Gauge(
    "accessguard_refinements_pending", "User agents that wait for a second look.", registry=REGISTRY
)
HTTP: Final = Counter(
    "accessguard_http_responses", "Responses of the HTTP API by class of status.", ("status",), registry=REGISTRY
)
WEBHOOKS: Final = Counter(
    "accessguard_webhook_deliveries", "Messages sent to webhooks by what came of it.", ("result",), registry=REGISTRY
)
CLOCK_STEPS: Final = Counter(
    "accessguard_clock_steps", "Steps back of the system's clock, by more than a second.", registry=REGISTRY
)
UPKEEP_RUNS: Final = Counter(
    "accessguard_upkeep_runs",
    "Runs of upkeep on this worker by job and result: done, cut (more is left than one run may take), failed.",
    ("job", "result"),
    registry=REGISTRY,
)
UPKEEP_ROWS: Final = Counter("accessguard_upkeep_rows", "Rows that upkeep dealt with.", ("job",), registry=REGISTRY)
UPKEEP_SECONDS: Final = Counter("accessguard_upkeep_seconds", "Time that upkeep took.", ("job",), registry=REGISTRY)
UPKEEP_DONE: Final = Gauge(
    "accessguard_upkeep_last_success_timestamp_seconds",
    "When a job of upkeep was last done by any worker, as this one knows (seconds since 1970; 0: not yet).",
    ("job",),
    registry=REGISTRY,
)

# How a gauge of several workers is read as one: these by their greatest or least value, all others as a sum.
GREATEST: Final = frozenset(
    {
        "accessguard_build_info",
        "accessguard_geo_files",
        "accessguard_geo_age_seconds",
        "accessguard_upkeep_last_success_timestamp_seconds",
        "accessguard_jwks_age_seconds",
        "accessguard_staleness_seconds",
        "accessguard_snapshot_age_seconds",
        "accessguard_spool_length",
        "accessguard_spool_oldest_age_seconds",
        "accessguard_tenant_violations",
    }
)
LEAST: Final = frozenset({"accessguard_channel_up"})


def present_at_zero(
    *,
    outcomes: Sequence[str],
    codes: Sequence[str],
    effects: Sequence[str],
    modes: Sequence[str],
    jobs: Sequence[str],
) -> None:
    """Make every labelled series exist before its first event, so that rates are right from the start."""
    refusals = [(outcome, code) for outcome in outcomes if outcome != "allow" for code in codes]
    for entry, (outcome, code) in product(("check", "login"), (("allow", "none"), *refusals)):
        DECISIONS.labels(entry, outcome, code)
    DECISIONS.labels("login", "failed", "none")
    for job, result in product(jobs, ("done", "cut", "failed")):
        UPKEEP_RUNS.labels(job, result)
    for entry, status in product(ENTRIES, STATUSES[1:]):
        REQUESTS.labels(entry, status)
    for effect, code, mode in product(effects, codes, modes):
        VIOLATIONS.labels(effect, code, mode)
    closed_sets: tuple[tuple[Counter | Gauge, Sequence[str]], ...] = (
        (VERDICTS, ("held", "evaluated", "loaded")),
        (BEATS, ("moved", "early")),
        (IN_PROGRESS, ENTRIES),
        (STORE_FAILURES, STORES),
        (STORE_WAITING, STORES),
        (CACHE, CACHES),
        (POOL, ("used", "idle")),
        (POOL_REFUSED, ("wait", "queue")),
        (BREAKER_OPEN, ("postgres", "valkey")),
        (BREAKER_OPENED, ("postgres", "valkey")),
        (BREAKER_REFUSED, ("postgres", "valkey")),
        (REPLICA_READS, ("replica", "primary")),
        (DEADLINE_MISSES, ("check",)),
        (SPOOLED, ("kept", "again", "full", "unsynced", "drained", "dead")),
        (GEO_FILES, ("loaded", "old", "damaged", "missing")),
        (KEY_FILES, ("loaded", "missing", "damaged")),
        (RECOGNITIONS, ("memory", "database", "provisional")),
        (REFINEMENTS, ("told", "elsewhere", "stumbled", "failed", "dropped")),
        (WEBHOOKS, ("taken", "missed")),
        (JWKS_FETCHES, ("done", "failed")),
        (THROTTLED, ("checks", "platform", "operators", "concurrent", "attempts")),
        (CONNECTIONS_CUT, ("late", "unread", "room", "refused")),
        (HTTP, ("2xx", "3xx", "4xx", "5xx")),
        (UPKEEP_ROWS, jobs),
        (UPKEEP_SECONDS, jobs),
        (UPKEEP_DONE, jobs),
    )
    for metric, values in closed_sets:
        for value in values:
            metric.labels(value)
