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
    "enforced": word("The rule is enforced from now on."),
    "observed": word("The rule is only observed from now on."),
    "off": word("The rule is switched off."),
    "preset": word("The rules are there, and only observed for now."),
    "union": word("The two contacts are one now."),
    "redelivered": word("The message is sent again."),
    "unhooked": word("The webhook was deleted."),
    "signed_out": word("That browser is signed out."),
    "shown_out": word("The operator was signed out everywhere."),
    "filter": word("The filter was saved."),
    "unfiltered": word("The filter was forgotten."),
    "deleted": word("The rule is out of force; its versions stay."),
    "settings": word("The settings were saved."),
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
CHOICES: Final[Mapping[str, str]] = {
    "member": word("contact"),
    "device_class": word("kind of device"),
    "app": word("app"),
    "ip": word("address"),
    "device": word("device"),
    "prefix": word("network (/24, /48)"),
    "asn": word("network operator"),
    "city": word("city"),
    "browser": word("two browsers"),
    "network": word("two networks at the same time"),
    "both": word("either of them"),
}
"""Values of parameters that are chosen from a few."""

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
SECTIONS: Final[Mapping[str, str]] = {
    "school": word("School and brand"),
    "messages": word("Messages"),
    "hosts": word("Hosts"),
    "data": word("Logs and failures"),
    "sessions": word("Sessions and cookie"),
    "proxy": word("Proxies"),
}
"""The pages of the settings, in their order."""

SETTINGS: Final[Mapping[str, str]] = {
    "name": word("Name of the school"),
    "support_email": word("E-mail address of support"),
    "languages": word("Languages that students are spoken to in (none: every one)"),
    "time_zone": word("Time zone"),
    "country": word("Country of telephone numbers without a country code"),
    "brand/color_one": word("Main colour"),
    "brand/color_two": word("Second colour"),
    "brand/logo_url": word("Address of the logo"),
    "brand/favicon_url": word("Address of the icon"),
    "brand/copyright": word("Line at the foot of the page"),
    "retention/logins_days": word("Days to keep logins, sessions and networks"),
    "retention/activity_days": word("Days to keep activity"),
    "retention/violations_days": word("Days to keep restrictions"),
    "retention/truncate_ip_after_days": word("Days after which addresses are cut to their network"),
    "failure_mode": word("When a rule cannot be judged because a store does not answer"),
    "passes_per_month": word("Passes for a day that a student may take each month"),
    "copies": word("Copied sessions that no rule looks at"),
    "session/idle_ttl_s": word("Seconds without activity after which a session ends"),
    "session/absolute_ttl_s": word("Seconds after which every session ends"),
    "cookie/prefix": word("Prefix of the device cookie"),
    "cookie/domain": word("Domain of the device cookie"),
    "cookie/same_site": word("SameSite of the device cookie"),
    "cookie/partitioned": word("A device for each page that embeds the school"),
    "proxy/identity": word("Who the session is"),
    "proxy/cookie": word("Name of the session cookie"),
    "proxy/login_url": word("Address of the login page"),
    "proxy/polling": word("Paths that are never activity, one a line"),
    "proxy/jwt": word("The platform's own token, as JSON"),
}
HINTS: Final[Mapping[str, str]] = {
    "support_email": word("Students see it in refusals."),
    "time_zone": word("A name such as Europe/Rome."),
    "country": word("Two letters, such as IT."),
    "brand/color_one": word("Such as #2456c9. It is darkened or lightened where it could not be read."),
    "brand/logo_url": word("Begins with https://"),
    "brand/favicon_url": word("Begins with https://"),
    "retention/truncate_ip_after_days": word("Empty: addresses stay as long as their line."),
    "retention/logins_days": word("No rule may look back further."),
    "cookie/domain": word("For a school on several subdomains; the prefix __Host- must then go."),
    "proxy/cookie": word("Empty: the usual one."),
    "proxy/login_url": word("Where a browser without a session is sent; {return_to} is the path that it asked for."),
    "proxy/jwt": word("Only for the platform's own token: keys, algorithms, claims, as PUT /v1/settings takes them."),
}
WRONG: Final[Mapping[str, str]] = {
    "/country": word("is two capital letters, such as IT"),
    "/brand/color_one": word("is a colour such as #2456c9"),
    "/brand/color_two": word("is a colour such as #2456c9"),
    "/retention/logins_days": word("is a number of days from 1 to 1096, and no fewer than the rules look back"),
    "/retention/activity_days": word("is a number of days from 1 to 1096, and no fewer than the rules look back"),
    "/retention/violations_days": word("is a number of days from 1 to 1096, and no fewer than the rules look back"),
    "/retention/truncate_ip_after_days": word("is empty, or a number of days from 1 to 1096"),
    "/passes_per_month": word("is a number from 0 to 31"),
    "/session/idle_ttl_s": word("is a number of seconds, 60 at least"),
    "/session/absolute_ttl_s": word("is a number of seconds, 60 at least"),
    "/cookie/domain": word("is a domain such as .school.example; the prefix __Host- must then go"),
    "/proxy/login_url": word("is an address that begins with https://, or a path that begins with one /"),
    "/proxy/cookie": word("is the name of a cookie"),
    "/proxy/jwt": word("is JSON with keys, algorithms and claims, as PUT /v1/settings takes it"),
}
"""What a field holds, where the decoder's own words would say it to a programmer."""

