"""What a day is made of: people, browsers, and steps in the order they are sent. Plain values."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeAlias

import msgspec

DAY_S = 86_400


class Character(StrEnum):
    """Whom a school meets in a day."""

    ORDINARY = "ordinary"
    TWO_DEVICES = "two_devices"
    TWO_BROWSERS = "two_browsers"
    OFFICE = "office"
    TRAVELLER = "traveller"
    SHARED_ACCOUNT = "shared_account"
    CHECKS_OFF = "checks_off"
    FORGETFUL = "forgetful"
    PRIVATE_WINDOWS = "private_windows"
    UPDATED_BROWSER = "updated_browser"
    EVICTED_RETURNS = "evicted_returns"
    UNWELCOME_NETWORK = "unwelcome_network"
    STOLEN_LAPTOP = "stolen_laptop"
    STAFF = "staff"
    CLASSROOM = "classroom"
    UNKNOWN_USER = "unknown_user"
    STRANGER = "stranger"


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """A member as the platform tells of them; `member_id` is the platform's own."""

    member_id: str
    name: str
    email: str
    phone: str
    tags: tuple[str, ...]
    locale: str
    time_zone: str
    staff: bool


class Browser(msgspec.Struct, frozen=True, kw_only=True):
    """One browser profile with its own cookie jar; that of a `private` window is gone when the day ends."""

    key: str
    user_agent: str
    client_hints: dict[str, str]
    private: bool = False


class SignIn(msgspec.Struct, frozen=True, kw_only=True):
    """A login attempt; `member_id` None for a user nobody knows, `failure_reason` None for a success."""

    at_s: int
    browser: Browser
    member_id: str | None
    identifier: str
    ip: str
    method: str = "password"
    failure_reason: str | None = None
    app: str = "courses"
    host: str = "learn.example.com"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request of whoever is signed in at the browser; without `activity` it is only checked."""

    at_s: int
    browser: Browser
    ip: str
    activity: str | None = None
    resource: str | None = None
    product_id: str | None = None


class AskTogether(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that the platform asks about in one call."""

    at_s: int
    asks: tuple[Ask, ...]


class SignOut(msgspec.Struct, frozen=True, kw_only=True):
    """The session at the browser ends, by its student or by the platform."""

    at_s: int
    browser: Browser
    reason: str = "logout"


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Support blocks the device that the browser was last seen as."""

    at_s: int
    browser: Browser
    member_id: str
    reason: str


class SwitchOff(msgspec.Struct, frozen=True, kw_only=True):
    """Support switches the checks of one member off."""

    at_s: int
    member_id: str
    reason: str


class MarkRead(msgspec.Struct, frozen=True, kw_only=True):
    """Support has looked at every case of one member."""

    at_s: int
    member_id: str


Step: TypeAlias = SignIn | Ask | AskTogether | SignOut | Block | SwitchOff | MarkRead


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """Steps that follow each other; `at_s` (seconds of the day) never goes back."""

    character: Character
    members: tuple[str, ...]
    steps: tuple[Step, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that is sent: the rules by their bodies, the people, the stories side by side, then the evening's reading."""

    seed: int
    rules: tuple[dict[str, Any], ...]
    people: tuple[Person, ...]
    stories: tuple[Story, ...]
    evening: tuple[Step, ...]

    @property
    def size(self) -> int:
        """How many calls it is, at the most."""
        told = sum(len(story.steps) for story in self.stories)
        return len(self.rules) + len(self.people) + told + len(self.evening)
