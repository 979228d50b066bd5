"""Believable examples: written by hand for what people try first, made from the schemas for everything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

AGENT: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)
AT: Final = "2026-11-21T18:55:00.123Z"
EARLIER: Final = "2026-11-02T09:12:41.008Z"
SESSION: Final = "019aa7c4-5e7b-7d31-9c1e-2b6f0a4d8e15"
DEVICE: Final = "019a44f0-1c08-7a52-8f3d-6d2e9b7c4a01"
RULE: Final = "019a3b17-9d20-7c6e-b5a4-0e8f1d2c3b4a"
CASE: Final = "019aa7c4-5f02-7b88-a1d0-93c5e7f6b210"
COOKIE: Final = (
    "d1.GZpE8BwIelKPPW0um3xKAQ.5Jr2v0c7n1yT4hQmXb8w9KfLzRkPdUaGsEoVtYiN3M0.q8Zl2h7Wd1tBv5Xc0sJgRyN4mUeKpFaTiOoLxQwS9A"
)

# What stands in a path.
PLACES: Final[Mapping[str, str]] = {
    "member_id": "stu-1",
    "session_id": SESSION,
    "device_id": DEVICE,
    "rule_id": RULE,
    "violation_id": CASE,
    "tenant": "school-1",
    "product_id": "course-42",
    "job_id": "019aa7d0-2b4c-7d6e-8f90-1a2b3c4d5e6f",
    "challenge_id": "019aa7c4-60b1-7c2d-9e3f-5a6b7c8d9e0f",
    "webhook_id": "019aa7d1-3c5d-7e7f-8a01-2b3c4d5e6f70",
    "delivery_id": "6f1c1f6e-0d0b-4a53-9d0e-3f8c1a2b4c5d",
    "revocation_id": "019aa7d1-7a10-7c3e-9b52-4d5e6f708192",
    "ip": "203.0.113.9",
    "name": "member_history",
}

# What was sent, and what came back: one student, one laptop, one rule, all through the document.
ALLOWED: Final[Mapping[str, Any]] = {
    "decision": "allow",
    "reason": None,
    "member_id": "stu-1",
    "session_id": SESSION,
    "device_id": DEVICE,
    "exempt": False,
    "degraded": False,
    "ttl_ms": 5000,
    "violation_id": None,
}
EVALUATION: Final[Mapping[str, Any]] = {
    "subject": {"type": "session", "id": SESSION, "properties": {}},
    "action": {"name": "course_open", "properties": {}},
    "resource": {"type": "course", "id": "42", "properties": {"product_id": "course-42"}},
    "context": {"ip": "203.0.113.9", "user_agent": "Mozilla/5.0", "device_token": None},
}
BRAND: Final[Mapping[str, Any]] = {
    "color_one": "#7a1fa2",
    "color_two": "#00796b",
    "logo_url": "https://cdn.example.com/logo.svg",
    "favicon_url": None,
    "copyright": "Example School",
}
PROXY: Final[Mapping[str, Any]] = {
    "identity": "cookie",
    "jwt": None,
    "cookie": None,
    "login_url": "/login?next={return_to}",
    "hosts": [],
    "activities": [
        {"path": "/courses/{id}", "kind": "course_open", "methods": ["GET"], "resource": "course:{id}", "product": "id"}
    ],
    "polling": ["/api/unread"],
}

WHOLE: Final[Mapping[str, Any]] = {
    "Login": {
        "member_id": "stu-1",
        "identifier": "ana@example.com",
        "outcome": "success",
        "method": "password",
        "app": "courses",
        "host": "learn.example.com",
        "ip": "203.0.113.9",
        "user_agent": AGENT,
        "client_hints": {"Sec-CH-UA-Platform": '"Windows"', "Sec-CH-UA-Platform-Version": '"15.0.0"'},
        "device_token": None,
    },
    "LoginReply": {
        "decision": "allow",
        "reason": None,
        "attempt_id": "019aa7c4-5e79-7f10-8a3b-c4d5e6f70819",
        "exempt": False,
        "degraded": False,
        "session": {
            "id": SESSION,
            "token": "s1.ZGVtbw.MDE5YWE3YzQtNWU3Yi03ZDMx.n5Hq2Xw8vRt0Lk7Jm4Pz1Yc6Bf3Gd9Sa",
            "expires_at": "2027-02-19T18:55:00.123Z",
        },
        "device": {
            "id": DEVICE,
            "new": True,
            "token": COOKIE,
            "cookie": {
                "name": "__Host-ag_device",
                "value": COOKIE,
                "max_age_s": 34560000,
                "header": f"__Host-ag_device={COOKIE}; Path=/; Max-Age=34560000; Secure; HttpOnly; SameSite=Lax",
            },
        },
        "ended_sessions": [{"id": "019aa6f1-0b3c-7e4d-a5f6-17283940a5b6", "reason": "session_limit"}],
        "violations": [CASE],
    },
    "SettleRequest": {"outcome": "passed", "end_session_id": None, "forget_device_id": None, "merge_device_id": None},
    "Check": {
        "session_id": SESSION,
        "ip": "203.0.113.9",
        "user_agent": AGENT,
        "device_token": COOKIE,
        "activity": "lesson_open",
        "resource": "course:42/lesson:7",
        "product_id": "course-42",
    },
    "CheckReply": {
        "decision": "deny",
        "reason": {
            "code": "device_limit",
            "rule_id": RULE,
            "rule_version": 3,
            "limit": 2,
            "counted": 3,
            "retry_at": None,
            "message": "Your account can be used on 2 devices. Together with this one, there would be 3 devices. "
            "Please use a device on which you have already studied. If you need help, write to help@school.example.",
            "language": "en",
            "support_email": "help@school.example",
            "page_url": "https://guard.example/restricted?t=v1.s1.czE.…",
            "challenge_id": None,
            "choices": [
                {"kind": "device", "id": DEVICE, "label": "Chrome on Windows", "last_activity_at": AT, "same": False}
            ],
            "end_reason": None,
        },
        "member_id": "stu-1",
        "session_id": SESSION,
        "device_id": "019aa7c4-6a11-7c03-9e52-8b1f4d7a2c90",
        "exempt": False,
        "degraded": False,
        "ttl_ms": 0,
        "violation_id": CASE,
    },
    "ChecksReply": {
        "results": [
            {
                "decision": "allow",
                "reason": None,
                "member_id": "stu-1",
                "session_id": SESSION,
                "device_id": DEVICE,
                "exempt": False,
                "degraded": False,
                "ttl_ms": 5000,
                "violation_id": None,
            }
        ]
    },
    "RuleRequest": {
        "kind": "device_limit",
        "name": "Two devices a student",
        "mode": "observe",
        "action": "deny_new",
        "params": {"max": 2, "window_days": 30},
        "applies_to": {"except_tags": ["family"]},
        "reason": "Shared accounts in October",
    },
    "SimulateRequest": {
        "rule": {"kind": "session_limit", "action": "deny_new", "params": {"max": 1, "window_s": 1800}},
        "from": "2026-10-22T00:00:00.000Z",
        "to": "2026-11-21T00:00:00.000Z",
    },
    "Simulation": {
        "members_affected": 14,
        "members_total": 312,
        "denials": 57,
        "ended_sessions": 0,
        "logged": 0,
        "events": 48211,
        "by_day": [{"day": "2026-11-02", "denials": 5, "members": 3}],
        "examples": [
            {
                "member_id": "stu-1",
                "at": EARLIER,
                "code": "session_limit",
                "effect": "denied",
                "sessions": [SESSION],
                "would_end": [],
                "grade": None,
                "limit": 1,
                "counted": 2,
                "retry_at": "2026-11-02T09:40:00.000Z",
                "explanation": "2 sessions in use, 1 allowed",
            }
        ],
    },
    "AppliesTo": {"tags": [], "except_tags": ["family"], "products": [], "apps": [], "device_classes": []},
    "DevicePatch": {"access": "blocked", "name": "Laptop in the library", "reason": "Seen in three cities in one day"},
    "MemberPatch": {
        "checks_enabled": False,
        "checks_disabled_until": "2026-11-28T00:00:00.000Z",
        "reason": "Travels for a week",
    },
    "ImportedMember": {
        "kind": "member",
        "member_id": "stu-1",
        "name": "Ana Souza",
        "email": "ana@example.com",
        "tags": ["2026"],
    },
    "ImportedEnrolment": {"kind": "enrolment", "member_id": "stu-1", "product_id": "course-42", "starts_at": EARLIER},
    "ErasureRequest": {"filter": {"tag": "left-2023"}, "mode": "anonymise", "reason": "Left three years ago"},
    "BulkRequest": {"action": "end_sessions", "filter": {"tag": "2025"}, "reason": "The course is over"},
    "Preview": {
        "action": "end_sessions",
        "members": 2,
        "examples": ["stu-1", "stu-7"],
        "confirmation": "v1.s1.Yx3kQ.AZqn0DW.AAABmq.k2Jd8sLw0Q",
        "expires_at": AT,
    },
    "UnionReport": {
        "member_id": "stu-1",
        "merged": "stu-7",
        "sessions": 3,
        "ended_sessions": [SESSION],
        "devices": 2,
        "same_devices": 1,
        "logins": 41,
        "violations": 1,
        "enrolments": ["course-42"],
        "passes": 0,
        "read_marks": 1,
        "exemption": "dropped",
        "staff": "none",
    },
    "MarkRequest": {"ids": [CASE], "read": True},
    "ResolutionPatch": {"resolution": "contacted", "note": "Called on Friday; shares with a sister."},
    "Settings": {
        "name": "Example School",
        "support_email": "help@school.example",
        "time_zone": "America/Sao_Paulo",
        "country": "BR",
        "failure_mode": "open",
        "session": {"idle_ttl_s": 2592000, "absolute_ttl_s": 7776000},
        "cookie": {"prefix": "__Host-", "domain": None, "same_site": "Lax", "partitioned": False},
        "retention": {"logins_days": 365, "activity_days": 365, "violations_days": 365, "truncate_ip_after_days": None},
        "languages": ["pt-BR", "en"],
        "messages": {"device_limit": {"pt-BR": {"text": "Sua conta já está em {limit} aparelhos.", "state": "draft"}}},
        "passes_per_month": 1,
        "copies": "log",
        "hosts": [
            {"host": "learn.example.com", "primary": True, "status": "active"},
            {"host": "old.example.com", "primary": False, "status": "inactive"},
        ],
        "proxy": PROXY,
        "brand": BRAND,
    },
    "ProxySettings": PROXY,
    "Brand": BRAND,
    "RestrictedPage": {
        "school": "Example School",
        "brand": BRAND,
        "language": "en",
        "languages": ["pt-BR", "en"],
        "code": "device_limit",
        "title": "This device cannot be used right now",
        "why": ["Your account can be used on 2 devices.", "Together with this one, there would be 3 devices."],
        "why_language": "en",
        "when": None,
        "retry_at": None,
        "support_email": "help@school.example",
        "places": [
            {
                "kind": "device",
                "id": DEVICE,
                "label": "Chrome on Windows",
                "last_activity_at": AT,
                "this": False,
                "same": False,
                "closable": True,
            }
        ],
        "challenged": True,
        "swaps_left": 1,
        "freed": False,
        "freed_label": None,
        "next": None,
        "continue_url": "https://learn.example.com/",
        "may_write": True,
        "written": [{"at": AT, "text": "I have a new laptop."}],
        "complete": True,
        "expires_at": "2026-11-21T19:55:00.000Z",
    },
    "PlaceRequest": {"t": "v1.s1.czE.…", "end_session_id": None, "forget_device_id": DEVICE},
    "WordsRequest": {"t": "v1.s1.czE.…", "text": "I have a new laptop."},
    "EvaluationRequest": EVALUATION,
    "EvaluationsRequest": {
        "subject": EVALUATION["subject"],
        "context": EVALUATION["context"],
        "evaluations": [{"action": EVALUATION["action"], "resource": EVALUATION["resource"]}],
        "options": {"evaluations_semantic": "deny_on_first_deny"},
    },
    "EvaluationReply": {"decision": True, "context": ALLOWED},
    "PdpMetadata": {
        "policy_decision_point": "https://guard.example",
        "access_evaluation_endpoint": "https://guard.example/access/v1/evaluation",
        "access_evaluations_endpoint": "https://guard.example/access/v1/evaluations",
    },
    "PassRequest": {"kind": "extra_device", "until": "2026-11-28T00:00:00.000Z", "reason": "New laptop"},
    "EnrolmentRequest": {"starts_at": EARLIER, "ends_at": "2027-11-02T09:12:41.008Z", "purchased_at": EARLIER},
    "EnrolmentLine": {
        "product_id": "course-42",
        "active": True,
        "standing": None,
        "opens_at": None,
        "starts_at": EARLIER,
        "ends_at": None,
        "purchased_at": EARLIER,
        "status": "active",
        "reopens_at": None,
        "updated_at": EARLIER,
        "withdrawn_at": None,
        "history": [
            {
                "change": "enrolled",
                "at": EARLIER,
                "actor": "shop",
                "reason": "Order 1042",
                "before": None,
                "after": {
                    "product_id": "course-42",
                    "starts_at": EARLIER,
                    "ends_at": None,
                    "purchased_at": EARLIER,
                    "status": "active",
                    "reopens_at": None,
                    "updated_at": EARLIER,
                },
            }
        ],
    },
    "AddressUse": {
        "ip": "203.0.113.9",
        "network": "203.0.113.9",
        "place": {
            "country": "BR",
            "asn": 64500,
            "city": "São Paulo",
            "latitude": -23.55,
            "longitude": -46.63,
            "operator": "Example Telecom",
            "time_zone": "America/Sao_Paulo",
        },
        "members": 3,
        "network_members": 3,
        "members_today": 1,
        "last": [{"member_id": "stu-1", "last_at": AT}],
        "rules": [],
    },
    "NoticeRequest": {"version": "2026-02", "shown_at": AT},
    "Notice": {"version": "2026-02", "shown_at": AT},
    "Job": {
        "id": "019aa7d0-2b4c-7d6e-8f90-1a2b3c4d5e6f",
        "kind": "import",
        "state": "running",
        "progress": 4000,
        "total": None,
        "result": None,
        "error": None,
        "created_at": EARLIER,
        "updated_at": AT,
        "expires_at": "2026-11-28T18:55:00.123Z",
    },
}

VALUES: Final[Mapping[str, Any]] = {
    "absolute_ttl_s": 7776000,
    "access_at": None,
    "access_by": None,
    "access_reason": None,
    "action": "deny_new",
    "active_sessions": 1,
    "actor": "maria",
    "after": {"access": "blocked"},
    "app": "courses",
    "before": {"access": "default"},
    "browser": "Chrome",
    "browser_version": "142",
    "checks_disabled_until": None,
    "checks_enabled": True,
    "checks_reason": None,
    "code": "device_limit",
    "counted": 3,
    "country": None,
    "cursor": "WyIyMDI2LTExLTIxIl0",
    "decision": "allow",
    "details": {"limit": 2, "counted": 3, "devices": [DEVICE]},
    "device_class": "desktop",
    "device_id": DEVICE,
    "devices": 2,
    "effect": "denied",
    "email": "ana@example.com",
    "end_reason": None,
    "ended_at": None,
    "ended_by": None,
    "failure_reason": None,
    "first_access_at": EARLIER,
    "first_at": EARLIER,
    "first_seen_at": EARLIER,
    "hits": 14,
    "host": "learn.example.com",
    "ip": "203.0.113.9",
    "kind": "lesson_open",
    "label": "Chrome on Windows",
    "last_activity_kind": "lesson_open",
    "last_ip": "203.0.113.9",
    "last_resource": "course:42/lesson:7",
    "limit": 50,
    "locale": "pt-BR",
    "marked": 1,
    "member_id": "stu-1",
    "message": None,
    "method": "password",
    "mode": "enforce",
    "model": None,
    "name": "Ana Souza",
    "next_cursor": None,
    "note": "",
    "open": 3,
    "opens_at": None,
    "order": "desc",
    "os": "Windows",
    "params": {"max": 2, "window_days": 30, "per": "member"},
    "parts": {"postgres": "up", "valkey": "up", "channel": "up"},
    "pending": 0,
    "phone": "+55 11 5550 0123",
    "priority": 0,
    "product_id": "course-42",
    "q": "ana",
    "read": False,
    "read_by": ["jonas"],
    "reason": "Shared accounts in October",
    "resource": "course:42/lesson:7",
    "role": "supervisor",
    "rule_id": RULE,
    "rule_version": 3,
    "session_id": SESSION,
    "started_at": EARLIER,
    "status": "active",
    "status_reason": None,
    "tags": ["2026"],
    "target_id": DEVICE,
    "target_kind": "device",
    "tenant": "school-1",
    "time_zone": "America/Sao_Paulo",
    "unread": 2,
    "unread_violations": 2,
    "user_agent": AGENT,
    "version": 3,
    "violation_id": CASE,
    "Device.id": DEVICE,
    "Device.name": None,
    "EndAllRequest.reason": "Lost phone",
    "EndRequest.reason": "logout",
    "EndedSession.id": SESSION,
    "EndedSession.reason": "ended_by_operator",
    "Entry.action": "device.change",
    "Health.status": "ok",
    "LoginItem.code": None,
    "LoginItem.device_new": False,
    "LoginItem.device_token": "current",
    "LoginItem.outcome": "success",
    "LoginItem.rule_id": None,
    "LoginItem.rule_version": None,
    "RuleBody.mode": "observe",
    "RuleReply.mode": "observe",
    "RuleReply.summary": "At most 2 devices within 30 days; beyond that, access is refused. "
    "For now it is only observed: nobody is refused.",
    "RuleBody.kind": "device_limit",
    "RuleBody.name": "Two devices a student",
    "RuleReply.id": RULE,
    "RuleReply.kind": "device_limit",
    "RuleReply.name": "Two devices a student",
    "SessionItem.id": SESSION,
    "url": "https://school.example/accessguard",
    "SessionItem.status": "open",
    "TenantReply.name": "Example School",
    "TenantRequest.name": "Example School",
    "audience": None,
    "Transmitter.issuer": "https://guard.example",
    "jwks_uri": "https://guard.example/.well-known/jwks.json",
    "secret": "whsec_TUlJQklqQU5CZ2txaGtpRzl3MEJBUUVGQUFPQ0FROEE=",
    "spec_version": "1_0",
    "delivery_methods_supported": ["urn:ietf:rfc:8935"],
    "Jwk.kty": "EC",
    "Jwk.crv": "P-256",
    "Jwk.x": "kh5paeYlLFhpORaNRYguvwDVsRapxunlbO8z46WvQi0",
    "Jwk.y": "llblkgIJfhsd_ZUp9jyQw-MBX7FkJNjzXTKcozwlvGg",
    "Jwk.use": "sig",
    "Jwk.alg": "ES256",
    "Jwk.kid": "JyyMhLRglWoOP79mAsYKZW4VNjR7dvNvuwXGGddYWlw",
    "Violation.id": CASE,
    "Violation.summary": "3 devices in use, 2 allowed",
}


def example(schema: Schema, components: Mapping[str, Schema], *, name: str = "", owner: str = "") -> Any:
    """A value that `schema` accepts; `name` and `owner` are the field and the struct it stands in."""
    if "$ref" in schema:
        return _component(schema["$ref"].rpartition("/")[2], components, name=name, owner=owner)
    for key in (f"{owner}.{name}", name):
        if key in VALUES and "properties" not in schema and schema.get("type") != "array":
            return VALUES[key]
    if "anyOf" in schema:
        return example(schema["anyOf"][0], components, name=name, owner=owner)
    if schema.get("type") == "array":
        listed = VALUES.get(name)
        return listed if isinstance(listed, list) else [example(schema["items"], components, name=name, owner=owner)]
    if schema.get("type") == "object":
        return _object(schema, components)
    return _plain(schema)


def _component(found: str, components: Mapping[str, Schema], *, name: str, owner: str) -> Any:
    if found in WHOLE:
        return WHOLE[found]
    schema = components[found]
    return _object(schema, components) if "properties" in schema else _word(schema, name, owner)


def _word(schema: Schema, name: str, owner: str) -> Any:
    """One of an enum's words: the one that fits the rest, else its first."""
    fitting = (VALUES.get(key) for key in (f"{owner}.{name}", name))
    return next((word for word in fitting if word in schema["enum"]), schema["enum"][0])


def _object(schema: Schema, components: Mapping[str, Schema]) -> dict[str, Any]:
    owner = schema.get("title", "")
    properties = schema.get("properties", {})
    return {name: example(each, components, name=name, owner=owner) for name, each in properties.items()}


def _plain(schema: Schema) -> Any:
    if schema.get("default") is not None:
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    by_format = {"date-time": AT, "uuid": "019aa7c4-5e80-7a6b-8c9d-0e1f2a3b4c5d", "date": "2026-11-21"}
    by_type = {"string": "text", "integer": schema.get("minimum", 1), "boolean": False, "number": 1.5, "null": None}
    return by_format.get(schema.get("format", ""), by_type.get(schema.get("type", "null")))