SETTING_CHOICES: Final[Mapping[str, str]] = {
    "open": word("Let pass"),
    "closed": word("Refuse"),
    "log": word("Record them"),
    "off": word("Do nothing"),
    "cookie": word("The session cookie of AccessGuard"),
    "jwt": word("The platform's own token (JWT)"),
    "active": word("In use"),
    "inactive": word("Not in use"),
    "draft": word("Draft: shown to nobody"),
    "enabled": word("Enabled"),
}
BULK: Final[Mapping[str, str]] = {
    "tag": word("Give tags"),
    "untag": word("Take tags away"),
    "exempt": word("Switch checks off"),
    "unexempt": word("Switch checks on"),
    "end_sessions": word("End all sessions"),
    "deactivate": word("Deactivate enrolments"),
    "erase": word("Erase"),
}
"""What is done to many contacts at once."""

FILTERS: Final[Mapping[str, str]] = {
    "q": word("Search"),
    "status": word("Status"),
    "tag": word("Tag"),
    "unread": word("Unread"),
    "restricted": word("Restricted"),
    "product_id": word("Product"),
}
JOBS: Final[Mapping[str, str]] = {
    "bulk": word("Many contacts at once"),
    "import": word("Import"),
    "simulate": word("A rule tried on history"),
    "report": word("Report"),
}
JOB_STATES: Final[Mapping[str, str]] = {
    "waiting": word("Waits"),
    "running": word("Under way"),
    "done": word("Done"),
    "failed": word("Did not come to its end"),
}
SCOPE: Final[Mapping[str, str]] = {
    "tags": word("Only contacts with one of these tags"),
    "except_tags": word("Not contacts with one of these tags"),
    "products": word("Only in these products"),
    "apps": word("Only in these apps"),
    "device_classes": word("Only on these kinds of device"),
}
CLASSES: Final[Mapping[str, str]] = {"desktop": word("computer"), "mobile": word("telephone"), "tablet": word("tablet")}
TERMS: Final[Mapping[str, str]] = {
    "name": word("Name"),
    "mode": word("Mode"),
    "action": word("What happens"),
    "message": word("What the student reads"),
    "priority": word("Priority"),
    "escalation.challenge_after": word("Asks to confirm after so many cases"),
    "escalation.deny_after": word("Refuses after so many cases"),
    "escalation.days": word("Cases of so many days count"),
    "swaps.max": word("Places that students may free themselves"),
    "swaps.window_days": word("In so many days"),
}
"""What rules of every kind say besides their parameters."""

PRESETS: Final[Mapping[str, str]] = {
    "getcourse-like": word("Two browsers"),
    "household": word("Household"),
    "kwiga-like": word("Sessions, devices and addresses"),
    "observe-only": word("Observe only"),
    "one-may-watch": word("One may watch"),
    "strict-exam": word("Strict exam"),
}
PRESETS_SAY: Final[Mapping[str, str]] = {
    "getcourse-like": word(
        "Two browsers may be signed in; the third ends the one that was idle longest."
        " Staff and operators who enter as a student never count."
    ),
    "household": word(
        "A family's devices in a few places: devices are limited, may be swapped now and then,"
        " and so are the places they are used from."
    ),
    "kwiga-like": word(
        "Limits simultaneous sessions and devices for the whole school; a further one is refused,"
        " and addresses are only watched."
    ),
    "observe-only": word(
        "Sees what happens and refuses nothing: limits most schools end up with, as if they were on."
        " What a new tenant starts with."
    ),
    "one-may-watch": word("Any number may be signed in and read; one video plays at a time."),
    "strict-exam": word(
        "For the hours of an exam: one session on one device, enrolled students only, nothing copied."
        " A known device that an operator allows is let in."
    ),
}
"""As in the presets' own files."""
ACTS: Final[Mapping[str, str]] = {
    "address.read": word("Address looked up"),
    "bulk.deactivate": word("Enrolments of many deactivated"),
    "bulk.end_sessions": word("Sessions of many ended"),
    "bulk.erase": word("Many erased"),
    "bulk.exempt": word("Checks of many switched off"),
    "bulk.tag": word("Tags given to many"),
    "bulk.unexempt": word("Checks of many switched on"),
    "bulk.untag": word("Tags taken from many"),
    "caller.restore": word("Caller let in again"),
    "caller.revoke": word("Caller revoked"),
    "comment.add": word("Comment added"),
    "console.enter": word("Signed in to the console"),
    "console.leave_everywhere": word("Signed out everywhere"),
    "console.show_out": word("Operator signed out everywhere"),
    "device.change": word("Device changed"),
    "device.forget": word("Device forgotten"),
    "device.merge": word("Devices merged"),
    "member.anonymise": word("Contact anonymised"),
    "member.bundle": word("Support bundle read"),
    "member.change": word("Contact changed"),
    "member.deactivate": word("Enrolments deactivated"),
    "member.end_sessions": word("Sessions ended"),
    "member.erase": word("Contact erased"),
    "member.exempt": word("Checks switched off"),
    "member.export": word("Data of a contact exported"),
    "member.merge": word("Contacts merged"),
    "member.tag": word("Tags given"),
    "member.unexempt": word("Checks switched on"),
    "member.untag": word("Tags taken away"),
    "pass.give": word("Pass given"),
    "rule.create": word("Rule made"),
    "rule.delete": word("Rule deleted"),
    "rule.replace": word("Rule changed"),
    "session.end": word("Session ended"),
    "sessions.end": word("All sessions ended"),
    "settings.replace": word("Settings changed"),
    "tenant.change": word("School changed"),
    "tenant.create": word("School made"),
    "tenant.delete": word("School deleted"),
    "token.restore": word("Token let in again"),
    "token.revoke": word("Token revoked"),
    "violation.resolve": word("Restriction resolved"),
    "webhook.create": word("Webhook made"),
    "webhook.delete": word("Webhook deleted"),
    "webhook.redeliver": word("Message sent again"),
}
"""Acts of operators, by their names in the audit log."""

