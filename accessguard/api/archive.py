"""An archive that is written while it is read: a zip of JSON and CSV with a page that explains them, a few rows in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from html import escape
from typing import IO, Any, Final, cast
from zipfile import ZIP_DEFLATED, ZipFile

import msgspec

from accessguard.api.reply import csv_header, csv_rows

ABOUT: Final[Mapping[str, str]] = {
    "member": "The account itself: name, e-mail address, telephone number, tags, first and last access.",
    "member_alias": "Former e-mail addresses.",
    "member_notice": "Which notices on monitoring were shown, and when.",
    "enrolment": "Courses and products, and for how long.",
    "enrolment_change": "What was changed of them, by whom and why.",
    "pass": "Extra devices or sessions that were granted.",
    "comment": "What support noted.",
    "sharing_day": "Days on which the account was used in ways that point to several people.",
    "member_risk": "When the school was last told that the account seems to be used by several people, or is often restricted.",
    "session": "Logins that were open: when, from which browser and address.",
    "login_attempt": "The access log: every try to log in, and what came of it.",
    "activity": "What was opened and watched.",
    "violation": "Restrictions that applied, and why.",
    "device": "Browsers and apps that were recognised.",
    "member_network": "Internet addresses, and when each was seen first and last.",
    "audit": "What operators changed of the account.",
    "unknown_user": "Failed tries to log in from this address with a name that is nobody's.",
}


class _Sink:
    """Where the archive is written to: bytes that wait to be sent. It cannot go back, so it says no place."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def taken(self) -> bytes:
        """All that was written since."""
        taken, self._parts = b"".join(self._parts), []
        return taken


class Archive:
    """A zip file in the making; each method yields bytes to be sent on."""

    def __init__(self) -> None:
        self._sink = _Sink()
        self._zip = ZipFile(cast("IO[bytes]", self._sink), "w", ZIP_DEFLATED)
        self._counts: dict[str, int] = {}

    async def as_json(self, name: str, pages: AsyncIterator[Sequence[dict[str, Any]]]) -> AsyncIterator[bytes]:
        """The rows as one JSON array; nothing when there are none."""
        count = 0
        with self._zip.open(f"{name}.json", "w", force_zip64=True) as file:
            async for rows in pages:
                for row in rows:
                    file.write((b",\n" if count else b"[\n") + msgspec.json.encode(row))
                    count += 1
                yield self._sink.taken()
            file.write(b"\n]\n" if count else b"[]\n")
        self._counts[name] = count
        yield self._sink.taken()

    async def as_csv(self, name: str, pages: AsyncIterator[Sequence[dict[str, Any]]]) -> AsyncIterator[bytes]:
        """The same rows as a table (RFC 4180)."""
        columns: list[str] = []
        with self._zip.open(f"{name}.csv", "w", force_zip64=True) as file:
            async for rows in pages:
                if not columns:
                    columns = list(rows[0])
                    file.write(csv_header(columns))
                file.write(csv_rows(row.values() for row in rows))
                yield self._sink.taken()
        yield self._sink.taken()

    def end(self, *, member_id: str, ip: str | None, made: str) -> bytes:
        """The page that says what is what, and the end of the archive."""
        self._zip.writestr("index.html", _page(self._counts, member_id, ip, made))
        self._zip.close()
        return self._sink.taken()


def _page(counts: Mapping[str, int], member_id: str, ip: str | None, made: str) -> str:
    where = "" if ip is None else f" from the address {escape(ip)}"
    rows = "".join(
        f'<tr><td><a href="{name}.json">{name}.json</a></td><td><a href="{name}.csv">{name}.csv</a></td>'
        f"<td>{count}</td><td>{escape(ABOUT.get(name, ''))}</td></tr>\n"
        for name, count in counts.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Personal data</title>\n'
        f"<h1>What is stored about {escape(member_id)}{where}</h1>\n"
        f"<p>Made on {escape(made)} (UTC, as all times in these files). Each list is here twice with the same content: as JSON for "
        "programs and as CSV for spreadsheets. Not included: secrets that prove that a browser is a known one, and internal "
        "copies of what is listed.</p>\n"
        f"<table><tr><th>JSON</th><th>CSV</th><th>Lines</th><th>What it is</th></tr>\n{rows}</table>\n</html>\n"
    )
