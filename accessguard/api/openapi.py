"""The contract as OpenAPI 3.1, made from the table of routes and from the structs that decode and encode the calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final

import msgspec

from accessguard import __version__
from accessguard.api import system
from accessguard.api.access import TENANT_HEADER
from accessguard.api.chapters import ABOUT, ERRORS, TAGS
from accessguard.api.examples import example
from accessguard.api.idempotency import HEADER as IDEMPOTENCY_HEADER
from accessguard.api.keys import Role
from accessguard.api.refusing import HTML, REASON
from accessguard.api.reply import CSV, JSON, NDJSON, PROBLEM, RETRY_AFTER_S, STATUS, TITLES, ProblemDocument
from accessguard.api.routes import ROUTES, UUIDS, Route
from accessguard.api.schemas import Schema, Schemas, schemas
from accessguard.api.stream import EVENT_STREAM
from accessguard.api.wire import Health
from accessguard.errors import ErrorCode

CODES: Final = {status: code for code, status in STATUS.items()}
OPAQUE: Final[Mapping[str, Any]] = {"type": "string", "minLength": 1, "maxLength": 128}
EVERY: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")
AS_PAGE: Final[Mapping[str, Any]] = {HTML: {"schema": {"type": "string"}, "example": "<!doctype html>…"}}
PLACES: Final[Mapping[str, str]] = {
    "ip": "An address, IPv4 or IPv6, as people write it.",
    "name": "What it is kept under: a-z, 0-9, `_`, `.` and `-`, a letter first; 64 at most.",
    "path": "The path that is asked about, with its query, as Envoy appends it to its prefix.",
}
ROOMS: Final[Mapping[str, str]] = {
    "auth": "Proxies",
    "access": "AuthZEN",
    "restricted": "Students",
    ".well-known": "AuthZEN",
}
SIGNALS: Final = ("/.well-known/jwks.json", "/.well-known/ssf-configuration")
TENANT: Final = {"$ref": f"#/components/parameters/{TENANT_HEADER}"}
IDEMPOTENCY: Final = {"$ref": f"#/components/parameters/{IDEMPOTENCY_HEADER}"}

# "Raises ..." in a docstring is for programmers; what it says of one status goes to that answer.
RAISES: Final = re.compile(r"Raises [^.]*\.")
CLAUSE: Final = re.compile(r"\((\d{3})\) ((?:when|with|for) [^,;.]+)")


@cache
def document() -> bytes:
    """The document as JSON; the same bytes for the same release."""
    return msgspec.json.format(msgspec.json.encode(contract()), indent=2)


@cache
def contract() -> Mapping[str, Any]:
    """The document as plain values, in the order of the table of routes."""
    found = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        for method in methods(route):
            paths.setdefault(route.path, {})[method.lower()] = _operation(route, method, found)
    for path, handler in (("/healthz", system.healthz), ("/readyz", system.readyz)):
        paths[path] = {"get": _health(path, handler, found)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AccessGuard",
            "version": __version__,
            "summary": "Says for every request of a learning platform whether this session, on this device, may go on.",
            "description": "\n\n".join(f"## {title}\n\n{text}" for title, text in ABOUT.items()),
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": _components(found),
    }


def _schemas() -> Schemas:
    asked = [kind for route in ROUTES for kind in (route.body, route.query, *(route.stream or ())) if kind is not None]
    answered = [kind for route in ROUTES for kind in (route.reply, route.later) if kind is not None]
    return schemas(asked, [*answered, Health])


def methods(route: Route) -> tuple[str, ...]:
    """The methods of a route; one for every method stands under each that OpenAPI knows."""
    return EVERY if route.method == "*" else (route.method,)


def _operation(route: Route, method: str, found: Schemas) -> dict[str, Any]:
    summary, description, clauses = _words(route.handler)
    roles = [role.value for role in Role if role in route.roles]
    allowed = "Roles: " + ", ".join(f"`{role}`" for role in roles) + "." if roles else ""
    made: dict[str, Any] = {
        "operationId": operation_id(method, route.path),
        "summary": summary,
        "description": "\n\n".join(filter(None, (description, allowed))),
        "tags": [tag(route.path)],
        "parameters": [*_path_parameters(route), *_query_parameters(route, found), *_header_parameters(route)],
        "responses": {
            str(route.status): _success(route, found),
            **_later(route, found),
            **_elsewhere(route),
            **_errors(route, clauses, found),
        },
        "x-roles": roles,
    }
    if route.open:
        made["security"] = [{}, {"bearer": []}]
    if route.body is not None:
        made["requestBody"] = {"required": route.body_required, "content": _content(route.body, found)}
    if route.stream is not None:
        made["requestBody"] = {"required": True, "content": _file(route.stream, found)}
    return made


def operation_id(method: str, path: str) -> str:
    """A name that follows from the method and the path alone, such as `patch_member_device`."""
    words = [method.lower()]
    for segment in path.removeprefix("/v1").strip("/").split("/"):
        if segment.startswith("{"):
            words[-1] = segment.strip("{}").removesuffix("_id")
        else:
            words.append(segment)
    return "_".join(words)


def tag(path: str) -> str:
    """The noun that a path is about: the last one of its segments that has a chapter, else the first."""
    room = "Webhooks" if path in SIGNALS else ROOMS.get(path.split("/")[1])
    if room is not None:
        return room
    nouns = [{"check": "Checks"}.get(each, each.title()) for each in path.split("/")[2:]]
    return next((noun for noun in reversed(nouns) if noun in TAGS), nouns[0] if nouns else "System")


def _words(handler: Callable[..., Any]) -> tuple[str, str, dict[int, str]]:
    """Summary and description of a handler, and what it says of single statuses."""
    summary, _, rest = (handler.__doc__ or "").partition("\n")
    text = " ".join(rest.split())
    clauses = {int(status): clause for raised in RAISES.findall(text) for status, clause in CLAUSE.findall(raised)}
    return summary, RAISES.sub("", text).strip(), clauses


def _path_parameters(route: Route) -> Iterator[Schema]:
    for name in re.findall(r"{(\w+)}", route.path):
        kind = {"type": "string", "format": "uuid"} if name in UUIDS else dict(OPAQUE)
        whose = "as AccessGuard made it" if name in UUIDS else "as the platform knows it"
        described = PLACES.get(name) or f"The {name.removesuffix('_id')}'s id, {whose}."
        yield {"name": name, "in": "path", "required": True, "description": described, "schema": kind}


def _query_parameters(route: Route, found: Schemas) -> Iterator[Schema]:
    if route.query is None:
        return
    schema = found.components[found.names[route.query]]
    for name, field in schema["properties"].items():
        yield {
            "name": name,
            "in": "query",
            "required": name in schema["required"],
            "description": field.get("description", ""),
            "schema": _without_null({key: value for key, value in field.items() if key != "description"}),
        }


def _without_null(schema: Schema) -> Schema:
    """A query has no null: what is not given is left out."""
    parts = [part for part in schema.get("anyOf", ()) if part != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)}
    return rest | parts[0] if len(parts) == 1 else schema


def _header_parameters(route: Route) -> Iterator[Schema]:
    if not route.installation:
        yield TENANT
    if route.creates:
        yield IDEMPOTENCY


def _content(kind: Any, found: Schemas) -> Schema:
    reference = found.reference(kind)
    return {JSON: {"schema": reference, "example": example(reference, found.components)}}


def _file(kinds: Iterable[Any], found: Schemas) -> Schema:
    """A body of lines, each of which is one of `kinds`."""
    references = [found.reference(kind) for kind in kinds]
    lines = [msgspec.json.encode(example(each, found.components)).decode() for each in references]
    schema = {"type": "string", "contentMediaType": JSON, "contentSchema": {"anyOf": references}}
    return {
        NDJSON: {"schema": schema, "example": "\n".join([*lines, ""])},
        CSV: {
            "schema": {"type": "string"},
            "example": "member_id,name,email,tags\nstu-1,Ana,ana@example.com,vip;alumni\n",
        },
    }


def _success(route: Route, found: Schemas) -> Schema:
    if route.media is not None:
        file: dict[str, Any] = {"schema": {"type": "string"}}
        if route.media == EVENT_STREAM:
            told = "event: session_ended\nid: 10421-318\ndata: {}\n\n"
            return {"description": "Events, without end.", "content": {route.media: file | {"example": told}}}
        if not route.media.startswith("text/"):
            file = {"schema": {"type": "string", "format": "binary"}, "example": "PK\u0003\u0004…"}
        return {"description": "A file, as it is made.", "content": {route.media: file}}
    if route.reply is None:
        return {"description": "Done; there is no body."}
    content = _content(route.reply, found)
    if route.lines:
        content = {NDJSON: content[JSON]}
    if route.listing:
        content[CSV] = {"schema": {"type": "string"}, "example": _csv_header(route, found)}
    return {"description": route.reply.__doc__, "content": content | _for_people(route)}


def _for_people(route: Route) -> dict[str, Any]:
    """The same answer as people read it."""
    if route.page:
        return dict(AS_PAGE)
    return {"text/plain": {"schema": {"type": "string"}, "example": "The same, to be read."}} if route.text else {}


def _later(route: Route, found: Schemas) -> dict[str, Any]:
    """The answer to a call that takes long."""
    if route.later is None:
        return {}
    return {"202": {"description": "It goes on as a job.", "content": _content(route.later, found)}}


def _elsewhere(route: Route) -> dict[str, Any]:
    """Where a browser is sent that may not pass."""
    if not route.browsers:
        return {}
    where = {"description": "The page of a refusal, or of the login.", "schema": {"type": "string"}}
    return {"302": {"description": "A browser goes elsewhere.", "headers": {"Location": where}}}


def _csv_header(route: Route, found: Schemas) -> str:
    """The first line of a list as CSV."""
    items = found.components[found.names[route.reply]]["properties"]["items"]["items"]
    return ",".join(found.components[items["$ref"].rpartition("/")[2]]["properties"])


def _errors(route: Route, clauses: Mapping[int, str], found: Schemas) -> dict[str, Schema]:
    statuses = {401, 403, 503, *route.errors} | (set() if route.open else {429})
    if not route.installation:
        statuses |= {400, 404}  # the tenant that a call names may be no name, or no tenant
    if route.query is not None:
        statuses |= {400}
    if route.body is not None:
        statuses |= {400, 408, 413, 415}
    if route.creates:
        statuses |= {422}
    if route.page:
        made = {status: _problem(CODES[status], found) for status in sorted(statuses)}
        return {str(status): each | {"content": each["content"] | AS_PAGE} for status, each in made.items()}
    if route.bare or route.browsers:
        return {str(status): _to_proxy(route, _problem(CODES[status], found)) for status in sorted(statuses)}
    return {str(status): _error(CODES[status], clauses.get(status)) for status in sorted(statuses)}


def _to_proxy(route: Route, made: Schema) -> Schema:
    """An error as a proxy gets it: without a body, or for a browser as a page."""
    reason = {REASON: {"description": "Why.", "schema": {"type": "string"}}}
    content = {} if route.bare else {"content": made["content"] | AS_PAGE}
    return {"description": made["description"], "headers": reason | made.get("headers", {}), **content}


def _error(code: ErrorCode, clause: str | None) -> Schema:
    reference = {"$ref": f"#/components/responses/{code}"}
    return reference if clause is None else reference | {"description": f"{ERRORS[code]}: {clause}."}


def _health(path: str, handler: Callable[..., Any], found: Schemas) -> dict[str, Any]:
    summary, description, _ = _words(handler)
    answers = {"200": {"description": "All is well.", "content": _content(Health, found)}}
    if path == "/readyz":
        down = {
            "status": "unavailable",
            "parts": {"postgres": "down", "valkey": "down", "channel": "down"},
            "pending": 0,
        }
        content = {JSON: {"schema": found.reference(Health), "example": down}}
        answers["503"] = {"description": "This worker may not serve; `parts` says why.", "content": content}
    return {
        "operationId": operation_id("GET", path),
        "summary": summary,
        "description": description,
        "tags": [tag(path)],
        "security": [],
        "responses": answers,
    }


def _components(found: Schemas) -> dict[str, Any]:
    queries = {found.names[route.query] for route in ROUTES if route.query is not None}
    statuses = {STATUS[code] for code in STATUS} - {STATUS[ErrorCode.METHOD_NOT_ALLOWED]}
    return {
        "schemas": {name: found.components[name] for name in sorted(found.components) if name not in queries},
        "parameters": dict(_headers()),
        "responses": {CODES[status].value: _problem(CODES[status], found) for status in sorted(statuses)},
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": ABOUT["Callers"]}
        },
    }


def _headers() -> Iterable[tuple[str, Schema]]:
    tenant = "The tenant that the call is about; only, and always, with a token for all tenants."
    key = "Makes a retry safe: the same key and body create one thing, however often they are sent."
    for name, described, length in ((TENANT_HEADER, tenant, 128), (IDEMPOTENCY_HEADER, key, 255)):
        schema = {"type": "string", "minLength": 1, "maxLength": length}
        yield name, {"name": name, "in": "header", "required": False, "description": described, "schema": schema}


def _problem(code: ErrorCode, found: Schemas) -> Schema:
    shown = {
        "type": f"urn:accessguard:problem:{code}",
        "title": TITLES[code],
        "status": STATUS[code],
        "detail": f"{ERRORS[code].replace('`', '')}.",
    }
    if code is ErrorCode.INVALID:
        shown["errors"] = [{"pointer": "/params/max", "detail": "Expected `int` >= 1"}]
    made: Schema = {
        "description": f"{ERRORS[code]}.",
        "content": {PROBLEM: {"schema": found.reference(ProblemDocument), "example": shown}},
    }
    if code in {ErrorCode.UNAVAILABLE, ErrorCode.THROTTLED}:
        wait = {"description": "Try again after so many seconds.", "schema": {"type": "integer", "minimum": 0}}
        made["headers"] = {"Retry-After": wait | {"example": int(RETRY_AFTER_S)}}
    if code is ErrorCode.UNAUTHENTICATED:
        made["headers"] = {"WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}}}
    return made
