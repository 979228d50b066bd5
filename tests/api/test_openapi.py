"""The contract as a document: valid, whole, and made of the same structs that parse the calls."""

import json
import os
import subprocess
import sys
from datetime import datetime
from typing import cast

import msgspec
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from accessguard import __version__
from accessguard.api.chapters import TAGS
from accessguard.api.context import Context
from accessguard.api.glossary import GLOSSARY
from accessguard.api.openapi import document, operation_id, tag
from accessguard.api.routes import ROUTES
from accessguard.api.schemas import schemas
from accessguard.app import service
from accessguard.errors import ErrorCode
from accessguard.policies.params import PARAMS
from accessguard.rules.model import Kind

METHODS = {"get", "post", "put", "patch", "delete", "options", "head"}
NOT_OF_THE_API = {("GET", "/docs"), ("GET", "/openapi.json")}
CONTRACT = json.loads(document())
OPERATIONS = {
    (method.upper(), path): operation
    for path, item in CONTRACT["paths"].items()
    for method, operation in item.items()
    if method in METHODS
}
OPERATIONS |= {("*", path): OPERATIONS["GET", path] for path in {route.path for route in ROUTES if route.method == "*"}}
SENT = [route for route in ROUTES if route.body is not None]
each_sent = pytest.mark.parametrize("route", SENT, ids=lambda route: f"{route.method} {route.path}")


def resolved(value):
    """What a reference inside the document stands for."""
    while "$ref" in value:
        found = CONTRACT
        for step in value["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        value = found
    return value


def examples():
    """Every JSON example with its schema, under a name for the test's report."""
    for (method, path), operation in OPERATIONS.items():
        contents = {"asks": operation.get("requestBody", {}).get("content", {})}
        contents |= {status: resolved(answer).get("content", {}) for status, answer in operation["responses"].items()}
        for place, content in contents.items():
            for kind, media in content.items():
                if kind != "text/csv":
                    yield pytest.param(media["schema"], media["example"], id=f"{method} {path} {place}")


def test_the_document_is_valid_openapi():
    """OpenAPI 3.1, by its own schema and by that of JSON Schema."""
    errors = [error.message for error in OpenAPIV31SpecValidator(CONTRACT).iter_errors()]

    assert errors == []
    assert CONTRACT["openapi"].startswith("3.1")
    assert CONTRACT["info"]["version"] == __version__


def test_the_document_and_the_application_have_the_same_operations():
    """Nothing is served that is not in the document, and nothing is in it that is not served."""
    app = service(cast("Context", None), body_limit_bytes=1)  # no call is made, so that no part is missed

    served = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }

    some = {(method, path) for method, path in OPERATIONS if ("*", path) not in served or method == "*"}
    pages = {each for each in served if each[1].startswith("/console")}
    assert served - NOT_OF_THE_API - pages == some


def test_the_same_release_gives_the_same_bytes():
    """The document does not depend on the order of sets and hashes, which is another in each process."""
    program = "import sys; from accessguard.api.openapi import document; sys.stdout.buffer.write(document())"
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"

    again = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
    )

    assert again.stdout == document()


def test_every_operation_has_a_name_of_its_own():
    """Clients are generated from the names, which follow from method and path alone."""
    names = [operation["operationId"] for (method, _), operation in OPERATIONS.items() if method != "*"]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        pytest.param("GET", "/v1/members", "get_members", id="a list"),
        pytest.param("GET", "/v1/members/{member_id}", "get_member", id="one"),
        pytest.param(
            "PATCH", "/v1/members/{member_id}/devices/{device_id}", "patch_member_device", id="one inside one"
        ),
        pytest.param("POST", "/v1/sessions/{session_id}/end", "post_session_end", id="an act"),
        pytest.param("GET", "/healthz", "get_healthz", id="of the system"),
    ],
)
def test_an_operation_is_named_by_its_method_and_path(method, path, name):
    """A handler may be renamed without a client noticing."""
    assert operation_id(method, path) == name


@pytest.mark.parametrize(
    ("path", "noun"),
    [
        pytest.param("/v1/check", "Checks", id="a verb"),
        pytest.param("/v1/members/{member_id}/devices/{device_id}", "Devices", id="the last noun"),
        pytest.param("/v1/members/{member_id}/activity", "Members", id="no chapter of its own"),
        pytest.param("/v1/webhooks", "Webhooks", id="a noun that has no chapter yet"),
        pytest.param("/auth/nginx", "Proxies", id="a proxy's"),
        pytest.param("/.well-known/authzen-configuration", "AuthZEN", id="where AuthZEN is"),
        pytest.param("/.well-known/jwks.json", "Webhooks", id="keys of tokens"),
        pytest.param("/readyz", "System", id="no noun"),
    ],
)
def test_an_operation_stands_in_the_chapter_of_its_noun(path, noun):
    """So that a person finds it."""
    assert tag(path) == noun


