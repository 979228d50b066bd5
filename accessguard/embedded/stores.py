"""Both stores together, on one data folder that one service at a time may use."""

import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import IO, Final

from accessguard.embedded.postgres import database_url, end_predecessor, start_postgres
from accessguard.embedded.process import Child, EmbeddedError, server_user
from accessguard.embedded.valkey import redis_url, start_valkey

PREFIX: Final = "accessguard-"
SECRETS: Final = "secrets.toml"  # what `accessguard dev` signs with, beside the data
RESTORING: Final = "restoring"  # is there while data are being put in place of others
LONGEST_RUNTIME: Final = 107 - len("/.s.PGSQL.5432")  # sun_path holds 107 bytes and a zero (unix(7))


class Embedded:
    """A PostgreSQL and a Valkey that run while this does; built by `start`.

    The data lie in `folder`/postgres and `folder`/valkey, the logs beside them.
    The sockets lie in `runtime`, a private folder with a short path. `postgres`
    and `valkey` may be killed and started again on their own.
    """

    def __init__(self, folder: Path, lock: IO[str]) -> None:
        self.folder = folder
        self._lock = lock
        self.runtime = folder
        self.postgres: Child | None = None
        self.valkey: Child | None = None

    @classmethod
    async def start(cls, folder: Path) -> "Embedded":
        """Start both on `folder`, which is made when it does not exist.

        Call it on the main thread. Raises EmbeddedError when the folder cannot
        be written or is in use, or when a server does not start; then nothing
        is left running.
        """
        stores = cls(folder.resolve(), take(folder))
        try:
            await stores.prepare()
            await stores.start_valkey()
            await stores.start_postgres()
        except OSError as error:
            await stores.stop()
            raise EmbeddedError(f"Cannot use {error.filename or folder}: {error.strerror}.") from error
        except BaseException:
            await stores.stop()
            raise
        return stores

    async def prepare(self) -> None:
        """Clear away what a crash left behind and make the folder for the sockets."""
        if (self.folder / RESTORING).exists():
            raise EmbeddedError(f"A restore into {self.folder} was cut off: run `accessguard restore` again.")
        await end_predecessor(self.folder / "postgres")
        forget_runtime(self.folder)
        self.runtime = make_runtime(self.folder)

    @property
    def database_url(self) -> str:
        """The address for PostgreSQL drivers; the same after a restart of the server."""
        return database_url(self.runtime)

    @property
    def redis_url(self) -> str:
        """The address for Redis drivers; the same after a restart of the server."""
        return redis_url(self.runtime)

    async def start_postgres(self) -> None:
        """Start PostgreSQL, after a stop or a kill as at first."""
        self.postgres = await start_postgres(self.folder / "postgres", self.runtime)

    async def start_valkey(self) -> None:
        """Start Valkey, after a stop or a kill as at first."""
        self.valkey = await start_valkey(self.folder / "valkey", self.runtime)

    async def stop(self) -> None:
        """Stop both in order, remove their sockets and let go of the folder. A second call does nothing."""
        try:
            for child in (self.postgres, self.valkey):
                if child is not None:
                    await child.stop()
        finally:
            forget_runtime(self.folder)
            self._lock.close()


def take(folder: Path) -> IO[str]:
    """Make the folder, take its lock and return it; raises EmbeddedError when that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
    except OSError as error:
        raise EmbeddedError(f"Cannot write to the data folder {folder}: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise EmbeddedError(f"Another service is running on the data folder {folder}.") from error
    return lock


def make_runtime(folder: Path) -> Path:
    """Make the private folder for the sockets and note it in `folder`, so that a crash leaves it to the next start.

    Raises EmbeddedError when the system's folder for temporary files lies too deep for a socket.
    """
    place = tempfile.gettempdir()
    if len(place.encode()) + len(PREFIX) + 10 > LONGEST_RUNTIME:
        raise EmbeddedError(f"The path {place} is too long for a Unix socket; set TMPDIR to a shorter one.")
    runtime = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    (folder / "runtime").write_text(str(runtime))
    server_user(folder / "postgres").owns(runtime)
    return runtime


def forget_runtime(folder: Path) -> None:
    """Remove the folder for the sockets that was noted last, if any."""
    note = folder / "runtime"
    if note.exists():
        runtime = Path(note.read_text())
        if runtime.name.startswith(PREFIX):
            shutil.rmtree(runtime, ignore_errors=True)
        note.unlink()
