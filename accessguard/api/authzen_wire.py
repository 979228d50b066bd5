"""The shapes of AuthZEN's requests and answers, by the names that the standard gives them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec

from accessguard.guard.model import Opaque


class Semantic(StrEnum):
    """How far a list of evaluations is gone through (AuthZEN 1.0, section 7.1.2)."""

    EXECUTE_ALL = "execute_all"
    DENY_ON_FIRST_DENY = "deny_on_first_deny"
    PERMIT_ON_FIRST_PERMIT = "permit_on_first_permit"


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    """A subject or a resource (AuthZEN 1.0, sections 5.1 and 5.2)."""

    type: Opaque
    id: Opaque
    properties: dict[str, Any] = msgspec.field(default_factory=dict)


class NamedAction(msgspec.Struct, frozen=True, kw_only=True):
    """What the subject wants to do; one of the six counted interactions, or any other word."""

    name: Opaque
    properties: dict[str, Any] = msgspec.field(default_factory=dict)


class EvaluationContext(msgspec.Struct, frozen=True, kw_only=True):
    """What else is known of the request; other members are passed over."""

    ip: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    user_agent: str | None = None
    device_token: str | None = None


class EvaluationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One access request: who, what, on what (AuthZEN 1.0, section 6.1)."""

    subject: Entity
    action: NamedAction
    resource: Entity
    context: EvaluationContext | None = None


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One of several; what is left out is taken from the top."""

    subject: Entity | None = None
    action: NamedAction | None = None
    resource: Entity | None = None
    context: EvaluationContext | None = None


class EvaluationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the list is gone through."""

    evaluations_semantic: Semantic = Semantic.EXECUTE_ALL


class EvaluationsRequest(Evaluation, frozen=True, kw_only=True):
    """Several at once (AuthZEN 1.0, section 7.1)."""

    evaluations: Annotated[tuple[Evaluation, ...], msgspec.Meta(max_length=500)] = ()
    options: EvaluationOptions | None = None


class EvaluationReply(msgspec.Struct, frozen=True, kw_only=True):
    """The decision, and in `context` what `POST /v1/check` says of it."""

    decision: bool
    context: dict[str, Any]


class EvaluationsReply(msgspec.Struct, frozen=True, kw_only=True):
    """The decisions in the order of asking; fewer where the semantics say so. Without `evaluations`: one EvaluationReply."""

    evaluations: tuple[EvaluationReply, ...]


class PdpMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Where the endpoints are (AuthZEN 1.0, section 9)."""

    policy_decision_point: str
    access_evaluation_endpoint: str
    access_evaluations_endpoint: str
