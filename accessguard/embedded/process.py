"""Child processes of ours: started apart from the terminal, ended in order, never left behind."""

import asyncio
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

POLL_S: Final = 0.01  # a server is up some 50 ms after its start, so that this adds little
LAUNCH: Final = Path(__file__).with_name("launch.py")


class EmbeddedError(Exception):
    """The embedded stores cannot run; the text is one sentence for the person who started them."""


class User:
    """Whom the servers run as: `uid` and `gid`, or nobody else when `switch` is False."""

    def __init__(self, uid: int, gid: int) -> None:
        self.uid = uid
        self.gid = gid
        self.switch = uid != os.geteuid()

    def owns(self, path: Path) -> None:
        """Hand `path` to this user, when it is not theirs by itself."""
        if self.switch:
            os.chown(path, self.uid, self.gid)

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}" if self.switch else "-"


def server_user(data: Path) -> User:
    """Return whom a server on the folder `data` runs as.

    PostgreSQL refuses to run as root, so there it is the owner of the data
    that is there already, else `nobody`. Everybody else stays who they are.
    """
    if os.geteuid() != 0:
        return User(os.geteuid(), os.getegid())
    if data.exists() and data.stat().st_uid != 0:
        return User(data.stat().st_uid, data.stat().st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError("PostgreSQL does not run as root, and this system has no user `nobody`.") from None
    return User(nobody.pw_uid, nobody.pw_gid)


def package_folder(name: str) -> Path:
    """Return the folder of an installed package without running it; raises EmbeddedError when it is not there."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"The package {name} is not installed; `make setup` installs it.")
    return Path(spec.submodule_search_locations[0]).resolve()


class Child:
    """A running program of ours; built by `start`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, goodbye: signal.Signals) -> None:
        self._process = process
        self._goodbye = goodbye
        self.log = log

    @classmethod
    def start(
        cls,
        command: Sequence[str | Path],
        *,
        user: User,
        folder: Path,
        log: Path,
        goodbye: signal.Signals,
        stdin: int = subprocess.DEVNULL,
    ) -> "Child":
        """Start `command` in `folder` as `user`, its output in the file `log`, which is begun anew.

        `goodbye` asks it to stop; the kernel sends the same should this process
        end without a word. That holds for the thread that starts it: call this
        on the main thread.
        """
        launch = (sys.executable, "-I", "-S", LAUNCH, str(os.getpid()), str(int(goodbye)), str(user), folder)
        with log.open("wb") as output:
            process = subprocess.Popen(
                (*launch, *command),
                stdin=stdin,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            )
        return cls(process, log, goodbye)

    @property
    def pid(self) -> int:
        """The process id; the program's own once it has started."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the program has not ended yet."""
        return self._process.poll() is None

    @property
    def reason(self) -> str:
        """The last line of the log that tells of a failure, without its prefix; empty when there is none."""
        lines = self.log.read_text(errors="replace").splitlines()
        told = [line for line in lines if any(word in line for word in ("FATAL:", "PANIC:", "error:", "could not"))]
        return told[-1].rpartition(":  ")[2].strip().removeprefix("but ").rstrip(".") if told else ""

    async def exit_code(self, *, within_s: float) -> int | None:
        """Wait for the end and return the exit code (minus the signal that ended it), or None when time is up."""
        try:
            async with asyncio.timeout(within_s):
                while self.running:
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            return None
        return self._process.returncode

    async def stop(self, *, within_s: float = 20) -> None:
        """Ask it to stop, wait, and end it when it has not stopped in time. An ended one is left alone."""
        if self.running:
            self._process.send_signal(self._goodbye)
        if await self.exit_code(within_s=within_s) is None:
            await self.kill()

    async def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would, and wait until it is gone."""
        if self.running:
            self._process.kill()
        await self.exit_code(within_s=5)
