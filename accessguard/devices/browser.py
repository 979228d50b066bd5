"""Which browser, on which system, on what kind of device: from the user agent and its Client Hints."""

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import cache, lru_cache
from typing import Final

import msgspec
from ua_parser import load_lazy_builtins
from ua_parser.regex import Resolver
from user_agents.parsers import UserAgent, parse_browser, parse_device, parse_operating_system

from accessguard.devices.hints import MAX_HINT_CHARS, NO_HINTS, READ, Hints, plain, read_hints, short_version
from accessguard.devices.words import (
    is_app,
    is_bare,
    is_box,
    is_browser_too,
    is_chore,
    is_console,
    is_runtime,
    is_television,
    is_tool,
)

# The database keeps as much; real ones end before 300.
MAX_USER_AGENT_BYTES: Final = 512

# A school of 100,000 sends a few thousand distinct strings a day; about 20 MB when full.
REMEMBERED: Final = 20_000

# Of a name that a user agent or a hint gives; the longest real model is below 40.
MAX_NAME_CHARS: Final = 64

UNKNOWN: Final = "Other"

_NAMED: Final = re.compile(
    r"(?!Mozilla/|Opera/)([^/();\x00-\x1f\x7f]{1,64})(?:/(?:v?(\d{1,9})(?:\.(\d{1,9}))?)?|\Z)", re.ASCII
)
# Where ua-parser has a family for each form of one browser.
_FORMS: Final = {
    "Chrome Mobile": "Chrome",
    "Chrome Mobile iOS": "Chrome",
    "Edge Mobile": "Edge",
    "Firefox Mobile": "Firefox",
    "Firefox iOS": "Firefox",
    "Mobile Safari": "Safari",
    "Opera Mobile": "Opera",
}

# What ua-parser calls a program that it has no name for: the engine or the system that carries it.
_CARRIERS: Final = frozenset({UNKNOWN, "Android", "CFNetwork", "Mobile Safari UI/WKWebView"})

# Brands that only hints tell from Chrome; a request without hints comes from the same browser.
_AS_CHROME: Final = frozenset({"Brave", "DuckDuckGo", "Vivaldi"})

# The systems that apps are made for; the name before their brackets is the app's own.
_APP_SYSTEMS: Final = frozenset({"Android", "iOS", "Linux", "Mac OS X", "Windows"})

# What ua-parser calls a model when it knows none.
_NO_MODEL: Final = frozenset({"Smartphone", "Feature Phone", "Tablet", "iOS-Device", "Browser", "Desktop", "Mac", "K"})

_SHOWN: Final = {
    **_FORMS,
    "Chrome Mobile WebView": "Web view",
    "Mac OS X": "macOS",
    "Mobile Safari UI/WKWebView": "Web view",
    "Web0S": "webOS",
}


class DeviceClass(StrEnum):
    """What kind of device it is, as rules apply to it."""

    DESKTOP = "desktop"
    MOBILE = "mobile"
    TABLET = "tablet"
    TV = "tv"
    CONSOLE = "console"
    BOT = "bot"
    APP = "app"
    UNKNOWN = "unknown"


class Named(msgspec.Struct, frozen=True, gc=False):
    """A browser or a system as ua-parser names it; its own classes cost more than its parsing."""

    family: str = UNKNOWN
    major: str | None = None
    minor: str | None = None


class Made(msgspec.Struct, frozen=True, gc=False):
    """A device as ua-parser names it."""

    family: str = UNKNOWN
    brand: str | None = None
    model: str | None = None


class Parsed(msgspec.Struct, frozen=True, gc=False):
    """All that ua-parser says of one string."""

    user_agent: Named
    os: Named
    device: Made


_NAMELESS: Final = Named()
_NOTHING: Final = Made()
_PROGRAMS: Final = frozenset({DeviceClass.APP, DeviceClass.BOT})


