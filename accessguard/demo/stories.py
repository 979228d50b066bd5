"""The people a school knows: one function for each kind, which tells its day to a scribe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final

import msgspec

from accessguard.demo import browsers, places
from accessguard.demo.browsers import LAPTOPS, PHONES, TABLETS
from accessguard.demo.model import (
    DAY_S,
    AskTogether,
    Block,
    Browser,
    Character,
    Person,
    SignIn,
    Step,
    SwitchOff,
)
from accessguard.demo.scribe import Scribe


def ordinary(scribe: Scribe) -> None:
    """One browser, at home; some log out, most do not."""
    browser, home = scribe.browser(LAPTOPS + PHONES), scribe.home()
    scribe.sign_in(browser, home, method=scribe.dice.choice(("password", "password", "password", "social", "sso")))
    scribe.study(browser, home, scribe.dice.randint(3, 9))
    if scribe.dice.random() < 0.4:
        scribe.sign_out(browser)


def two_devices(scribe: Scribe) -> None:
    """A phone on the way in the morning, the laptop in the evening, the phone once more."""
    phone, laptop, home = scribe.browser(PHONES), scribe.browser(LAPTOPS), scribe.home()
    scribe.sign_in(phone, places.mobile(scribe.dice), app="mobile", method="code")
    scribe.study(phone, places.mobile(scribe.dice), scribe.dice.randint(2, 5))
    scribe.sign_in(laptop, home)
    scribe.study(laptop, home, scribe.dice.randint(3, 7))
    scribe.study(phone, home, 2)


def two_browsers(scribe: Scribe) -> None:
    """Two browsers on one machine, which are two devices on purpose."""
    home = scribe.home()
    for kind in ("chrome_windows_11", "firefox_windows"):
        browser = browsers.built(scribe.key(), kind)
        scribe.sign_in(browser, home)
        scribe.study(browser, home, scribe.dice.randint(2, 4))


def office(scribe: Scribe) -> None:
    """A desk at the office, behind the one address of all its colleagues."""
    browser, desk = scribe.browser(LAPTOPS), places.desk(scribe.dice)
    scribe.sign_in(browser, desk, method="sso")
    scribe.study(browser, desk, scribe.dice.randint(4, 9))


def traveller(scribe: Scribe) -> None:
    """Home, the train, a café in another city, a hotel in a third: one laptop, one session."""
    browser = scribe.browser(LAPTOPS)
    here, there, elsewhere = scribe.dice.sample(places.CITIES, 3)
    home = places.home(scribe.dice, here)
    scribe.sign_in(browser, home)
    way = (home, places.mobile(scribe.dice), *(places.home(scribe.dice, city) for city in (there, elsewhere)))
    for ip in way:
        scribe.wait(600, 5400)
        scribe.study(browser, ip, 2)


def shared_account(scribe: Scribe) -> None:
    """Four friends in four cities on one account: two at once, three devices, and the fourth keeps trying."""
    friends = [
        (scribe.browser(among), places.home(scribe.dice, city))
        for among, city in zip((LAPTOPS, PHONES, LAPTOPS, TABLETS), scribe.dice.sample(places.CITIES, 4), strict=True)
    ]
    for browser, ip in friends:
        scribe.sign_in(browser, ip)
        scribe.study(browser, ip, 2)
    first, *_, last = friends
    for _ in range(3):
        scribe.sign_in(*last)
    scribe.sign_in(*first)
    for browser, ip in friends:
        scribe.study(browser, ip, 2)


def checks_off(scribe: Scribe) -> None:
    """A shared account that support has agreed to: everything is recorded, nothing enforced."""
    reason = "A family that follows one course together, agreed by phone"
    scribe.steps.append(SwitchOff(at_s=scribe.now_s, member_id=scribe.person.member_id, reason=reason))
    shared_account(scribe)


def forgetful(scribe: Scribe) -> None:
    """Some wrong passwords, then the right one, or a link by mail."""
    browser, home = scribe.browser(LAPTOPS + PHONES), scribe.home()
    for _ in range(scribe.dice.randint(1, 4)):
        scribe.sign_in(browser, home, failure_reason="wrong_password")
    scribe.sign_in(browser, home, method=scribe.dice.choice(("password", "magic_link")))
    scribe.study(browser, home, scribe.dice.randint(2, 6))


def private_windows(scribe: Scribe) -> None:
    """Always a private window, so that each login comes from one more device."""
    home = scribe.home()
    for _ in range(5):
        window = browsers.built(scribe.key(), "chrome_windows_11", private=True)
        scribe.sign_in(window, home)
        scribe.study(window, home, 2)
        scribe.sign_out(window)
        scribe.wait(300, 3600)


def updated_browser(scribe: Scribe) -> None:
    """The browser updates itself over lunch and is the same device."""
    key, home = scribe.key(), scribe.home()
    kind = scribe.dice.choice(("chrome_windows_11", "firefox_linux", "edge_windows_11"))
    for older in (True, False):
        browser = browsers.built(key, kind, older=older)
        scribe.sign_in(browser, home)
        scribe.study(browser, home, 3)
        scribe.sign_out(browser)


def evicted_returns(scribe: Scribe) -> None:
    """Laptop, phone, tablet: the third sign-in ends the first session, whose owner comes back."""
    home = scribe.home()
    laptop, phone, tablet = (scribe.browser(among) for among in (LAPTOPS, PHONES, TABLETS))
    for browser in (laptop, phone, tablet):
        scribe.sign_in(browser, home)
        scribe.study(browser, home, 2)
    scribe.study(laptop, home, 1)
    scribe.sign_in(laptop, home)
    scribe.study(laptop, home, 3)
    scribe.study(phone, home, 1)


def unwelcome_network(scribe: Scribe) -> None:
    """In mid-session onto a network that the school has closed out, some tries, and home again."""
    browser, home = scribe.browser(LAPTOPS), scribe.home()
    bad = scribe.dice.choice(places.UNWELCOME_HOSTS)
    scribe.sign_in(browser, home)
    scribe.study(browser, home, 2)
    scribe.study(browser, bad, scribe.dice.randint(3, 8))
    scribe.sign_in(browser, bad)
    scribe.study(browser, home, 2)


def stolen_laptop(scribe: Scribe) -> None:
    """The laptop is reported stolen and blocked; whoever has it goes on trying, its owner uses the phone."""
    laptop, phone, home = scribe.browser(LAPTOPS), scribe.browser(PHONES), scribe.home()
    scribe.sign_in(laptop, home)
    scribe.study(laptop, home, 3)
    scribe.sign_in(phone, places.mobile(scribe.dice))
    member_id = scribe.person.member_id
    scribe.steps.append(Block(at_s=scribe.now_s, browser=laptop, member_id=member_id, reason="Reported stolen"))
    thief = scribe.home()
    scribe.study(laptop, thief, 4)
    scribe.sign_in(laptop, thief)
    scribe.study(phone, home, 3)


def staff(scribe: Scribe) -> None:
    """A teacher on many devices, whom no rule counts."""
    desk = places.desk(scribe.dice)
    for among in (LAPTOPS, LAPTOPS, PHONES, TABLETS, LAPTOPS):
        browser = scribe.browser(among)
        scribe.sign_in(browser, desk, method="sso")
        scribe.study(browser, desk, 2)


TOLD: Final[Mapping[Character, Callable[[Scribe], None]]] = {
    Character.ORDINARY: ordinary,
    Character.TWO_DEVICES: two_devices,
    Character.TWO_BROWSERS: two_browsers,
    Character.OFFICE: office,
    Character.TRAVELLER: traveller,
    Character.SHARED_ACCOUNT: shared_account,
    Character.CHECKS_OFF: checks_off,
    Character.FORGETFUL: forgetful,
    Character.PRIVATE_WINDOWS: private_windows,
    Character.UPDATED_BROWSER: updated_browser,
    Character.EVICTED_RETURNS: evicted_returns,
    Character.UNWELCOME_NETWORK: unwelcome_network,
    Character.STOLEN_LAPTOP: stolen_laptop,
    Character.STAFF: staff,
}


def classroom(dice: Random, people: Sequence[Person]) -> tuple[Step, ...]:
    """A class at the office; the platform asks about all of its requests in one call."""
    scribes = [Scribe(dice, each, earliest_h=9, latest_h=10) for each in people]
    seats = [(scribe, scribe.browser(LAPTOPS)) for scribe in scribes]
    for scribe, browser in seats:
        scribe.sign_in(browser, places.OFFICE, method="sso")
    steps: list[Step] = sorted((step for scribe in scribes for step in scribe.steps), key=lambda step: step.at_s)
    at_s = steps[-1].at_s
    for _ in range(6):
        at_s += dice.randint(60, 600)
        asks = tuple(
            msgspec.structs.replace(scribe.page(browser, places.OFFICE), at_s=at_s) for scribe, browser in seats
        )
        steps.append(AskTogether(at_s=at_s, asks=asks))
    return tuple(steps)


def unknown_user(dice: Random, number: int) -> tuple[Step, ...]:
    """Somebody whose address the school has never heard of, twice."""
    browser = browsers.install(dice, f"visitor/{number}", LAPTOPS + PHONES)
    at_s = dice.randrange(6 * 3600, 22 * 3600)
    ip = places.home(dice, dice.choice(places.CITIES))
    return tuple(_failure(at_s + 40 * nth, browser, None, f"visitor{number}@example.com", ip) for nth in range(2))


def stranger(dice: Random, people: Sequence[Person], *, tries: int) -> tuple[Step, ...]:
    """Guesses passwords with a program at night: addresses from a list, most of them unknown here."""
    guesser = browsers.tool(dice, "stranger")
    at_s, steps = 3 * 3600, list[Step]()
    for nth in range(tries):
        at_s = min(DAY_S - 1, at_s + dice.randint(1, 20))
        hit = dice.choice(people) if dice.random() < 0.4 else None
        identifier = hit.email if hit else f"admin{nth}@example.com"
        steps.append(_failure(at_s, guesser, hit.member_id if hit else None, identifier, places.STRANGER))
    return tuple(steps)


def _failure(at_s: int, browser: Browser, member_id: str | None, identifier: str, ip: str) -> SignIn:
    reason = "wrong_password" if member_id else "unknown_user"
    return SignIn(at_s=at_s, browser=browser, member_id=member_id, identifier=identifier, ip=ip, failure_reason=reason)
