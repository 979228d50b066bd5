"""Dates and times as a student reads them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from babel.dates import format_date, format_datetime

from accessguard.words.catalogues import locale

MINUTE: Final = timedelta(minutes=1)


class Clock(msgspec.Struct, frozen=True, gc=False):
    """The time zone that times are told in (IANA); `said` adds how far it is from UTC, for who may live by another."""

    zone: str = "UTC"
    said: bool = True


def clock(own: str | None, school: str) -> Clock:
    """The student's own time zone where it is known; else the school's, and it is said which."""
    if own is not None and zone(own) is not None:
        return Clock(own, said=False)
    return Clock(school if zone(school) is not None else "UTC")


def day(language: str, at: datetime, told: Clock) -> str:
    """The date, such as `Saturday, 21 November 2026`; aware `at` in any zone."""
    width = "full" if language == "it" else "long"  # with its weekday an Italian date needs no article
    return format_date(_local(at, told), width, locale=locale(language))


def hour(language: str, at: datetime, told: Clock) -> str:
    """The time of day, such as `18:55`, with ` (UTC+1)` where the zone is to be said."""
    local = _local(at, told)
    text = format_datetime(local, "HH:mm", tzinfo=local.tzinfo, locale=locale(language))
    return f"{text} ({_offset(local)})" if told.said else text


def whole_minute(at: datetime) -> datetime:
    """The first whole minute that is not before `at`: who tries then is not too early."""
    return at + (-(at - datetime.min.replace(tzinfo=UTC)) % MINUTE)


def _local(at: datetime, told: Clock) -> datetime:
    return at.astimezone(zone(told.zone) or UTC)


def _offset(local: datetime) -> str:
    minutes = int((local.utcoffset() or timedelta()).total_seconds()) // 60
    hours, rest = divmod(abs(minutes), 60)
    if minutes == 0:
        return "UTC"
    return f"UTC{'+' if minutes > 0 else '-'}{hours}" + (f":{rest:02}" if rest else "")


@lru_cache(maxsize=1_024)
def zone(name: str) -> tzinfo | None:
    """A time zone by name; None for what is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, no name at all, a folder of zones
        return None
