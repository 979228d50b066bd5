"""Where people are: addresses from the ranges for documentation alone (RFC 5737, RFC 3849)."""

from __future__ import annotations

from random import Random
from typing import Final

CITIES: Final = (
    "Lisbon",
    "Recife",
    "Oaxaca",
    "Leeds",
    "Leipzig",
    "Lyon",
    "Izmir",
    "Lviv",
    "Kisumu",
    "Pune",
    "Osaka",
    "Tainan",
)
CARRIERS: Final = 6  # mobile carriers, each with ten addresses that many people share
OFFICE: Final = "203.0.113.10"
CAMPUS: Final = "2001:db8:ca:1::"
STRANGER: Final = "198.51.100.200"
UNWELCOME: Final = ("203.0.113.192/26", "2001:db8:bad::/48")
UNWELCOME_HOSTS: Final = ("203.0.113.199", "203.0.113.230", "2001:db8:bad::51")


def home(dice: Random, city: str) -> str:
    """A home in a city: every third on IPv6, the rest on an address of the city's provider."""
    place = CITIES.index(city)
    if dice.random() < 0.33:
        return f"2001:db8:{0x100 + place:x}:{dice.randrange(1, 0xFFFF):x}::{dice.randrange(1, 0xFFFF):x}"
    return f"192.0.2.{place * 20 + dice.randrange(1, 20)}"


def mobile(dice: Random) -> str:
    """A phone on the way: an address of a carrier, which changes and is shared."""
    return f"198.51.100.{dice.randrange(CARRIERS) * 10 + dice.randrange(1, 11)}"


def desk(dice: Random) -> str:
    """A desk at the office: one address for all, or one of the campus network."""
    return OFFICE if dice.random() < 0.7 else f"{CAMPUS}{dice.randrange(1, 0xFFFF):x}"
