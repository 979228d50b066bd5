"""What a refused student is told: why, and what to do now."""

from __future__ import annotations

from typing import Final

from accessguard.rules.model import Code

LANGUAGE: Final = "en"

TEXTS: Final = {
    Code.UNKNOWN_SESSION: "Please sign in to go on.",
    Code.SESSION_ENDED: "You have been signed out. Please sign in again.",
    Code.SESSION_EXPIRED: "Your session has expired. Please sign in again.",
    Code.DEVICE_BLOCKED: "This device may not be used with your account. Please contact support.",
    Code.IP_DENIED: "Access from your network is not allowed. Please use another network or contact support.",
    Code.IP_NOT_ALLOWED: "Access is only possible from certain networks. Please use one of them or contact support.",
    Code.SESSION_LIMIT: "Your account is in use in as many places at once as is allowed. Close one of them and try again.",
    Code.DEVICE_LIMIT: "You have reached the number of devices that your account may be used on.",
    Code.UNDECIDED: "We cannot confirm your access right now. Please try again in a moment.",
}

ENDED: Final = {
    "session_limit": "You were signed out because your account was opened on another device.",
    "replaced": "You were signed out here because you signed in again on this device.",
    "device_forgotten": "You were signed out because this device was removed from your account.",
    "password_changed": "You were signed out because your password was changed. Please sign in again.",
    "logout": "You have signed out.",
    "ended_by_operator": "You were signed out by support. Please sign in again.",
}


def message(code: Code, *, end_reason: str | None = None, custom: str | None = None) -> str:
    """One sentence or two for the student; `custom` is the rule's own text."""
    if custom is not None:
        return custom
    if code is Code.SESSION_ENDED and end_reason in ENDED:
        return ENDED[end_reason]
    return TEXTS[code]
