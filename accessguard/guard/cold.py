"""Verdicts on sessions that were not asked about lately: about a hundred bytes each.

A record is found by a keyed digest of its session, and lies with those whose
digests end alike in one of so many pages, each a `bytes`. So a record has no
object and no entry in a dict of its own, which would be three times its size. What it
depends on is looked up when it is asked for: a change of its member leaves
only its number behind, in a table that members share.
"""

from __future__ import annotations

import secrets
from array import array
from hashlib import blake2b
from struct import Struct, error
from typing import Final

import msgspec

from accessguard.policies.model import LONGEST_GAP_S, Policy
from accessguard.sessions.model import BEAT_MS

PAGES: Final = 1 << 16
"""15 records a page, of a million."""
MOST_OF_A_PAGE: Final = 4_096
"""Bytes; so all pages are 268 MB at most, however long the ids of members are."""
BUCKETS: Final = 1 << 20
"""4 MB. With ten changes a second one in thirty records is doubted for nothing after an hour, and read anew."""
MOST_CHANGES: Final = (1 << 32) - 1
MOST_POLICIES: Final = 10_000
USEFUL_MS: Final = LONGEST_GAP_S * 1000 + BEAT_MS
"""A verdict is made anew after a silence of that length, and only what is newer by a beat is put here."""

NAME_BYTES: Final = 12
PLACE: Final = Struct("<12sI")
RECORD: Final = Struct("<12sHIqqqIHBB?16s")
"""Name, bytes of the whole record, number of the last change when it was put here, asked, until, generation, number
of the policy, open sessions, flags, rest, whether there is a device, its id; the member's id (UTF-8) follows."""

NO_DEVICE: Final = b"null"
DASHES: Final = b'"-'


class Rested(msgspec.Struct, gc=False, frozen=True):
    """A plain allow without its session and tenant; the fields are those of `Held` and `Member`."""

    member_id: str
    generation: int
    open: int
    policy: Policy
    asked: int
    until: int
    device: bytes
    flags: int
    rest: int


class Cold:
    """Bounded in bytes by its pages, and in number by whoever calls `shed`.

    A digest has 112 bits that count, of BLAKE2b (RFC 7693) under a key of this process: that two of a
    million sessions share one is as likely as 1 in 10^22, and the answer would still want the same question (64 bits more).
    """

    def __init__(self) -> None:
        self.size = 0
        self._digest = blake2b(key=secrets.token_bytes(16), digest_size=PLACE.size)
        self._pages = [b""] * PAGES
        self._hand = 0
        self._changes = 0
        self._changed = _unchanged()
        self._policies: dict[str, tuple[int, Policy]] = {}
        self._numbered = 0

    def put(self, tenant: str, session_id: str, rested: Rested) -> None:
        """Keep a verdict, in the place of what is of no use any more; one of unusual size is not kept.

        Where the page is full, what is there longest goes.
        """
        name, number = self._place(tenant, session_id)
        record = self._record(name, tenant, rested)
        if not record:
            return
        page = self._pages[number]
        while page and (len(page) + len(record) > MOST_OF_A_PAGE or _until(page) < rested.until - USEFUL_MS):
            page = page[_length(page, 0) :]
            self.size -= 1
        self._pages[number] = page + record
        self.size += 1

    def take(self, tenant: str, session_id: str) -> Rested | None:
        """Give a verdict away; None when there is none, or what it depends on may have changed since."""
        if not self.size:
            return None
        name, number = self._place(tenant, session_id)
        page = self._pages[number]
        at = page.find(name)
        if at < 0:
            return None
        end = at + _length(page, at)
        self._pages[number] = page[:at] + page[end:]
        self.size -= 1
        return self._read(tenant, page[at:end])

    def drop(self, tenant: str, member_id: str) -> None:
        """Doubt all that is kept of a member, and of those few that share its number."""
        if self._changes == MOST_CHANGES:
            self.clear()
            self._changes, self._changed = 0, _unchanged()
        self._changes += 1
        self._changed[_bucket(tenant, member_id)] = self._changes

    def shed(self) -> None:
        """Let go of one that is here for long: the oldest of the next page that has any."""
        while self.size:
            page = self._pages[self._hand]
            if page:
                self._pages[self._hand] = page[_length(page, 0) :]
                self.size -= 1
            self._hand = (self._hand + 1) % PAGES
            if page:
                return

    def clear(self) -> None:
        """Forget everything."""
        self.size = 0
        self._pages = [b""] * PAGES
        self._policies.clear()

    def _place(self, tenant: str, session_id: str) -> tuple[bytes, int]:
        """A session's name, and the number of its page; the length in front keeps ("a", "bc") and ("ab", "c") apart."""
        digest = self._digest.copy()
        digest.update(f"{len(tenant)}:{tenant}{session_id}".encode())
        name, number = PLACE.unpack(digest.digest())
        return name, number % PAGES

    def _record(self, name: bytes, tenant: str, rested: Rested) -> bytes:
        member = rested.member_id.encode()
        known = rested.device != NO_DEVICE
        try:
            head = RECORD.pack(
                name,
                RECORD.size + len(member),
                self._changes,
                rested.asked,
                rested.until,
                rested.generation,
                self._number(tenant, rested.policy),
                rested.open,
                rested.flags,
                rested.rest,
                known,
                bytes.fromhex(rested.device.translate(None, DASHES).decode()) if known else b"",
            )
        except error:
            return b""
        return head + member

    def _read(self, tenant: str, record: bytes) -> Rested | None:
        _, _, changes, asked, until, generation, number, opened, flags, rest, known, device = RECORD.unpack_from(record)
        member_id = record[RECORD.size :].decode()
        current, policy = self._policies.get(tenant, (0, None))
        if policy is None or current != number or self._changed[_bucket(tenant, member_id)] > changes:
            return None
        shown = _json(device) if known else NO_DEVICE
        return Rested(member_id, generation, opened, policy, asked, until, shown, flags, rest)

    def _number(self, tenant: str, policy: Policy) -> int:
        """The number of a policy; only a tenant's last one has any, so what was made under another is not found."""
        known = self._policies.get(tenant)
        if known is not None and known[1] is policy:
            return known[0]
        if known is None and len(self._policies) >= MOST_POLICIES:
            del self._policies[next(iter(self._policies))]
        self._numbered += 1
        self._policies[tenant] = (self._numbered, policy)
        return self._numbered


def _unchanged() -> array[int]:
    return array("I", bytes(4 * BUCKETS))


def _bucket(tenant: str, member_id: str) -> int:
    return hash((tenant, member_id)) % BUCKETS


def _length(page: bytes, at: int) -> int:
    """Bytes of the record that begins there."""
    return page[at + NAME_BYTES] | page[at + NAME_BYTES + 1] << 8


def _until(page: bytes) -> int:
    """When the time of the first record is over (ms since the epoch)."""
    until: int = RECORD.unpack_from(page)[4]
    return until


def _json(device: bytes) -> bytes:
    """An id as JSON, which `put` was given (RFC 9562, 4)."""
    text = device.hex()
    return f'"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"'.encode()
