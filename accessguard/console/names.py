"""What the console calls things, in English; the catalogues hold the other languages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DONE: Final[Mapping[str, str]] = {
    "checks": "The checks were switched.",
    "note": "The note was saved.",
    "comment": "The comment was added.",
    "pass": "The pass was given.",
    "sessions": "All sessions were ended.",
    "session": "The session was ended.",
    "blocked": "The device is blocked.",
    "allowed": "The device is always allowed.",
    "default": "The rules decide about the device again.",
    "saved": "Saved.",
    "forgotten": "The device was forgotten.",
    "merged": "The devices are one now.",
    "read": "Marked as read.",
    "unread": "Marked as unread.",
    "resolved": "The resolution was saved.",
    "enforced": "The rule is enforced from now on.",
    "observed": "The rule is only observed from now on.",
    "off": "The rule is switched off.",
    "preset": "The rules are there, and only observed for now.",
    "filter": "The filter was saved.",
    "unfiltered": "The filter was forgotten.",
    "deleted": "The rule is out of force; its versions stay.",
}
"""What was done, by the word in the address of the page that comes after it."""

EFFECTS: Final[Mapping[str, str]] = {
    "denied": "Refused",
    "challenged": "Challenged",
    "ended": "Session ended",
    "evicted": "Older session ended",
    "logged": "Recorded",
    "exempt": "Exempt",
}
RESOLUTIONS: Final[Mapping[str, str]] = {
    "open": "Open",
    "confirmed": "Confirmed",
    "false_alarm": "False alarm",
    "contacted": "Contacted",
}
PASSES: Final[Mapping[str, str]] = {
    "extra_device": "One more device",
    "extra_session": "One more session",
    "suspend_checks": "Checks suspended",
}
STANDINGS: Final[Mapping[str | None, str]] = {
    "expired": "Expired",
    "deactivated": "Deactivated",
    "not_started": "Not started",
    "frozen": "Frozen",
    "never_enrolled": "Never enrolled",
}
ACTIVITIES: Final[Mapping[str, str]] = {
    "course_open": "course opened",
    "lesson_open": "lesson opened",
    "offer_open": "offer opened",
    "payment_open": "payment page opened",
    "video_watch": "video watched",
    "assignment_complete": "assignment completed",
}
KINDS: Final[Mapping[str, str]] = {
    "ip_deny": "Denied networks",
    "ip_allow_only": "Allowed networks only",
    "country_deny": "Denied countries",
    "country_allow_only": "Allowed countries only",
    "asn_deny": "Denied network operators",
    "login_failures": "Failed logins",
    "enrolment": "Active enrolment needed",
    "session_limit": "Sessions at a time",
    "device_limit": "Number of devices",
    "device_churn": "New devices",
    "network_limit": "Number of networks",
    "impossible_travel": "Impossible travel",
    "copied_session": "Copied sessions",
}
PARAMETERS: Final[Mapping[str, str]] = {
    "max": "At most",
    "max_new": "New ones at most",
    "window_s": "Within so many seconds",
    "window_days": "Within so many days",
    "lock_s": "Locked for so many seconds",
    "per": "Counted for each",
    "unit": "What one network is",
    "activities": "Only these activities (none: all)",
    "networks": "Networks, one a line",
    "countries": "Countries by their two letters, one a line",
    "asns": "Numbers of network operators (AS), one a line",
    "products": "Products, one a line (none: any)",
    "max_speed_kmh": "Faster than so many km/h",
    "min_distance_km": "Over more than so many km",
    "signal": "What gives a copy away",
}
ACTIONS: Final[Mapping[str, str]] = {
    "deny": "Refuse",
    "deny_new": "Refuse the new one",
    "evict_oldest": "End the oldest session",
    "evict_idle": "End the session that was idle the longest",
    "evict_others": "End all other sessions",
    "end_session": "End the session",
    "challenge": "Ask the student to confirm",
    "log": "Record it only",
}
MODES: Final[Mapping[str, str]] = {
    "off": "Off",
    "observe": "Observe: count and record, refuse nobody",
    "enforce": "Enforce",
}
BULK: Final[Mapping[str, str]] = {
    "tag": "Give tags",
    "untag": "Take tags away",
    "exempt": "Switch checks off",
    "unexempt": "Switch checks on",
    "end_sessions": "End all sessions",
    "deactivate": "Deactivate enrolments",
    "erase": "Erase",
}
"""What is done to many contacts at once."""

FILTERS: Final[Mapping[str, str]] = {
    "q": "Search",
    "status": "Status",
    "tag": "Tag",
    "unread": "Unread",
    "restricted": "Restricted",
    "product_id": "Product",
}
JOBS: Final[Mapping[str, str]] = {
    "bulk": "Many contacts at once",
    "import": "Import",
    "simulate": "A rule tried on history",
    "report": "Report",
}
JOB_STATES: Final[Mapping[str, str]] = {
    "waiting": "Waits",
    "running": "Under way",
    "done": "Done",
    "failed": "Did not come to its end",
}
SCOPE: Final[Mapping[str, str]] = {
    "tags": "Only contacts with one of these tags",
    "except_tags": "Not contacts with one of these tags",
    "products": "Only in these products",
    "apps": "Only in these apps",
    "device_classes": "Only on these kinds of device",
}
CLASSES: Final[Mapping[str, str]] = {"desktop": "computer", "mobile": "telephone", "tablet": "tablet"}
TERMS: Final[Mapping[str, str]] = {
    "name": "Name",
    "mode": "Mode",
    "action": "What happens",
    "message": "What the student reads",
    "priority": "Priority",
    "escalation.challenge_after": "Asks to confirm after so many cases",
    "escalation.deny_after": "Refuses after so many cases",
    "escalation.days": "Cases of so many days count",
    "swaps.max": "Places that students may free themselves",
    "swaps.window_days": "In so many days",
}
"""What rules of every kind say besides their parameters."""

PRESETS: Final[Mapping[str, str]] = {
    "getcourse-like": "Two browsers",
    "household": "Household",
    "kwiga-like": "Sessions, devices and addresses",
    "observe-only": "Observe only",
    "one-may-watch": "One may watch",
    "strict-exam": "Strict exam",
}
PRESETS_SAY: Final[Mapping[str, str]] = {
    "getcourse-like": (
        "Two browsers may be signed in; the third ends the one that was idle longest."
        " Staff and operators who enter as a student never count."
    ),
    "household": (
        "A family's devices in a few places: devices are limited, may be swapped now and then,"
        " and so are the places they are used from."
    ),
    "kwiga-like": (
        "Limits simultaneous sessions and devices for the whole school; a further one is refused,"
        " and addresses are only watched."
    ),
    "observe-only": (
        "Sees what happens and refuses nothing: limits most schools end up with, as if they were on."
        " What a new tenant starts with."
    ),
    "one-may-watch": "Any number may be signed in and read; one video plays at a time.",
    "strict-exam": (
        "For the hours of an exam: one session on one device, enrolled students only, nothing copied."
        " A known device that an operator allows is let in."
    ),
}
"""As in the presets' own files."""
