"""`accessguard import` and `accessguard export`: members as files, through the HTTP API of a running service."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import aiohttp
import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from accessguard.errors import ErrorCode, GuardError

STDIN: Final = "-"
CHUNK: Final = 262_144
POLL_S: Final = 0.5
SILENCE_S: Final = 60
PAGE: Final = 200
CSV: Final = "text/csv"
NDJSON: Final = "application/x-ndjson"
FIELDS: Final = ("member_id", "name", "email", "phone", "tags", "locale", "time_zone", "staff", "country", "city")
"""What a line of a member says; all else is AccessGuard's own."""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A line that the service did not take."""

    line: int
    pointer: str
    detail: str


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one file."""

    lines: int
    members_new: int
    members_changed: int
    enrolments_changed: int
    refused: int


class Service:
    """A running service. Raises GuardError with a sentence for whoever is at the terminal."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}

    async def send(self, chunks: AsyncIterator[bytes], kind: str) -> Mapping[str, Any]:
        """Send a file; the job that it is."""
        async with self.call("POST", "/v1/imports", data=chunks, headers={"Content-Type": kind}) as response:
            return _object(await response.read())

    async def get(self, path: str) -> Mapping[str, Any]:
        """Read something."""
        async with self.call("GET", path) as response:
            return _object(await response.read())

    @asynccontextmanager
    async def call(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One call, whose answer is one that carries out what was asked."""
        try:
            async with self._http.request(
                method, self._url + path, headers={**self._headers, **(headers or {})}, **more
            ) as response:
                if not response.ok:
                    raise _said(await response.read(), response.status)
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise GuardError(ErrorCode.UNAVAILABLE, f"The service at {self._url} does not answer: {error}.") from error


async def import_files(files: tuple[str, ...], *, url: str, token: str, as_csv: bool) -> bool:
    """Import each file in turn, and say what came of it; False when lines were refused. `-` is standard input."""
    console, good = Console(highlight=False, soft_wrap=True), True
    async with _http() as http:
        service = Service(http, url, token)
        for file in files:
            kind = CSV if as_csv or file.lower().endswith(".csv") else NDJSON
            job = await _followed(service, file, kind)
            good &= await _told(console, service, file, job)
    return good


async def export(target: BinaryIO, *, url: str, token: str, as_csv: bool) -> int:
    """Write every member, as CSV or as lines that can be imported; how many bytes."""
    async with _http() as http:
        service = Service(http, url, token)
        chunks = _as_csv(service) if as_csv else _as_lines(service)
        written = 0
        async for chunk in chunks:
            written += await asyncio.to_thread(target.write, chunk)
        return written


async def _followed(service: Service, file: str, kind: str) -> Mapping[str, Any]:
    """Send a file and wait for its job, with a bar for each on standard error."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("Sending {task.fields[name]}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("send", total=_size(file), name=file)
        with _opened(file) as source:
            job = await service.send(_read(source, lambda size: bar.advance(task, size)), kind)
    with Progress(
        TextColumn("Applying {task.fields[name]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("apply", total=job["total"], name=file)
        while job["state"] in {"waiting", "running"}:
            await asyncio.sleep(POLL_S)
            job = await service.get(f"/v1/jobs/{job['id']}")
            bar.update(task, completed=job["progress"], total=job["total"])
    return job


async def _told(console: Console, service: Service, file: str, job: Mapping[str, Any]) -> bool:
    """Print what came of a file, and its refused lines as editors and compilers do; whether there were none."""
    if job["state"] != "done":
        raise GuardError(ErrorCode.UNAVAILABLE, f"{file} came to an end before its last line: {job['error']}.")
    done = msgspec.convert(job["result"], Done)
    if done.refused:
        async for refused in _refused(service, job["id"]):
            where = f" {refused.pointer}" if refused.pointer else ""
            console.print(f"{file}:{refused.line}:{where} {refused.detail}", markup=False)
    console.print(
        f"{file}: {done.lines} lines, {done.members_new} new members, {done.members_changed} changed, "
        f"{done.enrolments_changed} enrolments changed, {done.refused} lines refused",
        markup=False,
    )
    return not done.refused


async def _refused(service: Service, job_id: str) -> AsyncIterator[Refused]:
    async with service.call("GET", f"/v1/jobs/{job_id}/refused") as response:
        async for line in response.content:
            yield msgspec.json.decode(line, type=Refused)


async def _as_csv(service: Service) -> AsyncIterator[bytes]:
    async with service.call("GET", "/v1/members?sort=name", headers={"Accept": CSV}) as response:
        async for chunk in response.content.iter_any():
            yield chunk


async def _as_lines(service: Service) -> AsyncIterator[bytes]:
    cursor = ""
    while True:
        page = await service.get(f"/v1/members?sort=name&limit={PAGE}{cursor}")
        lines = ({"kind": "member"} | {name: item[name] for name in FIELDS} for item in page["items"])
        yield b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        if page["next_cursor"] is None:
            return
        cursor = f"&cursor={page['next_cursor']}"


async def _read(source: BinaryIO, sent: Callable[[int], None]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(source.read, CHUNK):
        yield chunk
        sent(len(chunk))


def _opened(file: str) -> BinaryIO:
    return sys.stdin.buffer if file == STDIN else Path(file).open("rb")


def _size(file: str) -> int | None:
    return None if file == STDIN else Path(file).stat().st_size


def _http() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_S))


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.DecodeError:
        raise GuardError(ErrorCode.UNAVAILABLE, "What answers there is not AccessGuard.") from None


def _said(raw: bytes, status: int) -> GuardError:
    """A problem document as one sentence."""
    try:
        problem = msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.DecodeError:
        problem = {}
    return GuardError(ErrorCode.INVALID, " ".join(_words(problem, status)))


def _words(problem: Mapping[str, Any], status: int) -> Iterator[str]:
    yield f"The service refused it ({status}): {problem.get('detail', 'no reason given')}"
    for each in problem.get("errors", ()):
        yield f"{each['pointer']} {each['detail']}."
