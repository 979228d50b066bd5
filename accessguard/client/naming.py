"""What a request does: by the pattern of its path, or by a mark on the function that answers it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

import msgspec

from accessguard.client.model import Activity

MOST_RESOURCE: Final = 512
MOST_PRODUCT: Final = 128
MARK: Final = "accessguard_activity"
_PIECE: Final = re.compile(r"\{(\w+)\}|\*\*|\*")

F = TypeVar("F", bound=Callable[..., object])


class Named(msgspec.Struct, frozen=True):
    """What a request does: kind, resource and product as a check says them."""

    kind: str | None = None
    resource: str | None = None
    product: str | None = None


NOTHING: Final = Named()


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """An activity whose resource and product are filled in from the path: `lesson:{id}`."""

    kind: Activity
    resource: str | None = None
    product: str | None = None

    def named(self, values: Mapping[str, object]) -> Named:
        """Fill in what the path said; what it did not say stays as it is written."""
        return Named(
            self.kind.value, _filled(self.resource, values, MOST_RESOURCE), _filled(self.product, values, MOST_PRODUCT)
        )


class Path(msgspec.Struct, frozen=True, kw_only=True):
    """An activity by its path: `{name}` and `*` are one segment, `**` any number. `methods`: which, in capitals."""

    path: str
    kind: Activity
    resource: str | None = None
    product: str | None = None
    methods: tuple[str, ...] = ("GET",)


class Paths:
    """Finds the first of some patterns that a request is like."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = [
            (pattern(each.path), each.methods, Mark(kind=each.kind, resource=each.resource, product=each.product))
            for each in paths
        ]

    def find(self, method: str, path: str) -> Named:
        """What this request does; nothing, if it is like none."""
        for like, methods, mark in self._paths:
            found = like.fullmatch(path) if method in methods else None
            if found is not None:
                return mark.named(found.groupdict())
        return NOTHING


def activity(kind: Activity | str, *, resource: str | None = None, product: str | None = None) -> Callable[[F], F]:
    """Mark the function that answers a route: `@activity("lesson_open", resource="lesson:{id}")`. Raises ValueError for an unknown kind."""
    mark = Mark(kind=Activity(kind), resource=resource, product=product)

    def marked(function: F) -> F:
        setattr(function, MARK, mark)
        return function

    return marked


def mark_of(function: object, values: Mapping[str, object]) -> Named:
    """What the function that answers says the request does."""
    mark = getattr(function, MARK, None)
    return mark.named(values) if isinstance(mark, Mark) else NOTHING


def pattern(path: str) -> re.Pattern[str]:
    """What paths like this one match."""
    parts, at = list[str](), 0
    for piece in _PIECE.finditer(path):
        parts.append(re.escape(path[at : piece.start()]))
        parts.append(f"(?P<{piece[1]}>[^/]+)" if piece[1] else ".*" if piece[0] == "**" else "[^/]+")
        at = piece.end()
    return re.compile("".join((*parts, re.escape(path[at:]))), re.DOTALL)


def _filled(text: str | None, values: Mapping[str, object], most: int) -> str | None:
    if text is None:
        return None
    filled = _PIECE.sub(lambda piece: str(values.get(piece[1] or "", piece[0])), text)
    return filled[:most] or None
