"""Middleware for WSGI: Django, Flask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from accessguard.client.blocking import BlockingAccessGuard
from accessguard.client.front import Desk, Front, Seen, reader
from accessguard.client.gate import BlockingGate
from accessguard.client.naming import NOTHING, Named

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    Names: TypeAlias = Callable[[WSGIEnvironment], Named]
    Failure: TypeAlias = tuple[type[BaseException], BaseException, object] | tuple[None, None, None] | None

KEY: Final = "accessguard"
"""Where a request's gate is found: `environ["accessguard"]`."""


class GuardMiddleware:
    """Asks about every request before the application sees it; `names` finds what it does where no path pattern does."""

    def __init__(
        self,
        app: WSGIApplication,
        guard: BlockingAccessGuard,
        front: Front | None = None,
        *,
        names: Names | None = None,
    ) -> None:
        self._app = app
        self._guard = guard
        self._desk = Desk(front or Front())
        self._names = names

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request, by PEP 3333."""
        seen = seen_in(environ)
        named = self._desk.paths.find(seen.method, seen.path)
        if named is NOTHING and self._names is not None:
            named = self._names(environ)
        gate = BlockingGate(self._guard, self._desk, seen, named)
        gate.ask()
        if gate.stopped:
            return _refuse(gate, start_response)
        environ[KEY] = gate
        return _answered(gate, self._app(environ, Starting(gate, start_response)), start_response)


class Starting:
    """Begins the application's answer with the cookies of a login; not at all, when it is to be replaced."""

    __slots__ = ("_gate", "_start")

    def __init__(self, gate: BlockingGate, start: StartResponse) -> None:
        self._gate = gate
        self._start = start

    def __call__(
        self, status: str, headers: list[tuple[str, str]], exc_info: Failure = None, /
    ) -> Callable[[bytes], object]:
        """PEP 3333, "The start_response() Callable"."""
        if self._gate.stopped:
            return _nowhere
        cookies = [("Set-Cookie", each) for each in self._gate.cookies]
        return self._start(status, headers + cookies, exc_info)  # type: ignore[arg-type]  # typeshed names the traceback's type


def seen_in(environ: WSGIEnvironment) -> Seen:
    """A request as WSGI tells it: text that is bytes in Latin-1 (PEP 3333)."""

    def header(name: str) -> str:
        return str(environ.get(f"HTTP_{name.upper().replace('-', '_')}", ""))

    path = str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", ""))
    return Seen(
        method=str(environ["REQUEST_METHOD"]),
        path=path.encode("latin-1").decode("utf-8", "replace") or "/",
        query=str(environ.get("QUERY_STRING", "")),
        peer=str(environ.get("REMOTE_ADDR", "")),
        host=header("host"),
        accept=header("accept"),
        cookies=header("cookie"),
        user_agent=header("user-agent"),
        forwarded_for=header("x-forwarded-for"),
        hints=reader(header),
    )


def _answered(gate: BlockingGate, answer: Iterable[bytes], start_response: StartResponse) -> Iterable[bytes]:
    """The application's answer, or a refusal in its place."""
    if not gate.stopped:
        return answer
    close = getattr(answer, "close", None)
    if close is not None:
        close()
    return _refuse(gate, start_response)


def _refuse(gate: BlockingGate, start_response: StartResponse) -> Iterable[bytes]:
    refusal = gate.refusal
    start_response(refusal.line, [*refusal.headers, *(("Set-Cookie", each) for each in gate.cookies)])
    return (refusal.body,)


def _nowhere(data: bytes) -> None:
    """What the application writes in vain."""
    del data
