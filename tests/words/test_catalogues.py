"""The catalogues against the code and against each other."""

import re
from functools import cache
from string import Formatter

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.frontend import parse_keywords

from accessguard.console.refusals import REFUSALS
from accessguard.rules.model import Action, Activity, Code, Kind
from accessguard.words.catalogues import FOLDER, Text, say
from accessguard.words.languages import LANGUAGES
from accessguard.words.operator import ACTIONS, ACTIVITIES, CASES, COUNTED
from accessguard.words.student import SAID
from tests.words.gather import SPOKEN, read, texts

FORMS = {"en": 2, "it": 2, "pt-BR": 2, "es": 2, "ru": 3, "uk": 3}
CATALOGUES = [
    pytest.param(language, domain, id=f"{domain} {language}")
    for domain, languages in SPOKEN.items()
    for language in languages
]
TRANSLATED = [each for each in CATALOGUES if each.values[0] != "en"]

# A word that a language shares with English, or a name.
SHARED = {
    "it": {"app", "computer", "password", "tablet"},
    "pt-BR": {"Webhooks", "tablet"},
    "es": {"Webhooks"},
    "ru": set(),
    "uk": set(),
}


def ids(catalog: Catalog) -> set[str | tuple[str, ...]]:
    """What a catalogue translates."""
    return {each.id if isinstance(each.id, str) else tuple(each.id) for each in catalog if each.id}


@cache
def marked(domain: str) -> set[str | tuple[str, ...]]:
    """The texts of the code."""
    return ids(texts(domain))


def names(text: str) -> list[str]:
    """What a text has in braces or behind a percent sign, in the order of the alphabet."""
    braced = [name for _, name, _, _ in Formatter().parse(text) if name is not None]
    return sorted(braced + re.findall(r"%\([a-z_]+\)[sd]", text))


@pytest.mark.parametrize(("language", "domain"), CATALOGUES)
def test_a_catalogue_has_every_text_of_the_code_and_no_other(language, domain):
    """Nothing is missing, nothing is left over from texts that are gone: `make words` gathers them."""
    catalog = read(language, domain)

    assert len(marked(domain)) > 100
    assert ids(catalog) == marked(domain)
    assert not catalog.obsolete


@pytest.mark.parametrize(("language", "domain"), CATALOGUES)
def test_every_text_is_translated_and_nothing_is_a_guess(language, domain):
    """Each form of each text is there; none is marked fuzzy."""
    texts = [each for each in read(language, domain) if each.id]

    assert not [each.id for each in texts if each.fuzzy]
    assert not [each.id for each in texts if not all(form.strip() for form in forms(each.string))]


@pytest.mark.parametrize(("language", "domain"), CATALOGUES)
def test_a_translation_names_what_its_source_names(language, domain):
    """Each form has the same placeholders, so rendering cannot fail and no number gets lost."""
    differing = [
        (each.id, form)
        for each in read(language, domain)
        if each.id
        for form in forms(each.string)
        if names(form) != names(each.id if isinstance(each.id, str) else each.id[0])
    ]

    assert not differing


@pytest.mark.parametrize(("language", "domain"), CATALOGUES)
def test_a_plural_has_as_many_forms_as_the_language(language, domain):
    """English and the Romance languages have two, Russian and Ukrainian three."""
    catalog = read(language, domain)

    counts = {len(forms(each.string)) for each in catalog if each.id and each.pluralizable}

    assert catalog.num_plurals == FORMS[language]
    assert counts == {FORMS[language]}


@pytest.mark.parametrize(("language", "domain"), TRANSLATED)
def test_no_text_was_left_in_english(language, domain):
    """A translation says something else than its source, but for words that both languages have."""
    same = {each.id for each in read(language, domain) if each.id and forms(each.string) == forms(each.id)}

    assert not same - SHARED[language]


def test_what_operators_are_refused_with_is_what_the_code_says():
    """A refusal that is worded anew elsewhere would be said in English from then on."""
    found = extract_from_dir(FOLDER.parent, [("**.py", "python")], keywords=parse_keywords(["GuardError:2"]))

    assert set(REFUSALS) <= {text for _, _, text, _, _ in found}


def test_the_folders_are_the_languages():
    """Every catalogue belongs to one of the six languages, and the other way round."""
    found = {each.parent.parent.name for each in FOLDER.glob("*/LC_MESSAGES/*.po")}

    assert found == {each.replace("-", "_") for each in LANGUAGES}


def test_every_word_of_the_rules_has_its_text():
    """A code, a kind, an action or an activity without words would be found here, not by a student."""
    assert set(SAID) >= set(Code)
    assert set(CASES) >= set(Code)
    assert set(COUNTED) | {"impossible_travel", "copied_session"} >= set(Kind)
    assert set(ACTIONS) >= set(Action)
    assert set(ACTIVITIES) == set(Activity)


@pytest.mark.parametrize(
    ("language", "number", "text"),
    [
        pytest.param("en", 1, "1 new device, 2 allowed", id="English one"),
        pytest.param("en", 0, "0 new devices, 2 allowed", id="English none"),
        pytest.param("it", 1, "1 dispositivo nuovo, consentiti: 2", id="Italian one"),
        pytest.param("pt-BR", 0, "0 dispositivo novo, permitidos: 2", id="Brazilian none is singular"),
        pytest.param("es", 3, "3 dispositivos nuevos, permitidos: 2", id="Spanish three"),
        pytest.param("ru", 1, "1 новое устройство, разрешено: 2", id="Russian one"),
        pytest.param("ru", 3, "3 новых устройства, разрешено: 2", id="Russian few"),
        pytest.param("ru", 5, "5 новых устройств, разрешено: 2", id="Russian many"),
        pytest.param("ru", 11, "11 новых устройств, разрешено: 2", id="Russian eleven"),
        pytest.param("ru", 21, "21 новое устройство, разрешено: 2", id="Russian twenty-one"),
        pytest.param("uk", 2, "2 нові пристрої, дозволено: 2", id="Ukrainian few"),
        pytest.param("uk", 14, "14 нових пристроїв, дозволено: 2", id="Ukrainian fourteen"),
        pytest.param("uk", 101, "101 новий пристрій, дозволено: 2", id="Ukrainian a hundred and one"),
    ],
)
def test_a_number_chooses_its_form(language, number, text):
    """The rule of each language decides, as CLDR has it."""
    phrase = Text("{counted} new device, {limit} allowed", "{counted} new devices, {limit} allowed")

    assert say(language, phrase, {"counted": number, "limit": 2}, number=number) == text


def forms(text: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    """A text's forms: one when it has no plural, an empty one when it is not there."""
    return (text or "",) if text is None or isinstance(text, str) else tuple(text)
