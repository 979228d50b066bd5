"""What a migration may do, told from its statements alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

RELEASED_AS_THEY_ARE = {
    "0002": (
        "UPDATE device SET first_admitted_at",
        "CREATE INDEX login_failure_by_member",
        "CREATE INDEX login_failure_by_address",
        "CREATE INDEX violation_by_rule",
    ),
}
"""What was written before there were these rules, and cannot be changed any more."""

MOST_TABLES = 2
"""Tables of the service that one file may change: it waits for the lock of the second with the first one's in its hands."""

NAME = r"[a-z_][a-z0-9_]*"
TYPE = rf"{NAME}( (precision|varying))?(\(\d+\))?(\[\])?"
CONSTANT = r"('[^']*'(::[a-z]+)?|-?\d+|true|false)"
COLUMN = re.compile(rf"ADD COLUMN {NAME} {TYPE}( NOT NULL DEFAULT {CONSTANT}| DEFAULT {CONSTANT})?")
"""Without a default, or with a constant one, which PostgreSQL (11 and later) notes once for all rows."""

MAKES = re.compile(rf"CREATE (?:TABLE|SEQUENCE) (?P<made>{NAME})\b")
ALWAYS = re.compile(rf"CREATE (OR REPLACE )?FUNCTION {NAME}\b")
INDEX = re.compile(rf"CREATE (?:UNIQUE )?INDEX {NAME} ON (?P<on>{NAME}) ")
FILLS = re.compile(rf"INSERT INTO (?P<on>{NAME}) ")
ALTERS = re.compile(rf"ALTER TABLE (?P<on>{NAME}) (?P<what>.*)")
UNCHECKED = re.compile(rf"ADD CONSTRAINT {NAME} .* NOT VALID")
TAKES = re.compile(rf"(ALTER TABLE {NAME} DROP COLUMN {NAME}|DROP (TABLE|FUNCTION) {NAME}.*)")
FLOOR = re.compile(r"UPDATE schema_floor SET revision = '\d{4}'")


def plain(statement: str) -> str:
    """On one line, without comments."""
    return " ".join(re.sub(r"--[^\n]*", "", statement).split())


def faults(statements: Sequence[str]) -> Iterator[str]:
    """Each statement that is not listed as harmless beside a service that runs, and why."""
    lines = [plain(each) for each in statements]
    made: set[str] = set()
    altered: set[str] = set()
    for line in lines:
        if found := MAKES.match(line):
            made.add(found["made"])
        elif found := ALTERS.match(line):
            altered |= {found["on"]} - made
        if why := fault(line, made, raises_floor=any(FLOOR.fullmatch(each) for each in lines)):
            yield f"{why}: {line[:80]}"
    if len(altered) > MOST_TABLES:
        yield f"changes more than {MOST_TABLES} tables: {', '.join(sorted(altered))}"


def fault(line: str, made: set[str], *, raises_floor: bool) -> str | None:
    """Why a statement is not allowed, None when it is; `made` are the tables that the file has made before it."""
    if MAKES.match(line) or ALWAYS.match(line) or FLOOR.fullmatch(line):
        return None
    if TAKES.fullmatch(line):
        return None if raises_floor else "takes something away without raising the floor"
    if found := INDEX.match(line):
        return None if found["on"] in made else "builds an index while nobody can write; see migrations/indexes.py"
    if found := FILLS.match(line):
        return None if found["on"] in made else "writes rows of the service; leave that to upkeep"
    if found := ALTERS.match(line):
        harmless = found["on"] in made or all(added(each) for each in parts(found["what"]))
        return None if harmless else "reads or rewrites a table while nobody can use it"
    return "is not among what a migration may do"


def added(part: str) -> bool:
    """Whether this part of an ALTER TABLE touches the catalogue alone."""
    return bool(COLUMN.fullmatch(part) or UNCHECKED.fullmatch(part))


def parts(what: str) -> list[str]:
    """The parts of an ALTER TABLE: split at the commas that are in no brackets."""
    return [each.strip() for each in re.split(r",(?![^(]*\))", what)]
