"""The members of the school: names of several languages, made from a seed."""

from __future__ import annotations

import unicodedata
from functools import cache
from importlib.resources import files
from random import Random

import msgspec

from accessguard.demo.model import Person

COHORTS = ("spring", "summer", "autumn", "winter")
MARKS = ("scholarship", "trial", "alumni", "instalments", "mentored")
SPECIAL_LETTERS = str.maketrans({"ł": "l", "\N{LATIN SMALL LETTER DOTLESS I}": "i", "đ": "d", "ß": "ss", "'": None})


class Language(msgspec.Struct, frozen=True, kw_only=True):
    """Names of one language; the latin ones stand in the same order, None where accents can simply go."""

    locale: str
    time_zone: str
    given: tuple[str, ...]
    family: tuple[str, ...]
    family_first: bool = False
    latin_given: tuple[str, ...] | None = None
    latin_family: tuple[str, ...] | None = None


def dice(seed: int, *what: object) -> Random:
    """Chance that depends on the seed and on what it is for, so that one thing more does not change the others."""
    return Random("/".join(map(str, (seed, *what))))  # noqa: S311 - a story, not a secret


@cache
def languages() -> tuple[Language, ...]:
    """The names there are."""
    content = files("accessguard.demo").joinpath("people.json").read_bytes()
    return msgspec.json.decode(content, type=tuple[Language, ...])


def person(seed: int, number: int, *, staff: bool = False) -> Person:
    """Member `number` of the school of that seed; always the same one."""
    chance = dice(seed, "person", number)
    language = languages()[(number + seed) % len(languages())]
    given, family = chance.randrange(len(language.given)), chance.randrange(len(language.family))
    names = (language.given[given], language.family[family])
    latin = f"{_latin(language.given, language.latin_given, given)}.{_latin(language.family, language.latin_family, family)}"
    return Person(
        member_id=f"stu-{seed}-{number:04d}",
        name=" ".join(reversed(names) if language.family_first else names),
        email=f"{latin}.{number}@example.{chance.choice(('com', 'org', 'net'))}",
        phone=f"+44 7700 900{number % 1000:03d}",  # Ofcom's numbers for drama
        tags=("staff",) if staff else _tags(chance),
        locale=language.locale,
        time_zone=language.time_zone,
        staff=staff,
    )


def _tags(chance: Random) -> tuple[str, ...]:
    marks = chance.sample(MARKS, k=chance.choice((0, 0, 1, 1, 2)))
    return (f"{chance.choice(COHORTS)}-cohort", *marks)


def _latin(names: tuple[str, ...], latin: tuple[str, ...] | None, place: int) -> str:
    if latin is not None:
        return latin[place]
    bare = unicodedata.normalize("NFKD", names[place].lower().translate(SPECIAL_LETTERS))
    return bare.encode("ascii", "ignore").decode()
