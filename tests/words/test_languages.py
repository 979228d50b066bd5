"""Which language is spoken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.words.languages import LANGUAGES, LONGEST_HEADER, accepted, chosen


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        pytest.param(None, (), id="no header"),
        pytest.param("", (), id="empty"),
        pytest.param("it", ("it",), id="one"),
        pytest.param("en;q=0.5, it, ru;q=0.8", ("it", "ru", "en"), id="by weight"),
        pytest.param("uk, ru", ("uk", "ru"), id="equal weights keep their order"),
        pytest.param("it;q=0, es;q=0.1", ("es",), id="a weight of nothing is a no"),
        pytest.param("*, es;q=0.5", ("es",), id="anything names nothing"),
        pytest.param("it ; q=0.2 ,pt-br;Q=0.9", ("pt-br", "it"), id="spaces and capitals"),
        pytest.param("it;q=x, es;q=2, ;, -, ru;q=nan, uk", ("uk",), id="malformed parts are passed over"),
        pytest.param("it" + " " * LONGEST_HEADER, (), id="too long to be a wish"),
    ],
)
def test_a_header_gives_its_tags_the_dearest_first(header, tags):
    """RFC 9110, 12.5.4: weights order, a weight of 0 excludes."""
    assert accepted(header) == tags


@given(st.text(max_size=200))
def test_no_header_is_an_error(header):
    """A browser may send what it likes; an answer there always is."""
    assert chosen(accepted(header)) in LANGUAGES


@pytest.mark.parametrize(
    ("wanted", "offered", "language"),
    [
        pytest.param((), (), "en", id="nobody said anything"),
        pytest.param(("de", "fr"), (), "en", id="nothing that is there"),
        pytest.param(("de", "uk"), (), "uk", id="the first that is there"),
        pytest.param(("it-CH",), (), "it", id="without its region"),
        pytest.param(("pt",), (), "pt-BR", id="a region for a bare language"),
        pytest.param(("pt-PT",), (), "pt-BR", id="the nearest region"),
        pytest.param(("PT_br",), (), "pt-BR", id="as a platform may write it"),
        pytest.param(("ru",), ("it", "es"), "it", id="a school that does not speak it: the school's first"),
        pytest.param(("ru", "es-MX"), ("it", "es"), "es", id="a school that speaks the second"),
    ],
)
def test_a_language_is_chosen_from_those_offered(wanted, offered, language):
    """The first wish that can be met; else the first on offer."""
    assert chosen(wanted, offered) == language
