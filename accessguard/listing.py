"""Lists by keyset and filters: a statement of its own for each set of filters, so that each is planned for what it asks.

One statement for all of them (`$4 IS NULL OR code = $4`) is planned once for
each connection, for no filter in particular: whoever asks for one member's
rows then reads everybody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import count
from typing import Any, TypeVar

import msgspec

Item = TypeVar("Item")
Place = TypeVar("Place")


class Short(list[Item]):
    """Rows of a page that ends before it is full, as filling it would take too long; `further` is the place it goes on after."""

    def __init__(self, rows: Iterable[Item], *, further: tuple[Any, ...]) -> None:
        super().__init__(rows)
        self.further = further


def onward(rows: Sequence[tuple[Item, Place]], limit: int) -> Place | Any | None:
    """The place that a list goes on after, of which these are the rows of a page of `limit`; None at its end.

    That of a short page is of the same type as those of its rows, of which there may be none.
    """
    if isinstance(rows, Short):
        return rows.further
    return rows[-1][1] if len(rows) == limit else None


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """A list as it is written down, in constants alone; a `?` stands for a value.

    `select` goes up to its own conditions, with `fixed` values ($1 and so on).
    `filters` are named conditions, `place` is where a page goes on, `order`
    how it is sorted; the two write `<after>` and `<order>` where the direction
    matters.
    """

    select: str
    fixed: int
    filters: tuple[tuple[str, str], ...]
    place: str
    order: str

    def page(
        self,
        *values: object,
        filters: Mapping[str, object],
        after: Sequence[object] | None,
        descending: bool,
        limit: int,
    ) -> tuple[str, tuple[object, ...]]:
        """The statement for one page, and its values; a filter of None is none, one whose condition has no `?` wants no value."""
        asked = [(name, condition) for name, condition in self.filters if filters.get(name) is not None]
        given = (filters[name] for name, condition in asked if "?" in condition)
        names = tuple(name for name, _ in asked)
        return _statement(self, names, after is not None, descending), (*values, *given, *(after or ()), limit)


@cache
def _statement(listing: Listing, names: tuple[str, ...], further: bool, descending: bool) -> str:  # noqa: FBT001 - a key
    conditions = [condition for name, condition in listing.filters if name in names]
    ways = ("<", "DESC") if descending else (">", "ASC")
    if further:
        conditions.append(listing.place)
    parts = [listing.select, *(f"AND {each}" for each in conditions), f"ORDER BY {listing.order} LIMIT ?"]
    return _numbered("\n".join(parts), listing.fixed).replace("<after>", ways[0]).replace("<order>", ways[1])


def _numbered(statement: str, fixed: int) -> str:
    """With a number for each `?`, after those that have one."""
    begin, *rest = statement.split("?")
    numbers = count(fixed + 1)
    return begin + "".join(f"${next(numbers)}{part}" for part in rest)
