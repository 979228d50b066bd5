"""Browsers, as the user agents of today and their Client Hints tell them."""

import pytest
import user_agents

from accessguard.devices.browser import Browser, DeviceClass, recognise, same, tidy

MOZILLA = "Mozilla/5.0"
WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
APPLE = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
WINDOWS = f"{MOZILLA} (Windows NT 10.0; Win64; x64)"
MAC = f"{MOZILLA} (Macintosh; Intel Mac OS X 10_15_7)"
LINUX = f"{MOZILLA} (X11; Linux x86_64)"
ANDROID = f"{MOZILLA} (Linux; Android 10; K)"
IPHONE = f"{MOZILLA} (iPhone; CPU iPhone OS 18_6 like Mac OS X)"
IPAD = f"{MOZILLA} (iPad; CPU OS 18_6 like Mac OS X)"
CHROME = f"{WINDOWS} {WEBKIT} Chrome/142.0.0.0 Safari/537.36"
CHROME_MAC = f"{MAC} {WEBKIT} Chrome/142.0.0.0 Safari/537.36"
CHROME_LINUX = f"{LINUX} {WEBKIT} Chrome/142.0.0.0 Safari/537.36"
CHROME_ANDROID = f"{ANDROID} {WEBKIT} Chrome/142.0.0.0 Mobile Safari/537.36"
CHROME_ANDROID_TABLET = f"{ANDROID} {WEBKIT} Chrome/142.0.0.0 Safari/537.36"
SAFARI = f"{MAC} {APPLE} Version/26.1 Safari/605.1.15"
SAFARI_IPHONE = f"{IPHONE} {APPLE} Version/26.1 Mobile/15E148 Safari/604.1"
FIREFOX = f"{MOZILLA} (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0"
FIREFOX_ANDROID = f"{MOZILLA} (Android 15; Mobile; rv:145.0) Gecko/145.0 Firefox/145.0"

