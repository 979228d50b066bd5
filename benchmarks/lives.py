"""What the members of a generated population did: rows of every big table, as text for COPY, from a seed alone.

Members come in chunks. A chunk depends on the seed and its own number and on
nothing else, so chunks can be made in any order, by several processes at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from random import Random
from typing import Final

from benchmarks.inhabitants import Person, member_id, person
from benchmarks.ledger import (
    CHUNK,
    COLUMNS,
    DAY,
    HOUR,
    MINUTE,
    NULL,
    RULES,
    YEAR,
    Population,
    escaped,
    identifier,
    rule_id,
    stamp,
)
from benchmarks.people import USER_AGENTS

SESSIONS: Final = (0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 7, 8, 10, 13, 20)
"""Of twenty members, in turn; the mean is 5."""
FAILURES: Final = (0, 0, 1, 1, 3)
"""Attempts that came to nothing before a session, in turn; the mean is 1, so that there are ten attempts for a member."""
BEATS: Final = (0, 0, 1, 1, 3)
"""Interactions of a session, in turn."""
BUSY_EVERY: Final = 5_000
BUSY_SESSIONS: Final = 300
"""Of so many members one is a whole office behind one account."""

READERS: Final = ("bench-supervisor", "ops-anna", "ops-bruno")
"""Operators who read violations: the first has read all but those of three members in a hundred."""
PRODUCTS: Final = 40
KINDS: Final = (
    "lesson_open",
    "lesson_open",
    "lesson_open",
    "course_open",
    "video_watch",
    "assignment_complete",
    "offer_open",
    "payment_open",
)
METHODS: Final = ("password", "password", "password", "sso", "social", "magic_link")
BROWSERS: Final = tuple(
    zip(
        USER_AGENTS,
        (
            ("Chrome", "142", "Windows", "desktop", NULL),
            ("Edge", "142", "Windows", "desktop", NULL),
            ("Firefox", "144", "Windows", "desktop", NULL),
            ("Chrome", "141", "macOS", "desktop", NULL),
            ("Safari", "18", "macOS", "desktop", NULL),
            ("Firefox", "143", "Linux", "desktop", NULL),
            ("Chrome", "142", "Android", "mobile", "Pixel 8"),
            ("Samsung Internet", "28", "Android", "mobile", "Galaxy S24"),
            ("Safari", "18", "iOS", "mobile", "iPhone"),
            ("Safari", "17", "iPadOS", "tablet", "iPad"),
        ),
        strict=True,
    )
)
# Country, network operator (of the range kept for documentation, RFC 5398), city, latitude, longitude.
PLACES: Final = (
    ("BR", 64500, "São Paulo", -23.55, -46.63),
    ("BR", 64500, "Rio de Janeiro", -22.91, -43.17),
    ("BR", 64501, "Recife", -8.05, -34.88),
    ("PT", 64502, "Lisbon", 38.72, -9.14),
    ("IT", 64503, "Turin", 45.07, 7.69),
    ("JP", 64504, "Tokyo", 35.68, 139.69),
    ("EG", 64505, "Cairo", 30.04, 31.24),
    ("IN", 64506, "Pune", 18.52, 73.86),
)
CARRIERS: Final = tuple(f"100.64.0.{number}" for number in range(1, 41))
"""Addresses of networks that hide thousands behind one (RFC 6598); one session in fifty is from there."""

EFFECTS: Final = ("evicted", "denied", "logged", "ended", "logged")
DETAILS: Final = '{"limit": 3, "counted": 4}'


def chunk(wanted: Population, number: int) -> Mapping[str, bytes]:
    """The rows of one chunk by table, in the order in which they can be stored: as COPY takes them (text format)."""
    chance = Random(f"{wanted.seed}/{number}")
    rows: dict[str, list[str]] = defaultdict(list)
    before: Life | None = None
    for each in range(number * CHUNK, min(wanted.members, (number + 1) * CHUNK)):
        before = Life(wanted, rows, chance, each, before)
        before.write()
    return {table: "".join(rows[table]).encode() for table in COLUMNS if rows[table]}


class Device:
    """A device while its history is made up."""

    __slots__ = ("browser_id", "first", "id", "ip", "kind", "last")

    def __init__(self, at: int, chance: Random, browser_id: str | None) -> None:
        self.id = identifier(at, chance)
        self.browser_id = browser_id or identifier(at, chance)
        self.kind = BROWSERS[int(chance.random() * len(BROWSERS))]
        self.ip = NULL
        self.first = 0
        self.last = at


class Life:
    """One member: its rows go to `rows`. A few are kin of the one `before`: a browser, an address, a telephone in common."""

    def __init__(
        self, wanted: Population, rows: Mapping[str, list[str]], chance: Random, number: int, before: Life | None
    ) -> None:
        self.wanted = wanted
        self.rows = rows
        self.chance = chance
        self.number = number
        kin = before if before is not None and chance.random() < 0.03 else None
        self.who: Person = person(chance, number)
        self.phone: tuple[str | None, str | None] = (self.who.phone, self.who.e164) if kin is None else kin.phone
        self.home: str = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}" if kin is None else kin.home
        self.place = PLACES[int(chance.random() * len(PLACES))]
        self.key_id = escaped(member_id(number))
        self.key = f"{wanted.tenant}\t{self.key_id}"
        busy = number % BUSY_EVERY == BUSY_EVERY // 2
        self.count = BUSY_SESSIONS if busy else SESSIONS[number * 7 % len(SESSIONS)]
        self.shared = busy or (self.count > 2 and chance.random() < 0.02)
        self.created = wanted.until_ms - int((30 + 1000 * chance.random()) * DAY)
        self.devices = self._devices(kin, 6 if busy else 4 if self.shared else 0)
        self.last_activity = (NULL, NULL, NULL)

    def write(self) -> None:
        """Make everything up and write it down."""
        starts = self._starts()
        session = NULL
        for place, start in enumerate(starts):
            session = self._session(start, place, starts)
        for device in self.devices:
            self._device(device)
        self._member(starts)
        self._enrolments()
        if starts:
            self._cases(session)
        if self.shared:
            self._evidence()
        if self.chance.random() < 0.02:
            self._acts()

    def _devices(self, kin: Life | None, more: int) -> list[Device]:
        if not self.count:
            return []
        chance = self.chance
        count = more or 1 + (chance.random() < 0.35) + (chance.random() < 0.15)
        return [
            Device(self.created, chance, kin.devices[0].browser_id if kin and kin.devices and not place else None)
            for place in range(count)
        ]

    def _starts(self) -> list[int]:
        """When the sessions began, in order; those of one member in twenty go on until the present."""
        if not self.count:
            return []
        chance, until = self.chance, self.wanted.until_ms
        begin = max(self.created, until - YEAR + DAY)
        if chance.random() < 0.0526:
            last = until - int((20 + 200 * chance.random()) * MINUTE)
        else:
            last = max(begin, until - 13 * HOUR - int((YEAR - DAY) * chance.random() ** 2))
        reach = last - begin
        return [*sorted(begin + int(reach * chance.random()) for _ in range(self.count - 1)), last]

    def _session(self, start: int, place: int, starts: list[int]) -> str:
        """One session with the attempts before it and what was done in it; its id."""
        chance, until = self.chance, self.wanted.until_ms
        device = self.devices[0 if chance.random() < 0.75 else int(chance.random() * len(self.devices))]
        ip = self._address(device)
        session = identifier(start, chance)
        (agent, (browser, _, os, device_class, _)) = device.kind
        live = place == len(starts) - 1 and start > until - 5 * HOUR
        beats = self._beats(session, start, ip, live=live)
        last = beats[0] if beats else start
        ended = (
            NULL
            if live or chance.random() < 0.1
            else stamp(min(until - MINUTE, last + int(30 * MINUTE * chance.random())))
        )
        reason = NULL if ended is NULL else "logout" if chance.random() < 0.6 else "replaced"
        expires = until + 30 * DAY if live else start + 12 * HOUR
        method = METHODS[int(chance.random() * len(METHODS))]
        at, new = stamp(start), device.first == 0
        self._attempts(start, method, ip, device)
        self.rows["login_attempt"].append(
            f"{self.wanted.tenant}\t{identifier(start, chance)}\t{at}\t{self.key_id}\tsuccess\t\\N\t{method}\tcourses\tlearn.example.com\t{ip}\t{agent}"
            f"\t{browser}\t{os}\t{device_class}\t{device.id}\t{new}\t{'none' if new else 'current'}\t{session}\tallow\t\\N\t\\N\t\\N\tf"
            f"\t{self.place[0]}\t{self.place[1]}\t{self.place[2]}\n"
        )
        activity = f"{stamp(last)}\t{beats[1]}\t{beats[2]}" if beats else "\\N\t\\N\t\\N"
        self.rows["session"].append(
            f"{self.wanted.tenant}\t{session}\t{self.key_id}\t{device.id}\t{device_class}\tcourses\tlearn.example.com\t{method}\t{ip}\t{agent}"
            f"\t{at}\t{stamp(expires)}\t{activity}\t{ended}\t{reason}\t{NULL if ended is NULL else 'platform'}\n"
        )
        if start > until - YEAR // 2:
            self.rows["member_network"].append(
                f"{self.key}\t{session}\t{ip}\t{device.id}\t{at}\t{stamp(last)}\t{at}"
                f"\t{self.place[0]}\t{self.place[1]}\t{self.place[2]}\t{self.place[3]}\t{self.place[4]}\n"
            )
        device.first = device.first or start
        device.last = max(device.last, last)
        device.ip = ip
        return session

    def _address(self, device: Device) -> str:
        drawn = self.chance.random()
        if drawn < 0.02:
            return CARRIERS[int(drawn * 50 * len(CARRIERS))]
        if drawn < 0.7:
            return self.home
        if drawn < 0.8:
            return f"2001:db8:{self.number >> 16:x}:{self.number & 0xFFFF:x}::{int(drawn * 10_000) & 15:x}"
        return f"172.{16 + int(drawn * 1_000) % 16}.{self.number % 251}.{int(drawn * 100_000) % 251}"

    def _beats(self, session: str, start: int, ip: str, *, live: bool) -> tuple[int, str, str] | None:
        """The interactions of a session; the last one's time, kind and resource."""
        chance = self.chance
        count = BEATS[int(chance.random() * len(BEATS))]
        if live:
            count = max(1, count)
        end = (
            self.wanted.until_ms - int(15 * MINUTE * chance.random())
            if live
            else start + int(40 * MINUTE * chance.random())
        )
        last = None
        for beat in range(count):
            at = start + beat + (end - start) * (beat + 1) // count
            product = int(chance.random() ** 2 * PRODUCTS)
            kind = KINDS[int(chance.random() * len(KINDS))]
            resource = (
                f"course:{product}/lesson:{int(chance.random() * 37)}"
                if beat % 20
                else f"webinar:{product}?run=2026-05-{1 + product % 28:02d}"
            )
            self.rows["activity"].append(
                f"{self.key}\t{session}\t{stamp(at)}\t{kind}\t{resource}\tcourse-{product}\t{ip}\n"
            )
            last = (at, kind, resource)
        if last is not None:
            self.last_activity = (stamp(last[0]), last[1], session)
        return last

    def _attempts(self, start: int, method: str, ip: str, device: Device) -> None:
        """What did not work before a session: a wrong password, now and then a refusal by a rule."""
        chance = self.chance
        (agent, (browser, _, os, device_class, _)) = device.kind
        for attempt in range(FAILURES[int(chance.random() * len(FAILURES))]):
            at = start - (attempt + 1) * 9_000 - int(chance.random() * 5_000)
            refused = chance.random() < 0.04
            end = f"deny\tdevice_limit\t{rule_id(self.wanted.seed, 1)}\t1\tf" if refused else "allow\t\\N\t\\N\t\\N\tt"
            outcome = "success\t\\N" if refused else "failure\twrong_password"
            self.rows["login_attempt"].append(
                f"{self.wanted.tenant}\t{identifier(at, chance)}\t{stamp(at)}\t{self.key_id}\t{outcome}\t{method}\tcourses\tlearn.example.com\t{ip}\t{agent}"
                f"\t{browser}\t{os}\t{device_class}\t\\N\tf\tnone\t\\N\t{end}\t{self.place[0]}\t{self.place[1]}\t{self.place[2]}\n"
            )

    def _device(self, device: Device) -> None:
        drawn = self.chance.random()
        access = "blocked" if drawn < 0.01 else "allowed" if drawn < 0.03 else "default"
        browser, version, os, device_class, model = device.kind[1]
        first = stamp(device.first or self.created)
        self.rows["device"].append(
            f"{self.wanted.tenant}\t{device.id}\t{self.key_id}\t{device.browser_id}\t\\\\x{self.chance.getrandbits(256):064x}\t{first}\t{browser} on {os}"
            f"\t{browser}\t{version}\t{os}\t{device_class}\t{model}\t{access}\t{first}\t{stamp(max(device.last, device.first))}\t{device.ip}\t{first}\t{first}\n"
        )

    def _member(self, starts: list[int]) -> None:
        who, chance = self.who, self.chance
        phone, e164 = self.phone
        exempt = chance.random() < 0.01
        note = "Called about a lost phone." if chance.random() < 0.02 else ""
        first, last = (stamp(starts[0]), stamp(starts[-1])) if starts else (NULL, NULL)
        self.rows["member"].append(
            f"{self.key}\t{escaped(who.name)}\t{who.email}\t{phone or NULL}\t{e164 or NULL}\t{{{','.join(who.tags)}}}\t{who.locale}\t{who.time_zone}"
            f"\t{self.number % 500 == 3}\t{note}\t{not exempt}\t{'exam week' if exempt else NULL}\t{first}\t{last}"
            f"\t{self.last_activity[0]}\t{self.last_activity[1]}\t{self.last_activity[2]}\t{stamp(self.created)}\n"
        )
        if who.former:
            self.rows["member_alias"].append(f"{self.key}\t{who.former}\t{stamp(self.created + 9 * DAY)}\n")

    def _enrolments(self) -> None:
        chance, until = self.chance, self.wanted.until_ms
        count = int(chance.random() * 3.2) if chance.random() < 0.95 else 0
        for product in {int(chance.random() ** 2 * PRODUCTS) for _ in range(count)}:
            drawn = chance.random()
            starts = self.created + int(chance.random() * max(DAY, until - self.created))
            status, reopens = ("active", NULL)
            if drawn < 0.1:
                status = "deactivated"
            elif drawn < 0.13:
                status, reopens = "frozen", stamp(until + int(30 * DAY * chance.random()))
            ends = stamp(starts + 365 * DAY) if drawn < 0.6 else NULL
            bought = stamp(starts - DAY)
            self.rows["enrolment"].append(
                f"{self.key}\tcourse-{product}\t{stamp(starts)}\t{ends}\t{bought}\t{status}\t{reopens}\t{bought}\n"
            )

    def _cases(self, session: str) -> None:
        chance = self.chance
        count = 12 if self.shared else 1 + int(chance.random() * 3) if chance.random() < 0.12 else 0
        unread = chance.random() < 0.2
        for place in range(count):
            self._case(session, place, unread=unread and not place)

    def _case(self, session: str, place: int, *, unread: bool) -> None:
        chance, tenant, until = self.chance, self.wanted.tenant, self.wanted.until_ms
        rule = int(chance.random() * len(RULES))
        first = until - HOUR - int((YEAR - DAY) * chance.random() ** 1.5)
        last, hits = first + int(min(DAY, until - first) * chance.random()), 1 + int(20 * chance.random() ** 3)
        case, cause = identifier(first, chance), rule_id(self.wanted.seed, rule)
        device = self.devices[0]
        drawn = chance.random()
        resolution = (
            "open" if drawn < 0.7 else "confirmed" if drawn < 0.85 else "false_alarm" if drawn < 0.93 else "contacted"
        )
        self.rows["violation"].append(
            f"{tenant}\t{case}\t{RULES[rule][0]}\t{cause}\t1\tenforce\t{EFFECTS[rule]}\t{self.key_id}\t{session}\t{device.id}\t{self.home}"
            f"\t{stamp(first)}\t{stamp(last)}\t{hits}\t{DETAILS}\t{resolution}\t\n"
        )
        self.rows["violation_case"].append(
            f"{self.key}\t{cause}\t{device.id}/{place}\t{case}\t{stamp(first)}\t{stamp(last)}\n"
        )
        if not unread:
            self.rows["read_mark"].append(f"{tenant}\t{case}\t{READERS[0]}\t{hits}\t{stamp(min(until, last + HOUR))}\n")
        if drawn < 0.4:
            self.rows["read_mark"].append(f"{tenant}\t{case}\t{READERS[1]}\t{hits}\t{stamp(min(until, last + HOUR))}\n")

    def _evidence(self) -> None:
        """Days that showed several people at once; a report looks back 93 of them."""
        chance = self.chance
        day = self.wanted.until_ms // DAY * DAY - int(5 * chance.random()) * DAY
        for _ in range(1 + int(15 * chance.random())):
            amounts = [int(6 * chance.random()) for _ in range(4)]
            self.rows["sharing_day"].append(
                f"{self.key}\t{stamp(day)[:10]}\t{amounts[0]}\t{amounts[1]}\t{amounts[2]}\t{amounts[3]}\t{stamp(day + 9 * HOUR)}\n"
            )
            day -= (1 + int(5 * chance.random())) * DAY

    def _acts(self) -> None:
        """An operator's look at the member: an entry of the audit log, and for some a pass."""
        chance, until = self.chance, self.wanted.until_ms
        at = max(self.created, until - int(YEAR * chance.random()))
        actor = READERS[int(chance.random() * len(READERS))]
        self.rows["audit"].append(
            f"{self.wanted.tenant}\t{identifier(at, chance)}\t{stamp(at)}\t{actor}\tsupervisor\tmember.change\tmember\t{self.key_id}"
            f'\t{{"note": ""}}\t{{"note": "Called"}}\tasked by phone\n'
        )
        for place in range(int(4 * chance.random())):
            written = min(until, at + place * DAY)
            self.rows["comment"].append(
                f"{self.key}\t{identifier(written, chance)}\t{stamp(written)}\t{actor}\tsupervisor\tCalled: {place + 1}. אבג 🦊\n"
            )
        if chance.random() < 0.3:
            self.rows["pass"].append(
                f"{self.wanted.tenant}\t{identifier(at, chance)}\t{self.key_id}\textra_device\t{stamp(until + int((chance.random() - 0.8) * 30 * DAY))}"
                f"\tnew laptop\tf\t{stamp(at)}\t{actor}\n"
            )
