"""Django in one line of `MIDDLEWARE`, on either side: `accessguard.client.django.GuardMiddleware`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Mapping
from http.cookies import Morsel
from typing import TYPE_CHECKING, Any, TypeAlias

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve

from accessguard.client import asgi, wsgi
from accessguard.client.asgi import App, Scope
from accessguard.client.asking import AccessGuard
from accessguard.client.blocking import BlockingAccessGuard
from accessguard.client.front import Desk, Front, Refusal, Seen, reader
from accessguard.client.gate import AsyncGate, BlockingGate
from accessguard.client.naming import NOTHING, Named, mark_of

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

UID = "accessguard"
KEY = "accessguard"
"""Where a request's gate is found: `request.accessguard`."""

Answer: TypeAlias = HttpResponseBase | Awaitable[HttpResponseBase]


class GuardMiddleware:
    """Asks about every request before the rest of Django sees it; the first of `MIDDLEWARE`, under WSGI and ASGI.

    Needs `ACCESSGUARD` (`client.Settings`) among Django's settings, and takes
    `ACCESSGUARD_FRONT` (`client.front.Front`). Logins, failed ones and logouts
    of `django.contrib.auth` are told by its signals, a session that is not of
    the user who is logged in is refused, and both are logged out.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._desk = Desk(getattr(settings, "ACCESSGUARD_FRONT", None) or Front())
        self._guard: AccessGuard | BlockingAccessGuard
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)
            self._guard = AccessGuard(settings.ACCESSGUARD)
        else:
            self._guard = BlockingAccessGuard(settings.ACCESSGUARD)
        listen()

    def __call__(self, request: HttpRequest) -> Answer:
        """One request."""
        seen = seen_in(request)
        named = self._desk.paths.find(seen.method, seen.path)
        named = by_path(request.path_info) if named is NOTHING else named
        if isinstance(self._guard, AccessGuard):
            return self._later(request, AsyncGate(self._guard, self._desk, seen, named))
        gate = BlockingGate(self._guard, self._desk, seen, named)
        gate.ask()
        if gate.stopped:
            return refused(gate.refusal, gate.cookies)
        setattr(request, KEY, gate)
        return answered(gate, self._get_response(request))

    async def _later(self, request: HttpRequest, gate: AsyncGate) -> HttpResponseBase:
        await gate.ask()
        if gate.stopped:
            return refused(gate.refusal, gate.cookies)
        setattr(request, KEY, gate)
        return answered(gate, await self._get_response(request))

    def process_view(self, request: HttpRequest, view: object, args: object, values: object) -> None:
        """By now it is known who is logged in."""
        del view, args, values
        same_member(request)


def seen_in(request: HttpRequest) -> Seen:
    """A request as Django tells it."""

    def header(name: str) -> str:
        return str(request.headers.get(name, ""))

    return Seen(
        method=str(request.method),
        path=request.path,
        query=str(request.META.get("QUERY_STRING", "")),
        peer=str(request.META.get("REMOTE_ADDR", "")),
        host=header("host"),
        accept=header("accept"),
        cookies=str(request.META.get("HTTP_COOKIE", "")),
        user_agent=header("user-agent"),
        forwarded_for=header("x-forwarded-for"),
        hints=reader(header),
    )


def answered(gate: AsyncGate | BlockingGate, answer: HttpResponseBase) -> HttpResponseBase:
    """Django's answer with the cookies of a login, or a refusal in its place."""
    if gate.stopped:
        answer.close()
        return refused(gate.refusal, gate.cookies)
    return with_cookies(answer, gate.cookies)


def refused(refusal: Refusal, cookies: list[str]) -> HttpResponse:
    """A refusal as Django answers it."""
    headers = dict(refusal.headers)
    return with_cookies(HttpResponse(refusal.body, status=refusal.status, headers=headers), cookies)