BROWSERS = [
    pytest.param(CHROME, "desktop", "Chrome", "Windows", "Chrome on Windows", id="Chrome, Windows"),
    pytest.param(f"{CHROME} Edg/142.0.0.0", "desktop", "Edge", "Windows", "Edge on Windows", id="Edge, Windows"),
    pytest.param(f"{CHROME} OPR/124.0.0.0", "desktop", "Opera", "Windows", "Opera on Windows", id="Opera, Windows"),
    pytest.param(FIREFOX, "desktop", "Firefox", "Windows", "Firefox on Windows", id="Firefox, Windows"),
    pytest.param(CHROME_MAC, "desktop", "Chrome", "Mac OS X", "Chrome on macOS", id="Chrome, macOS"),
    pytest.param(
        SAFARI, "desktop", "Safari", "Mac OS X", "Safari on macOS", id="Safari, macOS and iPadOS desktop pages"
    ),
    pytest.param(
        f"{MOZILLA} (Macintosh; Intel Mac OS X 10.15; rv:145.0) Gecko/20100101 Firefox/145.0",
        "desktop",
        "Firefox",
        "Mac OS X",
        "Firefox on macOS",
        id="Firefox, macOS",
    ),
    pytest.param(CHROME_LINUX, "desktop", "Chrome", "Linux", "Chrome on Linux", id="Chrome, Linux"),
    pytest.param(
        f"{MOZILLA} (X11; Ubuntu; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
        "desktop",
        "Firefox",
        "Ubuntu",
        "Firefox on Ubuntu",
        id="Firefox, Ubuntu",
    ),
    pytest.param(
        f"{MOZILLA} (X11; CrOS x86_64 14541.0.0) {WEBKIT} Chrome/142.0.0.0 Safari/537.36",
        "desktop",
        "Chrome",
        "Chrome OS",
        "Chrome on Chrome OS",
        id="Chrome, ChromeOS",
    ),
    pytest.param(CHROME_ANDROID, "mobile", "Chrome Mobile", "Android", "Chrome on Android", id="Chrome, Android"),
    pytest.param(
        CHROME_ANDROID_TABLET, "tablet", "Chrome", "Android", "Chrome on Android", id="Chrome, Android tablet"
    ),
    pytest.param(
        f"{ANDROID} {WEBKIT} SamsungBrowser/29.0 Chrome/136.0.0.0 Mobile Safari/537.36",
        "mobile",
        "Samsung Internet",
        "Android",
        "Samsung Internet on Android",
        id="Samsung Internet",
    ),
    pytest.param(
        f"{CHROME_ANDROID} EdgA/142.0.0.0", "mobile", "Edge Mobile", "Android", "Edge on Android", id="Edge, Android"
    ),
    pytest.param(
        f"{CHROME_ANDROID} OPR/92.0.0.0", "mobile", "Opera Mobile", "Android", "Opera on Android", id="Opera, Android"
    ),
    pytest.param(FIREFOX_ANDROID, "mobile", "Firefox Mobile", "Android", "Firefox on Android", id="Firefox, Android"),
    pytest.param(
        FIREFOX_ANDROID.replace("Mobile", "Tablet"),
        "tablet",
        "Firefox Mobile",
        "Android",
        "Firefox on Android",
        id="Firefox, Android tablet",
    ),
    pytest.param(
        f"{MOZILLA} (Linux; Android 14; SM-A546B Build/UP1A.231005.007; wv) {WEBKIT} Version/4.0 Chrome/142.0.0.0"
        " Mobile Safari/537.36",
        "mobile",
        "Chrome Mobile WebView",
        "Android",
        "Web view on Android",
        id="web view, Android",
    ),
    pytest.param(
        f"{MOZILLA} (Linux; Android 14) {WEBKIT} Version/4.0 Chrome/120.0.0.0 Mobile DuckDuckGo/5 Safari/537.36",
        "mobile",
        "DuckDuckGo Mobile",
        "Android",
        "DuckDuckGo Mobile on Android",
        id="DuckDuckGo, Android",
    ),
    pytest.param(
        "Opera/9.80 (Android; Opera Mini/70.0.2254/191.303; U; pt) Presto/2.12.423 Version/12.16",
        "mobile",
        "Opera Mini",
        "Android",
        "Opera Mini on Android",
        id="Opera Mini",
    ),
    pytest.param(SAFARI_IPHONE, "mobile", "Mobile Safari", "iOS", "Safari on iOS", id="Safari, iPhone"),
    pytest.param(
        f"{IPHONE} {APPLE} CriOS/142.0.7444.77 Mobile/15E148 Safari/604.1",
        "mobile",
        "Chrome Mobile iOS",
        "iOS",
        "Chrome on iOS",
        id="Chrome, iPhone",
    ),
    pytest.param(
        f"{IPHONE} {APPLE} FxiOS/145.0 Mobile/15E148 Safari/605.1.15",
        "mobile",
        "Firefox iOS",
        "iOS",
        "Firefox on iOS",
        id="Firefox, iPhone",
    ),
    pytest.param(
        f"{IPHONE} {APPLE} Version/18.0 EdgiOS/142.0.3595.66 Mobile/15E148 Safari/605.1.15",
        "mobile",
        "Edge Mobile",
        "iOS",
        "Edge on iOS",
        id="Edge, iPhone",
    ),
    pytest.param(
        f"{IPHONE} {APPLE} Mobile/15E148",
        "mobile",
        "Mobile Safari UI/WKWebView",
        "iOS",
        "Web view on iOS",
        id="web view, iPhone",
    ),
    pytest.param(
        f"{IPAD} {APPLE} Version/18.6 Mobile/15E148 Safari/604.1",
        "tablet",
        "Mobile Safari",
        "iOS",
        "Safari on iOS",
        id="Safari, iPad",
    ),
    pytest.param(
        f"{IPAD} {APPLE} CriOS/142.0.7444.77 Mobile/15E148 Safari/604.1",
        "tablet",
        "Chrome Mobile iOS",
        "iOS",
        "Chrome on iOS",
        id="Chrome, iPad",
    ),
    pytest.param(
        f"{MOZILLA} (Linux; Android 11; KFTRWI) {WEBKIT} Silk/120.4.1 like Chrome/120.0.6099.230 Safari/537.36",
        "tablet",
        "Amazon Silk",
        "Android",
        "Amazon Silk on Android",
        id="Silk, Fire tablet",
    ),
    pytest.param(
        f"{MOZILLA} (Mobile; Nokia_8110_4G; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/2.5",
        "mobile",
        "Firefox Mobile",
        "KaiOS",
        "Firefox on KaiOS",
        id="KaiOS",
    ),
]


