"""What a tenant says about its proxies: who the session is, what a path means, where somebody logs in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import quote, unquote, urlsplit

import msgspec

from accessguard.policies.hosts import plain
from accessguard.policies.params import Short
from accessguard.rules.model import Activity

MOST_PATTERNS: Final = 200
LONGEST_RESOURCE: Final = 512
LONGEST_RETURN: Final = 1000
MOST_HELD: Final = 10_000

Pattern: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^/[!-~]*$")]
CookieName: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.-]+$")]
Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

PLACE: Final = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}", re.ASCII)
ANY: Final = "*"
REST: Final = "**"


class PathActivity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A path that is one of the six interactions.

    `path` is made of segments: a text, `{name}` for any one, `*` for any one
    that does not matter, and at its end `**` for whatever follows. `resource`
    may name places of the path (`course:{id}`); None is the path itself.
    `product` is the place that holds the product's id.
    """

    path: Pattern
    kind: Activity
    methods: Annotated[tuple[Method, ...], msgspec.Meta(min_length=1, max_length=5)] = ("GET",)
    resource: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    product: Annotated[str, msgspec.Meta(max_length=32)] | None = None


class JwtIdentity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The platform's own token as identity: where it is, which claims name the session and the member, which keys sign it.

    `keys` are public keys (RFC 7517); a secret is not taken, as settings are
    read by many. `cookie` None reads `Authorization: Bearer`.
    """

    keys: Annotated[tuple[dict[str, Any], ...], msgspec.Meta(min_length=1, max_length=16)]
    algorithms: Annotated[tuple[Literal["RS256", "ES256", "EdDSA"], ...], msgspec.Meta(min_length=1, max_length=3)] = (
        "RS256",
    )
    issuer: Short | None = None
    audience: Short | None = None
    session_claim: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "sid"
    member_claim: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = "sub"
    cookie: CookieName | None = None


LoginUrl: TypeAlias = Annotated[str, msgspec.Meta(max_length=1000, pattern=r"^[!-~]*$")]


class HostIdentity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is different at one host: all four of them are said anew there."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    identity: Literal["cookie", "jwt"] = "cookie"
    jwt: JwtIdentity | None = None
    cookie: CookieName | None = None
    login_url: LoginUrl | None = None


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How proxies ask about this tenant's requests.

    `cookie` is the name of the session cookie; None is the device cookie's
    prefix and `ag_session`. `login_url` may hold `{return_to}`, the path that
    was asked for. `hosts` says where something else holds. A path of `polling`
    is checked, but is never an activity.
    """

    identity: Literal["cookie", "jwt"] = "cookie"
    jwt: JwtIdentity | None = None
    cookie: CookieName | None = None
    login_url: LoginUrl | None = None
    hosts: Annotated[tuple[HostIdentity, ...], msgspec.Meta(max_length=50)] = ()
    activities: Annotated[tuple[PathActivity, ...], msgspec.Meta(max_length=MOST_PATTERNS)] = ()
    polling: Annotated[tuple[Pattern, ...], msgspec.Meta(max_length=MOST_PATTERNS)] = ()


