"""Words by which a user agent, in lower case, gives itself away as something else than a phone or a computer.

Looked for as they are: alternatives in a regular expression cost fifty times as much.
"""

import re
from typing import Final

_TOOLS: Final = frozenset(
    {
        *("apache-httpclient", "aria2", "axios", "bruno", "curl", "faraday", "go-http-client", "go-resty", "got"),
        *("guzzlehttp", "httpie", "httpx", "hyper", "insomnia", "jakarta", "java", "jmeter", "k6", "lavf"),
        *("libwww-perl", "locust", "lwp", "node", "node-fetch", "php", "postmanruntime", "powershell", "python"),
        *("reqwest", "ruby", "superagent", "symfony", "undici", "ureq", "urllib", "wget", "xh", "youtube-dl", "yt-dlp"),
    }
)
_TOOL_WORDS: Final = (
    *("aiohttp", "crawl", "headless", "lighthouse", "phantomjs", "playwright"),
    *("puppeteer", "python-", "selenium", "spider", "webdriver"),
)
_APPS: Final = frozenset(
    {"applecoremedia", "cronet", "dalvik", "dart", "expo", "kodi", "ktor", "okhttp", "stagefright", "vlc"}
)
_APP_WORDS: Final = ("alamofire/", "cfnetwork/", "electron/", "exoplayer", "flutter", "reactnative")
_CONSOLE_WORDS: Final = ("nintendo", "playstation", "xbox")
_TELEVISION_WORDS: Final = (
    *("androidtv", "appletv", "bravia", "chromecast", "crkey", "googletv", "hbbtv", "mibox", "mitv", "netcast"),
    *("roku", "smart-tv", "smarttv", "vidaa", "viera", "web0s", "webos"),
)

_FIRST_WORD: Final = re.compile(r"[a-z0-9.-]*", re.ASCII)

# Cubot makes phones; Amazon's televisions are AFT and a few letters.
_BOT: Final = re.compile(r"(?<!cu)bot\b", re.ASCII)
_TELEVISION: Final = re.compile(r"\b(?:tv|aft[a-z0-9]+)\b", re.ASCII)


def is_tool(lowered: str) -> bool:
    """Tell a crawler, a library or a browser that a program drives."""
    named = _first_word(lowered) in _TOOLS or _holds(lowered, _TOOL_WORDS)
    return named or ("bot" in lowered and _BOT.search(lowered) is not None)


def is_app(lowered: str) -> bool:
    """Tell the libraries that apps and players call with."""
    return _first_word(lowered) in _APPS or _holds(lowered, _APP_WORDS)


def is_console(lowered: str) -> bool:
    """Tell a game console."""
    return _holds(lowered, _CONSOLE_WORDS)


def is_television(lowered: str) -> bool:
    """Tell a television, or what is plugged into one."""
    may_be = "tv" in lowered or "aft" in lowered
    return _holds(lowered, _TELEVISION_WORDS) or (may_be and _TELEVISION.search(lowered) is not None)


def _first_word(lowered: str) -> str:
    found = _FIRST_WORD.match(lowered)
    return found[0] if found else ""


def _holds(lowered: str, words: tuple[str, ...]) -> bool:
    return any(word in lowered for word in words)
