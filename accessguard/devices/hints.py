"""User-Agent Client Hints: what the frozen user agent string no longer says.

https://wicg.github.io/ua-client-hints/ , values as structured fields (RFC 8941).
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

# The longest real one, a list of brands, is about 150 characters.
MAX_HINT_CHARS: Final = 256

MODEL: Final = "sec-ch-ua-model"
PLATFORM: Final = "sec-ch-ua-platform"
PLATFORM_VERSION: Final = "sec-ch-ua-platform-version"
MOBILE: Final = "sec-ch-ua-mobile"
BRANDS: Final = "sec-ch-ua"
FORM_FACTORS: Final = "sec-ch-ua-form-factors"
# No hint by its name, but one by what it says: the app whose web view this is, on Android.
PACKAGE: Final = "x-requested-with"
READ: Final = frozenset({MODEL, PLATFORM, PLATFORM_VERSION, MOBILE, BRANDS, FORM_FACTORS, PACKAGE})

# https://wicg.github.io/responsive-image-client-hints/ , the names of today and those before them.
VIEWPORT: Final = ("sec-ch-viewport-width", "viewport-width")
DENSITY: Final = ("sec-ch-dpr", "dpr")
SCREEN: Final = frozenset({*VIEWPORT, *DENSITY})

# The platforms of section 3.8, by ua-parser's names of them.
_PLATFORMS: Final = {
    "Android": "Android",
    "Chrome OS": "Chrome OS",
    "Chromium OS": "Chrome OS",
    "iOS": "iOS",
    "Linux": "Linux",
    "macOS": "Mac OS X",
    "Windows": "Windows",
}

# Brands whose user agent string may be Chrome's to the letter, by ua-parser's names of them.
_DISGUISED: Final = {
    "Android WebView": "Chrome Mobile WebView",
    "Brave": "Brave",
    "DuckDuckGo": "DuckDuckGo",
    "HeadlessChrome": "HeadlessChrome",
    "Microsoft Edge": "Edge",
    "Opera": "Opera",
    "Opera GX": "Opera",
    "Samsung Internet": "Samsung Internet",
    "Vivaldi": "Vivaldi",
    "Yandex": "Yandex Browser",
}

_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_BRAND: Final = re.compile(r'"((?:[^"\\]|\\.)*)"\s*;\s*v="([^"\\]*)"', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_WIDTH: Final = re.compile(r"[1-9]\d{1,4}", re.ASCII)
_DENSITY: Final = re.compile(r"\d{1,2}(?:\.\d{1,8})?", re.ASCII)
_NUMBERS: Final = re.compile(r"(\d{1,6})(?:\.(\d{1,6}))?[\d.]{0,24}", re.ASCII)

# Sec-CH-UA-Platform-Version counts Windows by its API contract: 13 and above is Windows 11, 1 to 12 is Windows 10.
_WINDOWS_11: Final = 13
_OLDER_WINDOWS: Final = {"0.1": "7", "0.2": "8", "0.3": "8.1"}


def plain(name: str) -> str:
    """A header's name as it is read here: gateways hand `HTTP_SEC_CH_UA_MODEL` on for `Sec-CH-UA-Model`."""
    return name.lower().replace("_", "-").removeprefix("http-")


def kept(hints: Mapping[str, str] | None) -> dict[str, str] | None:
    """The hints that are read, as far as they are read: what is stored of them until a login is finished."""
    if hints is None:
        return None
    return {
        name: text[:MAX_HINT_CHARS].replace("\0", "") for name, text in hints.items() if plain(name) in READ | SCREEN
    }


def screen(hints: Mapping[str, str] | None, *, handheld: bool) -> str | None:
    """What the hints say of a screen, in 12 characters at most: "412@2.63"; None when they say nothing.

    The width of the page (CSS pixels) only where a window fills the screen, on
    phones and tablets; the pixel density everywhere. Malformed ones are left out.
    """
    values = {plain(name): text.strip() for name, text in (hints or {}).items() if plain(name) in SCREEN}
    width = next((values[name] for name in VIEWPORT if _WIDTH.fullmatch(values.get(name, ""))), "") if handheld else ""
    density = next((values[name] for name in DENSITY if _DENSITY.fullmatch(values.get(name, ""))), "")
    shown = f"{float(density):.2f}".rstrip("0").rstrip(".") if density else ""
    return "@".join(filter(None, (width, shown))) or None


class Hints(msgspec.Struct, frozen=True, kw_only=True):
    """What the hints say; None where they say nothing.

    `os` and `brand` are families as ua-parser names them, `mobile` whether the
    browser asks for pages for phones.
    """

    model: str | None = None
    os: str | None = None
    os_version: str | None = None
    mobile: bool | None = None
    brand: str | None = None
    brand_version: str | None = None


NO_HINTS: Final = Hints()


def read_hints(values: Mapping[str, str]) -> Hints:
    """Read hints from their headers, by names in lower case; what is malformed says nothing."""
    os = _PLATFORMS.get(_string(values.get(PLATFORM)) or "")
    brand, brand_version = _brand(values.get(BRANDS, ""))
    return Hints(
        model=_string(values.get(MODEL)),
        os=os,
        os_version=_os_version(os, _string(values.get(PLATFORM_VERSION))),
        mobile={"?1": True, "?0": False}.get(values.get(MOBILE, "").strip()),
        brand=brand,
        brand_version=brand_version,
    )


def short_version(*numbers: str | None) -> str:
    """Write a version as people read it: major and minor, the minor only when it is not 0."""
    major, minor = (*numbers, None, None)[:2]
    return f"{major}.{minor}" if major and minor and minor != "0" else major or ""


def _string(value: str | None) -> str | None:
    """Unquote a string; one that was sent without quotes stands for itself."""
    bare = (value or "").strip()
    if quoted := _QUOTED.fullmatch(bare):
        bare = _ESCAPED.sub(r"\1", quoted[1]).strip()
    return bare if bare and bare.isprintable() else None


def _os_version(os: str | None, version: str | None) -> str | None:
    numbers = _NUMBERS.fullmatch(version or "")
    if numbers is None:
        return None
    short = short_version(numbers[1], numbers[2])
    if os != "Windows":
        return short
    return _OLDER_WINDOWS.get(short) if numbers[1] == "0" else "11" if int(numbers[1]) >= _WINDOWS_11 else "10"


def _brand(brands: str) -> tuple[str | None, str | None]:
    named = [(_DISGUISED[brand], version) for brand, version in _BRAND.findall(brands) if brand in _DISGUISED]
    if not named:
        return None, None
    family, version = named[0]
    numbers = _NUMBERS.fullmatch(version)
    return family, short_version(numbers[1], numbers[2]) if numbers else None
