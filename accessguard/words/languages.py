"""Which language to speak: what somebody prefers, against what there is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

LANGUAGES: Final = ("en", "it", "pt-BR", "es", "ru", "uk")
"""The languages that every text is there in, as BCP 47 tags."""

UNDETERMINED: Final = "und"
"""The tag of a text whose language nobody said (RFC 5646, 4.1)."""

# A browser sends a handful; longer than this is not a person's wish.
LONGEST_HEADER: Final = 1_000
MOST_RANGES: Final = 20


@lru_cache(maxsize=1_024)
def accepted(header: str | None) -> tuple[str, ...]:
    """The tags of an `Accept-Language` header, the dearest first (RFC 9110, 12.5.4).

    A weight of 0 and `*`, which names no language, are left out; a malformed
    part is passed over. Empty without a header, or when it is over 1000 characters.
    """
    if header is None or len(header) > LONGEST_HEADER:
        return ()
    weighed = [_weighed(part) for part in header.split(",")[:MOST_RANGES]]
    ranges = [(weight, tag) for weight, tag in weighed if weight > 0 and tag != "*"]
    return tuple(tag for _, tag in sorted(ranges, key=lambda each: -each[0]))


@lru_cache(maxsize=4_096)
def chosen(wanted: tuple[str, ...], offered: tuple[str, ...] = ()) -> str:
    """Of the languages `offered` (none: the six), what the first of the `wanted` tags comes to that is there at all.

    Where none of them is, the first that is offered: English, unless a school chose others.
    """
    there = offered or LANGUAGES
    found = filter(None, (lookup(tag, there) for tag in wanted))
    return next(found, there[0])


def lookup(tag: str, offered: Sequence[str]) -> str | None:
    """The offered language closest to `tag`; None when there is none.

    The tag is cut from its end until it is there (RFC 4647, 3.4); a language
    alone then finds its first region, so that a reader of `pt-PT` gets `pt-BR`.
    """
    known = {each.lower(): each for each in reversed(offered)}
    parts = tag.replace("_", "-").lower().split("-")
    for length in range(len(parts), 0, -1):
        found = known.get("-".join(parts[:length]))
        if found is not None:
            return found
    return next((each for each in offered if each.lower().split("-")[0] == parts[0]), None)


def _weighed(part: str) -> tuple[float, str]:
    """One language range and its weight, 1 where none is given; 0 for what is malformed."""
    tag, *parameters = (each.strip() for each in part.split(";"))
    weight = next((each[2:] for each in parameters if each[:2].lower() == "q="), "1")
    try:
        number = float(weight) if weight[:1] in ("0", "1") else 0.0
    except ValueError:
        return 0.0, tag
    return (number if number <= 1 and _is_tag(tag) else 0.0), tag


def _is_tag(tag: str) -> bool:
    return tag == "*" or all(part.isascii() and part.isalnum() and len(part) <= 8 for part in tag.split("-"))
