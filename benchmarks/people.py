"""Members who log in, and the requests about them: bodies of the size a real platform sends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

import aiohttp
import msgspec

from benchmarks.model import BenchError
from benchmarks.wire import Record, request

AT_ONCE = 32
ALLOWED = '"decision":"allow"'
DENIED = '"decision":"deny"'

USER_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.7 Mobile/15E148 Safari/604.1",
)


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """The device of a login's answer."""

    id: str
    token: str


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The session of a login's answer; `token` is what a proxy's cookie holds."""

    id: str
    token: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the benchmark reads of a login's answer; a denied one has neither session nor device."""

    decision: str
    degraded: bool
    session: Session | None = None
    device: Device | None = None


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """A member with one session on one device, at one address."""

    member_id: str
    number: int
    session: Session
    device: Device

    @property
    def ip(self) -> str:
        """An address of their own."""
        return address(self.number)

    @property
    def user_agent(self) -> str:
        """One of the browsers, always the same."""
        return USER_AGENTS[self.number % len(USER_AGENTS)]


def address(number: int) -> str:
    """Give member `number` an IPv4 address out of 10.0.0.0/8, distinct up to 16 million."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def login_body(member_id: str, number: int, device_token: str | None) -> bytes:
    """Return the body of `POST /v1/logins` for a login that succeeded."""
    return msgspec.json.encode(
        {
            "member_id": member_id,
            "identifier": f"{member_id}@example.com",
            "outcome": "success",
            "method": "password",
            "app": "courses",
            "host": "learn.example.com",
            "ip": address(number),
            "user_agent": USER_AGENTS[number % len(USER_AGENTS)],
            "device_token": device_token,
        },
    )


def check(person: Person, *, activity: bool = True) -> dict[str, str]:
    """Return the fields of `POST /v1/check`."""
    fields = {
        "session_id": person.session.id,
        "ip": person.ip,
        "user_agent": person.user_agent,
        "device_token": person.device.token,
        "resource": f"course:{person.number % 100}/lesson:{person.number % 37}",
        "product_id": f"course-{person.number % 100}",
    }
    return {**fields, "activity": "lesson_open"} if activity else fields


def caller(token: str) -> dict[str, str]:
    """Return the headers an ordinary HTTP client of the platform sends with each call."""
    return {
        "Authorization": f"Bearer {token}",
        "User-Agent": "platform/7.4",
        "Accept": "application/json",
        "Content-Type": "application/json",
    }


def check_record(person: Person, headers: Mapping[str, str], *, activity: bool = True, kind: int = 0) -> Record:
    """Return a check whose answer must name the person's own session."""
    body = msgspec.json.encode(check(person, activity=activity))
    return Record(
        data=request("POST", "/v1/check", headers=headers, body=body),
        kind=kind,
        own=f'"session_id":"{person.session.id}"',
    )


def batch_record(people: Sequence[Person], headers: Mapping[str, str]) -> Record:
    """Return one `POST /v1/checks` about all of them."""
    body = msgspec.json.encode({"checks": [check(person) for person in people]})
    return Record(
        data=request("POST", "/v1/checks", headers=headers, body=body), own=f'"session_id":"{people[-1].session.id}"'
    )


async def log_in(url: str, token: str, prefix: str, count: int, *, first: int = 0) -> list[Person]:
    """Log `count` new members in, each from a new device; raises BenchError when one is not allowed.

    `first` numbers them, so that two groups can have different addresses.
    """
    numbers = iter(range(first, first + count))
    people: list[Person] = []
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(url, headers=caller(token), connector=connector) as client:
        await asyncio.gather(*(_log_in_some(client, prefix, numbers, people) for _ in range(AT_ONCE)))
    return sorted(people, key=lambda person: person.number)


async def _log_in_some(
    client: aiohttp.ClientSession, prefix: str, numbers: Iterator[int], people: list[Person]
) -> None:
    for number in numbers:
        member_id = f"{prefix}-{number}"
        async with client.post("/v1/logins", data=login_body(member_id, number, None)) as reply:
            people.append(_person(member_id, number, reply.status, await reply.read()))


def _person(member_id: str, number: int, status: int, body: bytes) -> Person:
    if status != 200:
        raise BenchError(f"a login was answered {status}: {body[:300]!r}")
    answer = msgspec.json.decode(body, type=Answer)
    if answer.decision != "allow" or answer.degraded or answer.session is None or answer.device is None:
        raise BenchError(f"a login was not allowed: {body[:300]!r}")
    return Person(member_id=member_id, number=number, session=answer.session, device=answer.device)
