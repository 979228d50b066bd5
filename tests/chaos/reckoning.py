"""Holds the service to the ledger: by SQL and by the API, while nobody calls."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from tests.chaos.ledger import Entry, Kind, Ledger
from tests.chaos.load import DEVICES, SESSIONS, Load
from tests.chaos.platform import NOT_ANSWERED, TENANT, Platform
from tests.chaos.stage import POOL, WORKERS, Host, Stage, seconds
from tests.service import CHROME, LAPTOP

ATTEMPTS: Final = "SELECT id, session_id FROM login_attempt WHERE tenant = $1"
SESSION_ROWS: Final = "SELECT id, member_id, device_id, ended_at FROM session WHERE tenant = $1"
DEVICE_ROWS: Final = "SELECT id, access FROM device WHERE tenant = $1"
REASONS: Final = "SELECT reason FROM audit WHERE tenant = $1 AND reason IS NOT NULL"
VIOLATIONS: Final = "SELECT id FROM violation WHERE tenant = $1"
MARKS: Final = "SELECT violation_id FROM read_mark WHERE tenant = $1 AND reader = 'supervisor'"
VERSIONS: Final = "SELECT rule_id, version, body::text FROM rule_version WHERE tenant = $1"
CONNECTIONS: Final = """
    SELECT coalesce(state, '') AS state, count(*) FROM pg_stat_activity
     WHERE application_name = 'accessguard' GROUP BY 1
