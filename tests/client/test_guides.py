"""The guides "in ten minutes", followed to the letter: their files written, their lines typed, their answers compared."""

import asyncio
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from time import monotonic

import pytest

from tests.chaos.stage import free_port
from tests.service import SECRET

ROOT = Path(__file__).parents[2]
NAMES = ("aiohttp", "django", "fastapi", "flask", "starlette")
GUIDES = [ROOT / "docs" / "guides" / f"{name}.md" for name in NAMES]
PATIENCE_S = 40
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "--so much for that--"


class Terminal:
    """A shell in which the lines of a guide are typed; `&` hands its server's log to a file."""

    def __init__(self, shell):
        self._shell = shell

    async def types(self, line):
        """What a line says."""
        if line.endswith("&"):
            line = f"{line[:-1]} > server.log 2>&1 &"
        self._shell.stdin.write(f"{line}\necho; echo '{MARK}'\n".encode())
        said = await self._shell.stdout.readuntil(f"\n{MARK}\n".encode())
        return said.decode().removesuffix(f"\n{MARK}\n").strip("\n")

    async def says(self, line, expected):
        """Type a line until it says what is expected: a server starts, an event is on its way."""
        like = re.compile(".*".join(map(re.escape, expected.split("..."))), re.DOTALL)
        began = monotonic()
        while not like.fullmatch(said := await self.types(line)):
            assert monotonic() < began + PATIENCE_S, f"{line}\nsaid:     {said}\nexpected: {expected}"
            await asyncio.sleep(0.1)


def written(folder, block):
    """Write a file of the guide, or add to it."""
    first, _, code = block.partition("\n")
    name, _, end = first.removeprefix("# ").partition(",")
    with (folder / name).open("a" if end else "w") as file:
        file.write(f"\n\n{code}" if end else code)


def typed(block):
    """The lines of a terminal, each with what comes of it."""
    for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        line, _, expected = piece.partition("\n")
        yield line, expected.strip("\n")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the guides use curl")
async def test_every_guide_leads_where_it_says(service, tmp_path):
    """In an empty folder, with a service at hand: every line answers what the guide says it does."""
    followed = [follow(service, guide, tmp_path / guide.stem) for guide in GUIDES]

    assert await asyncio.gather(*followed) == [12, 15, 12, 12, 12]


async def follow(service, guide, folder):
    """Follow one guide; how many lines were typed."""
    folder.mkdir()
    place = {"127.0.0.1:8080": service.url.removeprefix("http://"), "demo": service.tenant().name}
    text = guide.read_text().replace("8000", str(free_port()))
    for said, meant in place.items():
        text = text.replace(said, meant)
    bin_first = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    known = {name: value for name, value in os.environ.items() if not name.startswith(("ACCESSGUARD_", "DJANGO_"))}
    told = {"PATH": bin_first, "PYTHONPATH": str(ROOT), "ACCESSGUARD_TOKEN_SECRETS": SECRET}
    shell = await asyncio.create_subprocess_exec(
        *("bash", "--norc"),
        cwd=folder,
        env=known | told,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    terminal, lines = Terminal(shell), 0
    try:
        for kind, block in BLOCK.findall(text):
            if kind == "python":
                written(folder, block)
                continue
            for line, expected in typed(block):
                await terminal.says(line, expected)
                lines += 1
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        await shell.communicate()
    return lines
