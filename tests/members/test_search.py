"""What is looked for, told from a text alone."""

from __future__ import annotations

import pytest

from accessguard.members.search import likes, telling, wanted


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        pytest.param("Zoë da Silva", ["%zoe%", "% da%", "%silva%"], id="a name: short words at the beginning of one"),
        pytest.param("100% _a_\\b", ["%100\\%%", "%\\_a\\_\\\\b%"], id="what LIKE would take for more than itself"),
        pytest.param("\u202e", [], id="nothing"),
    ],
)
def test_a_text_is_looked_for_as_it_is(text, patterns):
    """Each of its words is in a member's words, wherever it may stand."""
    one, other, third = likes(wanted(text, None))

    assert (list(one), list(other), list(third)) == (patterns, [], [])


def test_a_telephone_number_is_looked_for_in_three_ways():
    """As it was typed, as digits, and in the form in which all numbers are kept."""
    assert [list(each) for each in likes(wanted("(11) 95781-5919", "BR"))] == [
        ["%(11)%", "%95781-5919%"],
        ["%11957815919%"],
        ["%5511957815919%"],
    ]


@pytest.mark.parametrize(
    ("way", "asked"),
    [("ana.silva@example.com\nana", "ana.silva@\nana"), ("ana@example.com", "ana@example.com"), (" @x", " @x")],
)
def test_the_index_is_not_asked_for_what_thousands_of_addresses_share(way, asked):
    """Unless that is nearly all there is."""
    assert telling(way) == asked