@pytest.mark.parametrize(("text", "device_class", "family", "os", "label"), BROWSERS)
def test_a_browser_is_told_from_its_user_agent(text, device_class, family, os, label):
    """Family, system, kind of device and the name that people read."""
    browser = recognise(text)

    assert (browser.device_class, browser.family, browser.os, browser.label) == (device_class, family, os, label)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"{MOZILLA} (SMART-TV; LINUX; Tizen 7.0) {WEBKIT} 94.0.4606.31/7.0 TV Safari/537.36", id="Tizen"),
        pytest.param(
            f"{MOZILLA} (Web0S; Linux/SmartTV) {WEBKIT} Chrome/108.0.5359.211 Safari/537.36 WebAppManager", id="webOS"
        ),
        pytest.param(
            f"{MOZILLA} (Linux; Android 12; BRAVIA 4K VH22 Build/STT2) {WEBKIT} Chrome/120.0.0.0 Safari/537.36",
            id="Android TV",
        ),
        pytest.param(
            f"{MOZILLA} (Linux; Android 12.0; Build/STTL) {WEBKIT} Chrome/119.0.0.0 Safari/537.36 CrKey/1.56.500000",
            id="Chromecast",
        ),
        pytest.param(
            f"{MOZILLA} (Linux; Android 9; AFTSSS Build/PS7624) {WEBKIT} Silk/120.4.1 like Chrome/120.0.6099.230"
            " Safari/537.36",
            id="Fire TV",
        ),
        pytest.param(
            f"{MOZILLA} (Linux; Linux armv7l) {WEBKIT} Chrome/79.0.3945.79 Safari/537.36 HbbTV/1.5.1 (+DRM; LGE)",
            id="HbbTV",
        ),
        pytest.param("Roku/DVP-12.5 (12.5.0.4178-88)", id="Roku"),
        pytest.param("AppleTV11,1/11.1", id="Apple TV"),
    ],
)
def test_a_television_is_a_television(text):
    """Whatever browser it carries."""
    assert recognise(text).device_class is DeviceClass.TV


@pytest.mark.parametrize(
    ("text", "label"),
    [
        pytest.param(
            f"{MOZILLA} (PlayStation; PlayStation 5/9.00) {APPLE} Version/15.4 Safari/605.1.15",
            "Safari on PlayStation 5",
            id="PlayStation 5",
        ),
        pytest.param(f"{MOZILLA} (PlayStation 4 11.00) {APPLE}", "PlayStation 4", id="PlayStation 4"),
        pytest.param(
            f"{MOZILLA} (Windows NT 10.0; Win64; x64; Xbox; Xbox Series X) {WEBKIT} Chrome/142.0.0.0 Safari/537.36"
            " Edg/142.0.0.0",
            "Edge on Windows",
            id="Xbox",
        ),
        pytest.param(
            f"{MOZILLA} (Nintendo Switch; WifiWebAuthApplet) AppleWebKit/609.4 (KHTML, like Gecko) NF/6.0.3.15.4"
            " NintendoBrowser/5.1.0.22474",
            "Nintendo Switch",
            id="Switch",
        ),
    ],
)
def test_a_console_is_a_console(text, label):
    """Where no system is named, the console stands for it."""
    browser = recognise(text)

    assert (browser.device_class, browser.label) == (DeviceClass.CONSOLE, label)


