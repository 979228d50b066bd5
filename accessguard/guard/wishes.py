"""What administrators want of a webhook, and whether it can be had."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.events.caep import COUNTERPARTS
from accessguard.events.webhooks import Digest, Webhook, WebhookEvent, WebhookFormat, WebhookStatus


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody who makes a webhook wants; `audience` None: the receiver's own address, where there is one."""

    url: str
    events: Sequence[WebhookEvent]
    digest: Digest | None = None
    format: WebhookFormat = WebhookFormat.STANDARD
    audience: str | None = None


def made_of(wish: Wish, webhook_id: UUID, now: datetime) -> Webhook:
    """The webhook that grants it, from `now` on."""
    tokens = wish.format is WebhookFormat.CAEP
    return Webhook(
        id=webhook_id,
        url=wish.url,
        events=tuple(dict.fromkeys(wish.events)),
        format=wish.format,
        audience=(wish.audience or wish.url) if tokens else None,
        digest=wish.digest,
        status=WebhookStatus.ACTIVE,
        failing_since=None,
        created_at=now,
    )


def check(wish: Wish, *, inside: bool, issuer: str | None) -> None:
    """Whether it can be granted: `inside`, where receivers without TLS may be; without an `issuer` there are no tokens.

    Raises GuardError(INVALID).
    """
    problem = _of_url(wish.url, ("https", "http") if inside else ("https",)) or _of_format(wish, issuer)
    if problem is not None:
        raise GuardError(ErrorCode.INVALID, "The webhook was refused.", problem)


def _of_url(url: str, schemes: Sequence[str]) -> Problem | None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in schemes and bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        good = False
    if good and url.isprintable() and " " not in url:
        return None
    return Problem(pointer="/url", detail=f"not a URL that begins with {' or '.join(schemes)}://, without a name in it")


def _of_format(wish: Wish, issuer: str | None) -> Problem | None:
    """Whether what is wanted can be said in the format that is wanted."""
    if wish.format is WebhookFormat.STANDARD:
        said = "only security event tokens (format caep) have one"
        return None if wish.audience is None else Problem(pointer="/audience", detail=said)
    if issuer is None:
        return Problem(pointer="/format", detail="tokens name their issuer: server.public_url is not set")
    if wish.audience is not None and not wish.audience.isprintable():
        return Problem(pointer="/audience", detail="holds characters that nobody can see")
    if wish.digest is not None:
        return Problem(pointer="/digest", detail="there is no security event token for a digest")
    if not COUNTERPARTS.keys() & set(wish.events):
        return Problem(pointer="/events", detail=f"tokens there are for {', '.join(COUNTERPARTS)}")
    return None
