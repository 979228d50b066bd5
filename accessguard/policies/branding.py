"""How a school looks: its two colours, logo, icon; made readable on paper and in the dark. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Final, TypeAlias
from urllib.parse import urlsplit

import msgspec

Color: TypeAlias = Annotated[str, msgspec.Meta(pattern="^#([0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})$(?!\\n)")]
Picture: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
RGB: TypeAlias = tuple[int, int, int]

# Nothing that could end a directive of a Content Security Policy or an attribute, even if somebody forgot to escape it.
ADDRESS: Final = re.compile(r"https://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&()*+,;=:@%/?-]*)?", re.ASCII)
PATH: Final = re.compile(r"/(?!/)[A-Za-z0-9._~!$&()*+,;=:@%/?-]*", re.ASCII)

MAIN: Final = "#2456c9"
SECOND: Final = "#0f766e"
LIGHT: Final = (255, 255, 255)
DARK: Final = (27, 32, 41)
"""The sheets that words stand on, by day and by night."""
ENOUGH: Final = 4.5
"""The contrast of text to what it stands on (WCAG 2.2, 1.4.3, level AA)."""
STEPS: Final = 32


class Brand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the student's page wears; None for what the school does not say.

    The two pictures are https addresses, or paths on the host that the page is on.
    """

    color_one: Color | None = None
    color_two: Color | None = None
    logo_url: Picture | None = None
    favicon_url: Picture | None = None
    copyright: Annotated[str, msgspec.Meta(max_length=200)] | None = None


class Shades(msgspec.Struct, frozen=True, kw_only=True):
    """A brand's colours as they can be read, each `#rrggbb`; `on_main` stands on `main`. The same for the dark."""

    main: str
    on_main: str
    second: str
    dark_main: str
    dark_on_main: str
    dark_second: str


def brand_problems(brand: Brand) -> Iterator[tuple[str, str]]:
    """What cannot be used: a pointer into the settings, and why."""
    for name, url in (("logo_url", brand.logo_url), ("favicon_url", brand.favicon_url)):
        if url is not None and not _fetchable(url):
            yield (
                f"/brand/{name}",
                "an address that begins with https://, or a path of this service's host that begins with one /",
            )
    if brand.copyright is not None and not brand.copyright.isprintable():
        yield "/brand/copyright", "is one line of text"


def origins(brand: Brand) -> tuple[str, ...]:
    """Where the pictures come from, as a Content Security Policy names it; not this service's own host."""
    urls = (url for url in (brand.logo_url, brand.favicon_url) if url is not None and ADDRESS.fullmatch(url))
    return tuple(dict.fromkeys(f"https://{urlsplit(url).netloc.lower()}" for url in urls))


@lru_cache(maxsize=1_024)
def shades(brand: Brand) -> Shades:
    """The school's colours, each moved as far as it takes to be read on both sheets."""
    one, two = _rgb(brand.color_one or MAIN), _rgb(brand.color_two or brand.color_one or SECOND)
    main, dark = _readable(one, LIGHT), _readable(one, DARK)
    return Shades(
        main=_hex(main),
        on_main=_hex(_over(main)),
        second=_hex(_readable(two, LIGHT)),
        dark_main=_hex(dark),
        dark_on_main=_hex(_over(dark)),
        dark_second=_hex(_readable(two, DARK)),
    )


def contrast(one: str, two: str) -> float:
    """The contrast ratio of two colours `#rrggbb`, 1 to 21 (WCAG 2.2, "contrast ratio")."""
    return _contrast(_rgb(one), _rgb(two))


def _fetchable(url: str) -> bool:
    return (ADDRESS.fullmatch(url) or PATH.fullmatch(url)) is not None


def _readable(color: RGB, paper: RGB) -> RGB:
    """The colour, mixed with black or white until it can be read on the paper."""
    end = (0, 0, 0) if _light(paper) > 0.5 else (255, 255, 255)
    mixed = (_mixed(color, end, step / STEPS) for step in range(STEPS + 1))
    return next(each for each in mixed if _contrast(each, paper) >= ENOUGH)


def _over(color: RGB) -> RGB:
    """What is read best on it."""
    return max(((255, 255, 255), (13, 17, 28)), key=lambda each: _contrast(each, color))


def _mixed(one: RGB, two: RGB, share: float) -> RGB:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, two, strict=True))
    return red, green, blue


def _contrast(one: RGB, two: RGB) -> float:
    dark, light = sorted((_light(one), _light(two)))
    return (light + 0.05) / (dark + 0.05)


def _light(color: RGB) -> float:
    """Relative luminance (WCAG 2.2), 0 for black, 1 for white."""
    red, green, blue = (_linear(each / 255) for each in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)


def _rgb(color: str) -> RGB:
    digits = color.lstrip("#")
    whole = "".join(each * 2 for each in digits) if len(digits) == 3 else digits
    return int(whole[:2], 16), int(whole[2:4], 16), int(whole[4:], 16)


def _hex(color: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
