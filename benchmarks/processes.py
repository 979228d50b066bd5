"""Child processes: pinned, watched while they start, and gone when the run ends, however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.machine import child_setup
from benchmarks.model import BenchError

ROOT = Path(__file__).parent.parent
START_S = 20


class Processes:
    """Starts children in sessions of their own, so that Ctrl-C reaches them only through here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[Process] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._running):
            await self.stop(process)

    async def start(
        self, name: str, *command: str, core: int | None = None, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start a program pinned to `core`; what it prints goes to a file of that name in the run's folder."""
        with (self._folder / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdout=log,
                stderr=log,
                stdin=asyncio.subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=child_setup(core),
            )
        self._running.append(process)
        return process

    async def read(self, *command: str, core: int | None = None, env: Mapping[str, str] | None = None) -> bytes:
        """Run a program to its end and return what it printed; raises BenchError when it fails."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=child_setup(core),
        )
        self._running.append(process)
        try:
            out, err = await process.communicate()
        finally:
            await self.stop(process)
        if process.returncode != 0:
            raise BenchError(f"{Path(command[0]).name} failed: {err.decode(errors='replace').strip()[-500:]}")
        return out

    async def stop(self, process: Process) -> None:
        """End a process and its children: SIGTERM, and SIGKILL when 5 s were not enough."""
        if process in self._running:
            self._running.remove(process)
        if process.returncode is None:
            _signal(process, signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), timeout=5)
        _signal(process, signal.SIGKILL)
        await process.wait()

    async def listening(self, process: Process, name: str, port: int) -> None:
        """Return once `port` takes connections; raises BenchError when the process ends first."""
        for _ in range(START_S * 20):
            if process.returncode is not None:
                log = (self._folder / f"{name}.log").read_text(errors="replace")
                raise BenchError(f"{name} ended at its start: {log.strip()[-800:]}")
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)
        raise BenchError(f"{name} did not listen within {START_S} s")


def _signal(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a module with this interpreter."""
    return (sys.executable, "-m", module, *arguments)


def free_port() -> int:
    """Return a TCP port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