THINGS: Final[Mapping[str, str]] = {
    "address": word("Addresses"),
    "bulk": word("Many at once"),
    "caller": word("Callers"),
    "comment": word("Comments"),
    "console": word("Signing in"),
    "device": word("Devices"),
    "member": word("Contacts"),
    "members": word("Contacts together"),
    "pass": word("Passes"),
    "rule": word("Rules"),
    "session": word("Sessions"),
    "sessions": word("All sessions of a contact"),
    "settings": word("Settings"),
    "token": word("Tokens"),
    "violation": word("Restrictions"),
    "webhook": word("Webhooks"),
}
RELATED: Final[Mapping[str, str]] = {
    "device": word("Same browser"),
    "phone": word("Same telephone number"),
    "address": word("Same address"),
}
STRENGTHS: Final[Mapping[str, str]] = {"strong": word("strong"), "medium": word("medium"), "weak": word("weak")}
DETAILS: Final[Mapping[str, str]] = {
    "limit": word("Allowed"),
    "counted": word("Counted"),
    "sessions": word("Sessions"),
    "devices": word("Devices"),
    "networks": word("Networks"),
    "seen": word("Seen"),
    "before": word("Before that"),
    "distance_km": word("Distance in km"),
    "speed_kmh": word("Speed in km/h"),
    "lapse": word("Until"),
    "grade": word("Grade"),
    "ended": word("Ended for it"),
    "would_end": word("Would have been ended"),
}
"""What a case keeps of what was counted."""

WEBHOOK_EVENTS: Final[Mapping[str, str]] = {
    "session_ended": word("a session ended"),
    "violation": word("a restriction"),
    "device_blocked": word("a device blocked"),
    "device_allowed": word("a device allowed again"),
    "device_new": word("a new device"),
    "member_at_risk": word("a contact at risk"),
}
WEBHOOK_FORMATS: Final[Mapping[str, str]] = {
    "standard": word("Standard Webhooks (JSON)"),
    "caep": word("Security event tokens (CAEP)"),
}
DELIVERIES: Final[Mapping[str, str]] = {
    "pending": word("Waits"),
    "delivered": word("Taken"),
    "failed": word("Given up"),
}

ROLES: Final[Mapping[str, str]] = {
    "attendant": word("Attendant"),
    "supervisor": word("Supervisor"),
    "administrator": word("Administrator"),
    "root": word("Administrator of all schools"),
    "platform": word("Platform"),
}
METHODS: Final[Mapping[str, str]] = {
    "password": word("password"),
    "sso": word("single sign-on"),
    "social": word("social network"),
    "magic_link": word("link by e-mail"),
    "code": word("code"),
    "token": word("token of an app"),
    "impersonation": word("operator as the student"),
}
ENDINGS: Final[Mapping[str, str]] = {
    "logout": word("logged out"),
    "replaced": word("logged in again on the same device"),
    "session_limit": word("too many sessions"),
    "freed_by_member": word("freed by the student"),
    "password_changed": word("password changed"),
    "device_forgotten": word("device forgotten"),
    "device_blocked": word("device blocked"),
    "ended_by_operator": word("ended by an operator"),
    "copied_session": word("copied"),
}
"""Why a session ended; the platform may say it in words of its own."""

AGREES: Final[Mapping[str, str]] = {
    "browser": word("the same browser"),
    "system": word("the same system"),
    "class": word("the same kind of device"),
    "model": word("the same model"),
    "screen": word("the same screen"),
    "network": word("the same address"),
    "time": word("one was seen first after the other was seen last"),
}
"""In what two devices agree."""
