"""A real browser before the service, which notes whatever a page should not do; and axe-core, which looks for barriers."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from playwright.async_api import Browser, BrowserContext, Page, Playwright, Request, expect

from tests.service import Tenant, token

QUIET: Final = (
    *("--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--no-first-run", "--disable-quic", "--disable-dev-shm-usage", "--hide-scrollbars"),
)
AXE: Final = "axe-core@4.14.1"
AXE_INTEGRITY: Final = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
"""SHA-512 of the package, as its registry publishes it (Subresource Integrity, 3.1)."""
AXE_ALL: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
AXE_OF_LOOKS: Final = ("color-contrast", "target-size")
"""The rules that a page may break in one colour scheme or size and keep in another."""

PHONE: Final = (390, 844)
DESKTOP: Final = (1440, 900)
PATIENCE_MS: Final = 30_000
"""How long a page may take on a machine where much goes on at once."""

LOOK: Final = (Path(__file__).parent / "look.js").read_text()


def program() -> str | None:
    """Where Chromium is; None where it is not."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def axe_core(folder: Path) -> str | None:
    """The script of axe-core, fetched by npm and compared with what is pinned here; None where npm cannot."""
    npm = shutil.which("npm")
    if npm is None:
        return None
    asked = [npm, "pack", AXE, "--json", "--silent", "--fetch-retries=1", "--fetch-timeout=20000"]
    try:
        done = subprocess.run(asked, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    packed = folder / msgspec.json.decode(done.stdout)[0]["filename"]
    found = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
    assert found == AXE_INTEGRITY, f"{AXE} is not what it was: sha512-{found}"
    with tarfile.open(packed) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


async def opened(playwright: Playwright) -> Browser:
    """Chromium, without anything that it would ask of the world by itself."""
    expect.set_options(timeout=PATIENCE_MS)
    return await playwright.chromium.launch(executable_path=program(), args=list(QUIET))


@dataclass
class Window:
    """A tab of somebody; `faults` is what its pages did that none may: errors, what the policy stopped, ways out."""

    page: Page
    origin: str
    faults: list[str] = field(default_factory=list)

    async def open(self, path: str) -> int:
        """Open a page of the service; its status."""
        answer = await self.page.goto(self.origin + path, wait_until="load")
        assert answer is not None
        return answer.status

    async def size(self, size: tuple[int, int]) -> None:
        """Make the window as large, in CSS pixels."""
        await self.page.set_viewport_size({"width": size[0], "height": size[1]})

    async def bring(self, script: str) -> None:
        """Bring what looks at a page onto the one that is open."""
        await self.page.evaluate(script)

    async def sweep(self, languages: Sequence[str]) -> list[str]:
        """Show the page in each language; whatever scrolls sideways, or is not in it."""
        found: list[str] = await self.page.evaluate("(languages) => look.sweep(languages)", list(languages))
        return found

    async def beside(self, path: str, script: str) -> Window:
        """Another tab of the same browser, with what looks at pages on it."""
        other = Window(await self.page.context.new_page(), self.origin)
        await other.open(path)
        await other.bring(script)
        return other

    async def speak(self, language: str, path: str) -> None:
        """Show a page in a language in the place of the one that is open."""
        await self.page.evaluate("([language, path]) => look.speak(language, path)", [language, path])

    async def overflow(self) -> list[str]:
        """What makes the page scroll sideways; empty for nothing."""
        found: list[str] = await self.page.evaluate("look.overflow()")
        return found

    async def barriers(self, *rules: str) -> list[str]:
        """What axe-core finds by these rules (none: by all), the first three elements for each."""
        asked = {"type": "rule", "values": list(rules)} if rules else {"type": "tag", "values": list(AXE_ALL)}
        found: list[str] = await self.page.evaluate("(asked) => look.judge(asked)", asked)
        return found

    def _heard(self, kind: str, said: object) -> None:
        self.faults.append(f"{urlsplit(self.page.url).path}: {kind}: {said}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.origin + "/", "data:", "blob:", "about:")):
            self._heard("a request that leaves", request.url)

    def watch(self) -> Window:
        """Begin to listen."""
        self.page.on(
            "console", lambda said: self._heard("console", said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self._heard("error", error))
        self.page.on("request", self._asked)
        self.page.set_default_timeout(PATIENCE_MS)
        return self


@contextlib.asynccontextmanager
async def window(browser: Browser, tenant: Tenant, **more: Any) -> AsyncIterator[Window]:
    """A tab in a browser profile of its own; `more` is what Playwright knows of contexts."""
    still = {"locale": "en", "viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce"}
    context = await browser.new_context(**{**still, **more})
    try:
        yield Window(await context.new_page(), origin(tenant)).watch()
    finally:
        await context.close()


def origin(tenant: Tenant) -> str:
    """The service by the one name for which browsers keep `__Host-` cookies without TLS."""
    return f"http://localhost:{urlsplit(tenant.service.url).port}"


async def admit(context: BrowserContext, tenant: Tenant, role: str = "administrator", subject: str = "eva") -> None:
    """Sign somebody in without the pages for it."""
    said: dict[str, str | float | bool] = {"token": token(tenant.name, role, subject), "next": "/console/account"}
    answer = await context.request.post(origin(tenant) + "/console/sign-in", form=said, max_redirects=0)
    assert answer.status == 303, await answer.text()
