"""What a role may do on a page: what it may do by the API, looked up in the one table of routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from accessguard.api.keys import Role
from accessguard.api.routes import ROUTES

CALLS: Final[Mapping[str, frozenset[Role]]] = {f"{each.method} {each.path}": each.roles for each in ROUTES}


def may(role: str, call: str) -> bool:
    """Whether the role may make a call of the API, such as `GET /v1/members`; KeyError for one that there is not."""
    return role in CALLS[call]
