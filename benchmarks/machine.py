"""The machine below: which cores do what, and what the kernel says a process used."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

PR_SET_PDEATHSIG = 1  # prctl(2)


class Cores(msgspec.Struct, frozen=True, kw_only=True):
    """Which core a server is pinned to, and which the generator and the stores; None on a machine with one."""

    server: int | None
    generator: int | None


def cores() -> Cores:
    """Give the first usable core to the server under test and the second to everything else."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        return Cores(server=None, generator=None)
    return Cores(server=usable[0], generator=usable[1])


def cpu_ns(pid: int) -> int:
    """Processor time that all threads of a process have used, in ns, from the scheduler's own count (schedstat)."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files)


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM, in bytes (VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def stolen() -> float:
    """Seconds in which another machine had a processor that this one was ready to use, of all processors since it started (proc(5): steal); 0 where nobody says."""
    for line in _lines("/proc/stat"):
        name, *ticks = line.split()
        if name == "cpu" and len(ticks) > 7:
            return int(ticks[7]) / os.sysconf("SC_CLK_TCK")
    return 0.0


def about() -> dict[str, str]:
    """What a reader must know of the machine to place the figures."""
    model = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": model[0] if model else platform.machine(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def child_setup(core: int | None) -> Callable[[], None]:
    """Return what a child runs before its program: die with its parent, and stay on `core`."""
    return partial(_set_up, ctypes.CDLL(None).prctl, core)


def _set_up(prctl: Callable[..., int], core: int | None) -> None:
    prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if core is not None:
        os.sched_setaffinity(0, {core})
