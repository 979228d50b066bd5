"""What an examination comes to. Plain values."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec


class Level(StrEnum):
    """Good; worth knowing; to be looked at; the service does not work so, or is not safe."""

    OK = "ok"
    NOTE = "note"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at: `check` names what, `said` how it stands, `advice` what to do ("" when all is well)."""

    check: str
    level: Level
    said: str
    advice: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, and the worst; `ok` is false when one has failed."""

    ok: bool
    worst: Level
    findings: tuple[Finding, ...]


def fine(check: str, said: str) -> Finding:
    """All is well."""
    return Finding(check=check, level=Level.OK, said=said)


def note(check: str, said: str, advice: str) -> Finding:
    """Worth knowing."""
    return Finding(check=check, level=Level.NOTE, said=said, advice=advice)


def warn(check: str, said: str, advice: str) -> Finding:
    """To be looked at."""
    return Finding(check=check, level=Level.WARN, said=said, advice=advice)


def fail(check: str, said: str, advice: str) -> Finding:
    """To be put right first."""
    return Finding(check=check, level=Level.FAIL, said=said, advice=advice)


def report(findings: Sequence[Finding]) -> Report:
    """What all of them come to."""
    order = tuple(Level)
    worst = max((each.level for each in findings), key=order.index, default=Level.OK)
    return Report(ok=worst is not Level.FAIL, worst=worst, findings=tuple(findings))
