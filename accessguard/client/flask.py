"""Flask in one line: `guarded(app, guard)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from accessguard.client.blocking import BlockingAccessGuard
from accessguard.client.front import Front
from accessguard.client.naming import NOTHING, Named, mark_of
from accessguard.client.wsgi import GuardMiddleware

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from flask import Flask


def guarded(app: Flask, guard: BlockingAccessGuard, front: Front | None = None) -> Flask:
    """Ask about every request of an application; its views find the gate in `request.environ["accessguard"]`."""
    from werkzeug.exceptions import HTTPException  # noqa: PLC0415 - whoever has Flask has it

    def names(environ: WSGIEnvironment) -> Named:
        try:
            endpoint, values = app.url_map.bind_to_environ(environ).match()
        except HTTPException:  # no such page, or a redirect: the application's to answer
            return NOTHING
        return mark_of(app.view_functions.get(endpoint), values)

    app.wsgi_app = GuardMiddleware(app.wsgi_app, guard, front, names=names)  # type: ignore[method-assign]  # as Flask's manual has it
    return app
