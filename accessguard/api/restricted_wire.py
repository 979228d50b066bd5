"""The shapes of the page that explains a refusal to its student."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

import msgspec

from accessguard.policies.branding import Brand
from accessguard.rules.model import Code
from accessguard.violations.model import StudentWords

MOST_CHARS = 500
Token: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Something that counts: a `session` or a `device`. `closable`: the student may close it now.

    `this` is the one that was refused, `same` one that seems to be it, having lost its cookie.
    """

    kind: Literal["session", "device"]
    id: str | None
    label: str
    last_activity_at: datetime | None = None
    this: bool = False
    same: bool = False
    closable: bool = False


class RestrictedPage(msgspec.Struct, frozen=True, kw_only=True):
    """All that the student's page says, for platforms that draw their own; texts are in `language`.

    `why` are the sentences of the message but for `when` and support's
    address, and to free a place takes the place of confirming. `next` is what to do once nothing is in the way, or a place was
    freed: `continue_url` is where. `complete` is false when a store does not
    answer, so that places and words are missing.
    """

    school: str
    brand: Brand
    language: str
    languages: tuple[str, ...]
    code: Code
    title: str
    why: tuple[str, ...]
    why_language: str
    when: str | None
    retry_at: datetime | None
    support_email: str | None
    places: tuple[Place, ...]
    challenged: bool
    swaps_left: int
    freed: bool
    freed_label: str | None
    next: Literal["sign_in", "go_back"] | None
    continue_url: str | None
    may_write: bool
    written: tuple[StudentWords, ...]
    complete: bool
    expires_at: datetime


class RestrictedQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The token of `page_url`, and the language that the student chose; what else stands in the address is passed over."""

    t: Annotated[str, msgspec.Meta(max_length=8192)] = ""
    lang: Annotated[str, msgspec.Meta(max_length=35)] | None = None


class PlaceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which place to free: exactly one of `end_session_id` and `forget_device_id`."""

    t: Token
    end_session_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    forget_device_id: UUID | None = None


class WordsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A few words to support; empty ones are refused."""

    t: Token
    text: Annotated[str, msgspec.Meta(max_length=MOST_CHARS)]
