"""Browsers as they introduce themselves: user agents and User-Agent Client Hints of 2025.

Chrome's user agent is frozen but for its major version
(https://www.chromium.org/updates/ua-reduction/); the rest is in the hints.
"""

from __future__ import annotations

from random import Random
from typing import Final

import msgspec

from accessguard.demo.model import Browser

LAPTOPS: Final = ("chrome_windows_11",) * 4 + (
    "chrome_windows_10",
    "chrome_macos",
    "edge_windows_11",
    "edge_windows_11",
    "firefox_windows",
    "firefox_linux",
    "safari_macos",
    "safari_macos",
    "opera_windows",
    "chrome_chromebook",
)
PHONES: Final = (
    "chrome_pixel",
    "chrome_galaxy",
    "chrome_galaxy",
    "chrome_redmi",
    "samsung_internet",
    "safari_iphone",
    "safari_iphone",
    "safari_iphone",
    "chrome_iphone",
    "firefox_android",
)
TABLETS: Final = ("safari_ipad", "chrome_galaxy_tab")
TOOLS: Final = ("python-requests/2.32.5", "curl/8.11.1", "Go-http-client/2.0")


class Make(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of browser: its user agent with {v} for the major version, and its hints (empty: it sends none)."""

    agent: str
    version: int
    brand: str | None = None
    platform: str = ""
    platform_version: str = ""
    model: str = ""
    mobile: bool = False


KIT: Final = "AppleWebKit/537.36 (KHTML, like Gecko) "
WINDOWS: Final = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {KIT}Chrome/{{v}}.0.0.0 Safari/537.36"
MAC: Final = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) "
ANDROID: Final = f"Mozilla/5.0 (Linux; Android 10; K) {KIT}Chrome/{{v}}.0.0.0 Mobile Safari/537.36"
IOS: Final = "AppleWebKit/605.1.15 (KHTML, like Gecko) "
CHROME: Final = "Google Chrome"

MAKES: Final = {
    "chrome_windows_11": Make(agent=WINDOWS, version=142, brand=CHROME, platform="Windows", platform_version="19.0.0"),
    "chrome_windows_10": Make(agent=WINDOWS, version=142, brand=CHROME, platform="Windows", platform_version="10.0.0"),
    "chrome_macos": Make(
        agent=MAC + KIT + "Chrome/{v}.0.0.0 Safari/537.36",
        version=142,
        brand=CHROME,
        platform="macOS",
        platform_version="26.1.0",
    ),
    "edge_windows_11": Make(
        agent=WINDOWS + " Edg/{v}.0.0.0",
        version=142,
        brand="Microsoft Edge",
        platform="Windows",
        platform_version="19.0.0",
    ),
    "opera_windows": Make(
        agent=WINDOWS + " OPR/124.0.0.0", version=140, brand="Opera", platform="Windows", platform_version="19.0.0"
    ),
    "chrome_chromebook": Make(
        agent=f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {KIT}Chrome/{{v}}.0.0.0 Safari/537.36",
        version=142,
        brand=CHROME,
        platform="Chrome OS",
        platform_version="16433.41.0",
    ),
    "firefox_windows": Make(
        agent="Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:{v}.0) Gecko/20100101 Firefox/{v}.0", version=145
    ),
    "firefox_linux": Make(
        agent="Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:{v}.0) Gecko/20100101 Firefox/{v}.0", version=145
    ),
    "firefox_android": Make(
        agent="Mozilla/5.0 (Android 15; Mobile; rv:{v}.0) Gecko/{v}.0 Firefox/{v}.0", version=145, mobile=True
    ),
    "safari_macos": Make(agent=MAC + IOS + "Version/{v}.1 Safari/605.1.15", version=26),
    "safari_iphone": Make(
        agent=f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) {IOS}Version/{{v}}.1 Mobile/15E148 Safari/604.1",
        version=26,
        mobile=True,
    ),
    "safari_ipad": Make(
        agent=f"Mozilla/5.0 (iPad; CPU OS 18_7 like Mac OS X) {IOS}Version/{{v}}.1 Mobile/15E148 Safari/604.1",
        version=26,
        mobile=True,
    ),
    "chrome_iphone": Make(
        agent=f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) {IOS}CriOS/{{v}}.0.7444.77 Mobile/15E148"
        " Safari/604.1",
        version=142,
        mobile=True,
    ),
    "chrome_pixel": Make(
        agent=ANDROID,
        version=142,
        brand=CHROME,
        platform="Android",
        platform_version="16.0.0",
        model="Pixel 8",
        mobile=True,
    ),
    "chrome_galaxy": Make(
        agent=ANDROID,
        version=142,
        brand=CHROME,
        platform="Android",
        platform_version="15.0.0",
        model="SM-A546E",
        mobile=True,
    ),
    "chrome_redmi": Make(
        agent=ANDROID,
        version=141,
        brand=CHROME,
        platform="Android",
        platform_version="14.0.0",
        model="23106RN0DA",
        mobile=True,
    ),
    "samsung_internet": Make(
        agent=f"Mozilla/5.0 (Linux; Android 10; K) {KIT}SamsungBrowser/29.0 Chrome/{{v}}.0.0.0 Mobile Safari/537.36",
        version=136,
        brand="Samsung Internet",
        platform="Android",
        platform_version="15.0.0",
        model="SM-S921B",
        mobile=True,
    ),
    "chrome_galaxy_tab": Make(
        agent=f"Mozilla/5.0 (Linux; Android 10; K) {KIT}Chrome/{{v}}.0.0.0 Safari/537.36",
        version=142,
        brand=CHROME,
        platform="Android",
        platform_version="15.0.0",
        model="SM-X210",
    ),
}


def install(dice: Random, key: str, among: tuple[str, ...]) -> Browser:
    """A browser of one of the kinds named, at its present version or the one before."""
    return built(key, dice.choice(among), older=dice.random() < 0.3)


def built(key: str, kind: str, *, older: bool = False, private: bool = False) -> Browser:
    """The browser of that kind, one version back when `older`."""
    make = MAKES[kind]
    version = make.version - older
    agent = make.agent.format(v=version)
    return Browser(key=key, user_agent=agent, client_hints=_hints(make, version), private=private)


def tool(dice: Random, key: str) -> Browser:
    """A program that calls itself by its name and keeps no cookies."""
    return Browser(key=key, user_agent=dice.choice(TOOLS), client_hints={}, private=True)


def _hints(make: Make, version: int) -> dict[str, str]:
    if make.brand is None:
        return {}
    brands = f'"Chromium";v="{version}", "{make.brand}";v="{version}", "Not_A Brand";v="99"'
    return {
        "Sec-CH-UA": brands,
        "Sec-CH-UA-Mobile": "?1" if make.mobile else "?0",
        "Sec-CH-UA-Platform": f'"{make.platform}"',
        "Sec-CH-UA-Platform-Version": f'"{make.platform_version}"',
        "Sec-CH-UA-Model": f'"{make.model}"',
    }
