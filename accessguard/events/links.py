"""What an entry of the audit log and a record of its chain are hashed as; the same in SQL (migration 0019). Pure.

Form 1: a title, then each field as the length of its UTF-8 in bytes, a colon
and its text; a hyphen stands for none. Times are microseconds since 1970,
JSON is PostgreSQL's text of `jsonb`, bytes are hexadecimal. Hashes are SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

FORM: Final = 1
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


class Kind(StrEnum):
    """What a record is about.

    An entry was written; words were taken out of it by an erasure; it became
    another member's, or nobody's; it was reworded as the service never does. Began: how many entries
    there were before the chain.
    """

    BEGAN = "began"
    WRITTEN = "written"
    REDACTED = "redacted"
    MOVED = "moved"
    REWRITTEN = "rewritten"


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as PostgreSQL writes it down, in the order in which it is hashed; `before` and `after` are JSON."""

    salt: str | None
    tenant: str
    id: str
    at: datetime
    actor: str
    role: str
    action: str
    target_kind: str
    target_id: str
    before: str | None
    after: str | None
    reason: str | None
    member_id: str | None


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One record of a tenant's chain: `digest` is that of its entry, `hash` that of all this and of the `hash` before it."""

    tenant: str
    seq: int
    form: int
    kind: str
    at: datetime
    entry_id: str | None
    entries: int | None
    digest: str | None
    hash: str


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """How far a chain goes: the number of a record and its hash, which stands for all before it."""

    tenant: str
    seq: int
    hash: str


def digest_of(words: Words) -> str:
    """What stands for an entry in its chain: 64 hexadecimal digits."""
    fields = (getattr(words, name) for name in Words.__struct_fields__)
    return _hashed(f"accessguard audit entry {FORM} ", fields)


def hash_of(link: Link, before: str | None) -> str:
    """What stands for a record and all before it; `before` is the hash of the one before, None for the first."""
    fields = (before, link.tenant, link.seq, link.kind, link.at, link.entry_id, link.entries, link.digest)
    return _hashed(f"accessguard audit chain {FORM} ", fields)


def _hashed(title: str, fields: Iterable[str | int | datetime | None]) -> str:
    return hashlib.sha256((title + "".join(map(_field, fields))).encode()).hexdigest()


def _field(value: str | int | datetime | None) -> str:
    if value is None:
        return "-"
    said = str((value - EPOCH) // MICROSECOND) if isinstance(value, datetime) else str(value)
    return f"{len(said.encode())}:{said}"
