"""What a message says in the words of Shared Signals: the claims of a security event token.

RFC 8417 (the token), RFC 9493 (whom it is about), OpenID Shared Signals
Framework 1.0 (no `exp`, no `sub`, one event), OpenID CAEP 1.0 (the events).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

BASE: Final = "https://schemas.openid.net/secevent/caep/event-type/"
INITIATED: Final[Mapping[str, str]] = {
    "logout": "user",
    "replaced": "user",
    "freed_by_member": "user",
    "password_changed": "user",
    "session_limit": "policy",
    "copied_session": "policy",
    "ended_by_operator": "admin",
    "device_blocked": "admin",
    "device_forgotten": "admin",
}
"""By whose doing a session ends (CAEP 1.0, section 2), by the reason that is kept; a word of the platform's own: `system`."""
COMPLIANT: Final = "compliant"
NOT_COMPLIANT: Final = "not-compliant"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of a message: the text that the other format signs as it is."""

    type: str
    timestamp: datetime
    data: dict[str, Any]


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """From whom and to whom a token is (`iss`, `aud`), its `jti`, and when it was made out."""

    issuer: str
    audience: str
    id: str
    at: datetime


Told = tuple[str, dict[str, Any]]


def claims(text: str, address: Address) -> dict[str, Any]:
    """Everything that a token says of a message; the same again for each try."""
    message = msgspec.json.decode(text, type=Message)
    kind, told = COUNTERPARTS[message.type](message.data)
    return {
        "iss": address.issuer,
        "aud": address.audience,
        "iat": int(address.at.timestamp()),
        "jti": address.id,
        "txn": address.id,
        "sub_id": _subject(message.data, address.issuer),
        "events": {BASE + kind: told | {"event_timestamp": int(message.timestamp.timestamp())}},
    }


def _subject(data: Mapping[str, Any], issuer: str) -> dict[str, Any]:
    """Whom it is about: the member as the platform knows it, of this tenant; the session and device where there is one."""
    named = {"session": data.get("session_id"), "device": data.get("device_id"), "tenant": data["tenant"]}
    opaque = {name: {"format": "opaque", "id": each} for name, each in named.items() if each is not None}
    return {"format": "complex", "user": {"format": "iss_sub", "iss": issuer, "sub": data["member_id"]}} | opaque


def _ended(data: Mapping[str, Any]) -> Told:
    reason = data.get("reason") or "ended"
    return "session-revoked", _because(INITIATED.get(reason, "system"), reason)


def _device(data: Mapping[str, Any]) -> Told:
    """Whether an operator lets a device be used: blocked, or blocked no more."""
    blocked = data["change"] == "blocked"
    said = _because("admin", "device_blocked" if blocked else "device_allowed")
    before, after = (COMPLIANT, NOT_COMPLIANT) if blocked else (NOT_COMPLIANT, COMPLIANT)
    return "device-compliance-change", said | {"previous_status": before, "current_status": after}


def _risk(data: Mapping[str, Any]) -> Told:
    kinds = ", ".join(each["kind"] for each in data["reasons"])
    said = _because("system", kinds) | {"risk_reason": kinds}
    return "risk-level-change", said | {"principal": "USER", "current_level": "HIGH"}


def _because(whose: str, reason: str) -> dict[str, Any]:
    return {"initiating_entity": whose, "reason_admin": {"en": reason}}


COUNTERPARTS: Final[Mapping[str, Callable[[Mapping[str, Any]], Told]]] = {
    "session_ended": _ended,
    "device_blocked": _device,
    "device_allowed": _device,
    "member_at_risk": _risk,
}
"""What there is a token for; a receiver of tokens is sent nothing else."""
EVENTS: Final = tuple(BASE + kind for kind in ("session-revoked", "device-compliance-change", "risk-level-change"))
