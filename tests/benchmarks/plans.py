"""What PostgreSQL really does for the statements that a worker sent: plans as auto_explain tells them, with the rows that were read."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from accessguard.database import SETTINGS, _prepare

EXPLAINED = {
    **SETTINGS,
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "client_min_messages": "log",
}
"""A worker's own connection, but for telling its plans."""

BIG = (
    "member",
    "device",
    "session",
    "login_attempt",
    "activity",
    "violation",
    "member_network",
    "read_mark",
    "enrolment",
    "audit",
    "member_search",
    "member_page",
    "unread_member",
    "product_access",
    "run_access",
    "sharing_day",
    "day_tally",
    "comment",
)
"""Tables that grow with a school; a partition goes by the name of its table."""

Sent = tuple[str, tuple[object, ...]]


@dataclass
class Plan:
    """Rows of big tables that a statement read, by table, and which of them it read without an index."""

    read: Counter[str] = field(default_factory=Counter)
    whole: set[str] = field(default_factory=set)


@asynccontextmanager
async def explaining(url: str, mode: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection whose statements are planned in this mode (`plan_cache_mode`); what it does is undone."""
    connection = await asyncpg.connect(url, server_settings={**EXPLAINED, "plan_cache_mode": mode})
    await _prepare(connection)
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


async def plan_of(connection: asyncpg.Connection, sent: Sent) -> Plan:
    """Send a statement again and see what it reads."""
    told: list[str] = []

    def listen(_: object, message: Any) -> None:
        told.append(message.message)

    connection.add_log_listener(listen)
    try:
        await connection.fetch(sent[0], *sent[1])
        await connection.fetch(
            "SELECT 1"
        )  # its portal takes the place of the statement's, whose plan is told when it goes
        await asyncio.sleep(0)  # what the server told beside the rows is handed on in the loop's next turn
    finally:
        connection.remove_log_listener(listen)
    plan = Plan()
    for each in told:
        if "plan:" in each:
            _add(plan, json.loads(each.partition("plan:")[2])["Plan"])
    return plan


def _add(plan: Plan, top: dict[str, Any]) -> None:
    for node in _nodes(top):
        table = next((big for big in BIG if _is(node.get("Relation Name", ""), big)), None)
        if table is None or "Scan" not in node["Node Type"]:
            continue
        rows = node["Actual Rows"] + sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
        plan.read[table] += round(rows * node["Actual Loops"])
        if node["Node Type"] == "Seq Scan" and rows:
            plan.whole.add(table)


def _is(relation: str, table: str) -> bool:
    return relation == table or relation.removeprefix(f"{table}_").isdigit() or relation == f"{table}_default"


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    inner: Sequence[dict[str, Any]] = node.get("Plans", ())
    for each in inner:
        yield from _nodes(each)