class Written(Morsel[str]):
    """A cookie as the service wrote it; Python would drop one with an attribute that it does not know (`Partitioned`)."""

    def __init__(self, header: str) -> None:
        super().__init__()
        name, _, rest = header.partition("=")
        value = rest.partition(";")[0]
        self.set(name, value, value)
        self._header = header

    def OutputString(self, attrs: Container[str] | None = None) -> str:  # noqa: N802 - the library's name
        """The value of `Set-Cookie`."""
        del attrs
        return self._header


def with_cookies(answer: Any, cookies: list[str]) -> Any:
    """Put cookies into Django's own jar, which alone it sends."""
    for each in cookies:
        cookie = Written(each)
        answer.cookies[cookie.key] = cookie
    return answer


def guarded(app: WSGIApplication, guard: BlockingAccessGuard, front: Front | None = None) -> WSGIApplication:
    """Ask about every request of Django's WSGI application, before Django does anything; logins want `listen()`."""

    def names(environ: WSGIEnvironment) -> Named:
        return by_path(wsgi.seen_in({**environ, "SCRIPT_NAME": ""}).path)

    return wsgi.GuardMiddleware(app, guard, front, names=names)


def guarded_async(app: App, guard: AccessGuard, front: Front | None = None) -> App:
    """Ask about every request of Django's ASGI application, websockets as well; logins want `listen()`."""

    def names(scope: Scope) -> Named:
        return by_path(str(scope["path"]).removeprefix(str(scope.get("root_path", ""))))

    return asgi.GuardMiddleware(app, guard, front, names=names)


def by_path(path: str) -> Named:
    """The mark of `activity` on the view that Django will call."""
    try:
        found = resolve(path)
    except Resolver404:
        return NOTHING
    return mark_of(found.func, found.kwargs)


def gate_of(request: HttpRequest | None) -> AsyncGate | BlockingGate | None:
    """The gate of a request; None for one that came past the middleware (a shell)."""
    told: Mapping[str, object] = getattr(request, "environ", None) or getattr(request, "scope", None) or {}
    found = getattr(request, KEY, None) or told.get(wsgi.KEY)
    return found if isinstance(found, AsyncGate | BlockingGate) else None


class SameMember:
    """Below `AuthenticationMiddleware`, for `guarded` and `guarded_async`: a session must be that of the user who is logged in."""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        """Log whoever mixes two logins out of both; the gate answers."""
        same_member(request)
        return self._get_response(request)


def same_member(request: HttpRequest) -> None:
    """Log whoever mixes two logins out of both; the gate answers."""
    gate, user = gate_of(request), getattr(request, "user", None)
    if gate is not None and user is not None and user.is_authenticated and not gate.belongs(member(user)):
        logout(request)


def member(user: Any) -> str:
    """The member that a user is to the service: its primary key."""
    return str(user.pk)


def listen() -> None:
    """Tell the service of logins, failed ones and logouts of `django.contrib.auth`; once, when Django is set up."""
    user_logged_in.connect(_logged_in, dispatch_uid=UID)
    user_login_failed.connect(_login_failed, dispatch_uid=UID)
    user_logged_out.connect(_logged_out, dispatch_uid=UID)


def _logged_in(sender: object, request: HttpRequest | None, user: Any, **_: object) -> None:
    """Record a login; one that is refused is undone, and the gate answers in place of the view."""
    del sender
    gate = gate_of(request)
    if gate is None:
        return
    login = async_to_sync(gate.login) if isinstance(gate, AsyncGate) else gate.login
    answer = login(member(user))
    if not answer.allowed and request is not None:
        request.session.flush()


def _login_failed(
    sender: object, credentials: Mapping[str, Any], request: HttpRequest | None = None, **_: object
) -> None:
    del sender
    gate, said = gate_of(request), str(credentials.get("username") or "") or None
    if isinstance(gate, AsyncGate):
        async_to_sync(gate.failed)(said)
    elif gate is not None:
        gate.failed(said)


def _logged_out(sender: object, request: HttpRequest | None, **_: object) -> None:
    del sender
    gate = gate_of(request)
    if isinstance(gate, AsyncGate):
        async_to_sync(gate.logout)()
    elif gate is not None:
        gate.logout()
