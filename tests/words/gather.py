"""`make words`: the texts of the code into the catalogues. New ones come untranslated (the tests say which), those that are gone go."""

from __future__ import annotations

import tempfile
from io import BytesIO
from pathlib import Path
from typing import Final

from babel.messages.catalog import Catalog
from babel.messages.frontend import CommandLineInterface
from babel.messages.pofile import read_po, write_po

from accessguard.words.catalogues import CONSOLE, DOMAIN, FOLDER, source
from accessguard.words.languages import LANGUAGES

SPOKEN: Final = {DOMAIN: LANGUAGES, CONSOLE: tuple(each for each in LANGUAGES if each != "en")}
"""The languages that a domain has catalogues in."""
WIDTH: Final = 120


def texts(domain: str) -> Catalog:
    """What the code says, found as `accessguard/locales/<domain>.toml` tells."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.pot"
        asked = [
            "extract",
            "--mapping-file",
            str(FOLDER / f"{domain}.toml"),
            "--no-default-keywords",
            "--keyword",
            "none",
        ]
        options = ["--no-location", "--sort-by-file", "--output-file", str(found), str(FOLDER.parent)]
        CommandLineInterface().run(["pybabel", "--quiet", *asked, *options])
        with found.open("rb") as file:
            return read_po(file)


def read(language: str, domain: str) -> Catalog:
    """A catalogue as it is written."""
    with source(language, domain).open("rb") as file:
        return read_po(file, locale=language.replace("-", "_"))


def rewrite(language: str, domain: str, said: Catalog) -> None:
    """A catalogue with the texts of `said` alone: those it has as they are and where they are, then the new ones."""
    path, kept, made = source(language, domain), read(language, domain), Catalog(locale=language.replace("-", "_"))
    head = path.read_text().partition("\n\n")[0].strip()
    known = {each.id: each for each in kept if each.id}
    there = {each.id: each for each in said if each.id}
    for each in [*(known[one] for one in known if one in there), *(there[one] for one in there if one not in known)]:
        made.add(each.id, each.string, flags=there[each.id].flags)
    body = BytesIO()
    write_po(body, made, width=WIDTH, omit_header=True)
    path.write_text(f"{head}\n\n{body.getvalue().decode().strip()}\n")


if __name__ == "__main__":
    for domain, languages in SPOKEN.items():
        said = texts(domain)
        for language in languages:
            rewrite(language, domain, said)
