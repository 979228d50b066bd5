"""The catalogues: gettext's, compiled in memory from the .po files when they are first read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from gettext import GNUTranslations, NullTranslations
from io import BytesIO
from pathlib import Path
from typing import Final

import msgspec
from babel import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from accessguard.words.languages import LANGUAGES

FOLDER: Final = Path(__file__).parent.parent / "locales"
DOMAIN: Final = "accessguard"
"""What rules and refusals say; English too has a catalogue, as a school's operators may change its words."""
CONSOLE: Final = "console"
"""What the pages for operators say; their texts are English themselves."""

# World English writes the day before the month, and 24 hours, which nobody can mistake; CLDR has that under this name.
WRITTEN: Final = {"en": "en-GB"}


class Text(msgspec.Struct, frozen=True, gc=False):
    """A text of the catalogues; where it has a plural, a number chooses its form."""

    single: str
    plural: str | None = None


def one(text: str) -> Text:
    """Mark a text without a plural; its name is what finds it when the catalogues are compared with the code."""
    return Text(text)


def many(single: str, plural: str) -> Text:
    """Mark a text whose form follows a number; found as `one` is."""
    return Text(single, plural)


def word(text: str) -> str:
    """Mark a text of the console that a page translates where it shows it; found as `one` is."""
    return text


def say(language: str, text: Text, values: Mapping[str, object] | None = None, *, number: int = 1) -> str:
    """The text in one of the six languages, filled in; `number` chooses the form where there is a plural."""
    found = catalogue(language)
    if text.plural is None:
        return found.gettext(text.single).format_map(values or {})
    return found.ngettext(text.single, text.plural, number).format_map(values or {})


@cache
def catalogue(language: str, domain: str = DOMAIN) -> NullTranslations:
    """The catalogue of one of the six languages; the console's English is the texts themselves."""
    if (language, domain) == ("en", CONSOLE):
        return NullTranslations()
    compiled = BytesIO()
    with source(language, domain).open("rb") as file:
        write_mo(compiled, read_po(file, locale=language.replace("-", "_")))
    compiled.seek(0)
    return GNUTranslations(compiled)


def source(language: str, domain: str = DOMAIN) -> Path:
    """The file that a catalogue is compiled from."""
    return FOLDER / language.replace("-", "_") / "LC_MESSAGES" / f"{domain}.po"


@cache
def locale(language: str) -> Locale:
    """How dates, numbers and names of countries are written in one of the six languages."""
    return Locale.parse(WRITTEN.get(language, language), sep="-")


def load() -> None:
    """Read every catalogue now, so that the first who is refused, or opens a page, does not wait for it."""
    for language in LANGUAGES:
        catalogue(language)
        catalogue(language, CONSOLE)
        locale(language)
