"""What is said in each call of the API: a body in a school's own words, about what its ids name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

import msgspec

from accessguard.api.routes import Route
from tests.service import CHROME, LAPTOP

DENIED: Final = "198.51.100.9"
"""An address that a rule of each school denies."""
ATTEMPT: Final = "018f2b3c-0000-7000-8000-0000000a77e3"
"""An id of a login attempt that both schools use."""

LATE = ("/challenges/", "/bulk", "/erase", "/place", "{device_id}/merge", "DELETE", "/end", "{member_id}/merge")
"""What takes away what other calls are about, in the order in which it is asked."""

Picked: TypeAlias = Mapping[str, str]
"""An id for each place in a path, and for `token`, `page`, `preview` and `erasure`."""
Body: TypeAlias = Callable[[str, Picked], Any]


def _at(days: float) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


def settings(word: str) -> dict[str, Any]:
    """All settings of a school, with its word wherever a text may be."""
    return {
        "name": word,
        "support_email": f"{word}@example.com",
        "brand": {"copyright": word, "logo_url": f"https://{word}.example/logo.svg"},
        "hosts": [{"host": f"{word}.example", "primary": True}],
        "messages": {"ip_denied": {"en": {"text": f"No, says {word}.", "state": "enabled"}}},
        "proxy": {"identity": "cookie", "login_url": f"https://{word}.example/login?next={{return_to}}"},
    }


def denial(word: str) -> dict[str, Any]:
    """A rule that denies an address, in the school's words."""
    params = {"networks": ["198.51.100.0/24"]}
    return {"kind": "ip_deny", "name": "the same", "mode": "enforce", "params": params, "message": f"Denied by {word}"}


def _places(word: str, _: Picked) -> Any:
    rule = {"kind": "session_limit", "name": "other", "mode": "observe", "params": {"max": 9}, "message": word}
    return rule | {"reason": word}


def _login(word: str, picked: Picked) -> Any:
    return {
        "member_id": picked["member_id"],
        "identifier": word,
        "outcome": "success",
        "app": word,
        "ip": LAPTOP,
        "user_agent": f"{CHROME.format(142)} {word}",
        "client_hints": {"Sec-CH-UA-Model": f'"{word}"'},
        "device_token": picked["token"],
    }


def check(word: str, picked: Picked) -> dict[str, Any]:
    """One question, from an address that is allowed."""
    asked = {"session_id": picked["session_id"], "ip": LAPTOP, "user_agent": word, "device_token": picked["token"]}
    return asked | {"activity": "lesson_open", "resource": word, "product_id": picked["product_id"], "explain": True}


def _evaluation(word: str, picked: Picked) -> dict[str, Any]:
    return {
        "subject": {"type": "session", "id": picked["session_id"]},
        "action": {"name": "course_open"},
        "resource": {"type": "course", "id": word, "properties": {"product_id": picked["product_id"]}},
        "context": {"ip": DENIED, "user_agent": word, "device_token": picked["token"]},
    }


def _imported(word: str, picked: Picked) -> Any:
    member = {"kind": "member", "member_id": picked["member_id"], "name": word, "email": f"{word}@example.com"}
    enrolment = {"kind": "enrolment", "member_id": picked["member_id"], "product_id": picked["product_id"]}
    lines = (member, enrolment | {"starts_at": _at(-1)}, {"kind": "member", "member_id": word, "name": 7})
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def _confirmed(kept: str, **asked: Any) -> Body:
    """A call that is asked twice: with a confirmation once there is one."""

    def body(word: str, picked: Picked) -> Any:
        said = asked | {"ids": ["cy", "dee"], "reason": word}
        return said | ({"confirmation": picked[kept]} if picked[kept] else {})

    return body


