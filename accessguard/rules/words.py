"""The closed sets of words that rules are written and answered in. Stored names are never renamed."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The answer to a check or a login."""

    ALLOW = "allow"
    DENY = "deny"
    CHALLENGE = "challenge"


class Code(StrEnum):
    """Why something was refused, or would have been."""

    UNKNOWN_SESSION = "unknown_session"
    SESSION_ENDED = "session_ended"
    SESSION_EXPIRED = "session_expired"
    DEVICE_BLOCKED = "device_blocked"
    IP_DENIED = "ip_denied"
    IP_NOT_ALLOWED = "ip_not_allowed"
    COUNTRY_DENIED = "country_denied"
    ASN_DENIED = "asn_denied"
    NO_ACTIVE_ENROLMENT = "no_active_enrolment"
    SESSION_LIMIT = "session_limit"
    DEVICE_LIMIT = "device_limit"
    DEVICE_CHURN = "device_churn"
    NETWORK_LIMIT = "network_limit"
    IMPOSSIBLE_TRAVEL = "impossible_travel"
    COPIED_SESSION = "copied_session"
    LOGIN_FAILURES = "login_failures"
    UNDECIDED = "undecided"


class Mode(StrEnum):
    """Off: not looked at. Observe: counts and logs as if, never denies. Enforce."""

    OFF = "off"
    OBSERVE = "observe"
    ENFORCE = "enforce"


class Action(StrEnum):
    """What an enforced rule does with what it finds."""

    DENY = "deny"
    DENY_NEW = "deny_new"
    EVICT_OLDEST = "evict_oldest"
    EVICT_IDLE = "evict_idle"
    EVICT_OTHERS = "evict_others"
    END_SESSION = "end_session"
    CHALLENGE = "challenge"
    LOG = "log"


class Kind(StrEnum):
    """The rules there are, in their order of precedence."""

    IP_DENY = "ip_deny"
    IP_ALLOW_ONLY = "ip_allow_only"
    COUNTRY_DENY = "country_deny"
    COUNTRY_ALLOW_ONLY = "country_allow_only"
    ASN_DENY = "asn_deny"
    LOGIN_FAILURES = "login_failures"
    ENROLMENT = "enrolment"
    SESSION_LIMIT = "session_limit"
    DEVICE_LIMIT = "device_limit"
    DEVICE_CHURN = "device_churn"
    NETWORK_LIMIT = "network_limit"
    IMPOSSIBLE_TRAVEL = "impossible_travel"
    COPIED_SESSION = "copied_session"


class Effect(StrEnum):
    """What became of a finding; kept on the violation."""

    DENIED = "denied"
    CHALLENGED = "challenged"
    ENDED = "ended"
    EVICTED = "evicted"
    LOGGED = "logged"
    EXEMPT = "exempt"


class Access(StrEnum):
    """What an operator said about one device."""

    DEFAULT = "default"
    ALLOWED = "allowed"
    BLOCKED = "blocked"


class Stage(StrEnum):
    """At a login the session does not exist yet and takes the newest place."""

    LOGIN = "login"
    CHECK = "check"


class Activity(StrEnum):
    """The six interactions that count as activity."""

    COURSE_OPEN = "course_open"
    LESSON_OPEN = "lesson_open"
    OFFER_OPEN = "offer_open"
    PAYMENT_OPEN = "payment_open"
    VIDEO_WATCH = "video_watch"
    ASSIGNMENT_COMPLETE = "assignment_complete"


class Per(StrEnum):
    """What a limit is counted within."""

    MEMBER = "member"
    DEVICE_CLASS = "device_class"
    APP = "app"


class FailurePer(StrEnum):
    """Whose failed logins are counted together."""

    MEMBER = "member"
    IP = "ip"
    DEVICE = "device"


class Unit(StrEnum):
    """What is one network: an address (IPv6: a /64), a /24 (IPv6: a /48), an operator's network, a city."""

    IP = "ip"
    PREFIX = "prefix"
    ASN = "asn"
    CITY = "city"


class Signal(StrEnum):
    """What gives a copied session away: another browser, two networks in turns, either of them."""

    BROWSER = "browser"
    NETWORK = "network"
    BOTH = "both"


class Grade(StrEnum):
    """How old a device token is that is no longer the device's own.

    `late_previous`: the one before the present one, after its grace.
    `displaced`: an older one of those that are remembered. `stale`: older
    still, unknown, or of a device that was forgotten.
    """

    LATE_PREVIOUS = "late_previous"
    DISPLACED = "displaced"
    STALE = "stale"


class EnrolmentStatus(StrEnum):
    """What the platform says of an enrolment; its dates are looked at besides."""

    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    FROZEN = "frozen"


class Lapse(StrEnum):
    """Why no enrolment is active."""

    FROZEN = "frozen"
    NOT_STARTED = "not_started"
    EXPIRED = "expired"
    DEACTIVATED = "deactivated"
    NEVER_ENROLLED = "never_enrolled"
