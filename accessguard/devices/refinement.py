"""What a second, slower look adds to a browser: its class, its model, a bot's name; never who it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import version
from typing import Final

import msgspec

from accessguard.devices.browser import Browser, DeviceClass, relevant, shown, tidy
from accessguard.devices.hints import read_hints

RULES: Final = 2
"""The number of this page's own rules; another number refines everything again."""

# The kinds of device-detector 6.5, by the class that they are here; what is left out is no screen to study at.
_CLASSES: Final = {
    "desktop": DeviceClass.DESKTOP,
    "smartphone": DeviceClass.MOBILE,
    "phablet": DeviceClass.MOBILE,
    "feature phone": DeviceClass.MOBILE,
    "portable media player": DeviceClass.MOBILE,
    "tablet": DeviceClass.TABLET,
    "smart display": DeviceClass.TABLET,
    "tv": DeviceClass.TV,
    "console": DeviceClass.CONSOLE,
}
# https://www.chromium.org/updates/ua-reduction/ , and how web views are frozen.
_FROZEN: Final = re.compile(r"Android 10; K(?=[;)])|Android \d+(?:\.\d+)*(?=\))", re.ASCII)
_DESKTOP_PAGES: Final = "X11; Linux x86_64"
# What would end the part of a string that a model stands in.
_SIGNS: Final = re.compile(r"[;()]+")
_OTHER_SCREENS: Final = frozenset({"camera", "car browser", "peripheral", "smart speaker", "wearable"})
_FIXED: Final = frozenset({DeviceClass.TV, DeviceClass.CONSOLE})
_IN_HAND: Final = frozenset({DeviceClass.MOBILE, DeviceClass.TABLET, DeviceClass.DESKTOP})


class Asked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A distinct string with its relevant hints, names in lower case and in order."""

    user_agent: str
    hints: tuple[tuple[str, str], ...]

    @property
    def key(self) -> bytes:
        """SHA-256 of both, 32 bytes: all that is kept of them."""
        return sha256(msgspec.json.encode((self.user_agent, self.hints))).digest()


def restored(asked: Asked) -> str:
    """The string as it was before it was frozen, with the model and the version that the hints tell.

    device-detector knows models by the string alone. `Android 10; K` is every
    phone, and one that asks for desktop pages is `X11; Linux x86_64`.
    """
    hinted, text = read_hints(dict(asked.hints)), asked.user_agent
    model = _SIGNS.sub(" ", hinted.model or "").strip()
    if not model or model in text:
        return text
    android = f"Android {hinted.os_version or 10}; {model}"
    text, found = _FROZEN.subn(lambda _: android, text, count=1)
    return text if found else text.replace(_DESKTOP_PAGES, f"{_DESKTOP_PAGES}; {model}", 1)


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What device-detector says, in its own words; "" where it says nothing."""

    bot: str = ""
    kind: str = ""
    model: str = ""
    client: str = ""


class Refined(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What replaces the provisional answer; None leaves it as it is. `name` is a bot's, for people to read."""

    device_class: DeviceClass | None = None
    model: str | None = None
    name: str | None = None


def asked_of(user_agent: str | None, hints: Mapping[str, str] | None) -> Asked:
    """What of a request is looked at."""
    return Asked(user_agent=tidy(user_agent), hints=relevant(hints) if hints else ())


@lru_cache(maxsize=1)
def recogniser() -> str:
    """The version of all that a refinement depends on."""
    return f"{RULES}/{version('device-detector')}/{version('ua-parser-builtins')}"


def refined(first: Browser, seen: Sighting, *, mobile: bool | None) -> Refined:
    """Weigh the second look against the first; `mobile` is what a hint says of it, None when none does.

    Whoever the first took for a bot stays one: nothing that speaks for a device
    speaks against a program. An app stays an app, unless what it was taken by
    is a browser's own helper. A hint on `mobile` has spoken in the first already,
    and wins unless the model is known: it says which pages are wished for.
    """
    if seen.bot:
        return Refined(device_class=DeviceClass.BOT, name=shown(seen.bot))
    if first.device_class is DeviceClass.BOT:
        return Refined()
    found = _class(first, seen, mobile=mobile)
    model = None if first.device_class is DeviceClass.CONSOLE and first.model else shown(seen.model)
    return Refined(device_class=found, model=model or None)


def improved(first: Browser, more: Refined) -> Browser:
    """The browser with what the second look added. Family, system and versions stay: they are its identity."""
    if more == Refined():
        return first
    device_class = more.device_class or first.device_class
    model = None if device_class is DeviceClass.BOT else more.model or first.model
    return msgspec.structs.replace(first, device_class=device_class, model=model, name=more.name)


def _class(first: Browser, seen: Sighting, *, mobile: bool | None) -> DeviceClass | None:
    """The class of what is no bot; None when the first look stands."""
    if seen.client == "library" and first.device_class is DeviceClass.UNKNOWN:
        return DeviceClass.BOT
    found = DeviceClass.UNKNOWN if seen.kind in _OTHER_SCREENS else _CLASSES.get(seen.kind)
    if found is None or found in _FIXED:
        return found
    if first.device_class is DeviceClass.APP:
        return found if seen.client == "browser" else None
    if first.device_class is DeviceClass.TV and found is DeviceClass.TABLET:
        return None
    hinted = mobile is not None and not seen.model and found in _IN_HAND and first.device_class in _IN_HAND
    against = hinted and mobile is not (found is DeviceClass.MOBILE)
    return None if against or first.device_class is DeviceClass.CONSOLE else found
