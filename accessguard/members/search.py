"""What a member is found by: words written one way, so that neither accents nor capitals nor the format of a number matter. Pure.

Every word that is asked for must be there, in any order: one or two characters
as the beginning of a word, three or more anywhere; of Chinese, Japanese and emoji
one is enough. A telephone number may be
asked for in any format, or in part.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from accessguard.members.phone import e164

UNSEEN: Final = frozenset({"Mn", "Me", "Cf", "Cc", "Cs"})
"""General categories (Unicode, chapter 4.5) that nobody types to find somebody: accents, marks of direction, joiners, control characters."""
PLAIN: Final = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "\u0131": "i", "æ": "ae", "œ": "oe", "þ": "th"}
)
"""Letters that Unicode does not take apart, as people type them on another keyboard."""
SHORT: Final = 2
"""Characters up to which a word is looked for at the beginnings of words alone."""
DIALLED: Final = re.compile(r"[\d\s+()./\u2010-\u2015-]+")
"""What telephone numbers are written with."""
IDEOGRAPHS: Final = "\u2e80"
"""From here on (CJK radicals, ideographs, kana; emoji) a character is a word, or nearly."""
FEWEST_DIGITS: Final = 3
TELLING: Final = 6
"""Characters before the @ of an address that lead to few members."""


def folded(text: str) -> str:
    """The text as it is compared: compatible characters, case and accents made one, words with one space between."""
    if text.isascii() and text.isprintable():
        return " ".join(text.casefold().split())
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return " ".join("".join(_folded(plain)).translate(PLAIN).split())


def _folded(text: str) -> Iterator[str]:
    for each in text:
        category = unicodedata.category(each)
        if category == "Nd":
            yield str(unicodedata.decimal(each))
        elif category not in UNSEEN or each.isspace():
            yield each


def words(
    member_id: str, *, name: str, email: str | None, phone: str | None, phone_e164: str | None, aliases: Iterable[str]
) -> str:
    """All that one member is found by, a line for each, which begins with a space as every word in it does."""
    numbers = (_digits(each) for each in (phone, phone_e164) if each)
    found = dict.fromkeys(folded(each) for each in (member_id, name, email, phone, *numbers, *aliases) if each)
    return "\n".join(f" {each}" for each in found if each)


def wanted(q: str, country: str | None) -> tuple[str, ...]:
    """What is looked for: for each way to read `q` the pieces that must all be in a member's words, one a line.

    `country` (ISO 3166-1) is what numbers without a country code belong to.
    None at all means that nobody can be found by this text.
    """
    plain = folded(q)
    ways = ["\n".join(each if _anywhere(each) else f" {each}" for each in plain.split())]
    if DIALLED.fullmatch(plain):
        # Zeros in front are dialled, not part of the number: 0049, (0)20.
        ways += [_digits(plain).lstrip("0"), _digits(e164(plain, country) or "")]
        ways[1:] = [each for each in ways[1:] if len(each) >= FEWEST_DIGITS]
    return tuple(dict.fromkeys(each for each in ways if each))


def likes(ways: Sequence[str]) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """For each of at most three ways of `wanted` the patterns that a member's words must all be like (SQL's LIKE); none where there are fewer."""
    one, other, third = [*([f"%{_literal(each)}%" for each in way.split("\n")] for way in ways), (), (), ()][:3]
    return one, other, third


def telling(way: str) -> str:
    """What of a way of `wanted` the index is asked for: of an e-mail address not what follows the @, which thousands of members share."""
    return "\n".join(_own_part(each) for each in way.split("\n"))


def _own_part(piece: str) -> str:
    own, at, _ = piece.partition("@")
    return own + at if len(own) >= TELLING else piece


def _literal(text: str) -> str:
    """The text as LIKE finds it and nothing else."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _anywhere(word: str) -> bool:
    return len(word) > SHORT or min(word) >= IDEOGRAPHS


def _digits(text: str) -> str:
    return "".join(each for each in folded(text) if each.isdecimal())