BODIES: Final[Mapping[str, Body]] = {
    "POST /v1/logins": _login,
    "POST /v1/check": check,
    "POST /v1/checks": lambda word, picked: {"checks": [check(word, picked), check(word, picked) | {"ip": DENIED}]},
    "POST /v1/challenges/{challenge_id}": lambda word, picked: {"outcome": "failed"},
    "POST /v1/sessions/{session_id}/end": lambda word, picked: {"reason": "logout"},
    "PUT /v1/members/{member_id}": lambda word, picked: {
        "name": word,
        "email": f"{word}@example.com",
        "phone": "+55 11 5550 0123",
        "tags": ["same", word],
        "city": word,
    },
    "POST /v1/members/bulk": _confirmed("preview", action="end_sessions"),
    "POST /v1/members/erase": _confirmed("erasure"),
    "POST /v1/members/{member_id}/comments": lambda word, picked: {"text": word},
    "PUT /v1/preferences/{name}": lambda word, picked: {"value": {"kept": word}},
    "PUT /v1/members/{member_id}/notice": lambda word, picked: {"version": word, "shown_at": _at(0)},
    "PATCH /v1/members/{member_id}": lambda word, picked: {"note": word, "tags": [word], "reason": word},
    "PATCH /v1/members/{member_id}/devices/{device_id}": lambda word, picked: {"name": word, "reason": word},
    "POST /v1/members/{member_id}/devices/{device_id}/merge": lambda word, picked: {
        "into": picked["into"],
        "reason": word,
    },
    "POST /v1/members/{member_id}/merge": lambda word, picked: {"into": picked["other"], "reason": word},
    "POST /v1/members/{member_id}/sessions/end": lambda word, picked: {"reason": word},
    "PUT /v1/members/{member_id}/enrolments/{product_id}": lambda word, picked: {
        "starts_at": _at(-1),
        "reason": word,
    },
    "POST /v1/members/{member_id}/passes": lambda word, picked: {
        "kind": "extra_device",
        "until": _at(7),
        "reason": word,
    },
    "POST /v1/reports": lambda word, picked: {"report": "access", "member_id": picked["member_id"]},
    "POST /v1/imports": _imported,
    "POST /v1/violations/mark": lambda word, picked: {"ids": [picked["violation_id"]], "read": True},
    "PATCH /v1/violations/{violation_id}": lambda word, picked: {
        "resolution": "contacted",
        "note": word,
        "reason": word,
    },
    "POST /v1/rules": _places,
    "POST /v1/rules/simulate": lambda word, picked: {"rule": denial(word), "from": _at(-2), "to": _at(0)},
    "PUT /v1/rules/{rule_id}": lambda word, picked: denial(word) | {"reason": word},
    "PUT /v1/settings": lambda word, picked: settings(word) | {"reason": word},
    "POST /v1/webhooks": lambda word, picked: {"url": picked["hook"], "events": ["violation"], "reason": word},
    "POST /v1/revocations": lambda word, picked: {"caller": f"gone-{word}", "reason": word},
    "POST /v1/tenants": lambda word, picked: {"tenant": picked["tenant"], "name": word, "reason": word},
    "PATCH /v1/tenants/{tenant}": lambda word, picked: {"name": word, "reason": word},
    "POST /access/v1/evaluation": _evaluation,
    "POST /access/v1/evaluations": lambda word, picked: {"evaluations": [_evaluation(word, picked)]},
    "POST /restricted/place": lambda word, picked: {"t": picked["page"], "forget_device_id": picked["device_id"]},
    "POST /restricted/words": lambda word, picked: {"t": picked["page"], "text": word},
}
"""For each call that has a body; whoever adds a call says here what is said in it."""


def target(route: Route, word: str, picked: Picked) -> str:
    """The query of a call, with its `?`; empty where none is needed."""
    if route.path == "/restricted":
        return f"?t={picked['page']}"
    if route.method == "DELETE" and route.path.endswith("/{member_id}"):
        return f"?mode=erase&reason={word}"
    return "?limit=200" if route.listing else ""


def accepted(route: Route) -> tuple[str, ...]:
    """Every form that the answer of a call has."""
    if route.listing:
        return ("application/json", "text/csv")
    if route.text:
        return ("application/json", "text/plain")
    return ("application/json", "text/html") if route.page or route.browsers else ("application/json",)


def late(route: Route) -> int:
    """When a call is asked: those that take something away after all the others."""
    name = f"{route.method} {route.path}"
    return max((place for place, each in enumerate(LATE, 1) if each in name), default=0)