"""
UNWELCOME: Final = frozenset({"unexpected", "job_failed", "pending_lost", "spooled_login_refused", "worker_killed"})
REST_S: Final = 5.0
"""How long a limit may take to hold: what is not pushed is found out in that time."""


class Rest(msgspec.Struct, frozen=True, kw_only=True):
    """What is in use while nobody calls: of workers the greatest, of stores all together."""

    memory_mb: float
    descriptors: int
    postgres: int
    valkey: int


class Reckoning:
    """Looks at everything that was acknowledged so far, each time anew."""

    def __init__(self, stage: Stage, ledger: Ledger, load: Load) -> None:
        self._stage, self._ledger, self._load = stage, ledger, load
        self._read: dict[Host, int] = dict.fromkeys(stage.hosts, 0)

    async def reckon(self) -> Rest:
        """Compare all of it, note what is not as it was promised, and say what is in use."""
        async with self._load.day.paused():
            await self._by_sql()
            await self._by_api()
            await self._limits()
            await self._blocked()
            await asyncio.sleep(0.1)
            rest = await self._at_rest()
        self._logs()
        return rest

    async def _by_sql(self) -> None:
        async with self._stage.stores.connected() as db:
            self._once(Kind.LOGIN, await _column(db, ATTEMPTS), "attempt_id", "in the log")
            self._once(Kind.VIOLATION, await _column(db, VIOLATIONS), "violation_id", "as a violation")
            self._at_least(Kind.MARK, await _column(db, MARKS), "violation_id", "as a read mark")
            self._reasons(Counter(row[0] for row in await db.fetch(REASONS, TENANT)))
            self._devices({str(row[0]): row[1] for row in await db.fetch(DEVICE_ROWS, TENANT)}, "SQL")
            sessions = {row["id"]: row for row in await db.fetch(SESSION_ROWS, TENANT)}
            self._rules({(str(row[0]), row[1]): json.loads(row[2]) for row in await db.fetch(VERSIONS, TENANT)}, "SQL")
        self._sessions(sessions)

    def _once(self, kind: Kind, there: Counter[str], name: str, where: str) -> None:
        for entry in self._ledger.of(kind):
            found = there[_named(entry, name)]
            if found != 1:
                self._ledger.breach("acknowledged is there, once", f"{kind} is {found} times {where}", entry)

    def _at_least(self, kind: Kind, there: Counter[str], name: str, where: str) -> None:
        for entry in self._ledger.of(kind):
            if not there[_named(entry, name)]:
                self._ledger.breach("acknowledged is there, once", f"{kind} is not there {where}", entry)

    def _reasons(self, there: Counter[str]) -> None:
        """Operators' changes are in the audit log: once, or as often as they were repeated without an answer."""
        for entry in (*self._ledger.of(Kind.DEVICE), *self._ledger.of(Kind.RULE)):
            found = there[entry.asked["reason"]]
            if not 1 <= found <= entry.tries:
                self._ledger.breach("acknowledged is there, once", f"{entry.kind} is audited {found} times", entry)

    def _devices(self, there: dict[str, str], by: str) -> None:
        last = {entry.asked["device_id"]: entry for entry in self._ledger.of(Kind.DEVICE)}
        for device, entry in last.items():
            if there.get(device) != entry.asked["access"]:
                what = f"the device is {there.get(device)} by {by}"
                self._ledger.breach("acknowledged is there, once", what, entry)

    def _sessions(self, there: dict[str, Any]) -> None:
        for entry in self._ledger.of(Kind.LOGIN):
            session = entry.answered["session"]
            if session is not None and session["id"] not in there:
                self._ledger.breach("acknowledged is there, once", "the login's session is not there", entry)
        for entry in self._ledger.of(Kind.END):
            row = there.get(entry.asked["session_id"])
            if row is None or row["ended_at"] is None:
                self._ledger.breach("ended stay ended", "the session is open", entry)

    def _rules(self, there: dict[tuple[str, int], Any], by: str) -> None:
        for entry in self._ledger.of(Kind.RULE):
            body = there.get((entry.answered["rule_id"], entry.answered["version"]))
            if body is None or body["params"] != entry.asked["params"]:
                self._ledger.breach("acknowledged is there, once", f"the version is {body} by {by}", entry)

    async def _by_api(self) -> None:
        platform = self._load.platform
        logins, devices = Counter[str](), dict[str, str]()
        for member in self._load.people:
            logins.update(each["id"] for each in await platform.every(f"/v1/members/{member}/logins"))
            found = await platform.every(f"/v1/members/{member}/devices")
            devices |= {each["id"]: each["access"] for each in found}
        self._once(Kind.LOGIN, logins, "attempt_id", "in the API's log")
        self._devices(devices, "API")
        violations = await platform.every("/v1/violations")
        self._once(
            Kind.VIOLATION, Counter(each["id"] for each in violations), "violation_id", "in the API's violations"
        )
        rules = {entry.answered["rule_id"] for entry in self._ledger.of(Kind.RULE)}
        for rule in rules:
            told = await platform.persist("GET", f"/v1/rules/{rule}/versions", role="administrator")
            if told is not None:
                self._rules({(rule, each["version"]): each["rule"] for each in told.body["items"]}, "API")

    async def _limits(self) -> None:
        """No more sessions or devices are let in than the rules say, at either host."""
        async with self._stage.stores.connected() as db:
            rows = await db.fetch(SESSION_ROWS + " AND ended_at IS NULL", TENANT)
        open_ones: defaultdict[str, list[Any]] = defaultdict(list)
        for row in rows:
            if row["member_id"][0] in "sd":
                open_ones[row["member_id"]].append(row)
        for host in self._stage.hosts:
            for member, sessions in open_ones.items():
                await self._limit(host, member, sessions)

    async def _limit(self, host: Host, member: str, sessions: list[Any]) -> None:
        deadline = seconds() + REST_S
        most = SESSIONS if member.startswith("s") else DEVICES
        while True:
            answers = await self._ask(host, [row["id"] for row in sessions])
            allowed = [row for row, answer in zip(sessions, answers, strict=True) if answer["decision"] == "allow"]
            counted = {row["id"] if member.startswith("s") else row["device_id"] for row in allowed}
            if len(counted) <= most:
                return
            if seconds() > deadline:
                what = f"{len(counted)} of {member} are let in at {host.folder.name}: {sorted(map(str, counted))}"
                self._ledger.breach("limits hold at rest", what)
                return
            await asyncio.sleep(0.2)

    async def _blocked(self) -> None:
        """Whoever is blocked is refused at every host; asked on new connections, so that several workers answer."""
        for host in self._stage.hosts:
            for _ in range(3):
                platform = Platform((host,), self._ledger, self._load.dice)
                sessions, sent = list(self._ledger.blocked_sessions), self._ledger.now()
                for some in _portions(sessions, 200):
                    for session, answer in zip(some, await self._ask(host, some, platform), strict=True):
                        self._ledger.judge(session, sent, answer)
                await platform.close()

    async def _ask(self, host: Host, sessions: list[str], platform: Platform | None = None) -> list[Any]:
        checks = [{"session_id": each, "ip": LAPTOP, "user_agent": CHROME.format(142)} for each in sessions]
        for _ in range(5):
            try:
                status, told = await (platform or self._load.platform).once(
                    host, "POST", "/v1/checks", {"checks": checks}
                )
            except NOT_ANSWERED:
                continue
            if status == 200:
                return list(told["results"])
        self._ledger.breach("recovers", f"{host.folder.name} does not answer a batch at rest")
        return [{"decision": "deny", "degraded": True}] * len(sessions)

    async def _at_rest(self) -> Rest:
        until = seconds() + REST_S  # a job of upkeep may be in the middle of a transaction just now; none stays
        async with self._stage.stores.connected() as db:
            states = {row[0]: row[1] for row in await db.fetch(CONNECTIONS)}
            while states.get("idle in transaction", 0) and seconds() < until:
                await asyncio.sleep(0.1)
                states = {row[0]: row[1] for row in await db.fetch(CONNECTIONS)}
        connections = sum(states.values())
        most = len(self._stage.hosts) * WORKERS * POOL
        if connections > most or states.get("idle in transaction", 0):
            self._ledger.breach("nothing leaks", f"connections to PostgreSQL at rest: {states}, at most {most}")
        workers = [each for host in self._stage.hosts for each in host.workers()]
        return Rest(
            memory_mb=round(max(each.memory_info().rss for each in workers) / 1e6, 1),
            descriptors=max(each.num_fds() - _connections(each) for each in workers),
            postgres=connections,
            valkey=await self._stage.stores.valkey.clients(),
        )

    def _logs(self) -> None:
        """Nothing of ours failed for a reason that nobody thought of."""
        for host in self._stage.hosts:
            with host.log.open("rb") as log:
                log.seek(self._read[host])
                lines = log.read().splitlines()
                self._read[host] = log.tell()
            for line in lines:
                try:
                    event = json.loads(line)["event"]
                except (ValueError, TypeError, KeyError):
                    if line.strip() and b"answers at http" not in line:
                        self._ledger.breach("nothing unexpected", line.decode(errors="replace")[:400])
                    continue
                if event in UNWELCOME:
                    self._ledger.breach("nothing unexpected", line.decode(errors="replace")[:400])


def _connections(process: Any) -> int:
    """Connections of callers and to stores, which come and go and are counted elsewhere."""
    return len([each for each in process.net_connections("all") if each.status != "LISTEN"])


def _named(entry: Entry, name: str) -> str:
    return str(entry.asked.get(name) or entry.answered[name])


async def _column(db: asyncpg.Connection[Any], statement: str) -> Counter[str]:
    return Counter(str(UUID(str(row[0]))) for row in await db.fetch(statement, TENANT))


def _portions(items: list[str], most: int) -> Iterator[list[str]]:
    for begin in range(0, len(items), most):
        yield items[begin : begin + most]


def quantile(values: Iterable[float], share: float) -> float:
    """The value that this share of them does not exceed; 0 of none."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0
