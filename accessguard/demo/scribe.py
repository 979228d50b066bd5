"""Writes the steps of one story with a clock that only goes forward."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from accessguard.demo import browsers, places
from accessguard.demo.model import DAY_S, Ask, Browser, Person, SignIn, SignOut, Step

# Sign-ins an hour over a day: nobody at four in the morning, most after lunch and in the evening.
HOURS: Final = (2, 1, 1, 0, 0, 1, 3, 6, 9, 11, 11, 9, 7, 9, 11, 10, 9, 9, 11, 14, 15, 12, 7, 4)
COURSES: Final = 24
LESSONS: Final = 30

# What students do, in the words of the contract; None is a page that counts as no activity.
ACTIVITIES: Final = (
    *("lesson_open",) * 8,
    *("video_watch",) * 6,
    *("assignment_complete",) * 2,
    *("course_open",) * 2,
    "offer_open",
    "payment_open",
    None,
    None,
    None,
)


class Scribe:
    """One person's day in the making; `steps` grows as it is told."""

    def __init__(self, dice: Random, person: Person, *, earliest_h: int = 0, latest_h: int = 22) -> None:
        hours = range(earliest_h, latest_h)
        hour = dice.choices(hours, weights=[HOURS[each] for each in hours])[0]
        self.dice = dice
        self.person = person
        self.now_s = hour * 3600 + dice.randrange(3600)
        self.steps: list[Step] = []
        self._course = dice.randrange(COURSES)
        self._browsers = 0

    def home(self) -> str:
        """An address in some city."""
        return places.home(self.dice, self.dice.choice(places.CITIES))

    def browser(self, among: tuple[str, ...]) -> Browser:
        """A browser of this person's, with a cookie jar of its own."""
        return browsers.install(self.dice, self.key(), among)

    def key(self) -> str:
        """A name for one more cookie jar."""
        self._browsers += 1
        return f"{self.person.member_id}/{self._browsers}"

    def wait(self, least_s: int, most_s: int) -> None:
        """Let time pass; the day ends at midnight."""
        self.now_s = min(DAY_S - 1, self.now_s + self.dice.randint(least_s, most_s))

    def sign_in(self, browser: Browser, ip: str, **more: Any) -> None:
        """Log in, some seconds later."""
        self.wait(5, 90)
        person = self.person
        step = SignIn(
            at_s=self.now_s,
            browser=browser,
            member_id=person.member_id,
            identifier=person.email,
            ip=ip,
            **more,
        )
        self.steps.append(step)

    def study(self, browser: Browser, ip: str, pages: int) -> None:
        """Open some pages of a course, with time for each."""
        for _ in range(pages):
            self.wait(20, 420)
            self.steps.append(self.page(browser, ip))

    def page(self, browser: Browser, ip: str) -> Ask:
        """One page, now."""
        activity = self.dice.choice(ACTIVITIES)
        lesson = self.dice.randrange(1, LESSONS)
        return Ask(
            at_s=self.now_s,
            browser=browser,
            ip=ip,
            activity=activity,
            resource=f"course:{self._course}/lesson:{lesson}",
            product_id=f"course-{self._course}",
        )

    def sign_out(self, browser: Browser, reason: str = "logout") -> None:
        """Log out, or be logged out by the platform."""
        self.wait(5, 60)
        self.steps.append(SignOut(at_s=self.now_s, browser=browser, reason=reason))
