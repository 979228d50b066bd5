"""`accessguard revoke`: refuse tokens through the HTTP API of a running service, or list what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import aiohttp
import msgspec

from accessguard.errors import ErrorCode, GuardError

PATH: Final = "/v1/revocations"
PATIENCE_S: Final = 30
PAGE: Final = 200


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be refused, or no longer; with nothing of it, what is refused is listed."""

    token_id: str | None = None
    caller: str | None = None
    lift: str | None = None
    reason: str | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One revocation, as far as a terminal shows it."""

    id: str
    kind: str
    name: str
    at: str
    actor: str
    reason: str | None = None


class _Page(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[Line, ...]
    next_cursor: str | None


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    detail: str


async def run(url: str, token: str, asked: Asked, *, say: Callable[[str], None]) -> None:
    """Do it, and say what came of it. Raises GuardError with a sentence for whoever is at the terminal."""
    headers, timeout = {"Authorization": f"Bearer {token}"}, aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(url.rstrip("/") + "/", headers=headers, timeout=timeout) as http:
        if asked.lift is not None:
            why = {} if asked.reason is None else {"reason": asked.reason}
            await _call(http, "DELETE", f"{PATH}/{quote(asked.lift, safe='')}", params=why)
            say("Lifted: it is no longer refused.")
        elif asked.token_id is not None or asked.caller is not None:
            wanted = {"token_id": asked.token_id, "caller": asked.caller, "reason": asked.reason}
            made = msgspec.json.decode(await _call(http, "POST", PATH, json=wanted), type=Line)
            say(f"Revoked, everywhere within 5 s: {_shown(made)}")
        else:
            await _list(http, say)


async def _list(http: aiohttp.ClientSession, say: Callable[[str], None]) -> None:
    cursor: str | None = None
    while True:
        where = {"limit": str(PAGE)} | ({} if cursor is None else {"cursor": cursor})
        page = msgspec.json.decode(await _call(http, "GET", PATH, params=where), type=_Page)
        for each in page.items:
            say(_shown(each))
        cursor = page.next_cursor
        if cursor is None:
            return


async def _call(http: aiohttp.ClientSession, method: str, path: str, **more: object) -> bytes:
    try:
        async with http.request(method, path.lstrip("/"), **more) as response:  # type: ignore[arg-type] # passed on
            raw = await response.read()
            if response.ok:
                return raw
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise GuardError(ErrorCode.UNAVAILABLE, f"The service does not answer: {error}.") from error
    try:
        detail = msgspec.json.decode(raw, type=_Problem).detail
    except msgspec.DecodeError:
        detail = f"The service answered {response.status}."
    raise GuardError(ErrorCode.INVALID, detail)


def _shown(line: Line) -> str:
    """Names are of whoever signs tokens, so nothing of them moves a terminal's cursor."""
    said = f"{line.id}  {line.kind}  {line.name!r}  {line.at}  by {line.actor!r}"
    return said if line.reason is None else f"{said}  {line.reason!r}"
