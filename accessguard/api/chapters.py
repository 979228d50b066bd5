"""What the contract says in prose: its conventions, its chapters, who may do what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from accessguard.api.keys import Role
from accessguard.errors import ErrorCode

ROLES: Final[Mapping[Role, str]] = {
    Role.PLATFORM: "the learning platform itself: records logins, checks, ends sessions, feeds members and enrolments",
    Role.ATTENDANT: "searches members, reads the report on first and last access; sees no address and no device",
    Role.SUPERVISOR: "also reads logs, sessions, devices and violations; blocks devices, switches checks off, gives passes, marks as read",
    Role.ADMINISTRATOR: "also rules, settings and the audit log",
    Role.ROOT: "also tenants; for the whole installation",
}

ABOUT: Final[Mapping[str, str]] = {
    "Values": (
        "JSON in UTF-8. Times are RFC 3339 in UTC with milliseconds: `2026-11-21T18:55:00.123Z`. Durations are integers "
        "whose name ends in their unit: `window_s`, `ttl_ms`. Identifiers that AccessGuard makes are UUIDs (version 7); "
        "identifiers that the platform makes are opaque texts of 1 to 128 characters. No limit is `null`; a limit of `0` "
        "is refused."
    ),
    "Callers": (
        "Every call carries `Authorization: Bearer …`, a JWT with `iss`, `aud` (`accessguard`), `exp`, `sub` (the "
        "caller), `role` and `tenant`. A token for all tenants has `tenant` `*` and names one for each call in the "
        "header `AccessGuard-Tenant`. `accessguard token --tenant … --role …` makes one to try with."
    ),
    "Errors": (
        "What is refused answers `application/problem+json` (RFC 9457) with `type`, `title`, `status`, `detail`, and for "
        "a refused body or query `errors`, each with a JSON pointer to the field. A `503` says in `Retry-After` when to "
        "try again. A denied login or check is no error: it answers `200` with its `decision`."
    ),
    "Lists": (
        "Lists take `limit` and `cursor` and answer `items` and `next_cursor`, which is null on the last page. With "
        "`Accept: text/csv` the same list streams every matching row as CSV, whatever `limit` and `cursor` say."
    ),
    "Retries": (
        "`Idempotency-Key` is honoured on every call that creates something: the same key with the same body creates it "
        "once. An operator's change may carry a `reason` and lands in the audit log with actor, time, before and after."
    ),
}

TAGS: Final[Mapping[str, str]] = {
    "Logins": "Every try to log in is told to AccessGuard, which records it, decides on it and opens the session.",
    "Challenges": "A refusal that can be lifted: the platform asks the student for more, or the student closes something.",
    "Checks": "May this session go on? Asked on every request of the platform; this is the hot path.",
    "Students": "The page that explains a refusal to its student, for platforms that draw their own: its token is in `page_url`, and "
    "without `Accept: application/json` it is a web page.",
    "Proxies": "The proxy in front of the platform asks about every request; no code in the platform.",
    "AuthZEN": "The same checks in the words of OpenID's Authorization API 1.0.",
    "Sessions": "One login of the platform, on one device.",
    "Members": "The students, by the platform's own ids.",
    "Comments": "What operators write about a student, one line after the other: neither edited nor deleted.",
    "Preferences": "What an operator wants to find again as it was left, such as the filters of a list; his own, in each tenant.",
    "Devices": "One browser profile or app install of one member.",
    "Enrolments": "What the platform says a student may use, and for how long. A student with several is inactive only when all are.",
    "Passes": "Something extra for one student, until a time; it ends by itself.",
    "Addresses": "Look before you deny: who else was seen at an address.",
    "Imports": "Many members and enrolments from a file, as often as needed: what is stored already is not touched.",
    "Reports": "Over all members, as JSON, as CSV, or as a job that writes a file. Evidence to look into, never a verdict.",
    "Violations": "What rules found: one case for one rule, member and device, session or network, with its hits.",
    "Rules": "Restrictions with parameters, a mode and an action; every change is a new version.",
    "Settings": "What a tenant chose.",
    "Stream": "What happens, pushed to the platform as it happens, so that whatever it holds can be dropped at once.",
    "Webhooks": "What happens, sent to an address of the school's own, signed, until it is taken.",
    "Revocations": "Tokens that are refused before they end: one by its `jti`, or whatever a caller was given up to now.",
    "Audit": "What operators changed.",
    "Jobs": "Work that takes longer than a call; its result is kept for seven days.",
    "Console": "The operators' web pages, under `/console/`.",
    "Tenants": "The schools of this installation; nothing is shared between two of them.",
    "System": "For whoever keeps the service running. Needs no token.",
}

ERRORS: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.INVALID: "The request is not valid; `errors` points at each refused field",
    ErrorCode.UNAUTHENTICATED: "The token is missing, has expired, or is not one of this service's callers'",
    ErrorCode.FORBIDDEN: "The role may not do this, or the token is for another tenant",
    ErrorCode.NOT_FOUND: "The tenant has no such thing, or there is no such tenant",
    ErrorCode.CONFLICT: "In conflict with what is stored",
    ErrorCode.TOO_LARGE: "The body is larger than this service accepts",
    ErrorCode.UNSUPPORTED: "The body is not `application/json`",
    ErrorCode.UNPROCESSABLE: "The `Idempotency-Key` was used for another request",
    ErrorCode.THROTTLED: "More calls of this caller than are allowed; try again after `Retry-After` seconds",
    ErrorCode.TIMED_OUT: "The body took too long to arrive",
    ErrorCode.UNAVAILABLE: "Temporarily unavailable; try again after `Retry-After` seconds",
}
