"""nginx and HAProxy as references, and nginx as a caller; each one process on the server's core, where installed."""

from __future__ import annotations

import os
import shutil
from asyncio.subprocess import Process
from pathlib import Path

from benchmarks.model import Skipped
from benchmarks.processes import Processes, free_port

PATHS = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 100000000; default_type application/json;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi; open_file_cache max=10;
{servers}
}}
"""
NGINX_RETURN = """
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{{"allow":true}}'; }} }}
"""
NGINX_ASKS = """
    upstream guard {{ server 127.0.0.1:{guard}; keepalive 64; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ auth_request /_guard; root {folder}/site; }}
        location = /_guard {{
            internal; proxy_pass http://guard/auth/nginx; proxy_pass_request_body off;
            proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Content-Length "";
            proxy_set_header X-Original-URI $request_uri; proxy_set_header X-Forwarded-For $http_x_forwarded_for;
            proxy_set_header Authorization "Bearer {token}";
        }}
    }}
"""
HAPROXY = """
global
    nbthread 1
defaults
    mode http
    timeout client 30s
    timeout server 30s
    timeout connect 5s
frontend checks
    bind 127.0.0.1:{port}
    http-request return status 200 content-type application/json string '{{"allow":true}}' if {{ req.cook(session),map({folder}/sessions.map) -m found }}
    http-request deny
"""


class Proxy:
    """A proxy that runs: its process and its port on the loopback interface."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port

    @property
    def address(self) -> str:
        """Where it listens, as the generator wants it."""
        return f"127.0.0.1:{self.port}"


def program(name: str) -> str:
    """Return the path of an installed program; raises Skipped where it is not installed."""
    found = shutil.which(name, path=PATHS)
    if found is None:
        raise Skipped(f"{name} is not installed")
    return found


async def nginx_return(processes: Processes, folder: Path, core: int | None) -> Proxy:
    """Start an nginx that answers every request by itself: as fast as HTTP/1.1 gets on one core."""
    port = free_port()
    return await _nginx(processes, folder / "nginx-return", core, port=port, servers=NGINX_RETURN.format(port=port))


async def nginx_asking(processes: Processes, folder: Path, core: int | None, guard: int, token: str) -> Proxy:
    """Start an nginx that serves a small file after asking `guard`, a port, with `auth_request` and a platform's token.

    It stands behind a balancer that it believes: the generator says which address a request came from, so that what is
    asked here and by checks is one question with one verdict.
    """
    port = free_port()
    room = folder / "nginx-asking"
    site = room / "site"
    site.mkdir(parents=True, exist_ok=True)
    (site / "index.html").write_text('{"allow":true}')
    servers = NGINX_ASKS.format(port=port, guard=guard, folder=room, token=token)
    return await _nginx(processes, room, core, port=port, servers=servers)


async def _nginx(processes: Processes, room: Path, core: int | None, *, port: int, servers: str) -> Proxy:
    nginx, name = program("nginx"), room.name
    settings = _configure(room, servers)
    process = await processes.start(name, nginx, "-p", str(room), "-c", str(settings), core=core)
    await processes.listening(process, name, port)
    return Proxy(process, port)


def _configure(room: Path, servers: str) -> Path:
    room.mkdir(exist_ok=True)
    settings = room / "nginx.conf"
    settings.write_text(NGINX.format(folder=room, servers=servers))
    return settings


async def haproxy_map(processes: Processes, folder: Path, core: int | None, sessions: int) -> Proxy:
    """Start a HAProxy that looks the cookie `session` up in a static map of s0, s1, ..."""
    haproxy = program("haproxy")
    port = free_port()
    (folder / "sessions.map").write_text("".join(f"s{number} 1\n" for number in range(sessions)))
    (folder / "haproxy.cfg").write_text(HAPROXY.format(port=port, folder=folder))
    process = await processes.start("haproxy", haproxy, "-db", "-f", str(folder / "haproxy.cfg"), core=core)
    await processes.listening(process, "haproxy", port)
    return Proxy(process, port)
