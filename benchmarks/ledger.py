"""What a generated population is written down in: its tables and columns, its rules, times and ids as PostgreSQL reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import Final

import msgspec

CHUNK: Final = 1_000
"""Members of one chunk: some 27,000 rows, a transaction of about a second."""

DAY: Final = 86_400_000
HOUR: Final = 3_600_000
MINUTE: Final = 60_000
YEAR: Final = 365 * DAY
NULL: Final = "\\N"

# Rule: kind, action, parameters. Violations name them.
RULES: Final = (
    ("session_limit", "evict_oldest", {"max": 3, "window_s": 1800}),
    ("device_limit", "deny_new", {"max": 5, "window_days": 30}),
    ("network_limit", "log", {"max": 6, "window_s": 86_400, "unit": "prefix"}),
    ("copied_session", "end_session", {"signal": "browser"}),
    ("impossible_travel", "log", {"max_speed_kmh": 1000, "min_distance_km": 500}),
)
COLUMNS: Final = {
    "member": (
        "tenant id name email phone phone_e164 tags locale time_zone staff note checks_enabled checks_reason first_access_at"
        " last_access_at last_activity_at last_activity_kind last_activity_session created_at"
    ),
    "member_alias": "tenant member_id email at",
    "device": (
        "tenant id member_id browser_id secret_hash rotated_at label browser browser_version os device_class model access"
        " first_seen_at last_seen_at last_ip admitted_at first_admitted_at"
    ),
    "session": (
        "tenant id member_id device_id device_class app host method ip user_agent started_at expires_at last_activity_at"
        " last_activity_kind last_resource ended_at end_reason ended_by"
    ),
    "login_attempt": (
        "tenant id at member_id outcome failure_reason method app host ip user_agent browser os device_class device_id"
        " device_new device_token session_id decision code rule_id rule_version counted country asn city"
    ),
    "activity": "tenant member_id session_id at kind resource product_id ip",
    "member_network": (
        "tenant member_id session_id ip device_id first_at last_at admitted_at country asn city latitude longitude"
    ),
    "enrolment": "tenant member_id product_id starts_at ends_at purchased_at status reopens_at updated_at",
    "violation": (
        "tenant id code rule_id rule_version mode effect member_id session_id device_id ip first_at last_at hits details"
        " resolution note"
    ),
    "violation_case": "tenant member_id cause subject violation_id first_at last_at",
    "read_mark": "tenant violation_id reader hits read_at",
    "sharing_day": ("tenant member_id day parallel_activity parallel_devices far_places new_devices last_at"),
    "audit": "tenant id at actor role action target_kind target_id before after reason",
    "pass": "tenant id member_id kind until reason own created_at created_by",
    "comment": "tenant member_id id at author role body",
}
"""The columns that are filled, in the order of a row; the others take their defaults."""


_DAYS: Final[dict[int, str]] = {}
_SECONDS: Final = tuple(f"{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}" for s in range(86_400))
_THOUSANDTHS: Final = tuple(f".{ms:03d}+00" for ms in range(1000))


class Population(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant with so many members; `until_ms` is the present of their histories (milliseconds since the epoch)."""

    tenant: str
    members: int
    seed: int
    until_ms: int

    @property
    def chunks(self) -> int:
        """How many chunks they come in."""
        return -(-self.members // CHUNK)


@cache
def rule_id(seed: int, number: int) -> str:
    """The id of the rule at that place of RULES."""
    return identifier(1_700_000_000_000 + number, Random(f"{seed}/rule/{number}"))


def identifier(at: int, chance: Random) -> str:
    """A UUIDv7 (RFC 9562) of that millisecond, as text."""
    drawn = chance.getrandbits(76)
    return f"{at >> 16:08x}-{at & 0xFFFF:04x}-7{drawn >> 64:03x}-{0x8000 | drawn >> 48 & 0x3FFF:04x}-{drawn & 0xFFFF_FFFF_FFFF:012x}"


def stamp(at: int) -> str:
    """A time in milliseconds since the epoch as PostgreSQL reads it; put together from tables, as it is most of the work."""
    day, rest = at // DAY, at % DAY
    date = _DAYS.get(day)
    if date is None:
        date = _DAYS[day] = datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d ")
    return date + _SECONDS[rest // 1000] + _THOUSANDTHS[rest % 1000]


def escaped(text: str) -> str:
    """A text as COPY takes it; names hold no other character that it would take for its own."""
    return text.replace("\\", "\\\\")