def test_every_chapter_is_described():
    """An operation's tag is one of the document's."""
    assert {name for operation in OPERATIONS.values() for name in operation["tags"]} == set(TAGS)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation["operationId"])
def test_every_operation_says_what_it_does(operation):
    """A sentence from the handler's docstring, without what is for programmers only."""
    assert operation["summary"]
    assert "Raises" not in operation["description"]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_operation_says_who_may_call_it_and_what_may_go_wrong(route):
    """Roles, the errors of the route and those that any call may have, all as problem documents."""
    operation = OPERATIONS[route.method, route.path]
    errors = {status: resolved(answer) for status, answer in operation["responses"].items() if status >= "400"}

    assert operation["x-roles"] == [
        role for role in ("platform", "attendant", "supervisor", "administrator", "root") if role in route.roles
    ]
    assert all(f"`{role}`" in operation["description"] for role in operation["x-roles"])
    assert {"401", "403", "503", *map(str, route.errors)} <= set(errors)
    kinds = [] if route.bare else ["application/problem+json", *(["text/html"] if route.browsers or route.page else [])]
    assert all(list(answer.get("content", ())) == kinds for answer in errors.values())
    assert ("302" in operation["responses"]) is route.browsers
    assert "Retry-After" in errors["503"]["headers"]


def test_an_error_says_when_it_happens_if_the_handler_does():
    """What a docstring says of one status stands at that answer."""
    answer = OPERATIONS["POST", "/v1/rules"]["responses"]["409"]

    assert "when it would lock out its author" in answer["description"]


@each_sent
def test_a_body_is_described_with_the_errors_of_bodies(route):
    """The struct that decodes it, and 400, 413 and 415."""
    operation = OPERATIONS[route.method, route.path]
    content = operation["requestBody"]["content"]

    assert content["application/json"]["schema"] == {"$ref": f"#/components/schemas/{route.body.__name__}"}
    assert operation["requestBody"]["required"] is route.body_required
    assert {"400", "413", "415"} <= set(operation["responses"])


@each_sent
def test_an_example_of_a_body_is_taken(route):
    """What the page shows can be sent: the struct that decodes the call takes it."""
    operation = OPERATIONS[route.method, route.path]
    example = operation["requestBody"]["content"]["application/json"]["example"]

    taken = msgspec.json.decode(json.dumps(example).encode(), type=route.body)

    assert isinstance(taken, route.body)


@pytest.mark.parametrize(("schema", "example"), list(examples()))
def test_an_example_agrees_with_its_schema(schema, example):
    """What the page shows is what the contract says, formats included."""
    whole = schema | {"components": CONTRACT["components"]}
    validator = OAS31Validator(whole, format_checker=OAS31Validator.FORMAT_CHECKER)

    assert [error.message for error in validator.iter_errors(example)] == []


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.query is not None], ids=lambda route: f"{route.method} {route.path}"
)
def test_a_query_is_described_field_by_field(route):
    """Every field of the struct, under the name it has in the address; null is no value of a query."""
    parameters = {each["name"]: each for each in map(resolved, OPERATIONS[route.method, route.path]["parameters"])}
    fields = msgspec.structs.fields(route.query)

    assert {field.encode_name for field in fields} == {
        name for name, each in parameters.items() if each["in"] == "query"
    }
    assert "null" not in json.dumps(list(parameters.values()))


