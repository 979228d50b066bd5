"""The support bundle as text, to be read or pasted into a ticket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from accessguard.guard.bundle import Bundle
from accessguard.guard.facts import time_text


def written(bundle: Bundle) -> str:
    """The bundle in lines; times in UTC, and what is not known left out."""
    parts = (
        _account(bundle),
        _place(bundle),
        _devices(bundle),
        _sessions(bundle),
        _resources(bundle),
        _verdicts(bundle),
    )
    return "\n".join(line for part in parts for line in (*part, ""))


def _account(bundle: Bundle) -> Iterator[str]:
    account = bundle.account
    yield f"SUPPORT BUNDLE, {time_text(bundle.made_at)}"
    yield _line("Member", account.member_id)
    yield _line("Name", account.name)
    yield _line("E-mail", account.email)
    yield _line("Phone", account.phone)
    yield _line("Status", account.status, account.status_reason)
    yield _line("Tags", *account.tags)
    yield _line("Language", account.locale)
    yield _line("Checks", "enforced" if account.checks_enabled else "switched off", account.checks_reason)
    yield _line("First access", _at(account.first_access_at))
    yield _line("Last access", _at(account.last_access_at))
    for each in account.enrolments:
        yield _line("Enrolment", each.product_id, each.status, f"until {_at(each.ends_at) or 'without an end'}")


def _place(bundle: Bundle) -> Iterator[str]:
    time, place = bundle.local_time, bundle.whereabouts
    yield "PLACE (a hint)"
    yield _line("Local time", time.at, f"{time.time_zone}, by {time.source}")
    yield _line("Profile", place.profile_city, place.profile_country)
    yield _line("Last address", place.seen_city, place.seen_country, _at(place.seen_at))


def _devices(bundle: Bundle) -> Iterator[str]:
    yield f"DEVICES ({len(bundle.devices)})"
    for each in bundle.devices:
        browser = f"{each.browser} {each.browser_version or ''}".strip()
        yield _line(
            _at(each.last_seen_at), each.label, browser, each.os, each.model, each.via, each.access, each.last_ip
        )


def _sessions(bundle: Bundle) -> Iterator[str]:
    yield f"SESSIONS ({len(bundle.sessions)})"
    for each in bundle.sessions:
        yield _line(_at(each.started_at), each.id, each.status, each.end_reason, each.app, each.host, each.ip)


def _resources(bundle: Bundle) -> Iterator[str]:
    yield f"LAST RESOURCES ({len(bundle.resources)})"
    for each in bundle.resources:
        yield _line(_at(each.at), each.kind, each.resource, each.product_id)


def _verdicts(bundle: Bundle) -> Iterator[str]:
    yield f"LAST VERDICTS ({len(bundle.verdicts)})"
    for each in bundle.verdicts:
        yield _line(_at(each.at), each.entry, each.decision, each.code, each.reason, each.session_id)


def _at(at: datetime | None) -> str:
    return time_text(at) if at is not None else ""


def _line(name: str, *values: str | None) -> str:
    """One line; what came from outside stays on it."""
    return f"  {name}: {', '.join(_tidy(values)) or '-'}"


def _tidy(values: Iterable[str | None]) -> Iterator[str]:
    for value in values:
        if value:
            yield "".join(each if each.isprintable() else " " for each in value)