@pytest.mark.parametrize(
    ("text", "family"),
    [
        pytest.param("curl/8.9.1", "curl", id="curl"),
        pytest.param("Wget/1.21.4", "Wget", id="wget"),
        pytest.param("python-requests/2.32.3", "Python Requests", id="requests"),
        pytest.param("python-httpx/0.27.0", "python-httpx", id="httpx"),
        pytest.param("Python/3.11 aiohttp/3.9.5", "Python aiohttp", id="aiohttp"),
        pytest.param("Python-urllib/3.11", "Python-urllib", id="urllib"),
        pytest.param("Go-http-client/2.0", "Go-http-client", id="Go"),
        pytest.param("Java/17.0.9", "Java", id="Java"),
        pytest.param("Apache-HttpClient/4.5.14 (Java/17.0.9)", "Apache-HttpClient", id="Apache client"),
        pytest.param("axios/1.7.2", "axios", id="axios"),
        pytest.param("node", "node", id="Node"),
        pytest.param("PostmanRuntime/7.39.0", "PostmanRuntime", id="Postman"),
        pytest.param("GuzzleHttp/7", "GuzzleHttp", id="Guzzle"),
        pytest.param("Lavf/60.16.100", None, id="ffmpeg"),
        pytest.param("Scrapy/2.11.2 (+https://scrapy.org)", "Scrapy", id="Scrapy"),
        pytest.param(
            f"{LINUX} {WEBKIT} HeadlessChrome/142.0.0.0 Safari/537.36", "HeadlessChrome", id="headless Chrome"
        ),
        pytest.param(f"{CHROME} Chrome-Lighthouse", None, id="Lighthouse"),
        pytest.param(
            f"{MOZILLA} (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "Googlebot", id="Googlebot"
        ),
        pytest.param(
            f"{CHROME_ANDROID} (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Googlebot",
            id="Googlebot as a phone",
        ),
        pytest.param(
            f"{MOZILLA} {WEBKIT[:-1]}; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)"
            " Chrome/116.0.1938.76 Safari/537.36",
            "bingbot",
            id="bingbot",
        ),
        pytest.param(f"{MOZILLA} {WEBKIT}; compatible; GPTBot/1.2; +https://openai.com/gptbot", "GPTBot", id="GPTBot"),
        pytest.param(
            "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", None, id="link preview"
        ),
        pytest.param("SomeNewBot/1.0 (+https://new.example)", None, id="a bot nobody lists"),
        pytest.param(f"{CHROME} (Watcher, https://watcher.example/why)", "Chrome", id="a browser that names a page"),
        pytest.param(f"{FIREFOX} www.watcher.example", "Firefox", id="a browser that names a site"),
        pytest.param(
            f"{LINUX} {WEBKIT[:-1]}; Page Taker) Chrome/142.0.0.0 Safari/537.36", "Chrome", id="a remark on its engine"
        ),
        pytest.param(f"{MOZILLA} taker/0.x", None, id="neither engine nor system"),
        pytest.param(f"{MOZILLA[:-3]}3.0 (compatible; Site Taker)", None, id="an old pretender"),
        pytest.param("Order Taker", None, id="a name and nothing else"),
        pytest.param("taker/production", None, id="a name with a word for a version"),
        pytest.param("lwp-taker/1.35", None, id="of a tool's family"),
    ],
)
def test_crawlers_and_tools_are_bots(text, family):
    """Nobody studies with them, and they have no model."""
    browser = recognise(text)

    assert browser.device_class is DeviceClass.BOT
    assert browser.model is None
    assert family in {None, browser.family}