def test_a_query_carries_bounds_defaults_and_words():
    """What is refused, and what holds when nothing is given."""
    parameters = {each["name"]: each for each in map(resolved, OPERATIONS["GET", "/v1/members"]["parameters"])}

    assert parameters["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}
    assert parameters["status"]["schema"] == {"type": "string", "enum": ["active", "inactive"]}
    assert parameters["sort"]["schema"] == {"$ref": "#/components/schemas/MemberSort", "default": "last_activity"}


def test_paths_carry_typed_parameters():
    """What AccessGuard makes is a UUID; what the platform makes is opaque."""
    parameters = {
        each["name"]: each["schema"]
        for each in map(resolved, OPERATIONS["PATCH", "/v1/members/{member_id}/devices/{device_id}"]["parameters"])
        if each["in"] == "path"
    }

    assert parameters == {
        "member_id": {"type": "string", "minLength": 1, "maxLength": 128},
        "device_id": {"type": "string", "format": "uuid"},
    }


def test_headers_are_named_where_they_are_read():
    """A tenant where a call is about one; a key where something is created."""
    headers = {
        path: {each["name"] for each in map(resolved, OPERATIONS[method, path]["parameters"]) if each["in"] == "header"}
        for method, path in (("POST", "/v1/rules"), ("GET", "/v1/rules"), ("POST", "/v1/tenants"))
    } | {"GET": {each["name"] for each in map(resolved, OPERATIONS["GET", "/v1/rules"]["parameters"])}}

    assert headers["/v1/tenants"] == {"Idempotency-Key"}
    assert headers["GET"] == {"AccessGuard-Tenant"}


@pytest.mark.parametrize("route", [route for route in ROUTES if route.listing], ids=lambda route: route.path)
def test_a_list_is_also_given_as_csv(route):
    """With its columns: the fields of one item."""
    content = OPERATIONS[route.method, route.path]["responses"]["200"]["content"]
    item = resolved(content["application/json"]["schema"])["properties"]["items"]["items"]

    assert content["text/csv"]["example"].split(",") == list(resolved(item)["properties"])


def test_health_asks_for_no_token():
    """A load balancer has none."""
    assert [OPERATIONS["GET", path]["security"] for path in ("/healthz", "/readyz")] == [[], []]
    assert CONTRACT["security"] == [{"bearer": []}]


def test_every_field_is_explained():
    """No field without a sentence."""
    bare = [
        f"{name}.{field}"
        for name, schema in CONTRACT["components"]["schemas"].items()
        for field, described in schema.get("properties", {}).items()
        if not described.get("description")
    ]
    bare += [
        each["name"]
        for operation in OPERATIONS.values()
        for each in map(resolved, operation.get("parameters", ()))
        if not each["description"]
    ]

    assert bare == []


def test_no_explanation_is_left_over():
    """A sentence about a field that is gone goes too."""
    queries = {route.query for route in ROUTES if route.query is not None}
    fields = {f"{kind.__name__}.{field.encode_name}" for kind in queries for field in msgspec.structs.fields(kind)}
    fields |= {
        f"{name}.{field}"
        for name, schema in CONTRACT["components"]["schemas"].items()
        for field in schema.get("properties", {})
    }
    used = {each if each in GLOSSARY else each.partition(".")[2] for each in fields}

    assert set(GLOSSARY) - used == set()


def test_times_are_marked_as_times():
    """Every field that ends in _at is an RFC 3339 time, or may be null."""
    plain = [
        f"{name}.{field}"
        for name, schema in CONTRACT["components"]["schemas"].items()
        for field, described in schema.get("properties", {}).items()
        if field.endswith("_at") and "date-time" not in json.dumps(described)
    ]

    assert plain == []


def test_words_stand_in_the_order_of_their_definition():
    """The kinds of rules are listed in their order of precedence."""
    kinds = CONTRACT["components"]["schemas"]["Kind"]

    assert kinds["enum"] == [each.value for each in Kind]
    assert (kinds["enum"][0], kinds["enum"][-1]) == ("ip_deny", "copied_session")
    assert kinds["type"] == "string"


def test_an_answer_has_all_its_fields_and_a_question_only_those_it_must_have():
    """What is always written is required of an answer; what has a default may be left out of a call."""
    components = CONTRACT["components"]["schemas"]

    assert components["Check"]["required"] == ["session_id", "ip"]
    assert components["TraceStep"]["required"] == list(components["TraceStep"]["properties"])


def test_a_check_that_is_explained_adds_its_trace():
    """One shape answers both, as one check and in a batch; `trace` is there only when asked for."""
    components = CONTRACT["components"]["schemas"]
    answer = OPERATIONS["POST", "/v1/check"]["responses"]["200"]["content"]["application/json"]["schema"]

    assert (
        answer
        == components["ChecksReply"]["properties"]["results"]["items"]
        == {"$ref": "#/components/schemas/CheckReply"}
    )
    assert set(components["CheckReply"]["properties"]) - set(components["CheckReply"]["required"]) == {"trace"}


def test_the_parameters_of_a_rule_are_described():
    """Which ones a rule takes depends on its kind."""
    params = CONTRACT["components"]["schemas"]["RuleRequest"]["properties"]["params"]

    named = [each["$ref"].rpartition("/")[2] for each in params["anyOf"]]
    assert named == list(dict.fromkeys(each.__name__ for each in PARAMS.values()))
    assert "`ip_deny`: NetworksParams" in params["description"]


def test_a_problem_points_at_fields():
    """RFC 9457 with the pointers that api errors carry."""
    problem = CONTRACT["components"]["schemas"]["ProblemDocument"]

    assert problem["properties"]["errors"]["items"] == {"$ref": "#/components/schemas/Problem"}
    assert set(CONTRACT["components"]["responses"]) == set(ErrorCode) - {ErrorCode.METHOD_NOT_ALLOWED}


def test_structs_of_one_name_do_not_collide():
    """Two rooms may name a struct alike; on the wire both stay what they are."""
    one = msgspec.defstruct("Thing", [("at", datetime)], module="one")
    two = msgspec.defstruct("Thing", [("number", int)], module="two")

    made = schemas([one], [two])

    assert made.names[one] != made.names[two]
    assert made.components[made.names[one]]["properties"]["at"]["format"] == "date-time"


def test_names_of_structs_are_names():
    """On the wire no two structs have one name, so that none needs its module in front."""
    assert [name for name in CONTRACT["components"]["schemas"] if not name.isidentifier()] == []
