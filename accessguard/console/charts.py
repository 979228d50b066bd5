"""Charts as plain numbers for SVG: where each bar stands and how high it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final

import msgspec

WIDTH: Final = 600
HEIGHT: Final = 120


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One day: its place and size in a drawing of `WIDTH` by `HEIGHT`, and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    day: date
    value: int


def bars(days: Sequence[tuple[date, int]], *, first: date, last: date) -> tuple[Bar, ...]:
    """A bar for each of the days that has a value, in its place between `first` and `last`; the highest is as high as the drawing."""
    step, most = WIDTH / ((last - first).days + 1), max((value for _, value in days), default=1) or 1
    return tuple(_bar(day, value, (day - first).days * step, step, most) for day, value in sorted(days) if value)


def days(counted: Sequence[tuple[date, int]]) -> tuple[Bar, ...]:
    """The same from the first day that has a value to the last."""
    found = sorted(counted)
    return bars(found, first=found[0][0], last=found[-1][0]) if found else ()


def _bar(day: date, value: int, x: float, step: float, most: int) -> Bar:
    height = round(HEIGHT * value / most, 2)
    width = round(min(step * 0.8, 40), 2)
    return Bar(x=round(x + (step - width) / 2, 2), y=HEIGHT - height, width=width, height=height, day=day, value=value)