@pytest.mark.parametrize(
    ("text", "label", "version"),
    [
        pytest.param("MyApp/3.2 (iPhone15,2; iOS 17.5)", "MyApp on iOS", "3.2", id="own, iPhone"),
        pytest.param("MyApp/3.2.1 (iPad13,4; iPadOS 17.5)", "MyApp on iOS", "3.2", id="own, iPad"),
        pytest.param("My School/3.2 (Android 14; Pixel 8)", "My School on Android", "3.2", id="own, two words"),
        pytest.param("MyApp/1 CFNetwork/1498.700.2 Darwin/23.6.0", "MyApp on iOS", "1", id="CFNetwork"),
        pytest.param(
            "MyApp/3.2.1 (com.school.app; build:77; iOS 17.5.1) Alamofire/5.9.1", "MyApp on iOS", "3.2", id="Alamofire"
        ),
        pytest.param("okhttp/4.12.0", "okhttp", "4.12", id="okhttp"),
        pytest.param("Dart/3.4 (dart:io)", "Dart", "3.4", id="Dart"),
        pytest.param("Expo/1017713 CFNetwork/1498.700.2 Darwin/23.6.0", "Expo on iOS", "1017713", id="Expo"),
        pytest.param(
            f"{WINDOWS} {WEBKIT} SchoolDesk/1.4.0 Chrome/128.0.6613.186 Electron/32.1.2 Safari/537.36",
            "Electron on Windows",
            "32.1",
            id="Electron",
        ),
    ],
)
def test_an_app_goes_by_the_name_it_gives_itself(text, label, version):
    """Apps are a class of their own, and two apps on one phone are two."""
    browser = recognise(text)

    assert (browser.device_class, browser.label, browser.version) == (DeviceClass.APP, label, version)


def test_what_android_runs_apps_in_is_the_device_it_runs_on():
    """Dalvik names a phone and no app: who calls is not to be told from it."""
    browser = recognise("Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8 Build/UQ1A.240205.002)")

    assert (browser.device_class, browser.label, browser.model) == (DeviceClass.MOBILE, "Dalvik on Android", "Pixel 8")


def test_a_phone_of_a_maker_named_like_a_bot_is_a_phone():
    """Cubot makes phones."""
    text = f"{MOZILLA} (Linux; Android 13; CUBOT P80) {WEBKIT} Chrome/142.0.0.0 Mobile Safari/537.36"

    assert recognise(text).device_class is DeviceClass.MOBILE


@pytest.mark.parametrize("text", [None, "", "\0", "asdf", "Mozilla/5.0", "?" * 600, "\ud800"])
def test_what_is_not_understood_is_unknown(text):
    """No string is an error."""
    assert recognise(text) == Browser(
        family="Other", os="Other", version="", os_version="", device_class=DeviceClass.UNKNOWN, model=None
    )
    assert recognise(text).label == "Unknown browser"


def test_the_platform_hint_tells_windows_11_from_10():
    """The string says Windows NT 10.0 for both."""
    eleven = recognise(CHROME, {"Sec-CH-UA-Platform": '"Windows"', "Sec-CH-UA-Platform-Version": '"15.0.0"'})
    ten = recognise(CHROME, {"Sec-CH-UA-Platform": '"Windows"', "Sec-CH-UA-Platform-Version": '"10.0.0"'})
    older = recognise(CHROME, {"Sec-CH-UA-Platform": '"Windows"', "Sec-CH-UA-Platform-Version": '"0.3.0"'})

    assert [browser.os_version for browser in (eleven, ten, older)] == ["11", "10", "8.1"]
    assert same(eleven, recognise(CHROME))


