"""Files of members and enrolments, taken in as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

from aiohttp import web

from accessguard.api.context import asking, context, unhurried
from accessguard.api.idempotency import claimed
from accessguard.api.read import path_id
from accessguard.api.reply import CSV, NDJSON, SAFE_HEADERS, plain, reply
from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.intake import MOST_BYTES
from accessguard.guard.lines import Form

FORMS: Final = {NDJSON: Form.NDJSON, "application/ndjson": Form.NDJSON, "application/jsonl": Form.NDJSON, CSV: Form.CSV}
SILENCE_S: Final = 60.0
"""How long nothing may come before the file is taken for broken off."""
PAGE: Final = 500


async def create(request: web.Request) -> web.Response:
    """Import a file of members and enrolments; it is applied once all of it is here, as a job.

    One line of NDJSON is a member or an enrolment; a CSV file names its columns
    in its first line, and is one of enrolments when it has `product_id`. What a
    member's line leaves out stays as it is; an enrolment is replaced as a whole.
    A line is applied whole or not at all, the last line of a member or an
    enrolment wins, and what is stored already is not touched. A stream that
    breaks off has changed nothing. At most 1 GiB, and 64 KiB for a line; the
    first 10,000 refused lines are kept. Raises INVALID (400) for a file without lines
    or with a first line that names no columns, CONFLICT (409) when four jobs are going on already.
    """
    form = FORMS.get(request.content_type)
    if form is None:
        raise GuardError(ErrorCode.UNSUPPORTED, "The body must be application/x-ndjson or text/csv.")
    if (request.content_length or 0) > MOST_BYTES:
        raise GuardError(ErrorCode.TOO_LARGE, f"A file has {MOST_BYTES} bytes at most.")
    ctx, who = context(request), asking(request)
    unhurried(request)

    async def claim(tx: Database, job_id: UUID, digest: bytes) -> UUID:
        return await claimed(request, tx, job_id, digest)

    job = await ctx.imports.take(who.tenant, who.actor, form, _chunks(request), claim)
    return reply(job, status=202)


async def refused(request: web.Request) -> web.StreamResponse:
    """Read all refused lines of an import that were kept, in order, as NDJSON."""
    ctx, who, job_id = context(request), asking(request), path_id(request, "job_id")
    rows = await ctx.imports.refused(who.tenant, job_id, after=0, limit=PAGE)
    response = web.StreamResponse(headers={"Content-Type": NDJSON, **SAFE_HEADERS})
    await response.prepare(request)
    while rows:
        await response.write(b"".join(plain(row) + b"\n" for row in rows))
        rows = await ctx.imports.refused(who.tenant, job_id, after=rows[-1].line, limit=PAGE)
    await response.write_eof()
    return response


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes; while nobody asks for more, the socket is not read."""
    content = request.content
    while True:
        try:
            async with asyncio.timeout(SILENCE_S):
                chunk = await content.readany()
        except TimeoutError:
            raise GuardError(ErrorCode.INVALID, f"Nothing came for {SILENCE_S:.0f} s; nothing was changed.") from None
        except web.RequestPayloadError:
            raise GuardError(ErrorCode.INVALID, "The body is not what its headers say.") from None
        if not chunk:
            return
        yield chunk
