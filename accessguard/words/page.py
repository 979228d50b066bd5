"""What else a refused student reads, on the page that explains it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from accessguard.words.catalogues import Text, many, one

SIGN_IN: Final = one("Please sign in again")
CONFIRMING: Final = one("Please confirm that it is you")
NOT_FROM_HERE: Final = one("Access from here is not possible")
NOT_THIS_DEVICE: Final = one("This device cannot be used right now")

TITLES: Final[Mapping[str, Text]] = {
    "unknown_session": SIGN_IN,
    "session_ended": SIGN_IN,
    "session_expired": SIGN_IN,
    "copied_session": SIGN_IN,
    "device_blocked": NOT_THIS_DEVICE,
    "device_limit": NOT_THIS_DEVICE,
    "device_churn": NOT_THIS_DEVICE,
    "ip_denied": NOT_FROM_HERE,
    "ip_not_allowed": NOT_FROM_HERE,
    "country_denied": NOT_FROM_HERE,
    "asn_denied": NOT_FROM_HERE,
    "network_limit": NOT_FROM_HERE,
    "impossible_travel": CONFIRMING,
    "no_active_enrolment": one("No active access at the moment"),
    "session_limit": one("Your account is open in too many places"),
    "login_failures": one("Signing in is paused"),
    "undecided": one("Please try again in a moment"),
}

SESSIONS: Final = one("Where your account is open")
DEVICES: Final = one("Devices of your account")
THIS_ONE: Final = one("this one")
SEEMS_THIS: Final = one("seems to be this one")
LAST_USED: Final = one("Last used on {date} at {time}")
STRANGE: Final = one("If one of them is not yours, change your password.")
SIGN_OUT: Final = one("Sign out there")
REMOVE: Final = one("Remove it")
MAY_FREE: Final = many(
    "You can free a place yourself, {count} more time.", "You can free a place yourself, {count} more times."
)
MAY_NOT_FREE: Final = one("You cannot free a place yourself at the moment.")
FREED: Final = one("The place is free.")
REMOVED: Final = one("Removed: {label}")
SIGNED_OUT: Final = one("Signed out: {label}")
NOW_SIGN_IN: Final = one("Now sign in again.")
NOW_GO_BACK: Final = one("Now go back to your course and open the page again.")
GO_ON: Final = one("Continue")
WAIT: Final = one("When it passes by itself")
WRITE: Final = one("Write to support")
QUESTION: Final = one("What should support know?")
ROOM: Final = many("At most {count} character.", "At most {count} characters.")
SEND: Final = one("Send")
SENT: Final = one("Your message has arrived. Support will read it.")
YOURS: Final = one("What you wrote")
ENOUGH: Final = one("You have written already. Support will read it.")
EMPTY: Final = one("Please write a few words first.")
MAIL: Final = one("By e-mail")
LANGUAGE: Final = one("Language")
LATE: Final = one("That could not be done any more. This is how it stands now.")
INCOMPLETE: Final = one("Not everything can be shown right now. Please try again in a moment.")
OVER: Final = one("This page is no longer valid")
OVER_WHY: Final = one("Its address is too old or not complete. Go back to your course and open the page there again.")
ALONE: Final = one("This page is for you alone. Please do not pass its address on.")

NATIVE: Final[Mapping[str, str]] = {
    "en": "English",
    "it": "Italiano",
    "pt-BR": "Português",
    "es": "Español",
    "ru": "Русский",
    "uk": "Українська",
}
"""Languages as their speakers call them."""
