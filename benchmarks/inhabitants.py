"""Who the members of a generated population are: ids, names in many scripts, addresses, telephone numbers of twenty countries."""

from __future__ import annotations

import unicodedata
from functools import cache
from random import Random
from typing import Final, TypeVar

import msgspec

from accessguard.demo.people import languages

One = TypeVar("One")

COUNTRY: Final = "BR"
"""The tenant's own country: only its numbers are ever written without a country code."""

# Region: country code, how a mobile number begins, how many digits follow (libphonenumber's metadata, mobile types).
PHONES: Final = {
    "BR": ("55", "119", 8),
    "PT": ("351", "91", 7),
    "IT": ("39", "333", 7),
    "ES": ("34", "61", 7),
    "FR": ("33", "61", 7),
    "DE": ("49", "151", 8),
    "GB": ("44", "7400", 6),
    "US": ("1", "2015", 6),
    "MX": ("52", "222", 7),
    "AR": ("54", "911", 8),
    "CO": ("57", "321", 7),
    "IN": ("91", "81", 8),
    "JP": ("81", "90", 8),
    "CN": ("86", "131", 8),
    "KR": ("82", "10", 8),
    "EG": ("20", "100", 7),
    "TR": ("90", "501", 7),
    "PL": ("48", "51", 7),
    "UA": ("380", "50", 7),
    "NG": ("234", "802", 7),
}
REGIONS: Final = (*("BR",) * 20, *PHONES)
SEPARATORS: Final = (" ", "-", ".", "")

# Names beside those of the demo: right to left, without spaces, with what is no letter.
MORE: Final = (
    ("he-IL", "Asia/Jerusalem", ("נועה", "דוד", "יעל"), ("כהן", "לוי", "מזרחי")),
    ("fa-IR", "Asia/Tehran", ("مریم", "علی", "زهرا"), ("محمدی", "رضایی")),
    ("th-TH", "Asia/Bangkok", ("สมชาย", "มาลี"), ("ใจดี", "ศรีสุข")),
    ("ka-GE", "Asia/Tbilisi", ("ნინო", "გიორგი"), ("ბერიძე", "კაპანაძე")),
    ("am-ET", "Africa/Addis_Ababa", ("አበበ", "ሰላም"), ("ከበደ", "ተስፋዬ")),
    ("en-US", "America/New_York", ("Zoë 🎓", "D'Arcy", "=Max"), ("O'Neil", "Smith-Jones 👩‍💻", 'van "der" Berg')),
)
ODD_EVERY: Final = 25
"""Of so many members one has an id that is no plain word."""
ODD: Final = (
    "",
    "50%25-off%2F{}",
    "school/{}/élève",
    "ana+{}@example.com",
    "👩\u200d🎓-{}",
    "محمد-{}",
    "a b?c#d&e={}",
    "..\\{}'\"",
)
"""What such an id looks like, the number in it; the first is one of 128 characters."""
DOMAINS: Final = ("example.com", "example.org", "example.net", "school.example", "mail.example")
TAGS: Final = ("spring", "summer", "autumn", "winter", "scholarship", "trial", "alumni", "instalments", "mentored")


class Tongue(msgspec.Struct, frozen=True, kw_only=True):
    """Names of one language, with what of them is left in an address."""

    locale: str
    time_zone: str
    given: tuple[tuple[str, str], ...]
    family: tuple[tuple[str, str], ...]
    latin: bool


class Person(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One member as the platform knows it; `former` is an e-mail it had before, `e164` its number in one form."""

    id: str
    name: str
    email: str
    former: str | None
    phone: str | None
    e164: str | None
    tags: tuple[str, ...]
    locale: str
    time_zone: str


def person(chance: Random, number: int) -> Person:
    """Member `number`; whatever is left to chance is drawn from `chance` in one order."""
    tongue = _drawn(chance, tongues())
    given, latin_given = _drawn(chance, tongue.given)
    family, latin_family = _drawn(chance, tongue.family)
    if tongue.latin and chance.random() < 0.6:
        family = f"{family} {_drawn(chance, tongue.family)[0]}"
    email = f"{latin_given}.{latin_family}.{number}@{_drawn(chance, DOMAINS)}"
    phone, e164 = phone_of(chance) if chance.random() < 0.7 else (None, None)
    return Person(
        id=member_id(number),
        name=f"{given} {family}",
        email=email,
        former=f"{latin_family}{number}@old.example" if chance.random() < 0.05 else None,
        phone=phone,
        e164=e164,
        tags=_tags(chance),
        locale=tongue.locale,
        time_zone=tongue.time_zone,
    )


def member_id(number: int) -> str:
    """The platform's id of member `number`: mostly short, now and then as odd as an opaque id may be."""
    if number % ODD_EVERY != 7:
        return f"m{number:07d}"
    if number // ODD_EVERY % len(ODD) == 0:
        return f"{number}-".ljust(128, "x")
    return ODD[number // ODD_EVERY % len(ODD)].format(number)


def phone_of(chance: Random) -> tuple[str, str]:
    """A mobile number as people write it, and in the form of ITU-T E.164."""
    region = _drawn(chance, REGIONS)
    code, begin, digits = PHONES[region]
    rest = f"{int(chance.random() * 10**digits):0{digits}d}"
    e164 = f"+{code}{begin}{rest}"
    gap = _drawn(chance, SEPARATORS)
    if region == COUNTRY and chance.random() < 0.5:
        return f"({begin[:2]}) {begin[2:]}{rest[:4]}-{rest[4:]}", e164
    return f"+{code} {begin}{gap}{rest[:3]}{gap}{rest[3:]}", e164


@cache
def tongues() -> tuple[Tongue, ...]:
    """The languages that names are drawn from."""
    known = [
        _tongue(each.locale, each.time_zone, each.given, each.family, (each.latin_given, each.latin_family))
        for each in languages()
    ]
    return (*known, *(_tongue(*each) for each in MORE))


def _tongue(
    locale: str,
    time_zone: str,
    given: tuple[str, ...],
    family: tuple[str, ...],
    latin: tuple[tuple[str, ...] | None, tuple[str, ...] | None] = (None, None),
) -> Tongue:
    return Tongue(
        locale=locale,
        time_zone=time_zone,
        given=tuple(zip(given, latin[0] or map(_plain, given), strict=True)),
        family=tuple(zip(family, latin[1] or map(_plain, family), strict=True)),
        latin=latin[0] is None and given[0].isascii(),
    )


def _plain(name: str) -> str:
    bare = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return "".join(letter for letter in bare if letter.isalnum()) or "user"


def _tags(chance: Random) -> tuple[str, ...]:
    drawn = chance.random()
    if drawn < 0.3:
        return ()
    first = _drawn(chance, TAGS[:4])
    return (first,) if drawn < 0.7 else (first, _drawn(chance, TAGS[4:]))


def _drawn(chance: Random, many: tuple[One, ...]) -> One:
    """One of many; `random` is a tenth of the work of `choice`."""
    return many[int(chance.random() * len(many))]
