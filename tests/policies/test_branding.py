"""A school's colours as they can be read, and pictures that let nothing else in."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.guard.model import Verdict
from accessguard.guard.refused import RefusedPages
from accessguard.policies.branding import Brand, brand_problems, contrast, origins, shades
from accessguard.rules.model import Code, Outcome
from accessguard.signing import MAX_SEALED_CHARS, Sealer, SigningKey

COLOURS = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")
KEYS = (SigningKey(id="s2", secret="t" * 40), SigningKey(id="s1", secret="s" * 40))


@given(COLOURS, COLOURS)
def test_every_colour_can_be_read_by_day_and_by_night(one, two):
    """Text of it on either sheet, and on it (WCAG 2.2, 1.4.3, level AA)."""
    made = shades(Brand(color_one=one, color_two=two))

    pairs = [
        (made.main, "#ffffff"),
        (made.second, "#ffffff"),
        (made.dark_main, "#1b2029"),
        (made.dark_second, "#1b2029"),
        (made.on_main, made.main),
        (made.dark_on_main, made.dark_main),
    ]
    assert min(contrast(*pair) for pair in pairs) >= 4.5


def test_a_colour_that_can_be_read_stays_as_it_is():
    """Short ones are written out."""
    assert (shades(Brand(color_one="#2456c9")).main, shades(Brand(color_one="#124")).main) == ("#2456c9", "#112244")


@pytest.mark.parametrize(
    ("url", "source"),
    [
        pytest.param("https://CDN.example:8443/a/b.svg?v=1", "https://cdn.example:8443", id="another host"),
        pytest.param("/logo.png", None, id="this host"),
    ],
)
def test_a_picture_is_named_by_its_origin_alone(url, source):
    """As a policy takes it."""
    brand = Brand(logo_url=url, favicon_url=url)

    assert list(brand_problems(brand)) == []
    assert origins(brand) == ((source,) if source else ())


@pytest.mark.parametrize(
    "url",
    [
        *("http://a.example/x", "//a.example/x", "javascript:alert(1)", "data:image/png;base64,AA", "https://"),
        *("https://a.example;script-src *", "https://a.example/ x", "https://a@b.example/x", "https://a.example\\x"),
        *("https://\u0430.example/x", "https://a.example/'", 'https://a.example/"', "/a\nb", "https://a.example/x\n"),
    ],
)
def test_a_picture_from_anywhere_else_is_refused(url):
    """Nothing that could end a directive or an attribute."""
    assert [pointer for pointer, _ in brand_problems(Brand(logo_url=url))] == ["/brand/logo_url"]
    assert origins(Brand(logo_url=url)) == ()


def test_what_is_sealed_is_read_by_every_key_and_by_nobody_else():
    """The same content gives the same text, which shows nothing of it; a changed or foreign one is none."""
    content = b"ana@example.com" * 20
    sealed = Sealer(KEYS[1:], purpose="a").seal(content)

    assert Sealer(KEYS[1:], purpose="a").seal(content) == sealed
    assert Sealer(KEYS, purpose="a").open(sealed) == content
    assert "ana" not in sealed
    for text in (sealed[:-1], sealed[:-2] + "AA", None, "", "x" * 9_000, "v1.s1.a.b.c"):
        assert Sealer(KEYS, purpose="a").open(text) is None
    assert Sealer(KEYS, purpose="b").open(sealed) is None
    assert Sealer(KEYS[:1], purpose="a").open(sealed) is None


def test_the_longest_ids_have_their_page():
    """128 characters of four bytes each, thrice."""
    long = "\U0001f469" * 128
    verdict = Verdict(
        outcome=Outcome.CHALLENGE,
        session_id=long,
        code=Code.SESSION_LIMIT,
        member_id=long,
        device_id=uuid4(),
        rule_id=uuid4(),
        violation_id=uuid4(),
        challenge_id=uuid4(),
        limit=2,
        counted=3,
        locale="x" * 35,
        time_zone="y" * 64,
    )
    pages = RefusedPages(KEYS, "https://guard.example/a/")

    url = pages.url(long, verdict, 120_500) or ""
    start, _, token = url.partition("?t=")
    found = pages.read(token, 3_720_000 - 1)

    assert (start, len(token) < MAX_SEALED_CHARS) == ("https://guard.example/a/restricted", True)
    assert found is not None
    assert (found.tenant, found.verdict(None).member_id, found.verdict(None).rule_id) == (long, long, verdict.rule_id)
    assert pages.read(token, 3_720_000) is None
    assert RefusedPages(KEYS, None).url(long, verdict, 0) is None
