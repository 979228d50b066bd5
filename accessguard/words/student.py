"""What a refused student reads: why, what to do now, when it passes by itself, and who helps. Blames nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final

import msgspec

from accessguard.words.catalogues import Text, many, one, say
from accessguard.words.moments import Clock, day, hour, whole_minute

# {date} is such as "21 November 2026", {time} such as "18:55" or "18:55 (UTC+1)".
TRY_AGAIN: Final = one("You can try again on {date} at {time}.")
PLACE_FREES: Final = one("A place becomes free by itself on {date} at {time}.")
WRITE: Final = one("If you need help, write to {support_email}.")
ASK: Final = one("If you need help, please contact support.")
CONFIRM: Final = one("To continue, please confirm that it is you.")
LIMIT: Final = one("A limit that is set for your account is reached.")


class Said(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is said of one refusal: sentences, in this order; `helped` points to support.

    A plural in `why` follows the limit, one in `counted` what was counted; `when` is said
    where it is known when the refusal ends.
    """

    why: Text
    counted: Text | None = None
    todo: Text | None = None
    when: Text = TRY_AGAIN
    helped: bool = False


class Told(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of one refusal; None where there is nothing to know. `retry_at` is aware."""

    code: str
    end_reason: str | None = None
    lapse: str | None = None
    limit: int | None = None
    counted: int | None = None
    retry_at: datetime | None = None
    support_email: str | None = None
    challenged: bool = False
    clock: Clock = Clock()


SAID: Final[Mapping[str, Said]] = {
    "unknown_session": Said(why=one("Please sign in to continue.")),
    "session_ended": Said(why=one("This session has ended. Please sign in again.")),
    "session_expired": Said(
        why=one("To protect your account, this session ended after a certain time. Please sign in again.")
    ),
    "device_blocked": Said(
        why=one("This device cannot be used with your account at the moment."),
        todo=one("Please use another device."),
        helped=True,
    ),
    "ip_denied": Said(
        why=one("Access from the network you are using now is not possible."),
        todo=one("Please try another network."),
        helped=True,
    ),
    "ip_not_allowed": Said(
        why=one("Access is only possible from certain networks, and the one you are using now is not among them."),
        todo=one("Please connect through one of those networks."),
        helped=True,
    ),
    "country_denied": Said(
        why=one("Access from the country you seem to be in is not possible."),
        todo=one("If you use a VPN, turn it off and try again."),
        helped=True,
    ),
    "asn_denied": Said(
        why=one("Access through the internet provider you are using now is not possible."),
        todo=one("If you use a VPN, turn it off; otherwise try another internet connection."),
        helped=True,
    ),
    "no_active_enrolment": Said(why=one("You have no active access at the moment."), helped=True),
    "session_limit": Said(
        why=many(
            "Your account can be open in {limit} place at a time.",
            "Your account can be open in {limit} places at a time.",
        ),
        counted=many(
            "Together with this one, it would be open in {counted} place.",
            "Together with this one, it would be open in {counted} places.",
        ),
        todo=one("Please sign out in one of the other places, then try again."),
        when=PLACE_FREES,
    ),
    "device_limit": Said(
        why=many(
            "Your account can be used on {limit} device.",
            "Your account can be used on {limit} devices.",
        ),
        counted=many(
            "Together with this one, there would be {counted} device.",
            "Together with this one, there would be {counted} devices.",
        ),
        todo=one("Please use a device on which you have already studied."),
        when=PLACE_FREES,
        helped=True,
    ),
    "device_churn": Said(
        why=many(
            "Within a certain time {limit} new device can be added to your account.",
            "Within a certain time {limit} new devices can be added to your account.",
        ),
        todo=one("Please use a device on which you have already studied."),
        when=one("A new device can be added on {date} at {time}."),
        helped=True,
    ),
    "network_limit": Said(
        why=many(
            "Within a certain time your account can be used through {limit} internet connection.",
            "Within a certain time your account can be used through {limit} different internet connections.",
        ),
        counted=many(
            "Together with this one, there would be {counted} connection.",
            "Together with this one, there would be {counted} connections.",
        ),
        todo=one("Please connect as you did before."),
        when=PLACE_FREES,
        helped=True,
    ),
    "impossible_travel": Said(
        why=one("A short time ago your account was used in a place that is very far from here."),
        todo=one("If you use a VPN, turn it off and try again."),
        helped=True,
    ),
    "copied_session": Said(
        why=one("This session appeared in another browser or on another internet connection as well."),
        todo=one("To protect your account, please sign in again."),
        helped=True,
    ),
    "login_failures": Said(
        why=many(
            "To protect your account, signing in is paused after {limit} attempt that did not succeed.",
            "To protect your account, signing in is paused after {limit} attempts that did not succeed.",
        ),
        helped=True,
    ),
    "undecided": Said(why=one("We cannot confirm your access right now. Please try again in a moment.")),
}

ENDED: Final[Mapping[str, Said]] = {
    "logout": Said(why=one("You have signed out. You can sign in again whenever you like.")),
    "replaced": Said(
        why=one("You signed in again on this device, so the earlier session was closed."),
        todo=one("Please continue in the newer one, or sign in again."),
    ),
    "session_limit": Said(
        why=one("Your account was opened in another place, so this session was closed."),
        todo=one("To continue here, sign in again. If that was not you, please change your password."),
    ),
    "freed_by_member": Said(
        why=one("Your account was opened in another place, so this session was closed."),
        todo=one("Please sign in again."),
    ),
    "password_changed": Said(
        why=one("Your password was changed, so this session was closed."),
        todo=one("Please sign in with the new password."),
    ),
    "device_forgotten": Said(
        why=one("This device was removed from your account, so this session was closed."),
        todo=one("Please sign in again."),
    ),
    "device_blocked": Said(
        why=one("This device cannot be used with your account at the moment."),
        todo=one("Please use another device."),
        helped=True,
    ),
    "ended_by_operator": Said(
        why=one("Support has closed this session."), todo=one("Please sign in again."), helped=True
    ),
    "copied_session": SAID["copied_session"],
}

LAPSED: Final[Mapping[str, Said]] = {
    "expired": Said(
        why=one("The time of your access is over."),
        todo=one("To continue, please renew it."),
        helped=True,
    ),
    "deactivated": Said(why=one("Your access is switched off at the moment."), helped=True),
    "not_started": Said(
        why=one("Your access has not started yet."), when=one("It starts on {date} at {time}."), helped=True
    ),
    "frozen": Said(
        why=one("Your access is paused at the moment."), when=one("It opens again on {date} at {time}."), helped=True
    ),
    "never_enrolled": Said(
        why=one("Your account is not enrolled yet."),
        todo=one("If you have just paid, please try again in a few minutes."),
        helped=True,
    ),
}


def refusal(language: str, told: Told) -> str:
    """A few sentences for the student, in one of the six languages.

    Rendered once for each distinct refusal: one who keeps asking costs nothing.
    """
    return _refusal(language, _rounded(told))


def values(language: str, told: Told) -> dict[str, str | None]:
    """What a school's own text may name, each as it reads in `language`; None where this refusal has no such thing."""
    at = _rounded(told).retry_at
    numbers = {"limit": told.limit, "counted": told.counted}
    return {name: None if number is None else str(number) for name, number in numbers.items()} | {
        "retry_at": None if at is None else f"{day(language, at, told.clock)}, {hour(language, at, told.clock)}",
        "support_email": told.support_email,
    }


def _rounded(told: Told) -> Told:
    if told.retry_at is None:
        return told
    return msgspec.structs.replace(told, retry_at=whole_minute(told.retry_at))


@lru_cache(maxsize=4_096)
def _refusal(language: str, told: Told) -> str:
    return " ".join(_sentences(language, told, said(told)))


def said(told: Told) -> Said:
    """What is said of a refusal, by its code and what is known besides; unlike codes share nothing but the last resort."""
    found = SAID.get(told.code, SAID["no_active_enrolment"])
    if told.code == "session_ended":
        return ENDED.get(told.end_reason or "", found)
    if told.code == "no_active_enrolment":
        return LAPSED.get(told.lapse or "", found)
    return found


class Parts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is said of one refusal, apart: why and what to do, when it passes, who helps; None where it is not said."""

    why: tuple[str, ...]
    when: str | None = None
    help: str | None = None


@lru_cache(maxsize=1_024)
def parts(language: str, told: Told) -> Parts:
    """The sentences of `refusal`, for a page that gives each its place."""
    found, told = said(told), _rounded(told)
    when = help_ = None
    if not told.challenged:
        when, help_ = _when(language, told, found), _help(language, told, found)
    return Parts(why=tuple(_why(language, told, found)), when=when, help=help_)


def _sentences(language: str, told: Told, found: Said) -> Iterator[str]:
    yield from _why(language, told, found)
    if told.challenged:
        return
    yield from filter(None, (_when(language, told, found), _help(language, told, found)))


def _why(language: str, told: Told, found: Said) -> Iterator[str]:
    if found.why.plural is not None and told.limit is None:
        yield say(language, LIMIT)
    else:
        yield say(language, found.why, {"limit": told.limit}, number=told.limit or 1)
    if found.counted is not None and told.counted is not None:
        yield say(language, found.counted, {"counted": told.counted}, number=told.counted)
    if told.challenged:
        yield say(language, CONFIRM)
    elif found.todo is not None:
        yield say(language, found.todo)


def _when(language: str, told: Told, found: Said) -> str | None:
    if told.retry_at is None:
        return None
    at = {"date": day(language, told.retry_at, told.clock), "time": hour(language, told.retry_at, told.clock)}
    return say(language, found.when, at)


def _help(language: str, told: Told, found: Said) -> str | None:
    if not found.helped:
        return None
    written = told.support_email is not None
    return say(language, WRITE if written else ASK, {"support_email": told.support_email})
