"""What operators ask: every GET of theirs in the table of routes, and those of their filters that go different ways."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from accessguard.api.keys import Role
from accessguard.api.routes import ROUTES, Route

# Which role asks, of those that may: the least of them that sees everything.
ASKERS: Final = (Role.SUPERVISOR, Role.ADMINISTRATOR, Role.ROOT)
PLACE: Final = re.compile(r"{(\w+)}")

# What else a list is asked for; words in braces are taken from a subject.
MORE: Final[Mapping[str, Sequence[str]]] = {
    "/v1/members": (
        "sort=first_access",
        "sort=last_access&order=asc",
        "sort=name",
        "sort=unread",
        "q={name}",
        "q={email}",
        "q={former}",
        "q={phone}",
        "q={member_id}",
        "status=active",
        "status=inactive",
        "tag=trial",
        "unread=true",
        "restricted=true",
        "product_id=course-3",
    ),
    "/v1/members/{member_id}/logins": ("order=asc",),
    "/v1/members/{member_id}/sessions": ("order=asc",),
    "/v1/violations": (
        "order=asc",
        "read=false",
        "read=true",
        "member_id={member_id}",
        "rule_id={rule_id}",
        "code=copied_session",
        "code=country_denied",
        "resolution=contacted",
        "from=2020-01-01T00:00:00Z&to=2020-02-01T00:00:00Z",
        "read=false&code=impossible_travel",
        "read=false&resolution=open&code=device_limit",
    ),
    "/v1/audit": (
        "actor=ops-anna",
        "actor=nobody",
        "action=member.change",
        "action=rule.delete",
        "target_kind=member",
        "target_kind=rule",
        "target_id={member_id}",
    ),
    "/v1/reports/sharing": ("sort=last_at", "sort=last_at&order=asc"),
}
OWN: Final = frozenset({"/v1/preferences/{name}"})
"""What an operator has only after writing it."""
CARRIER: Final = "100.64.0.7"
"""An address that thousands of members of a generated population were seen at."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One call: `name` says it for all subjects; `role` asks."""

    name: str
    path: str
    role: Role
    listing: bool = False


def asks(subject: Mapping[str, str]) -> Iterator[Ask]:
    """Every call about one subject: a member and what belongs to it, by the names of the routes' own parameters.

    What a subject lacks is not asked for.
    """
    for route in ROUTES:
        role = next((each for each in ASKERS if each in route.roles), None)
        if route.method == "GET" and role is not None and route.path not in OWN:
            yield from _of_route(route, role, subject)
    yield Ask(name="GET /v1/addresses/{ip} of a carrier", path=f"/v1/addresses/{CARRIER}", role=Role.SUPERVISOR)


def _of_route(route: Route, role: Role, subject: Mapping[str, str]) -> Iterator[Ask]:
    for words in ("", *MORE.get(route.path, ())):
        template = f"{route.path}?{words}" if words else route.path
        if all(subject.get(name) for name in PLACE.findall(template)):
            path = PLACE.sub(lambda found: quote(subject[found[1]], safe=""), template)
            yield Ask(name=f"GET {template}", path=path, role=role, listing=route.listing)
