"""The hosts that a school is visited at: which are its own, and which are in use. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec

from accessguard.errors import Problem


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A host name of a school. One of them is `primary`; an inactive one is kept, and nobody logs in there."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    primary: bool = False
    status: Literal["active", "inactive"] = "active"


def serves(hosts: Sequence[Host], asked: str | None) -> bool:
    """Whether a login at that host is one of this school's; always, where it lists none or the login names none."""
    if not hosts or asked is None:
        return True
    name = plain(asked)
    return any(each.status == "active" and plain(each.host) == name for each in hosts)


def primary(hosts: Sequence[Host]) -> str | None:
    """The host that links lead to; None where a school lists none."""
    return next((plain(each.host) for each in hosts if each.primary), None)


def plain(host: str) -> str:
    """A host name as it is compared: without a port and the last dot, in small ASCII letters (RFC 5890); as it is if it has none."""
    name = host.strip().lower()
    if not name.startswith("[") and name.count(":") == 1:
        name = name.partition(":")[0]
    name = name.rstrip(".")
    try:
        return name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        return name


def host_problems(hosts: Sequence[Host]) -> Iterator[Problem]:
    """What is wrong with a list of hosts: one is named twice, none or several are primary, the primary one is not in use."""
    seen: set[str] = set()
    for number, each in enumerate(hosts):
        if plain(each.host) != each.host.lower() and each.host.isascii():
            yield Problem(pointer=f"/hosts/{number}/host", detail="is a host name alone, without port and last dot")
        if plain(each.host) in seen:
            yield Problem(pointer=f"/hosts/{number}/host", detail="is listed twice")
        if each.primary and each.status != "active":
            yield Problem(pointer=f"/hosts/{number}/status", detail="the primary host is active")
        seen.add(plain(each.host))
    if hosts and sum(each.primary for each in hosts) != 1:
        yield Problem(pointer="/hosts", detail="exactly one host is the primary one")
