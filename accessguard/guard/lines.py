"""The lines of a file of members: where each begins and ends, and what it says. Nothing here waits or is kept."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from accessguard.errors import ErrorCode, GuardError, Problem, problem_of
from accessguard.guard.grants import check_enrolment
from accessguard.guard.model import Opaque
from accessguard.members.model import Enrolment, Member
from accessguard.policies.params import Short
from accessguard.rules.model import EnrolmentStatus

LONGEST: Final = 65_536
"""Bytes of one line, or of one row of a CSV file: a member with everything at its longest is a third of that."""
TOO_LONG: Final = b"\0"
"""Stands for a line that was longer, so that the others keep their numbers."""
BOM: Final = b"\xef\xbb\xbf"

Time: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class Form(StrEnum):
    """How a file is written."""

    NDJSON = "ndjson"
    CSV = "csv"


class ImportedMember(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="member"
):
    """A student; what is left out stays as it is, null empties it."""

    member_id: Opaque
    name: Short | msgspec.UnsetType = msgspec.UNSET
    email: Annotated[str, msgspec.Meta(max_length=254)] | msgspec.UnsetType | None = msgspec.UNSET
    phone: Annotated[str, msgspec.Meta(max_length=40)] | msgspec.UnsetType | None = msgspec.UNSET
    tags: Annotated[tuple[Short, ...], msgspec.Meta(max_length=100)] | msgspec.UnsetType = msgspec.UNSET
    locale: Annotated[str, msgspec.Meta(max_length=35)] | msgspec.UnsetType | None = msgspec.UNSET
    time_zone: Annotated[str, msgspec.Meta(max_length=64)] | msgspec.UnsetType | None = msgspec.UNSET
    staff: bool | msgspec.UnsetType = msgspec.UNSET
    country: Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}$(?!\\n)")] | msgspec.UnsetType | None = msgspec.UNSET
    city: Short | msgspec.UnsetType | None = msgspec.UNSET


class ImportedEnrolment(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="enrolment"
):
    """An enrolment as a whole: what is left out is emptied. A member that is unknown comes into being."""

    member_id: Opaque
    product_id: Opaque
    starts_at: Time
    ends_at: Time | None = None
    purchased_at: Time | None = None
    status: EnrolmentStatus = EnrolmentStatus.ACTIVE
    reopens_at: Time | None = None
    reason: Annotated[str, msgspec.Meta(max_length=1000)] | None = None


Line: TypeAlias = ImportedMember | ImportedEnrolment
DECODER: Final[msgspec.json.Decoder[Line]] = msgspec.json.Decoder(Line)

NULLABLE: Final = frozenset(
    {"email", "phone", "locale", "time_zone", "country", "city", "ends_at", "purchased_at", "reopens_at", "reason"}
)
COLUMNS: Final = frozenset({"kind", *ImportedMember.__struct_fields__, *ImportedEnrolment.__struct_fields__})

# What the list of members as CSV has besides: a file that comes from there may go back.
PASSED_OVER: Final = frozenset(Member.__struct_fields__) - COLUMNS
DEFUSED: Final = re.compile("'[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
WORD: Final = re.compile(r" '[^']*'|(?<=unknown field) `.*`", re.DOTALL)


class Splitter:
    """Cuts a stream into lines; of a CSV file a row may hold line breaks inside quotes (RFC 4180, 2.6)."""

    def __init__(self, form: Form) -> None:
        self._quoted = form is Form.CSV
        self._held = bytearray()
        self._quotes = 0
        self._breaks = 0
        self._long = False

    def feed(self, chunk: bytes) -> Iterator[tuple[bytes, int]]:
        """Each line that ends in this chunk without its break, and how many lines of the file it is."""
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            self._grow(piece)
            # A quote that nobody closed costs the rows up to the bound, not the rest of the file.
            if self._quoted and self._quotes % 2 and not self._long:
                self._grow(b"\n")
                self._breaks += 1
            else:
                yield self._taken()
        self._grow(rest)

    def end(self) -> Iterator[tuple[bytes, int]]:
        """The last line, where the file does not end with a break."""
        if self._held or self._long:
            yield self._taken()

    def _grow(self, piece: bytes) -> None:
        self._long = self._long or len(self._held) + len(piece) > LONGEST
        if not self._long:
            self._held += piece
            self._quotes += piece.count(b'"')

    def _taken(self) -> tuple[bytes, int]:
        line = TOO_LONG if self._long else bytes(self._held).removesuffix(b"\r")
        found = line, self._breaks + 1
        self._held.clear()
        self._quotes = self._breaks = 0
        self._long = False
        return found


class Reader:
    """Reads the lines of one file; `columns` are those of a CSV file."""

    def __init__(self, columns: Sequence[str] | None) -> None:
        self._columns = columns
        self._kind = None if columns is None or "kind" in columns else _kind_of(columns)

    def read(self, line: bytes) -> Line | Problem | None:
        """What a line says, or why it is none; None for an empty one."""
        if line == TOO_LONG:
            return Problem(pointer="", detail=f"is longer than {LONGEST} bytes, or has a quote that is not closed")
        if not line.strip():
            return None
        try:
            found = self._decoded(line)
        except msgspec.ValidationError as error:
            return _without_words(problem_of(str(error)))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return Problem(pointer="", detail="is not valid JSON in UTF-8")
        except (csv.Error, ValueError):
            return Problem(pointer="", detail="is not a row of this CSV file, in UTF-8")
        return _checked(found)

    def _decoded(self, line: bytes) -> Line:
        if self._columns is None:
            return DECODER.decode(line)
        found: Line = msgspec.convert(self._row(line), Line, strict=False)
        return found

    def _row(self, line: bytes) -> Mapping[str, Any]:
        cells = next(csv.reader([line.decode()], strict=True))
        if len(cells) != len(self._columns or ()):
            raise msgspec.ValidationError(f"has {len(cells)} cells, not {len(self._columns or ())} as the first line")
        row = dict(zip(self._columns or (), cells, strict=True))
        return _cells(row if self._kind is None else row | {"kind": self._kind})


def columns_of(line: bytes) -> tuple[str, ...]:
    """The columns that the first line of a CSV file names. Raises GuardError(INVALID) for what is none."""
    try:
        names = tuple(name.strip() for name in next(csv.reader([line.removeprefix(BOM).decode()], strict=True), ()))
    except (csv.Error, UnicodeError):
        raise _no_header("is not a line of CSV, in UTF-8") from None
    if "member_id" not in names:
        raise _no_header("names no column `member_id`")
    if len(set(names)) < len(names):
        raise _no_header("names a column twice")
    if unknown := set(names) - COLUMNS - PASSED_OVER:
        raise _no_header(f"names columns that there are not: {len(unknown)}")
    return names


def _no_header(detail: str) -> GuardError:
    return GuardError(
        ErrorCode.INVALID, "The first line of the file was refused.", Problem(pointer="/1", detail=detail)
    )


def _kind_of(columns: Sequence[str]) -> str:
    return "enrolment" if "product_id" in columns else "member"


def _cells(row: Mapping[str, str]) -> dict[str, Any]:
    """A row as an object of the same names: an empty cell is null, tags are JSON or parted by semicolons."""
    kind = row["kind"]
    fields = ImportedEnrolment.__struct_fields__ if kind == "enrolment" else ImportedMember.__struct_fields__
    said: dict[str, Any] = {"kind": kind}
    for name in fields:
        cell = row.get(name)
        if cell is None:
            continue
        if DEFUSED.match(cell):
            cell = cell[1:]
        if cell == "" and name in {"status", "staff"}:
            continue
        said[name] = _tags(cell) if name == "tags" else None if cell == "" and name in NULLABLE else cell
    return said


def _tags(cell: str) -> Any:
    if cell.startswith("["):
        return msgspec.json.decode(cell)
    return [tag.strip() for tag in cell.split(";") if tag.strip()]


def _checked(line: Line) -> Line | Problem:
    """The line, if PostgreSQL can keep it and it does not contradict itself."""
    for name in line.__struct_fields__:
        value = getattr(line, name)
        texts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(text, str) and not _storable(text) for text in texts):
            return Problem(pointer=f"/{name}", detail="contains a NUL character or half of a surrogate pair")
        if isinstance(value, datetime) and not _in_calendar(value):
            return Problem(pointer=f"/{name}", detail="is past the calendar")
    if isinstance(line, ImportedEnrolment):
        try:
            check_enrolment(enrolment_of(line, at=line.starts_at))
        except GuardError as error:
            return error.problems[0]
    return line


def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _in_calendar(at: datetime) -> bool:
    """Whether it is a time in UTC, too; PostgreSQL would keep a year 10000, which nothing here can read back."""
    try:
        at.astimezone(UTC)
    except OverflowError:
        return False
    return True


def enrolment_of(line: ImportedEnrolment, *, at: datetime) -> Enrolment:
    """The line as an enrolment that is written at `at`."""
    names = ("product_id", "starts_at", "ends_at", "purchased_at", "status", "reopens_at")
    return Enrolment(updated_at=at, **{name: getattr(line, name) for name in names})


def _without_words(problem: Problem) -> Problem:
    """The problem without what the line said, which may be somebody's."""
    return Problem(pointer=problem.pointer, detail=WORD.sub("", problem.detail).strip())
