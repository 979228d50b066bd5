"""What operators read: what a rule does, and what a case of the violation log was, in a sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

from babel.lists import format_list

from accessguard.words.catalogues import Text, locale, many, one, say

MOST_NAMED: Final = 5

WITHIN: Final = (
    (timedelta(days=1), many("within {count} day", "within {count} days")),
    (timedelta(hours=1), many("within {count} hour", "within {count} hours")),
    (timedelta(minutes=1), many("within {count} minute", "within {count} minutes")),
    (timedelta(seconds=1), many("within {count} second", "within {count} seconds")),
)
LASTING: Final = (
    (timedelta(days=1), many("for {count} day", "for {count} days")),
    (timedelta(hours=1), many("for {count} hour", "for {count} hours")),
    (timedelta(minutes=1), many("for {count} minute", "for {count} minutes")),
    (timedelta(seconds=1), many("for {count} second", "for {count} seconds")),
)
IN_ALL: Final = one("in all")

# Each stands behind a comma or a colon.
ACTIONS: Final[Mapping[str, Text]] = {
    "deny": one("access is refused"),
    "deny_new": one("access is refused"),
    "evict_oldest": one("the oldest session is ended"),
    "evict_idle": one("the session that was idle the longest is ended"),
    "evict_others": one("all other sessions are ended"),
    "end_session": one("the session is ended"),
    "challenge": one("the student is asked to confirm"),
    "log": one("it is only recorded"),
}

COUNTED: Final[Mapping[str, Text]] = {
    "ip_deny": many("From {count} listed network: {action}.", "From {count} listed networks: {action}."),
    "ip_allow_only": many(
        "From outside {count} listed network: {action}.", "From outside {count} listed networks: {action}."
    ),
    "country_deny": many(
        "From {count} listed country ({names}): {action}.", "From {count} listed countries ({names}): {action}."
    ),
    "country_allow_only": many(
        "From outside {count} listed country ({names}): {action}.",
        "From outside {count} listed countries ({names}): {action}.",
    ),
    "asn_deny": many(
        "Through {count} listed network operator ({names}): {action}.",
        "Through {count} listed network operators ({names}): {action}.",
    ),
    "session_limit": many(
        "At most {count} session active {window}; beyond that, {action}.",
        "At most {count} sessions active {window}; beyond that, {action}.",
    ),
    "device_limit": many(
        "At most {count} device {window}; beyond that, {action}.",
        "At most {count} devices {window}; beyond that, {action}.",
    ),
    "device_churn": many(
        "At most {count} new device {window}; beyond that, {action}.",
        "At most {count} new devices {window}; beyond that, {action}.",
    ),
    "network_limit": many(
        "At most {count} address {window}; beyond that, {action}.",
        "At most {count} addresses {window}; beyond that, {action}.",
    ),
    "login_failures": many(
        "After {count} failed login {window}, logins are locked {lock}.",
        "After {count} failed logins {window}, logins are locked {lock}.",
    ),
    "enrolment": many(
        "Without an active enrolment in {count} listed product, {action}.",
        "Without an active enrolment in one of {count} listed products, {action}.",
    ),
}
UNITS: Final[Mapping[str, Text]] = {
    "ip": COUNTED["network_limit"],
    "prefix": many(
        "At most {count} network {window}; beyond that, {action}.",
        "At most {count} networks {window}; beyond that, {action}.",
    ),
    "asn": many(
        "At most {count} network operator {window}; beyond that, {action}.",
        "At most {count} network operators {window}; beyond that, {action}.",
    ),
    "city": many(
        "At most {count} city {window}; beyond that, {action}.",
        "At most {count} cities {window}; beyond that, {action}.",
    ),
}
TRAVEL: Final = one("Faster than {speed} km/h over more than {distance} km: {action}.")
COPIES: Final[Mapping[str, Text]] = {
    "browser": one("One session in two browsers: {action}."),
    "network": one("One session on two networks at the same time: {action}."),
    "both": one("One session in two browsers, or on two networks at the same time: {action}."),
}
ENROLLED: Final = one("Without any active enrolment, {action}.")

COUNTED_PER: Final[Mapping[str, Text]] = {
    "device_class": one("Counted for each kind of device."),
    "app": one("Counted for each app."),
    "ip": one("Counted for each address."),
    "device": one("Counted for each device."),
}
ACTIVITIES: Final[Mapping[str, Text]] = {
    "course_open": one("course opened"),
    "lesson_open": one("lesson opened"),
    "offer_open": one("offer opened"),
    "payment_open": one("payment page opened"),
    "video_watch": one("video watched"),
    "assignment_complete": one("assignment completed"),
}
ONLY_ACTIVITIES: Final = one("Only these activities count: {names}.")
ESCALATES: Final = one("It becomes stricter for a student with repeated cases.")
SWAPS: Final = one("Students may free a place themselves.")
MODES: Final[Mapping[str, Text]] = {
    "off": one("Switched off."),
    "observe": one("For now it is only observed: nobody is refused."),
}

CASES: Final[Mapping[str, Text]] = {
    "unknown_session": one("Unknown session"),
    "session_ended": one("The session had ended"),
    "session_expired": one("The session had expired"),
    "device_blocked": one("Device blocked by an operator"),
    "ip_denied": one("Address on a list of denied networks"),
    "ip_not_allowed": one("Address outside the allowed networks"),
    "country_denied": one("Country not allowed"),
    "asn_denied": one("Network operator not allowed"),
    "no_active_enrolment": one("No active enrolment"),
    "session_limit": one("Too many sessions"),
    "device_limit": one("Too many devices"),
    "device_churn": one("Too many new devices"),
    "network_limit": one("Too many networks"),
    "impossible_travel": one("Two places too far apart for the time between them"),
    "copied_session": one("One session in two browsers or on two networks"),
    "login_failures": one("Too many failed logins"),
    "undecided": one("State could not be read"),
}
COUNTED_CASES: Final[Mapping[str, Text]] = {
    "session_limit": many("{counted} session in use, {limit} allowed", "{counted} sessions in use, {limit} allowed"),
    "device_limit": many("{counted} device in use, {limit} allowed", "{counted} devices in use, {limit} allowed"),
    "device_churn": many("{counted} new device, {limit} allowed", "{counted} new devices, {limit} allowed"),
    "network_limit": many("{counted} network in use, {limit} allowed", "{counted} networks in use, {limit} allowed"),
    "login_failures": many("{counted} failed login, {limit} allowed", "{counted} failed logins, {limit} allowed"),
}


RELATED: Final[Mapping[str, Text]] = {
    "device": many("{shared} browser in common", "{shared} browsers in common"),
    "address": many("{shared} address in common at the same time", "{shared} addresses in common at the same time"),
    "phone": one("the same telephone number"),
}
SHARED_BY: Final = one("{common} (contacts who have it: {members})")


def sentence(language: str, *, kind: str, mode: str, action: str | None, params: Mapping[str, Any]) -> str:
    """What a rule does, in one of the six languages; `params` as they are on the wire."""
    act = say(language, ACTIONS[action or "deny"])
    parts = [_does(language, kind, act, params), *(say(language, text) for text in _more(params, mode))]
    activities = params.get("activities")
    if activities:
        names = _listed(language, [say(language, ACTIVITIES[each]) for each in sorted(activities)])
        parts.insert(1, say(language, ONLY_ACTIVITIES, {"names": names}))
    return " ".join(parts)


def case_text(language: str, code: str, details: Mapping[str, Any]) -> str:
    """What a case of the violation log was, in a few words and without a full stop; `details` as they are kept."""
    text, counted, limit = COUNTED_CASES.get(code), details.get("counted"), details.get("limit")
    if text is None or counted is None or limit is None:
        return say(language, CASES[code])
    return say(language, text, {"counted": counted, "limit": limit}, number=counted)


def related_text(language: str, reason: str, *, shared: int, members: int) -> str:
    """What two contacts have in common, in a few words; `members` are all who have it, those two included."""
    common = say(language, RELATED[reason], {"shared": shared}, number=shared)
    return say(language, SHARED_BY, {"common": common, "members": members})


def _does(language: str, kind: str, action: str, params: Mapping[str, Any]) -> str:
    match kind:
        case "impossible_travel":
            numbers = {"speed": params["max_speed_kmh"], "distance": params["min_distance_km"]}
            return say(language, TRAVEL, numbers | {"action": action})
        case "copied_session":
            return say(language, COPIES[params.get("signal", "browser")], {"action": action})
        case "enrolment" if not params.get("products"):
            return say(language, ENROLLED, {"action": action})
        case "network_limit":
            text = UNITS[params.get("unit", "ip")]
        case _:
            text = COUNTED[kind]
    count = _count(params)
    filling = {"count": count, "action": action, "window": _window(language, params), "names": _names(language, params)}
    return say(language, text, filling | {"lock": _lasting(language, LASTING, params.get("lock_s"))}, number=count)


def _count(params: Mapping[str, Any]) -> int:
    """What a rule's sentence counts: its maximum, or how many things it lists."""
    number = params.get("max", params.get("max_new"))
    if number is not None:
        return int(number)
    return max(len(params.get(name) or ()) for name in ("networks", "countries", "asns", "products"))


