"""Django in one line, on either side: `application = guarded(get_wsgi_application(), guard)`, and `listen()` for its logins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.contrib.auth import logout
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest
from django.urls import Resolver404, resolve

from accessguard.client import asgi, wsgi
from accessguard.client.asgi import App, Scope
from accessguard.client.asking import AccessGuard
from accessguard.client.blocking import BlockingAccessGuard
from accessguard.client.front import Front
from accessguard.client.gate import AsyncGate, BlockingGate
from accessguard.client.naming import NOTHING, Named, mark_of

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

UID = "accessguard"


def guarded(app: WSGIApplication, guard: BlockingAccessGuard, front: Front | None = None) -> WSGIApplication:
    """Ask about every request of Django's WSGI application."""

    def names(environ: WSGIEnvironment) -> Named:
        return by_path(wsgi.seen_in({**environ, "SCRIPT_NAME": ""}).path)

    return wsgi.GuardMiddleware(app, guard, front, names=names)


def guarded_async(app: App, guard: AccessGuard, front: Front | None = None) -> App:
    """Ask about every request of Django's ASGI application."""

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
    """The gate of a request; None for one that came past the middleware (a shell, a test client)."""
    told: Mapping[str, object] = getattr(request, "environ", None) or getattr(request, "scope", None) or {}
    found = told.get(wsgi.KEY)
    return found if isinstance(found, AsyncGate | BlockingGate) else None


class SameMember:
    """Django's own middleware, below `AuthenticationMiddleware`: a session must be that of the user who is logged in."""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        """Log whoever mixes two logins out of both; the gate answers."""
        gate = gate_of(request)
        if gate is not None and request.user.is_authenticated and not gate.belongs(member(request.user)):
            logout(request)
        return self._get_response(request)


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
