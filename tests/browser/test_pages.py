"""Every page of the console in every language, light and dark, on a telephone and on a desk."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

import pytest
from playwright.async_api import Browser

from accessguard.console.pages import PAGES
from accessguard.words.languages import LANGUAGES
from tests.browser.school import School, furnished
from tests.browser.stage import DESKTOP, PHONE, Window, admit, window
from tests.service import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Scheme = Literal["light", "dark"]
Look = tuple[Scheme, tuple[int, int]]
LOOKS: Final[tuple[tuple[Look, Look], ...]] = (
    (("light", DESKTOP), ("dark", PHONE)),
    (("light", PHONE), ("dark", DESKTOP)),
)
"""Colours are another matter than places: with two of the four, every page is seen in both schemes and both sizes."""
OUTSIDE: Final = ("/console/sign-in", "/console/enter?t=none")
NO_PAGES: Final = frozenset[str]()
"""What answers with something else than a page, or sends on to one."""
TABS: Final = 2
"""As many as there are cores on a small machine."""


def inside() -> list[str]:
    """The patterns of all pages for who is signed in, but those of which there is one for each of many things."""
    return [each.path for each in PAGES if each.method == "GET" and each.like is not None and each.path not in NO_PAGES]


@pytest.fixture(scope="module")
async def school(service: Service) -> School:
    """What the pages show."""
    return await furnished(service.tenant())


@pytest.fixture(scope="module")
def paths(school: School) -> list[str]:
    """Every page, with ids of this school."""
    more = ("/console/contacts?q=zzz", "/console/restrictions?show=all", "/console/contacts/~" + "m" * 128)
    return [school.path(each) for each in inside()] + list(more)


async def test_no_page_has_a_barrier_an_error_a_way_out_or_a_sideways_scroll(
    chromium: Browser, school: School, paths: list[str], axe: str
) -> None:
    """Each page is looked at by axe-core in both schemes and both sizes, each time in another language."""
    todo: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
    for numbered in enumerate((*paths, *OUTSIDE)):
        todo.put_nowait(numbered)
    wrong: list[str] = []

    async def look() -> None:
        async with window(chromium, school.tenant) as tab:
            await admit(tab.page.context, school.tenant)
            while not todo.empty():
                number, path = todo.get_nowait()
                wrong.extend([f"{path}: {each}" for each in await looked_at(tab, path, number, axe)])

    await asyncio.gather(*(look() for _ in range(TABS)))

    assert not wrong, "\n".join(wrong)


async def looked_at(tab: Window, path: str, number: int, axe: str) -> list[str]:
    """What is wrong with a page; its number chooses in which language axe-core sees which look of it."""
    found: list[str] = []
    status = await tab.open(path)
    if status != 200 and path not in OUTSIDE:
        found.append(f"status {status}")
    judged = {LANGUAGES[(number + place) % len(LANGUAGES)]: look for place, look in enumerate(LOOKS[number % 2])}
    for language in LANGUAGES:
        if await tab.speak(language) != language:
            found.append(f"not in {language}")
        for size in (PHONE, DESKTOP):
            await tab.size(size)
            found += [f"{language} {size[0]}: {each}" for each in await tab.overflow()]
            scheme, where = judged.get(language, (None, None))
            if where == size:
                await tab.page.emulate_media(color_scheme=scheme)
                found += [f"{language} {scheme} {size[0]}: {each}" for each in await tab.barriers(axe)]
    refused = "Failed to load resource" if path in OUTSIDE else None
    found += [each for each in tab.faults if refused is None or refused not in each]
    tab.faults.clear()
    return found
