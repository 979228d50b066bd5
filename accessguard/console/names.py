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
    "union": "The two contacts are one now.",
    "redelivered": "The message is sent again.",
    "unhooked": "The webhook was deleted.",
    "signed_out": "That browser is signed out.",
    "shown_out": "The operator was signed out everywhere.",
    "filter": "The filter was saved.",
    "unfiltered": "The filter was forgotten.",
    "deleted": "The rule is out of force; its versions stay.",
    "settings": "The settings were saved.",
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
CHOICES: Final[Mapping[str, str]] = {
    "member": "contact",
    "device_class": "kind of device",
    "app": "app",
    "ip": "address",
    "device": "device",
    "prefix": "network (/24, /48)",
    "asn": "network operator",
    "city": "city",
    "browser": "two browsers",
    "network": "two networks at the same time",
    "both": "either of them",
}
"""Values of parameters that are chosen from a few."""

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
SECTIONS: Final[Mapping[str, str]] = {
    "school": "School and brand",
    "messages": "Messages",
    "hosts": "Hosts",
    "data": "Logs and failures",
    "sessions": "Sessions and cookie",
    "proxy": "Proxies",
}
"""The pages of the settings, in their order."""

SETTINGS: Final[Mapping[str, str]] = {
    "name": "Name of the school",
    "support_email": "E-mail address of support",
    "languages": "Languages that students are spoken to in (none: every one)",
    "time_zone": "Time zone",
    "country": "Country of telephone numbers without a country code",
    "brand/color_one": "Main colour",
    "brand/color_two": "Second colour",
    "brand/logo_url": "Address of the logo",
    "brand/favicon_url": "Address of the icon",
    "brand/copyright": "Line at the foot of the page",
    "retention/logins_days": "Days to keep logins, sessions and networks",
    "retention/activity_days": "Days to keep activity",
    "retention/violations_days": "Days to keep restrictions",
    "retention/truncate_ip_after_days": "Days after which addresses are cut to their network",
    "failure_mode": "When a rule cannot be judged because a store does not answer",
    "passes_per_month": "Passes for a day that a student may take each month",
    "copies": "Copied sessions that no rule looks at",
    "session/idle_ttl_s": "Seconds without activity after which a session ends",
    "session/absolute_ttl_s": "Seconds after which every session ends",
    "cookie/prefix": "Prefix of the device cookie",
    "cookie/domain": "Domain of the device cookie",
    "cookie/same_site": "SameSite of the device cookie",
    "cookie/partitioned": "A device for each page that embeds the school",
    "proxy/identity": "Who the session is",
    "proxy/cookie": "Name of the session cookie",
    "proxy/login_url": "Address of the login page",
    "proxy/polling": "Paths that are never activity, one a line",
    "proxy/jwt": "The platform's own token, as JSON",
}
HINTS: Final[Mapping[str, str]] = {
    "support_email": "Students see it in refusals.",
    "time_zone": "A name such as Europe/Rome.",
    "country": "Two letters, such as IT.",
    "brand/color_one": "Such as #2456c9. It is darkened or lightened where it could not be read.",
    "brand/logo_url": "Begins with https://",
    "brand/favicon_url": "Begins with https://",
    "retention/truncate_ip_after_days": "Empty: addresses stay as long as their line.",
    "retention/logins_days": "No rule may look back further.",
    "cookie/domain": "For a school on several subdomains; the prefix __Host- must then go.",
    "proxy/cookie": "Empty: the usual one.",
    "proxy/login_url": "Where a browser without a session is sent; {return_to} is the path that it asked for.",
    "proxy/jwt": "Only for the platform's own token: keys, algorithms, claims, as PUT /v1/settings takes them.",
}
WRONG: Final[Mapping[str, str]] = {
    "/country": "is two capital letters, such as IT",
    "/brand/color_one": "is a colour such as #2456c9",
    "/brand/color_two": "is a colour such as #2456c9",
    "/retention/logins_days": "is a number of days from 1 to 1096, and no fewer than the rules look back",
    "/retention/activity_days": "is a number of days from 1 to 1096, and no fewer than the rules look back",
    "/retention/violations_days": "is a number of days from 1 to 1096, and no fewer than the rules look back",
    "/retention/truncate_ip_after_days": "is empty, or a number of days from 1 to 1096",
    "/passes_per_month": "is a number from 0 to 31",
    "/session/idle_ttl_s": "is a number of seconds, 60 at least",
    "/session/absolute_ttl_s": "is a number of seconds, 60 at least",
    "/cookie/domain": "is a domain such as .school.example; the prefix __Host- must then go",
    "/proxy/login_url": "is an address that begins with https://, or a path that begins with one /",
    "/proxy/cookie": "is the name of a cookie",
    "/proxy/jwt": "is JSON with keys, algorithms and claims, as PUT /v1/settings takes it",
}
"""What a field holds, where the decoder's own words would say it to a programmer."""

