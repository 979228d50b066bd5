"""Texts that schools write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.words.template import PLACEHOLDERS, filled, problems_of

VALUES: dict[str, str | None] = {
    "limit": "2",
    "counted": "3",
    "retry_at": "21 November 2026, 18:55",
    "support_email": "help@school.example",
}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("At most {limit}; write to {support_email}.", None, id="known names"),
        pytest.param("A brace {{ is written twice }}.", None, id="braces"),
        pytest.param("   ", "empty", id="empty"),
        pytest.param("Hello {name}", "{name} is not known", id="unknown name"),
        pytest.param("{limit.__class__}", "{limit.__class__} is not known", id="an attribute"),
        pytest.param("{limit[0]}", "{limit[0]} is not known", id="an item"),
        pytest.param("{limit:>99999999}", "{limit:>99999999} is not known", id="a width"),
        pytest.param("{limit!r}", "{limit!r} is not known", id="a conversion"),
        pytest.param("{}", "{} is not known", id="no name"),
        pytest.param("{limit", "a brace", id="left open"),
        pytest.param("limit}", "a brace", id="never opened"),
    ],
)
def test_a_text_may_name_four_things_and_no_more(text, problem):
    """Whatever could fail at rendering is a problem when the text is saved."""
    problems = problems_of(text)

    assert [each.startswith(problem or "") for each in problems] == ([] if problem is None else [True])


PIECES = st.lists(st.sampled_from(["{", "}", "!", ":", " ", "a", "limit", "retry_at", "{limit}", "."]), max_size=12)


@given(PIECES.map("".join))
def test_a_text_without_a_problem_can_always_be_filled_in(text):
    """Saving and rendering agree on what a text is, also where rendering meets an older text with problems."""
    found = filled(text, VALUES)

    assert (found is None) == bool(problems_of(text))


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_a_text_that_names_what_is_not_there_gives_way(name):
    """No sentence is shown with a hole in it."""
    assert filled(f"See {{{name}}}.", VALUES) == f"See {VALUES[name]}."
    assert filled(f"See {{{name}}}.", VALUES | {name: None}) is None