def test_the_model_hint_names_the_phone():
    """The string says "K" for every Android phone."""
    hints = {
        "SEC-CH-UA-MODEL": '"Pixel 8"',
        "sec-ch-ua-platform": '"Android"',
        "Sec-Ch-Ua-Platform-Version": '"16.0.0"',
    }

    browser = recognise(CHROME_ANDROID, hints)

    assert (browser.model, browser.os, browser.os_version) == ("Pixel 8", "Android", "16")
    assert recognise(CHROME_ANDROID).model is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("Acme 6235", id="an old phone's name"),
        pytest.param("Schoolroom/1.0", id="a name and a version may be a school's own app"),
        pytest.param("Liferoom/1.6 (Linux; en_US.UTF-8; http://room.example/)", id="a reader that names its page"),
    ],
)
def test_what_may_be_somebodys_program_is_no_bot(text):
    """A bot is a hard word: it takes more than a name that nobody knows."""
    assert recognise(text).device_class is not DeviceClass.BOT


def test_a_hint_is_read_by_the_names_that_gateways_give_it():
    """CGI, WSGI and PHP write headers in capitals with an HTTP before them."""
    named = recognise(CHROME_ANDROID, {"HTTP_SEC_CH_UA_MODEL": '"Pixel 8"', "http-sec-ch-ua-mobile": "?1"})

    assert (named.model, named.device_class) == ("Pixel 8", DeviceClass.MOBILE)


@pytest.mark.parametrize("model", ["TX9 MiniBox", "Android TV 4K", "BRAVIA VH22"])
def test_a_model_that_is_no_tablet_is_a_television(model):
    """The frozen string of a box is that of a tablet: only the model tells them apart."""
    hints = {"Sec-CH-UA-Model": f'"{model}"', "Sec-CH-UA-Mobile": "?0", "Sec-CH-UA-Platform": '"Android"'}

    assert recognise(CHROME_ANDROID_TABLET, hints).device_class is DeviceClass.TV
    assert recognise(CHROME_ANDROID_TABLET).device_class is DeviceClass.TABLET


@pytest.mark.parametrize(
    ("text", "hints", "device_class"),
    [
        pytest.param(CHROME_ANDROID_TABLET, {"Sec-CH-UA-Mobile": "?1"}, "mobile", id="a phone after all"),
        pytest.param(CHROME_ANDROID, {"Sec-CH-UA-Mobile": "?0"}, "tablet", id="a tablet after all"),
        pytest.param(CHROME, {"Sec-CH-UA-Mobile": "?0"}, "desktop", id="a desktop"),
        pytest.param(CHROME, {"Sec-CH-UA-Mobile": "yes"}, "desktop", id="malformed"),
        pytest.param(CHROME, {"Sec-CH-UA": '"HeadlessChrome";v="142", "Not_A Brand";v="99"'}, "bot", id="headless"),
    ],
)
def test_the_mobile_and_brand_hints_tell_the_kind_of_device(text, hints, device_class):
    """Hints win over the string; a malformed one says nothing."""
    assert recognise(text, hints).device_class == device_class


@pytest.mark.parametrize(
    ("brands", "family", "version"),
    [
        pytest.param('"Chromium";v="142", "Brave";v="142", "Not_A Brand";v="99"', "Brave", "142", id="Brave"),
        pytest.param('"Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"', "Chrome", "142", id="Chrome"),
        pytest.param('"Not;A=Brand";v="8", "Chromium";v="141", "Microsoft Edge";v="141"', "Edge", "141", id="Edge"),
        pytest.param('"Stranger";v="1"', "Chrome", "142", id="a brand nobody lists"),
        pytest.param('"Brave', "Chrome", "142", id="cut"),
        pytest.param("", "Chrome", "142", id="empty"),
    ],
)
def test_the_brand_hint_names_a_browser_that_calls_itself_chrome(brands, family, version):
    """A brand that is known and more exact than the string wins."""
    browser = recognise(CHROME, {"Sec-CH-UA": brands})

    assert (browser.family, browser.version) == (family, version)


