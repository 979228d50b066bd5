"""AccessGuard itself, started as its operators start it: `python -m accessguard serve` with stores of its own."""

from __future__ import annotations

import asyncio
import secrets
import time
from asyncio.subprocess import Process
from collections.abc import Mapping

import jwt

from accessguard.devices.cookie import DeviceKey, DeviceTokens
from benchmarks.processes import Processes, free_port, python

TENANT = "bench"
ISSUER = "bench"
AUDIENCE = "accessguard"
TOKEN_TTL_S = 3600


class Secrets:
    """The secrets of one run, made anew each time, and the tokens signed with them."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(32)
        self._device = secrets.token_hex(32)
        self._session = secrets.token_hex(32)
        self._identifier = secrets.token_hex(32)

    def environment(self) -> dict[str, str]:
        """Return what the service reads them from."""
        return {
            "ACCESSGUARD_TOKEN_SECRETS": self._token,
            "ACCESSGUARD_DEVICE_KEYS": f"k1:{self._device}",
            "ACCESSGUARD_SESSION_KEYS": f"k1:{self._session}",
            "ACCESSGUARD_IDENTIFIER_KEY": self._identifier,
        }

    def device_tokens(self) -> DeviceTokens:
        """What signs device tokens as the service does, for members who never logged in."""
        return DeviceTokens([DeviceKey(id="k1", secret=self._device)])

    def token(self, role: str, *, name: str = "bench") -> str:
        """Sign a JWT (HS256) of `role`, one of the contract's, for the benchmark's tenant; `name` tells two callers apart."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "exp": int(time.time()) + TOKEN_TTL_S,
            "sub": f"{name}-{role}",
            "role": role,
            "tenant": TENANT,
        }
        return jwt.encode(claims, self._token, algorithm="HS256")


class Service:
    """One worker that runs: its process and its port on the loopback interface."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port

    @property
    def address(self) -> str:
        """Where it listens, as the generator wants it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where it listens, as an HTTP client wants it."""
        return f"http://{self.address}"


async def migrate(processes: Processes, environment: Mapping[str, str]) -> None:
    """Bring the schema of the store in the environment up to date."""
    async with asyncio.timeout(60):
        await processes.read(*python("accessguard", "migrate"), env=environment)


async def start_service(
    processes: Processes, name: str, environment: Mapping[str, str], *, core: int | None
) -> Service:
    """Start one worker on free ports, and return once it listens. Raises BenchError when it ends at its start."""
    port, admin_port = free_port(), free_port()
    ports = {"ACCESSGUARD_PORT": str(port), "ACCESSGUARD_ADMIN_PORT": str(admin_port)}
    process = await processes.start(name, *python("accessguard", "serve"), core=core, env={**environment, **ports})
    await processes.listening(process, name, port)
    return Service(process, port)