def _names(language: str, params: Mapping[str, Any]) -> str:
    """The first few countries or operators of a list."""
    territories = locale(language).territories
    countries = [territories.get(each, each) for each in params.get("countries", ())]
    return _listed(language, countries or [f"AS{each}" for each in params.get("asns", ())])


def _listed(language: str, names: Iterable[str]) -> str:
    shown = list(names)
    if len(shown) > MOST_NAMED:
        return ", ".join(shown[:MOST_NAMED]) + ", …"
    return format_list(shown, locale=locale(language))


def _window(language: str, params: Mapping[str, Any]) -> str:
    if params.get("window_days") is not None:
        return _lasting(language, WITHIN, params["window_days"] * 86_400)
    if params.get("window_s") is not None:
        return _lasting(language, WITHIN, params["window_s"])
    return say(language, IN_ALL)


def _lasting(language: str, words: tuple[tuple[timedelta, Text], ...], seconds: int | None) -> str:
    """A duration in the largest unit that it is a whole number of; empty for none."""
    if seconds is None:
        return ""
    span = timedelta(seconds=seconds)
    unit, text = next(pair for pair in words if span % pair[0] == timedelta())
    return say(language, text, {"count": span // unit}, number=span // unit)


def _more(params: Mapping[str, Any], mode: str) -> list[Text]:
    """What is to be said besides: how it is counted, what becomes of it, whether it is in force."""
    said = [COUNTED_PER.get(params.get("per", "member"))]
    said.append(ESCALATES if params.get("escalation") else None)
    said.append(SWAPS if params.get("swaps") else None)
    said.append(MODES.get(mode))
    return [text for text in said if text is not None]
