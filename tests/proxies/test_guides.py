"""Each guide for a proxy, followed word for word: its commands in one shell, its answers compared; ports and places are those of the test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.proxies.stage import found, free_port
from tests.service import Tenant, token

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
BLOCK = re.compile(r"^```(sh|sh terminal|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END = "-- that was it --"
NAMES = [
    pytest.param(name, marks=pytest.mark.skipif(found(name) is None, reason=f"there is no {name} here"))
    for name in ("nginx", "caddy", "haproxy", "envoy", "traefik")
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(found("curl") is None or found("openssl") is None, reason="there is no curl or openssl here"),
]


class Reader:
    """Somebody who pastes what a guide says: commands into one shell, servers into terminals of their own."""

    def __init__(self, shell: Process, environment: dict[str, str], folder: Path) -> None:
        self._shell = shell
        self._environment = environment
        self._folder = folder
        self.terminals: list[Process] = []

    async def paste(self, commands: str) -> str:
        """What the shell shows for these commands."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{commands}\necho '{END}'\n".encode())
        shown = await asyncio.wait_for(self._shell.stdout.readuntil(f"{END}\n".encode()), 60)
        return shown.decode().removesuffix(f"{END}\n")

    async def open(self, command: str, port: int) -> None:
        """Start a server in a terminal, and wait until it listens."""
        terminal = await asyncio.create_subprocess_shell(
            f"exec {command}", cwd=self._folder, env=self._environment, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
        )
        self.terminals.append(terminal)
        for _ in range(600):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            assert terminal.returncode is None, command
            await asyncio.sleep(0.05)

    async def wait(self, url: str) -> None:
        """Do what takes nobody who pastes: wait until the proxy has read its configuration."""
        for _ in range(200):
            if await self.paste(f"curl -sk -o /dev/null -w '%{{http_code}}' {url}/; echo") == "401\n":
                return
            await asyncio.sleep(0.05)


def here(text: str, ports: dict[str, str]) -> str:
    """The same with the ports of the test."""
    return re.sub(r"\b(8080|8000|8443)\b", lambda port: ports[port[1]], text)


def desk(folder: Path, tenant: Tenant, name: str, ports: dict[str, str]) -> dict[str, str]:
    """A folder that looks like this repository's, and an environment in which the programs of the guide are found."""
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (folder / "config" / "proxies").mkdir(parents=True)
    for file in (ROOT / "config" / "proxies").iterdir():
        (folder / "config" / "proxies" / file.name).write_text(here(file.read_text("utf-8"), ports), "utf-8")
    maker = programs / "accessguard"
    tokens = {role: token(tenant.name, role) for role in ("platform", "administrator")}
    lines = [f'[ "$*" = "token --tenant demo --role {role}" ] && echo {said}' for role, said in tokens.items()]
    maker.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    maker.chmod(0o755)
    for program, place in ((name, found(name)), ("python3", sys.executable)):
        (programs / program).symlink_to(place or "")
    path = f"{programs}:{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}


@contextlib.asynccontextmanager
async def reader(folder: Path, environment: dict[str, str]) -> AsyncIterator[Reader]:
    """A shell in that folder; it and every server end with the test."""
    shell = await asyncio.create_subprocess_exec(
        "bash", cwd=folder, env=environment, stdin=PIPE, stdout=PIPE, stderr=STDOUT
    )
    somebody = Reader(shell, environment, folder)
    try:
        yield somebody
    finally:
        for process in (*somebody.terminals, shell):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.communicate()


def fits(said: str) -> re.Pattern[str]:
    """An answer as the guide shows it; `...` stands for what is new each time."""
    return re.compile(re.escape(said).replace(re.escape("..."), "[^\n]+"))


@pytest.mark.parametrize("name", NAMES)
async def test_a_guide_does_what_it_says(name: str, tenant: Tenant, tmp_path: Path):
    """Every command of the guide, in its order, and every answer that it shows."""
    guard = tenant.service.url.rpartition(":")[2]
    ports = {"8080": guard, "8000": str(free_port()), "8443": str(free_port())}
    text = (GUIDES / f"{name}.md").read_text(encoding="utf-8")
    shown, wanted = "", []

    environment = desk(tmp_path, tenant, name, ports)
    async with reader(tmp_path, environment) as somebody:
        for kind, block in BLOCK.findall(text):
            mine = here(block, ports)
            if kind == "sh terminal":
                alone = "platform.py" in mine
                await somebody.open(mine, int(ports["8000" if alone else "8443"]))
                if not alone:
                    await somebody.wait(("http" if name == "envoy" else "https") + f"://localhost:{ports['8443']}")
            elif kind == "sh":
                shown = await somebody.paste(mine)
            else:
                wanted.append(block)
                assert fits(block.replace("tenant: demo", f"tenant: {tenant.name}")).fullmatch(shown), shown

    assert len(wanted) == 5
