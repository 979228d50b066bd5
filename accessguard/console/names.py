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
