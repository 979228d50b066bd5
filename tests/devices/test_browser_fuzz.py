"""Whatever a client sends as its user agent and its hints, it is some browser, and fit to be shown."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from accessguard.devices.browser import MAX_NAME_CHARS, Browser, DeviceClass, recognise, same, tidy
from accessguard.devices.detector import answers
from accessguard.devices.refinement import Asked, Refined, Sighting, asked_of, improved, refined
from tests.devices.test_browser import CHROME, CHROME_ANDROID, FIREFOX, SAFARI_IPHONE

MANY = settings(max_examples=max(300, settings().max_examples), deadline=None)
"""A few hundred in a usual run; as many as the profile says where that is more."""
FEW = settings(max_examples=10, deadline=None)
"""Of what takes 15 ms each, and seconds to begin with."""

PIECES = (
    *("Mozilla/5.0", "(compatible; ", "Windows NT 10.0", "Android 14", "iPhone; CPU iPhone OS 18_6 like Mac OS X", "K"),
    *(
        "AppleWebKit/537.36 (KHTML, like Gecko)",
        "Chrome/142.0.0.0",
        "Mobile",
        "Safari/537.36",
        "MyApp/",
        "Dalvik/2.1.0",
    ),
    *(
        "CFNetwork/1498",
        "Darwin/23",
        "bot/1.0",
        "+http://x.example",
        "SmartTV",
        "PlayStation 5",
        "Build/",
        "; wv",
        ")",
        "(",
    ),
    *("9" * 40, "\x1b[31m", "\x00", "\x85", "\u2028", "\u202e", "\ud800", "<script>", "%s", "Version/"),
)
AGENTS = (
    st.none()
    | st.text(max_size=700)
    | st.sampled_from([CHROME, CHROME_ANDROID, FIREFOX, SAFARI_IPHONE, ""])
    | st.lists(st.sampled_from(PIECES) | st.text(max_size=12), max_size=24).map(" ".join)
)
NAMES = st.sampled_from(
    [
        *("Sec-CH-UA-Model", "Sec-CH-UA-Platform", "Sec-CH-UA-Platform-Version", "Sec-CH-UA-Mobile", "Sec-CH-UA"),
        *("sec-ch-ua", "SEC-CH-UA-MODEL", "Accept"),
    ]
)
VALUES = st.text(max_size=300) | st.text(alphabet='"\\;,=v?01. WindowsAndroid', max_size=60)
HINTS = st.none() | st.dictionaries(NAMES, VALUES, max_size=8)
SIGHTINGS = st.builds(
    Sighting,
    bot=st.just("") | st.text(max_size=100),
    kind=st.sampled_from(["", "desktop", "smartphone", "tablet", "tv", "console", "wearable", "a kind of tomorrow"]),
    model=st.text(max_size=100),
    client=st.sampled_from(["", "browser", "library", "mobile app"]),
)


def fit(browser: Browser) -> bool:
    """Whether it can be stored and shown: bounded, and every character visible."""
    texts = (browser.family, browser.os, browser.version, browser.os_version, browser.model or "", browser.name or "")
    return all(text.isprintable() and len(text) <= MAX_NAME_CHARS for text in texts) and browser.label.isprintable()


@MANY
@given(AGENTS, HINTS)
def test_no_user_agent_and_no_hint_breaks_the_first_look(text, hints):
    """Any string with any hints is some browser, and what is kept fits the database."""
    browser = recognise(text, hints)

    assert fit(browser)
    assert browser.family
    assert browser.os
    assert len(tidy(text).encode()) <= 512
    assert len(asked_of(text, hints).key) == 32


@MANY
@given(AGENTS, HINTS, SIGHTINGS, st.none() | st.booleans())
def test_nothing_that_is_told_later_changes_who_it_is(text, hints, seen, mobile):
    """The second look moves class, model and name; never family, system or version."""
    first = recognise(text, hints)

    found = improved(first, refined(first, seen, mobile=mobile))

    assert fit(found)
    assert same(first, found)
    assert (first.family, first.os, first.version, first.os_version) == (
        *(found.family, found.os, found.version, found.os_version),
    )
    assert (found.device_class is DeviceClass.BOT) >= (first.device_class is DeviceClass.BOT)


@FEW
@given(AGENTS, HINTS)
def test_the_second_look_answers_every_question_on_one_line(text, hints):
    """A string that its library stumbles over is answered with nothing, and the next one is asked."""
    asked = asked_of(text, hints)
    line = msgspec.json.encode(asked)

    (answer,) = answers([line])

    told = msgspec.json.decode(answer, type=Sighting | None)
    assert answer.count(b"\n") == line.count(b"\n") + 1 == 1
    assert msgspec.json.decode(line, type=Asked) == asked
    assert told is None or isinstance(refined(recognise(text, hints), told, mobile=None), Refined)