class Browser(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One browser as it presents itself.

    `family` and `os` are ua-parser's families ("Mobile Safari", "Mac OS X"),
    "Other" when unknown; for an app, `family` is the name it gives itself. The
    two versions are for people to read, "" when unknown, and take no part in
    identity. `model` is None where there is none to tell. `name` is what a bot
    is called by who looked twice; it is shown, and never compared.
    """

    family: str
    os: str
    version: str
    os_version: str
    device_class: DeviceClass
    model: str | None
    name: str | None = None

    @property
    def label(self) -> str:
        """Name the browser for a person: "Chrome on Windows"."""
        if self.name is not None:
            return self.name
        console = self.model if self.device_class is DeviceClass.CONSOLE and self.os == UNKNOWN else None
        known = [_SHOWN.get(name, name) for name in (self.family, console or self.os) if name != UNKNOWN]
        return " on ".join(dict.fromkeys(known)) or "Unknown browser"


def tidy(user_agent: str | None) -> str:
    """Cut a user agent to what is kept of it: no NUL, 512 bytes of UTF-8 at most, no broken character."""
    text = user_agent or ""
    if text.isascii() and len(text) <= MAX_USER_AGENT_BYTES and "\0" not in text:
        return text
    return text.replace("\0", "").encode("utf-8", "replace")[:MAX_USER_AGENT_BYTES].decode("utf-8", "ignore")


def recognise(user_agent: str | None, hints: Mapping[str, str] | None = None) -> Browser:
    """Tell browser, system and device apart; hints, where sent, win over the string.

    `hints` are Client Hints by header name, in any case; other headers are not
    looked at. Parsed once per distinct string and hints. Never raises: what is
    not understood is "Other" and `unknown`. Where a string cannot tell, it is
    believed: an iPad that asks for desktop pages is a Mac.
    """
    return _recognised(tidy(user_agent), relevant(hints) if hints else ())


def same(one: Browser, other: Browser) -> bool:
    """Tell whether two sightings may be of one browser on one system.

    Families only: a version or a model never counts, nor the phone form of a
    browser against its desktop form, nor a brand that only hints reveal. A
    web view inside an app has cookies of its own and is another browser.
    """
    return one.os == other.os and kin(one.family) == kin(other.family)


def kin(family: str) -> str:
    """The family that a browser's forms and disguises have in common."""
    return "Chrome" if family in _AS_CHROME else _FORMS.get(family, family)


def shown(text: str) -> str:
    """Make a text fit to be shown: at most 64 characters, each of them visible or a space."""
    if not text.isprintable():
        text = "".join(character for character in text if character.isprintable())
    return text[:MAX_NAME_CHARS].strip()


def relevant(hints: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Pick the hints that are read, in one order, for the cache."""
    named = ((plain(name), value) for name, value in hints.items())
    return tuple(sorted((name, value[:MAX_HINT_CHARS]) for name, value in named if name in READ))


@lru_cache(maxsize=REMEMBERED)
def _recognised(text: str, hints: tuple[tuple[str, str], ...]) -> Browser:
    parsed = _parsed(text)
    hinted = read_hints(dict(hints)) if hints else NO_HINTS
    device_class = _device_class(text, parsed, hinted)
    family, version = _family(text, parsed, hinted, device_class)
    return Browser(
        family=shown(family) or UNKNOWN,
        os=shown(_os(parsed, hinted)) or UNKNOWN,
        version=shown(version),
        os_version=shown(hinted.os_version or short_version(parsed.os.major, parsed.os.minor)),
        device_class=device_class,
        model=shown(_model(parsed, hinted, device_class) or "") or None,
    )


def _parsed(text: str) -> Parsed:
    """Ask the three extractors themselves; the resolver's flags around them cost more than they do."""
    resolver = _resolver()
    browser, os, device = resolver.ua.extract(text), resolver.os.extract(text), resolver.de.extract(text)
    return Parsed(
        Named(browser.family, browser.major, browser.minor) if browser else _NAMELESS,
        Named(os.family, os.major, os.minor) if os else _NAMELESS,
        Made(device.family, device.brand, device.model) if device else _NOTHING,
    )


@cache
def _resolver() -> Resolver:
    """Load ua-parser's matchers into its native resolver, once a process: 0.3 s and 27 MB."""
    return Resolver(load_lazy_builtins())


def _family(text: str, parsed: Parsed, hinted: Hints, device_class: DeviceClass) -> tuple[str, str]:
    """Choose family and version; a program that ua-parser does not know goes by the name it gives itself."""
    found = parsed.user_agent
    program = device_class in _PROGRAMS or is_runtime(text[:16].lower())
    if program and found.family in _CARRIERS and (named := _NAMED.match(text)):
        return named[1].strip() or UNKNOWN, short_version(named[2], named[3])
    if hinted.brand and kin(found.family) == "Chrome":
        return hinted.brand, hinted.brand_version or ""
    if device_class is DeviceClass.CONSOLE and found.family == "Apple Mail":  # WebKit, with no browser named
        return UNKNOWN, ""
    return found.family, short_version(found.major, found.minor)


def _os(parsed: Parsed, hinted: Hints) -> str:
    """Choose the system; a Linux that names its distribution keeps it."""
    family = parsed.os.family
    if hinted.os == "Linux" and family not in {*_APP_SYSTEMS, UNKNOWN}:
        return family
    return hinted.os or family


def _model(parsed: Parsed, hinted: Hints, device_class: DeviceClass) -> str | None:
    """Choose the model; a console's is its whole name, and a television with Amazon's browser is no Kindle."""
    console = device_class is DeviceClass.CONSOLE and parsed.device.family != UNKNOWN
    model = hinted.model or (parsed.device.family if console else parsed.device.model)
    if device_class is DeviceClass.BOT or model is None or model in _NO_MODEL:
        return None
    return None if (device_class, model) == (DeviceClass.TV, "Kindle") else model


def _device_class(text: str, parsed: Parsed, hinted: Hints) -> DeviceClass:
    lowered = text.lower()
    if parsed.device.family == "Spider" or hinted.brand == "HeadlessChrome" or is_tool(lowered):
        return DeviceClass.BOT
    if is_console(lowered):
        return DeviceClass.CONSOLE
    if is_app(lowered) or _is_own_app(text, lowered, parsed):
        return DeviceClass.APP
    if is_television(lowered) or is_television((hinted.model or "").lower()) or parsed.device.brand == "Generic_Inettv":
        return DeviceClass.TV
    found = _form(text, parsed, hinted)
    if found is DeviceClass.TABLET and is_box(hinted.model or parsed.device.model or ""):
        return DeviceClass.TV
    nameless = parsed.os.family == UNKNOWN and parsed.device.brand in {None, "Generic"}
    chore = nameless and found in {DeviceClass.UNKNOWN, DeviceClass.MOBILE} and (is_chore(lowered) or is_bare(text))
    return DeviceClass.BOT if chore else found


def _is_own_app(text: str, lowered: str, parsed: Parsed) -> bool:
    """Tell an app that writes its own user agent, such as `MyApp/3.2 (iPhone15,2; iOS 17.5)`."""
    named = _NAMED.match(text)
    if named is None or named[0] == named[1] or parsed.os.family not in _APP_SYSTEMS:
        return False
    return not (is_runtime(lowered) or is_browser_too(lowered))


def _form(text: str, parsed: Parsed, hinted: Hints) -> DeviceClass:
    """Tell phone, tablet and desktop apart in the terms of `user-agents`."""
    android = (hinted.os or parsed.os.family) == "Android"
    if hinted.mobile or (
        hinted.mobile is None and android and "Mobile" in text and "Tablet" not in parsed.device.family
    ):
        return DeviceClass.MOBILE
    if android and (parsed.user_agent.family == "Opera Mini" or is_runtime(text[:16].lower())):
        return DeviceClass.MOBILE
    if android:
        return DeviceClass.TABLET
    terms = _terms(text, parsed)
    if terms.is_tablet:
        return DeviceClass.TABLET
    if terms.is_mobile or parsed.os.family == "KaiOS":
        return DeviceClass.MOBILE
    return DeviceClass.DESKTOP if terms.is_pc or hinted.mobile is False else DeviceClass.UNKNOWN


def _terms(text: str, parsed: Parsed) -> UserAgent:
    """Build what `user_agents.parse` would, on a string that is already parsed: its own parser takes 30 times as long."""
    terms = UserAgent.__new__(UserAgent)
    terms.ua_string = text
    terms.browser = parse_browser(parsed.user_agent.family, parsed.user_agent.major, parsed.user_agent.minor)
    terms.os = parse_operating_system(parsed.os.family, parsed.os.major, parsed.os.minor)
    terms.device = parse_device(parsed.device.family, parsed.device.brand, parsed.device.model)
    return terms
