"""One way to write a telephone number, so that two formats of one number are one. Pure."""

from __future__ import annotations

import re
from typing import Final

import phonenumbers

ABROAD: Final = re.compile(r"^\s*00(?=[1-9])")
NO_NUMBER = ""
"""What stands for a text that is no number that can exist."""


def e164(raw: str | None, country: str | None) -> str | None:
    """The number in the form of ITU-T E.164, such as "+393331234567"; None without a text, "" for one that is no number.

    `country` (ISO 3166-1) is what a number without a country code belongs to;
    without one, only numbers that begin with a plus sign, or with the 00 that
    stands for it nearly everywhere (ITU-T E.123), can be told.
    """
    if raw is None:
        return None
    try:
        number = phonenumbers.parse(ABROAD.sub("+", raw) if country is None else raw, country)
    except phonenumbers.NumberParseException:
        return NO_NUMBER
    if not phonenumbers.is_possible_number(number):
        return NO_NUMBER
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