def test_a_linux_that_names_its_distribution_keeps_it():
    """The hint says Linux for all of them."""
    text = f"{MOZILLA} (X11; Fedora; Linux x86_64) {WEBKIT} Chrome/142.0.0.0 Safari/537.36"

    assert recognise(text, {"Sec-CH-UA-Platform": '"Linux"'}).os == recognise(text).os == "Fedora"
    assert recognise(CHROME_LINUX, {"Sec-CH-UA-Platform": '"Linux"'}).os == "Linux"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param(CHROME, CHROME.replace("142", "150"), True, id="updated"),
        pytest.param(SAFARI_IPHONE, SAFARI_IPHONE.replace("18_6", "26_1"), True, id="system updated"),
        pytest.param(CHROME_ANDROID, CHROME_ANDROID_TABLET, True, id="foldable, opened"),
        pytest.param(CHROME, f"{CHROME} Edg/142.0.0.0", False, id="another browser on one machine"),
        pytest.param(CHROME, CHROME_MAC, False, id="one browser on two systems"),
        pytest.param(SAFARI, SAFARI_IPHONE, False, id="Safari on two systems"),
        pytest.param(SAFARI_IPHONE, f"{IPHONE} {APPLE} Mobile/15E148", False, id="a web view has its own cookies"),
        pytest.param("MyApp/3.2 (iPhone15,2; iOS 17.5)", "MyApp/4.0 (iPhone17,1; iOS 26.1)", True, id="app updated"),
        pytest.param("MyApp/3.2 (iPhone15,2; iOS 17.5)", "Other/3.2 (iPhone15,2; iOS 17.5)", False, id="another app"),
    ],
)
def test_browsers_are_the_same_by_family_and_system(one, other, expected):
    """Versions and models never take part."""
    assert same(recognise(one), recognise(other)) is expected
    assert same(recognise(other), recognise(one)) is expected


@pytest.mark.parametrize("text", [CHROME, CHROME_MAC, CHROME_LINUX, CHROME_ANDROID, CHROME_ANDROID_TABLET])
def test_a_request_without_hints_comes_from_the_same_browser(text):
    """Hints arrive at the login, and not with every request after it."""
    platform = {CHROME: "Windows", CHROME_MAC: "macOS", CHROME_LINUX: "Linux"}.get(text, "Android")
    hints = {
        "Sec-CH-UA": '"Chromium";v="142", "Brave";v="142"',
        "Sec-CH-UA-Platform": f'"{platform}"',
        "Sec-CH-UA-Platform-Version": '"15.0.0"',
        "Sec-CH-UA-Model": '"Pixel 8"',
    }

    assert same(recognise(text, hints), recognise(text))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        pytest.param(None, "", id="none"),
        pytest.param(CHROME, CHROME, id="as it is"),
        pytest.param("a\0b\0", "ab", id="NUL"),
        pytest.param("x" * 600, "x" * 512, id="overlong"),
        pytest.param("\u00e9" * 300, "\u00e9" * 256, id="two bytes a character"),
        pytest.param("x" + "\u20ac" * 300, "x" + "\u20ac" * 170, id="cut inside a character"),
        pytest.param("\0" * 600 + "x" * 600, "x" * 512, id="NUL first, then the cut"),
        pytest.param("\ud800", "?", id="half a surrogate"),
    ],
)
def test_what_is_kept_of_a_user_agent_is_short_and_clean(text, kept):
    """512 bytes of UTF-8 at most, no NUL, no broken character."""
    assert tidy(text) == kept


@pytest.mark.parametrize("text", [param.values[0] for param in BROWSERS[:11]])
def test_families_are_those_of_the_library(text):
    """The native resolver and `user_agents.parse` name browser and system alike."""
    browser, parsed = recognise(text), user_agents.parse(text)

    assert (browser.family, browser.os) == (parsed.browser.family, parsed.os.family)


def test_a_string_is_parsed_once():
    """The second time it is the same object."""
    assert recognise(CHROME) is recognise("".join(CHROME))
    assert recognise(CHROME, {"Accept": "x"}) is recognise(CHROME)
