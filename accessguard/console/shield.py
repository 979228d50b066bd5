"""What a browser is told of every page: nothing from elsewhere, nothing inline, framed by nobody, kept by nobody."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from accessguard.errors import ErrorCode, GuardError

# Content Security Policy level 3. `same-origin` of the referrer, as without it a browser sends forms with `Origin: null`.
POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Robots-Tag": "noindex, nofollow",
    "Cache-Control": "no-store",
}


def shielded(response: web.StreamResponse) -> web.StreamResponse:
    """The answer with what every page says; a file says itself how long it may be kept."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def from_here(request: web.Request) -> None:
    """Refuse a form that another site's page sent. Raises GuardError(FORBIDDEN).

    Browsers say so in `Sec-Fetch-Site` (Fetch Metadata), older ones in `Origin`; what sends neither is no browser, and has no cookie of one.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        ok = site == "same-origin"
    else:
        ok = origin is None or origin.partition("://")[2].lower() == request.host.lower()
    if not ok:
        raise GuardError(ErrorCode.FORBIDDEN, "This form was sent by a page of another site.")
