"""The load generator: `load.c`, compiled for the run, or the Python one where no compiler is found."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec

from benchmarks.model import BenchError, Load, Measure
from benchmarks.processes import Processes, python

SOURCE = Path(__file__).with_name("load.c")
ONCE_S = 480


class Generator:
    """Runs loads, one at a time, on its own core."""

    def __init__(self, command: tuple[str, ...], processes: Processes, core: int | None) -> None:
        self._command = command
        self._processes = processes
        self._core = core

    @property
    def native(self) -> bool:
        """Whether this is the compiled one; figures of the other are bounded by the generator itself."""
        return len(self._command) == 1

    async def run(self, load: Load, *, seconds: float, warmup: float) -> Measure:
        """Put `load` on its target for `warmup` and then `seconds`; raises BenchError when it cannot connect."""
        arguments = (*_arguments(load), "--seconds", str(seconds), "--warmup", str(warmup))
        try:
            async with asyncio.timeout(ONCE_S if load.once else seconds + warmup + 30):
                printed = await self._processes.read(*self._command, *arguments, core=self._core)
        except TimeoutError:
            raise BenchError(f"{load.address} stopped answering") from None
        return msgspec.json.decode(printed, type=Measure)


async def make_generator(folder: Path, processes: Processes, core: int | None) -> Generator:
    """Compile the generator into `folder`, or fall back to the Python one."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return Generator(python("benchmarks.fallback"), processes, core)
    program = str(folder / "load")
    await processes.read(compiler, "-O2", "-o", program, str(SOURCE), "-lm")
    return Generator((program,), processes, core)


def _arguments(load: Load) -> list[str]:
    arguments = ["--connect", load.address, "--requests", str(load.requests), "--connections", str(load.connections)]
    for text in load.expects:
        arguments += ["--expect", text]
    for pid in load.watch:
        arguments += ["--watch", str(pid)]
    if load.never:
        arguments += ["--never", load.never]
    if load.rate:
        arguments += ["--rate", str(load.rate)]
    return [*arguments, "--once"] if load.once else arguments