SETTING_CHOICES: Final[Mapping[str, str]] = {
    "open": "Let pass",
    "closed": "Refuse",
    "log": "Record them",
    "off": "Do nothing",
    "cookie": "The session cookie of AccessGuard",
    "jwt": "The platform's own token (JWT)",
    "active": "In use",
    "inactive": "Not in use",
    "draft": "Draft: shown to nobody",
    "enabled": "Enabled",
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
ACTS: Final[Mapping[str, str]] = {
    "bulk.deactivate": "Enrolments of many deactivated",
    "bulk.end_sessions": "Sessions of many ended",
    "bulk.erase": "Many erased",
    "bulk.exempt": "Checks of many switched off",
    "bulk.tag": "Tags given to many",
    "bulk.unexempt": "Checks of many switched on",
    "bulk.untag": "Tags taken from many",
    "comment.add": "Comment added",
    "console.enter": "Signed in to the console",
    "console.leave_everywhere": "Signed out everywhere",
    "console.show_out": "Operator signed out everywhere",
    "device.change": "Device changed",
    "device.forget": "Device forgotten",
    "device.merge": "Devices merged",
    "member.anonymise": "Contact anonymised",
    "member.change": "Contact changed",
    "member.deactivate": "Enrolments deactivated",
    "member.end_sessions": "Sessions ended",
    "member.erase": "Contact erased",
    "member.exempt": "Checks switched off",
    "member.export": "Data of a contact exported",
    "member.merge": "Contacts merged",
    "member.tag": "Tags given",
    "member.unexempt": "Checks switched on",
    "member.untag": "Tags taken away",
    "pass.give": "Pass given",
    "rule.create": "Rule made",
    "rule.delete": "Rule deleted",
    "rule.replace": "Rule changed",
    "session.end": "Session ended",
    "sessions.end": "All sessions ended",
    "settings.replace": "Settings changed",
    "tenant.change": "School changed",
    "tenant.create": "School made",
    "tenant.delete": "School deleted",
    "violation.resolve": "Restriction resolved",
    "webhook.create": "Webhook made",
    "webhook.delete": "Webhook deleted",
    "webhook.redeliver": "Message sent again",
}
"""Acts of operators, by their names in the audit log."""

THINGS: Final[Mapping[str, str]] = {
    "bulk": "Many at once",
    "comment": "Comments",
    "console": "Signing in",
    "device": "Devices",
    "member": "Contacts",
    "members": "Contacts together",
    "pass": "Passes",
    "rule": "Rules",
    "session": "Sessions",
    "sessions": "All sessions of a contact",
    "settings": "Settings",
    "violation": "Restrictions",
    "webhook": "Webhooks",
}
RELATED: Final[Mapping[str, str]] = {
    "device": "Same browser",
    "phone": "Same telephone number",
    "address": "Same address",
}
STRENGTHS: Final[Mapping[str, str]] = {"strong": "strong", "medium": "medium", "weak": "weak"}
DETAILS: Final[Mapping[str, str]] = {
    "limit": "Allowed",
    "counted": "Counted",
    "sessions": "Sessions",
    "devices": "Devices",
    "networks": "Networks",
    "seen": "Seen",
    "before": "Before that",
    "distance_km": "Distance in km",
    "speed_kmh": "Speed in km/h",
    "lapse": "Until",
    "grade": "Grade",
    "ended": "Ended for it",
    "would_end": "Would have been ended",
}
"""What a case keeps of what was counted."""

WEBHOOK_EVENTS: Final[Mapping[str, str]] = {
    "session_ended": "a session ended",
    "violation": "a restriction",
    "device_blocked": "a device blocked",
    "device_new": "a new device",
}
DELIVERIES: Final[Mapping[str, str]] = {"pending": "Waits", "delivered": "Taken", "failed": "Given up"}
