"""One browser for all tests that need one."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright

from tests.browser.stage import axe_core, opened, program


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium without a screen."""
    if program() is None:
        pytest.skip("there is no chromium here (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        browser = await opened(playwright)
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def axe(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """What looks for barriers on a page; None where npm is not, or brings nothing."""
    return axe_core(tmp_path_factory.mktemp("axe"))
