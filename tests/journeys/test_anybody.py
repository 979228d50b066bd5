"""Members as the world has them: names of every script, ids of every kind, telephones of twenty countries, clocks of the whole earth."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from html import unescape
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest

from benchmarks.inhabitants import PHONES
from tests.console.test_console import contact, signed_in
from tests.members.test_imports import done, imported, member, sent
from tests.service import Tenant, items

NAMES = (
    "\u202eנ\u05d5עה כהן",
    "محمد عبد الله",
    "\u200fمریم\u200c زاده",
    "สมชาย ใจดี",
    "ნინო ბერიძე",
    "አበበ ከበደ",
    "山田 太郎",
    "김민수",
    "Zoë 🎓 Faß",
    "👩\u200d💻 👨\u200d👩\u200d👧",
    "🦊",
    "Ña\u0303ndu\u0301 d'Œuvre",
    "İbrahim Çağr\u0131 I\u015eIK",
    "Ælfrīc Þórsson",
    '=HYPERLINK("x") van "der" Berg',
    "100% _under\\score_",
    "@home",
    "-1+2 \u2212",
    "O'Neil; DROP TABLE member",
    "<b>Ana</b> & Sons",
)
IDS = (
    "x" * 128,
    "🦊" * 128,
    "a/b/../c//d",
    "50%25-off%2F%",
    "../..",
    "school\\élève'\"",
    "ana+x@example.com",
    "a b?c#d&e=f;g,h",
    "محمد/\u202e7",
    "=1+1",
    "+39",
    "-",
    "\u00a0nbsp\u2028line",
    "{member_id}",
    "%s%n$1",
    "null",
    "0",
    "<script>",
    "~tilde|pipe",
    "ÅA\u030a",
)
ZONES = (
    "Pacific/Kiritimati",
    "Pacific/Chatham",
    "Pacific/Apia",
    "Australia/Lord_Howe",
    "Asia/Tokyo",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Kabul",
    "Asia/Tehran",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Europe/Lisbon",
    "Europe/Dublin",
    "Atlantic/Azores",
    "America/St_Johns",
    "America/Sao_Paulo",
    "America/Caracas",
    "America/Mexico_City",
    "Pacific/Marquesas",
    "Pacific/Pago_Pago",
)
FORMULAS = ("=", "+", "-", "@")


def everybody() -> list[dict[str, Any]]:
    """A member for each country."""
    people = []
    for number, (code, begin, digits) in enumerate(PHONES.values()):
        rest = f"{(number + 1) * 7_654_321 % 10**digits:0{digits}d}"
        person = {"phone": f"+{code} {begin}-{rest[:3]}.{rest[3:]}", "name": NAMES[number], "time_zone": ZONES[number]}
        mail = {"email": f"ñ{number}+{begin}@exämple.example", "tags": [NAMES[number], f"t;{number}"]}
        people.append(member(IDS[number], **person, **mail))
    return people


def said(cell: str) -> str:
    """What a cell of a file says, without the apostrophe that keeps a spreadsheet from reckoning."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULAS) else cell


@pytest.fixture
async def world(tenant: Tenant) -> Tenant:
    """A school of them all, from a file."""
    result = await imported(tenant, *everybody())
    assert (result["members_new"], result["refused_lines"]) == (20, [])
    return tenant


async def test_anybody_is_found_by_name_id_mail_and_telephone_in_any_format(world: Tenant):
    """The number as it was written, in one piece, dialled from abroad, and what a student says of it; no other member has it."""
    lost = []
    for person, (code, begin, _) in zip(everybody(), PHONES.values(), strict=True):
        digits = person["phone"].replace("-", "").replace(".", "").split()[1]
        numbers = (person["phone"], f"+{code}{digits}", f"00{code} {digits}", f"({begin}) {digits[len(begin) :]}")
        for asked in (person["name"], person["member_id"], person["email"], *numbers):
            found = [each["member_id"] for each in items(await world.see(f"/v1/members?q={quote(asked, safe='')}"))]
            if person["member_id"] not in found or (asked in numbers and len(found) > 1):
                lost.append((asked, person["member_id"], found))

    assert lost == []


async def test_anybody_has_a_card_and_a_page_and_their_own_clock(world: Tenant):
    """By the id in the path, whatever is in it, and by the link that the console's search leads to."""
    browser = await signed_in(world)
    for person in everybody():
        there = contact(person["member_id"])

        card = await world.see(f"/v1/members/{quote(person['member_id'], safe='')}")
        found = await browser.get(f"/console/contacts?q={quote(person['email'], safe='')}")
        page = await browser.get(there)

        assert (card.status, found.status, page.status) == (200, 200, 200), person["member_id"]
        assert {name: card[name] for name in ("name", "email", "phone", "tags")} == {
            name: person[name] for name in ("name", "email", "phone", "tags")
        }
        local = datetime.fromisoformat(card["local_time"]["at"])
        assert card["local_time"]["time_zone"] == person["time_zone"]
        assert local.utcoffset() == local.astimezone(ZoneInfo(person["time_zone"])).utcoffset()
        assert f'href="{there}"' in found.text
        assert f"<bdi>{person['name']}</bdi>" in unescape(page.text)
        assert person["phone"] in unescape(page.text)
        assert person["time_zone"] in page.text


async def test_anybody_is_in_the_file_that_leads_back_to_the_same_members(world: Tenant):
    """As the API and as the console give it; imported again it changes nothing."""
    browser = await signed_in(world)

    file = (await world.see("/v1/members?sort=name", headers={"Accept": "text/csv"})).body
    shown = (await browser.get("/console/contacts.csv?sort=name")).text
    again = (await done(world, await sent(world, file, "text/csv")))["result"]

    rows = {said(row["member_id"]): row for row in csv.DictReader(io.StringIO(file.decode(), newline=""))}
    assert rows.keys() == set(IDS)
    for person in everybody():
        row = rows[person["member_id"]]
        assert {name: said(row[name]) for name in ("name", "email", "phone", "time_zone")} == {
            name: person[name] for name in ("name", "email", "phone", "time_zone")
        }
    assert list(csv.reader(io.StringIO(shown, newline=""))) == list(csv.reader(io.StringIO(file.decode(), newline="")))
    assert (again["lines"], again["members_new"], again["members_changed"], again["refused"]) == (20, 0, 0, 0)