class Meant(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a request is: an interaction with a resource of a product."""

    kind: Activity
    resource: str
    product_id: str | None = None


class Paths:
    """The patterns of a tenant, ready to be asked; the first that fits says what a path means."""

    def __init__(self, settings: ProxySettings) -> None:
        self._polling = tuple(compiled(pattern) for pattern in settings.polling)
        self._activities = tuple((compiled(each.path), each) for each in settings.activities)

    def meaning(self, method: str, path: str) -> Meant | None:
        """What a request for `path` (as it came, without its query) is; None for no interaction."""
        if not self._activities or any(pattern.fullmatch(path) for pattern in self._polling):
            return None
        for pattern, said in self._activities:
            found = pattern.fullmatch(path) if method in said.methods else None
            if found is not None:
                return _meant(said, path, {name: text(value) for name, value in found.groupdict().items()})
        return None


def _meant(said: PathActivity, path: str, places: dict[str, str]) -> Meant:
    resource = text(path) if said.resource is None else PLACE.sub(lambda name: places.get(name[1], ""), said.resource)
    product = places.get(said.product, "") if said.product else ""
    product_id = product if 0 < len(product) <= 128 else None
    return Meant(kind=said.kind, resource=resource[:LONGEST_RESOURCE], product_id=product_id)


def text(segment: str) -> str:
    """A piece of a path as people write it, without what no store keeps."""
    return unquote(segment).replace("\0", "")


def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern as an expression that looks at each character once. Raises ValueError for one that is none."""
    parts = [_part(segment) for segment in pattern.split("/")]
    if any(segment == REST for segment in pattern.split("/")[:-1]):
        raise ValueError("** stands at the end of a pattern only")
    names = PLACE.findall(pattern)
    if len(set(names)) != len(names):
        raise ValueError("a place is named once in a pattern")
    return re.compile("/".join(parts), re.ASCII | re.DOTALL)


def _part(segment: str) -> str:
    if segment == REST:
        return ".*"
    if segment == ANY:
        return "[^/]+"
    named = PLACE.fullmatch(segment)
    if named is not None:
        return f"(?P<{named[1]}>[^/]+)"
    if ANY in segment or "{" in segment or "}" in segment:
        raise ValueError("a segment is a text, {name}, * or, at the end, **")
    return re.escape(segment)


def problems(settings: ProxySettings) -> Iterator[tuple[str, str]]:
    """What cannot be used: a pointer into the settings, and why."""
    yield from _identity_problems("/proxy", settings)
    for place, one in enumerate(settings.hosts):
        yield from _identity_problems(f"/proxy/hosts/{place}", one)
        if plain(one.host) in {plain(before.host) for before in settings.hosts[:place]}:
            yield f"/proxy/hosts/{place}/host", "is listed twice"
    for place, each in enumerate(settings.activities):
        yield from _pattern_problems(f"/proxy/activities/{place}", each)
    for place, pattern in enumerate(settings.polling):
        yield from _unread(f"/proxy/polling/{place}", pattern)


def _identity_problems(pointer: str, said: ProxySettings | HostIdentity) -> Iterator[tuple[str, str]]:
    if said.identity == "jwt" and said.jwt is None:
        yield f"{pointer}/jwt", "say where the token is and which keys sign it"
    if said.login_url is not None and not _leads_somewhere(said.login_url):
        detail = "an address that begins with https://, or a path of the same host that begins with one /"
        yield f"{pointer}/login_url", detail


def _leads_somewhere(url: str) -> bool:
    if url.startswith("/"):
        return not url.startswith("//") and "\\" not in url
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and "\\" not in url and "@" not in parts.netloc


def _pattern_problems(pointer: str, each: PathActivity) -> Iterator[tuple[str, str]]:
    yield from _unread(f"{pointer}/path", each.path)
    known = set(PLACE.findall(each.path))
    if strange := sorted(set(PLACE.findall(each.resource or "")) - known):
        yield f"{pointer}/resource", f"the path has no place named {', '.join(strange)}"
    if each.product is not None and each.product not in known:
        yield f"{pointer}/product", "the path has no place of that name"


def _unread(pointer: str, pattern: str) -> Iterator[tuple[str, str]]:
    try:
        compiled(pattern)
    except ValueError as error:
        yield pointer, str(error)


_held: dict[str, tuple[ProxySettings, Paths]] = {}


def paths_of(tenant: str, settings: ProxySettings) -> Paths:
    """The patterns of a tenant, made once for each version of its settings."""
    held = _held.get(tenant)
    if held is None or held[0] is not settings:
        if len(_held) >= MOST_HELD:
            _held.clear()
        held = _held[tenant] = (settings, Paths(settings))
    return held[1]


def identity_at(settings: ProxySettings, host: str) -> ProxySettings | HostIdentity:
    """Who the session is, and where one logs in, at a host; what is said for all, where nothing is said for this one."""
    if not settings.hosts:
        return settings
    name = plain(host)
    return next((each for each in settings.hosts if _listed(each.host) == name), settings)


_listed: Final = lru_cache(maxsize=1_024)(plain)
"""Listed hosts as they are compared: for each request, and from a list that rarely changes."""


def login_address(url: str | None, target: str) -> str | None:
    """Where a browser is sent to log in; None when nowhere, or when it is there already.

    Only the path that was asked for goes along, never a host: the login page
    cannot be made to send anybody elsewhere.
    """
    if url is None:
        return None
    path = target.partition("?")[0]
    if path == urlsplit(url).path and path:
        return None
    return url.replace("{return_to}", quoted(target)) if "{return_to}" in url else url


def quoted(target: str) -> str:
    """A path of this host, to be put into a query; `/` for what might lead elsewhere."""
    here = target.startswith("/") and not target.startswith(("//", "/\\")) and "\\" not in target
    return quote((target if here else "/")[:LONGEST_RETURN], errors="replace")
