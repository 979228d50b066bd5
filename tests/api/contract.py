"""What Schemathesis loads for `test_contract.py`: who asks, with what no schema can say; no test by itself.

`CONTRACT_TENANT` is the tenant. The secret of its tokens is that of the tests.
"""

from __future__ import annotations

import itertools
import json
import os
from typing import Any, Final
from uuid import uuid4

import jwt
import schemathesis

from accessguard.api.access import TENANT_HEADER
from accessguard.api.idempotency import HEADER as IDEMPOTENCY_HEADER
from accessguard.api.reply import NDJSON
from tests.service import SECRET, token

TENANT: Final = os.environ["CONTRACT_TENANT"]
ENDLESS: Final = "/v1/stream"
EVERY: Final = 6
"""One of so many calls comes with a hostile token."""
GENUINE: Final = token(TENANT, "root")
CLAIMS: Final = jwt.decode(GENUINE, options={"verify_signature": False})
HOSTILE: Final = (
    jwt.encode(CLAIMS, "", algorithm="none"),
    jwt.encode(CLAIMS, "x" * 40, algorithm="HS256"),
    GENUINE[:-4],
    GENUINE + "A" * 5_000,
    token(TENANT, "root", exp=1),
    token(TENANT, "root", nbf=4_000_000_000),
    token(TENANT, "root", aud="another"),
    token(TENANT, "god"),
    token(TENANT + "\n", "root"),
    jwt.encode(CLAIMS | {"tenant": ["*"]}, SECRET, algorithm="HS256"),
    "e30.e30.",
    "..",
)
TURNS = itertools.count()


@schemathesis.auth(refresh_interval=None)
class Callers:
    """A genuine token of each role that may call the operation in turn, and now and then one that is not genuine."""

    def get(self, case: schemathesis.Case, context: schemathesis.AuthContext) -> str:
        """The token; of somebody who may not where no role is named, or where the answer never ends."""
        turn, said = next(TURNS), context.operation.definition.raw.get("x-roles")
        if turn % EVERY == 0:
            return HOSTILE[turn // EVERY % len(HOSTILE)]
        roles = said if said and context.operation.path != ENDLESS else ["attendant"]
        return token(TENANT, roles[turn % len(roles)])

    def set(self, case: schemathesis.Case, data: str, context: schemathesis.AuthContext) -> None:
        """As the document's scheme says; of a call that is to be good, also what no schema can say."""
        case.headers["Authorization"] = f"Bearer {data}"
        if case.meta is not None and case.meta.generation.mode.is_positive:
            better(case)


def better(case: schemathesis.Case) -> None:
    """Name no tenant but one's own, no cursor that no list gave, and a new key for each thing."""
    if TENANT_HEADER in case.headers:
        case.headers[TENANT_HEADER] = TENANT
    if IDEMPOTENCY_HEADER in case.headers:
        case.headers[IDEMPOTENCY_HEADER] = uuid4().hex
    case.query.pop("cursor", None)


@schemathesis.check
def hostile_tokens_open_nothing(context: Any, response: Any, case: schemathesis.Case) -> None:
    """Whatever else is asked: a call that needs a role and shows such a token is refused."""
    said = (response.request.headers.get("Authorization") or "").removeprefix("Bearer ")
    if said in HOSTILE and case.operation.definition.raw.get("x-roles"):
        assert response.status_code >= 400, f"{response.status_code} for a token that is not genuine"


@schemathesis.serializer(NDJSON)
def lines(context: Any, value: Any) -> bytes:
    """Lines as they are."""
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.deserializer(NDJSON)
def first_line(context: Any, response: Any) -> Any:
    """The first of an answer's lines, which is what the document describes; a file without lines is fine, too."""
    text = response.content.decode()
    return json.loads(text.splitlines()[0]) if text else {"line": 1, "pointer": "", "detail": ""}
