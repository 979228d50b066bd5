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
# What a longer name of a tool is put together from: `php-curl-class`, `libcurl-agent`, `my.http.client`.
_TOOL_PARTS: Final = frozenset(
    (
        *("api", "callout", "curl", "feed", "feeds", "http", "httpclient"),
        *("libcurl", "lwp", "perl", "php", "python", "ruby", "wget"),
    )
)
# Crawlers say where to complain: "+http" stands in no browser's string.
_TOOL_WORDS: Final = (
    *("+http", "+ http", "-agent)", "-agent;", "-google", "/scan", "aiohttp", "crawl", "fetcher", "headless"),
    *("httpagent", "httpclient", "httrack", "insights", "lighthouse", "linkcheck", "masscan"),
    *(
        "monitoring",
        "nikto",
        "openvas",
        "phantomjs",
        "playwright",
        "preview-",
        "puppeteer",
        "python-",
        "scan/",
        "scan)",
    ),
    *("scanner", "scanning", "scraper", "scraping", "screenshot", "selenium", "spider", "sqlmap", "synthetic"),
    *("verify/", "web preview", "webdriver", "zgrab"),
)
# No browser of today names a site. Those of twenty years ago did, and feed readers do.
_OF_TODAY: Final = ("chrome/", "firefox/")
_PLACES: Final = ("://", "www.")
# In a string that names neither engine nor system these words tell a program; in a browser's they may be anything.
_CHORES: Final = (
    *("agent", "archiv", "capture", "check", "connector", "copier", "daemon", "download", "extract"),
    *("feed", "fetch", "generator", "hook", "http", "import", "index", "link", "metadata", "monitor"),
    *("parser", "ping", "preview", "probe", "proxy", "reader", "rss", "scan", "search", "seo", "test"),
    *("ua/", "uptime", "url", "validat", "verif", "www."),
)
_ENGINES: Final = (
    "applewebkit",
    "gecko/",
    "khtml",
    "konqueror",
    "msie ",
    "netfront",
    "opera",
    "presto",
    "trident",
    "browser",
)
_APPS: Final = frozenset({"applecoremedia", "cronet", "dart", "expo", "kodi", "ktor", "okhttp", "stagefright", "vlc"})
# Not an app's name but that of what Android runs apps in, on phones, tablets and televisions alike.
_RUNTIME: Final = "dalvik/"
_APP_WORDS: Final = ("alamofire/", "cfnetwork/", "electron/", "exoplayer", "flutter", "reactnative")
_CONSOLE_WORDS: Final = ("nintendo", "playstation", "xbox")
_TELEVISION_WORDS: Final = (
    *("androidtv", "appletv", "bravia", "chromecast", "crkey", "googletv", "hbbtv", "mibox", "mitv", "netcast"),
    *("roku", "smart-tv", "smarttv", "vidaa", "viera", "web0s", "webos"),
)

# With no engine and no system after it, this is how programs pass for a browser.
_PRETENDER: Final = re.compile(r"mozilla/\d\.\d (?:\((?:compatible; |[a-z-]+\))|[a-z])")
# A name and nothing else, neither version nor system. Old phones that did so have a number in their names; a word in
# small letters may be anything.
_BARE: Final = re.compile(r"(?=.*[A-Z /_-])[^0-9]{4,}", re.ASCII)
# Who has a remark to make between an engine's brackets is no browser.
_REMARK: Final = re.compile(r"khtml, like gecko(?:;|, (?!safari)[a-z]+\))")
_FIRST_WORD: Final = re.compile(r"[a-z0-9.-]*", re.ASCII)

# Cubot makes phones, and others sell a "C Bot Tab 70"; Amazon's televisions are AFT and a few letters.
_BOT: Final = re.compile(r"(?<!cu)(?<=[a-z0-9_.!-])bot\b|\bbot(?:[/@+;)\]]|\Z)", re.ASCII)
_MAIL: Final = re.compile(r"[a-z0-9._-]@[a-z0-9-]+\.[a-z]{2,}", re.ASCII)
# Whoever names a site to ask at is no browser (an app may be called after one, and begins with it); nor is who calls itself compatible, since Internet Explorer went.
_SITE: Final = re.compile(r"(?<![a-z0-9.-])[a-z0-9-]{3,}\.(?:com?|net|org|io|ai)(?![a-z0-9.-])", re.ASCII)
_ENDINGS: Final = (".co", ".net", ".org", ".io", ".ai")
_COMPATIBLE: Final = re.compile(r"(?:gecko|\)); ?compatible;|gecko\) \(compatible;", re.ASCII)
_PARTS: Final = re.compile(r"[-_./ ]+")
_TELEVISION: Final = re.compile(r"\b(?:tv|aft[a-z0-9]+)\b", re.ASCII)


def is_tool(lowered: str) -> bool:
    """Tell a crawler, a library or a browser that a program drives."""
    if _first_word(lowered) in _TOOLS or lowered.endswith("-agent") or _holds(lowered, _TOOL_WORDS):
        return True
    if "compatible" in lowered and _COMPATIBLE.search(lowered) is not None:
        return True
    if "like gecko" in lowered and _REMARK.search(lowered) is not None:
        return True
    if _holds(lowered, _PLACES) and _holds(lowered, _OF_TODAY):
        return True
    if "bot" in lowered and _BOT.search(lowered) is not None:
        return True
    return _holds(lowered, _ENDINGS) and _SITE.search(lowered, 1) is not None


def is_chore(lowered: str) -> bool:
    """Tell a program by what it says it does; to be asked only of a string that names no system."""
    if _holds(lowered, _ENGINES):
        return False
    if _PRETENDER.match(lowered) or not _TOOL_PARTS.isdisjoint(_PARTS.split(lowered, 6)):
        return True
    return (
        _holds(lowered, _CHORES)
        or _SITE.match(lowered) is not None
        or ("@" in lowered and _MAIL.search(lowered) is not None)
    )


def is_bare(text: str) -> bool:
    """Tell a name and nothing else, in its own letters; to be asked only of a string that names no system."""
    return _BARE.fullmatch(text) is not None and not _holds(text.lower(), _ENGINES)


def is_runtime(lowered: str) -> bool:
    """Tell Android's own client, which names what it runs on and not who calls."""
    return lowered.startswith(_RUNTIME)


def is_browser_too(lowered: str) -> bool:
    """Tell a string that begins with a name of its own and is a browser's after it."""
    return "mozilla/" in lowered or "browser" in lowered or _holds(lowered, _ENGINES)


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


def is_box(model: str) -> bool:
    """Tell what is plugged into a television from a tablet, neither of which says that it is a phone."""
    return "box" in model.lower()


def _first_word(lowered: str) -> str:
    found = _FIRST_WORD.match(lowered)
    return found[0] if found else ""


def _holds(lowered: str, words: tuple[str, ...]) -> bool:
    return any(word in lowered for word in words)
