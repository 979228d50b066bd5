"""What the console calls things, in English; the catalogues hold the other languages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from accessguard.words.catalogues import word

DONE: Final[Mapping[str, str]] = {
    "checks": word("The checks were switched."),
    "language": word("The language was saved."),
    "note": word("The note was saved."),
    "comment": word("The comment was added."),
    "pass": word("The pass was given."),
    "sessions": word("All sessions were ended."),
    "session": word("The session was ended."),
    "blocked": word("The device is blocked."),
    "allowed": word("The device is always allowed."),
    "default": word("The rules decide about the device again."),
    "saved": word("Saved."),
    "forgotten": word("The device was forgotten."),
    "merged": word("The devices are one now."),
    "read": word("Marked as read."),
    "unread": word("Marked as unread."),
    "resolved": word("The resolution was saved."),
    "deleted": word("The rule is out of force; its versions stay."),
}
"""What was done, by the word in the address of the page that comes after it."""

EFFECTS: Final[Mapping[str, str]] = {
    "denied": word("Refused"),
    "challenged": word("Challenged"),
    "ended": word("Session ended"),
    "evicted": word("Older session ended"),
    "logged": word("Recorded"),
    "exempt": word("Exempt"),
}
RESOLUTIONS: Final[Mapping[str, str]] = {
    "open": word("Open"),
    "confirmed": word("Confirmed"),
    "false_alarm": word("False alarm"),
    "contacted": word("Contacted"),
}
PASSES: Final[Mapping[str, str]] = {
    "extra_device": word("One more device"),
    "extra_session": word("One more session"),
    "suspend_checks": word("Checks suspended"),
}
STANDINGS: Final[Mapping[str | None, str]] = {
    "expired": word("Expired"),
    "deactivated": word("Deactivated"),
    "not_started": word("Not started"),
    "frozen": word("Frozen"),
    "never_enrolled": word("Never enrolled"),
}
ACTIVITIES: Final[Mapping[str, str]] = {
    "course_open": word("course opened"),
    "lesson_open": word("lesson opened"),
    "offer_open": word("offer opened"),
    "payment_open": word("payment page opened"),
    "video_watch": word("video watched"),
    "assignment_complete": word("assignment completed"),
}
KINDS: Final[Mapping[str, str]] = {
    "ip_deny": word("Denied networks"),
    "ip_allow_only": word("Allowed networks only"),
    "country_deny": word("Denied countries"),
    "country_allow_only": word("Allowed countries only"),
    "asn_deny": word("Denied network operators"),
    "login_failures": word("Failed logins"),
    "enrolment": word("Active enrolment needed"),
    "session_limit": word("Sessions at a time"),
    "device_limit": word("Number of devices"),
    "device_churn": word("New devices"),
    "network_limit": word("Number of networks"),
    "impossible_travel": word("Impossible travel"),
    "copied_session": word("Copied sessions"),
}
PARAMETERS: Final[Mapping[str, str]] = {
    "max": word("At most"),
    "max_new": word("New ones at most"),
    "window_s": word("Within so many seconds"),
    "window_days": word("Within so many days"),
    "lock_s": word("Locked for so many seconds"),
    "per": word("Counted for each"),
    "unit": word("What one network is"),
    "activities": word("Only these activities (none: all)"),
    "networks": word("Networks, one a line"),
    "countries": word("Countries by their two letters, one a line"),
    "asns": word("Numbers of network operators (AS), one a line"),
    "products": word("Products, one a line (none: any)"),
    "max_speed_kmh": word("Faster than so many km/h"),
    "min_distance_km": word("Over more than so many km"),
    "signal": word("What gives a copy away"),
}
ACTIONS: Final[Mapping[str, str]] = {
    "deny": word("Refuse"),
    "deny_new": word("Refuse the new one"),
    "evict_oldest": word("End the oldest session"),
    "evict_idle": word("End the session that was idle the longest"),
    "evict_others": word("End all other sessions"),
    "end_session": word("End the session"),
    "challenge": word("Ask the student to confirm"),
    "log": word("Record it only"),
}
MODES: Final[Mapping[str, str]] = {
    "off": word("Off"),
    "observe": word("Observe: count and record, refuse nobody"),
    "enforce": word("Enforce"),
}
