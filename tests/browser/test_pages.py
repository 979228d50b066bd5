"""Every page of the console in every language, light and dark, on a telephone and on a desk."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

import pytest
from playwright.async_api import Browser, expect

from accessguard.console.names import SECTIONS
from accessguard.console.pages import PAGES
from accessguard.words.languages import LANGUAGES
from tests.browser.school import School, furnished
from tests.browser.stage import AXE_OF_LOOKS, DESKTOP, LOOK, PHONE, Window, admit, window
from tests.fuzz import at_night
from tests.service import Service

pytestmark = [pytest.mark.slow, pytest.mark.hypothesis, pytest.mark.timeout(300)]

Scheme = Literal["light", "dark"]
Look = tuple[Scheme, tuple[int, int]]
LOOKS: Final[tuple[tuple[Look, Look], ...]] = (
    (("light", DESKTOP), ("dark", PHONE)),
    (("light", PHONE), ("dark", DESKTOP)),
)
"""Colours are another matter than places: with two of the four, every page is seen in both schemes and both sizes."""
OUTSIDE: Final = ("/console/sign-in", "/console/enter?t=none")
NO_PAGES: Final = (".csv", ".txt", "/events")
"""How paths end that answer with something else than a page."""
MORE: Final = (
    *("/console/contacts?q=zzz", "/console/restrictions?show=all", "/console/contacts/~" + "m" * 128),
    *("/console/rules/new?kind=ip_deny", "/console/rules/new?kind=copied_session"),
)
TABS: Final = 2
"""As many as there are cores on a small machine."""


def inside() -> list[str]:
    """The patterns of all pages for who is signed in; of the settings one for each subject."""
    found = [
        each.path
        for each in PAGES
        if each.method == "GET" and each.like is not None and not each.path.endswith(NO_PAGES)
    ]
    subjects = [each.replace("{section}", section) for each in found if "{section}" in each for section in SECTIONS]
    return [each for each in found if "{section}" not in each] + subjects


def strict(path: str) -> bool:
    """Whether it is a page for students, which may fetch nothing."""
    return path.startswith("/restricted") or path.endswith("/preview")


@pytest.fixture(scope="module")
async def school(service: Service) -> School:
    """What the pages show."""
    return await furnished(service.tenant())


@pytest.fixture(scope="module")
def paths(school: School) -> list[str]:
    """Every page, with ids of this school."""
    return [*(school.path(each) for each in inside()), *MORE, school.restricted]


async def test_no_page_has_a_barrier_an_error_a_way_out_or_a_sideways_scroll(
    chromium: Browser, school: School, paths: list[str], axe: str | None
) -> None:
    """Each page is looked at by axe-core in both schemes and both sizes, each time in another language."""
    todo: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
    for numbered in enumerate((*paths, *OUTSIDE)):
        todo.put_nowait(numbered)
    wrong: list[str] = []

    async def look() -> None:
        async with window(chromium, school.tenant) as tab:
            await admit(tab.page.context, school.tenant)
            bench = await tab.beside("/console/account", (axe or "") + LOOK)
            while not todo.empty():
                number, path = todo.get_nowait()
                if strict(path):
                    found = await looked_at_by_students(tab, path, axe)
                else:
                    found = await looked_at(tab, path, number) + (await judged(bench, path, number) if axe else [])
                wrong.extend([f"{path}: {each}" for each in found])

    await asyncio.gather(*(look() for _ in range(TABS)))

    assert not wrong, "\n".join(wrong)
    if axe is None:
        pytest.skip("all but barriers was looked at: npm is not here, or brings no axe-core")


async def looked_at(tab: Window, path: str, number: int) -> list[str]:
    """What is wrong with a page on a visit, and whether it scrolls sideways in any language.

    On a desk, where there is room, in one of them, another one for each page; at night there, too, in all.
    """
    one = (LANGUAGES[number % len(LANGUAGES)],)
    found = [f"status {status}"] if (status := await tab.open(path)) != 200 and path not in OUTSIDE else []
    await tab.bring(LOOK)
    for size, languages in ((DESKTOP, at_night(tuple(LANGUAGES), usual=one)), (PHONE, tuple(LANGUAGES))):
        await tab.size(size)
        found += await tab.sweep(languages)
    return found + _faults(tab, path)


async def judged(bench: Window, path: str, number: int) -> list[str]:
    """What axe-core finds on a page in one look, and in the opposite one by what depends on looks; each in another language."""
    found: list[str] = []
    for place, (scheme, size) in enumerate(LOOKS[number % 2]):
        await bench.size(size)
        await bench.page.emulate_media(color_scheme=scheme)
        await bench.speak(LANGUAGES[(2 * number + place) % len(LANGUAGES)], path)
        found += [f"{scheme} {size[0]}: {each}" for each in await bench.barriers(*AXE_OF_LOOKS if place else ())]
    return found


async def looked_at_by_students(tab: Window, path: str, axe: str | None) -> list[str]:
    """The same of a page for students, which is opened anew for each language."""
    found: list[str] = []
    for number, language in enumerate(LANGUAGES):
        scheme, size = LOOKS[number % 2][number // 2 % 2]
        await tab.page.emulate_media(color_scheme=scheme)
        await tab.size(size)
        await tab.open(path if path.endswith("/preview") else f"{path}&lang={language}")
        if not path.endswith("/preview"):  # which is in the language of its text
            await expect(tab.page.locator("html")).to_have_attribute("lang", language)
        await tab.bring((axe or "") + LOOK)
        said = await tab.overflow() + (await tab.barriers() if axe else [])
        found += [f"{language} {scheme} {size[0]}: {each}" for each in said]
    return found + _faults(tab, path)


def _faults(tab: Window, path: str) -> list[str]:
    """What the page did; that a page of a refusal was refused is no fault of its own."""
    found, tab.faults[:] = list(tab.faults), []
    return [each for each in found if path not in OUTSIDE or "Failed to load resource" not in each]
