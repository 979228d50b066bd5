"""What it costs to judge one check by rules of every kind, in process, by the number of rules and of sessions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from accessguard.policies.model import RuleBody, parse
from accessguard.rules.engine import in_order, judge
from accessguard.rules.model import (
    Access,
    DeviceFact,
    EnrolmentFact,
    Facts,
    Kind,
    Mode,
    NetworkFact,
    Place,
    Rule,
    SessionFact,
    Stage,
)
from accessguard.rules.networks import address
from benchmarks.bench import Bench
from benchmarks.model import Figure, ratios, spread
from benchmarks.people import USER_AGENTS

NAME = "judging"
ROUNDS = 5
TIMES = 500
NOW = datetime(2026, 11, 21, 18, tzinfo=UTC)
SESSIONS = (1, 10, 100)

KINDS: dict[Kind, dict[str, Any]] = {
    Kind.SESSION_LIMIT: {"max": 200},
    Kind.DEVICE_LIMIT: {"max": 200},
    Kind.IP_DENY: {"networks": ["198.51.100.0/24"]},
    Kind.COUNTRY_DENY: {"countries": ["AQ"]},
    Kind.ASN_DENY: {"asns": [64496]},
    Kind.ENROLMENT: {"products": None},
    Kind.DEVICE_CHURN: {"max_new": 200, "window_days": 30},
    Kind.NETWORK_LIMIT: {"max": 200, "window_s": 86_400, "unit": "ip"},
    Kind.IMPOSSIBLE_TRAVEL: {"max_speed_kmh": 1000, "min_distance_km": 200},
    Kind.COPIED_SESSION: {"signal": "both"},
    Kind.IP_ALLOW_ONLY: {"networks": ["0.0.0.0/0", "::/0"]},
    Kind.LOGIN_FAILURES: {"max": 10, "window_s": 900, "lock_s": 900, "per": "member"},
}
RULES = (1, 2, len(KINDS))


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Time the judgement beside the reading of a body as large as a check's, in the same rounds."""
    del bench
    body = json.dumps(
        {"session_id": str(UUID(int=1)), "ip": "203.0.113.9", "user_agent": USER_AGENTS[0], "pad": "x" * 60}
    )
    reference = [_us(lambda: json.loads(body)) for _ in range(ROUNDS)]
    figures: list[Figure] = []
    for count in RULES:
        for sessions in SESSIONS:
            rules, facts = _rules(count), _facts(sessions)
            if judge(rules, facts).fired:
                raise AssertionError("these rules find nothing about these facts")
            took = [_us(lambda r=rules, f=facts: judge(r, f)) for _ in range(ROUNDS)]  # type: ignore[misc]
            what = f"{count} rules, {sessions} sessions"
            figures += (
                Figure(
                    scenario=NAME, what=f"{what}: one judgement", unit="us", value=spread(took), lower_is_better=True
                ),
                Figure(
                    scenario=NAME,
                    what=f"{what}: of json.loads of a check",
                    unit="x",
                    value=ratios(took, reference),
                    lower_is_better=True,
                ),
            )
    return tuple(figures)


def _us(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(TIMES):
        work()
    return (time.perf_counter() - began) / TIMES * 1e6


def _rules(count: int) -> tuple[Rule, ...]:
    bodies = (RuleBody(kind=kind, mode=Mode.ENFORCE, params=params) for kind, params in list(KINDS.items())[:count])
    return in_order([parse(body, id=UUID(int=place + 1), version=1) for place, body in enumerate(bodies)])


def _facts(sessions: int) -> Facts:
    """A member with so many sessions, each on a device and a network of its own, all in one town."""
    town = Place(country="IT", asn=64500, city="Milan", latitude=45.46, longitude=9.19)
    open_ = [_session(each) for each in range(sessions)]
    devices = [_device(each) for each in range(sessions)]
    here = address("203.0.113.9")
    networks = tuple(_network(each, town) for each in range(sessions))
    return Facts(
        now=NOW,
        stage=Stage.CHECK,
        session=open_[0],
        device=devices[0],
        address=here,
        others=tuple(open_[1:]),
        other_devices=tuple(devices[1:]),
        place=town,
        networks=networks,
        enrolments=(EnrolmentFact(product_id="p", starts_at=NOW - timedelta(days=1), ends_at=None),),
    )


def _session(number: int) -> SessionFact:
    began = NOW - timedelta(minutes=number % 25)
    return SessionFact(id=f"s{number:04}", device_id=UUID(int=number + 1), started_at=began, last_activity=began)


def _device(number: int) -> DeviceFact:
    seen = NOW - timedelta(minutes=number)
    return DeviceFact(id=UUID(int=number + 1), access=Access.DEFAULT, admitted_at=seen, last_seen=seen)


def _network(number: int, place: Place) -> NetworkFact:
    at = address(f"203.0.113.{number + 9}")
    if at is None:
        raise AssertionError("a number of at most 246")
    seen = NOW - timedelta(minutes=number)
    return NetworkFact(
        address=at,
        place=place,
        session_id=f"s{number:04}",
        device_id=None,
        first_at=seen,
        last_at=seen,
        admitted_at=seen,
    )
