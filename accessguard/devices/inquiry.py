"""The worker's end of the slow recogniser: started when first asked, ended when nobody asks for a while."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from typing import Final

import msgspec

from accessguard.devices.refinement import Asked, Sighting

PROGRAM: Final = "accessguard.devices.detector"

START_S: Final = 60.0
"""The first answer reads 10 MB of expressions: 2 s on an idle core, many times that on one that others keep busy."""
ANSWER_S: Final = 60.0
"""Expressions are compiled when first needed: a string of a new maker took 6 s on a machine with eight jobs for two
cores, where the process gives way to all of them. What takes ten times that is made to."""
END_S: Final = 2.0


class InquiryError(Exception):
    """The recogniser gave no answer; the text says whether it died or took too long."""


class Inquiry:
    """One process at most, asked one question at a time."""

    def __init__(self, program: str = PROGRAM, *, start_s: float = START_S, answer_s: float = ANSWER_S) -> None:
        self._program, self._start_s, self._answer_s = program, start_s, answer_s
        self._process: Process | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process now."""
        return self._process is not None

    async def ask(self, asked: Asked) -> Sighting | None:
        """What the recogniser says; None when it stumbled, or thought too long, and would again.

        Raises InquiryError when it died or could not be started: another time it may answer.
        """
        limit_s = self._answer_s if self.running else self._start_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._asked(asked)
        except TimeoutError:
            started = limit_s == self._answer_s
            await self.stop(at_once=True)
            if started:
                return None
            raise InquiryError("it did not start in time") from None
        except (OSError, msgspec.DecodeError) as error:
            await self.stop(at_once=True)
            raise InquiryError("it died") from error
        except asyncio.CancelledError:
            await self.stop(at_once=True)
            raise

    async def stop(self, *, at_once: bool = False) -> None:
        """End the process, if there is one; the next question starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            if at_once:
                process.kill()
        try:
            await asyncio.wait_for(process.wait(), END_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _asked(self, asked: Asked) -> Sighting | None:
        process = self._process or await self._started()
        if process.stdin is None or process.stdout is None:
            raise OSError("no pipes")
        process.stdin.write(msgspec.json.encode(asked) + b"\n")
        await process.stdin.drain()
        return msgspec.json.decode(await process.stdout.readline(), type=Sighting | None)

    async def _started(self) -> Process:
        """The process, kept also when the question is given up meanwhile: it would outlive the loop otherwise."""
        starting = asyncio.create_task(self._start())
        try:
            return await asyncio.shield(starting)
        finally:
            self._process = await starting

    async def _start(self) -> Process:
        """Start it in a session of its own, so that Ctrl-C is for the worker, and without the worker's environment."""
        environment = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(sys.path)}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self._program),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env=environment,
            start_new_session=True,
        )
