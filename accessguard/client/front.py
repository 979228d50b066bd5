"""What all middleware has in common: who is asked about, and what a refused browser or program is answered."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus
from secrets import token_urlsafe
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

from accessguard.client.model import LoginAnswer, Reason, Verdict
from accessguard.client.naming import Path, Paths, pattern

PUBLIC: Final = (
    "/",
    "/login",
    "/login/",
    "/logout",
    "/logout/",
    "/accounts/login/",
    "/accounts/logout/",
    "/static/**",
    "/favicon.ico",
    "/robots.txt",
)
"""Open to everybody when a platform says nothing else: everything else wants a session."""

STRANGE: Final = re.compile(r"//|/\.\.?(/|$)|\\|[\x00-\x1f]")
"""A path that a later hop may read as another one is never public."""

ELSEWHERE: Final = re.compile(r"^//|\\|[\x00-\x1f]")
"""Where a browser may be led to another host when it is sent there (WHATWG URL, 4.4: tabs are taken out, `\\` is `/`)."""

LOG_IN_AGAIN: Final = frozenset({"no_session", "unknown_session", "session_ended", "session_expired"})
LONGEST_AGENT: Final = 1_024
TEN_YEARS_S: Final = 34_560_000
"""400 days, the longest a browser keeps a cookie (RFC 6265bis, 5.5); the service says when a session is over."""

PAGE: Final = """<!doctype html>
<html lang="{language}"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<main style="max-width:36rem;margin:4rem auto;padding:0 1rem;font-family:system-ui"><h1>{title}</h1><p dir="auto">{message}</p>{links}</main>
</html>
"""


class Front(msgspec.Struct, frozen=True, kw_only=True):
    """How a platform's middleware behaves.

    `public` paths are open to everybody and never asked about; every other one
    wants a session. A browser without one goes to `login_url`, with where it
    wanted to go in the field `next`; a path (`/login`) is public by that alone. `activities` are named by path. `forwarded`
    is how many proxies of one's own stand in front and add to
    `X-Forwarded-For`. Without `secure` the cookies go over plain HTTP, for a
    machine of one's own.
    """

    public: tuple[str, ...] = PUBLIC
    login_url: str | None = None
    activities: tuple[Path, ...] = ()
    forwarded: int = 0
    secure: bool = True
    app: str | None = None
    device_cookie: str = "__Host-ag_device"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A request, whatever framework it came to."""

    method: str
    path: str
    query: str
    peer: str
    host: str
    accept: str
    cookies: str
    user_agent: str
    forwarded_for: str
    hints: dict[str, str] = msgspec.field(default_factory=dict)


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to be sent in place of the platform's."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def line(self) -> str:
        """The status as WSGI has it."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"


NO_SESSION: Final = Reason(code="no_session", message="Please log in.")
UNDECIDED: Final = Reason(code="undecided", message="Please try again in a moment.")


class Desk:
    """A `Front` made ready: patterns compiled, names of cookies chosen."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.paths = Paths(front.activities)
        self._public = [pattern(each) for each in (*front.public, *_own(front.login_url))]
        self.cookie = "__Host-ag_login" if front.secure else "ag_login"

    def public(self, path: str) -> bool:
        """Whether a path is open to everybody."""
        return not STRANGE.search(path) and any(each.fullmatch(path) for each in self._public)

    def session(self, seen: Seen) -> str | None:
        """The session of a request: the hash of its cookie, so that nobody can name another's."""
        value = cookie(seen.cookies, self.cookie)
        return None if value is None else session_of(value)

    def device_token(self, seen: Seen) -> str | None:
        """The device's token."""
        return cookie(seen.cookies, self.front.device_cookie) or cookie(seen.cookies, "ag_device")

    def ip(self, seen: Seen) -> str:
        """The browser's address: the peer's, or what the outermost of the platform's own proxies saw."""
        if self.front.forwarded == 0:
            return seen.peer
        chain = [part.strip() for part in seen.forwarded_for.split(",") if part.strip()]
        return chain[max(0, len(chain) - self.front.forwarded)][:256] if chain else seen.peer

    def fresh(self) -> tuple[str, str]:
        """A new cookie for a login: its value, and the session that it stands for."""
        value = token_urlsafe(32)
        return value, session_of(value)

    def header(self, value: str, *, gone: bool = False) -> str:
        """The `Set-Cookie` of the session."""
        age = 0 if gone else TEN_YEARS_S
        secure = "; Secure" if self.front.secure else ""
        return f"{self.cookie}={value}; Path=/; Max-Age={age}{secure}; HttpOnly; SameSite=Lax"

    def device_header(self, header: str) -> str:
        """The `Set-Cookie` of the device, as the service wrote it; over plain HTTP under a name that browsers take there."""
        if self.front.secure:
            return header
        value = header.partition("=")[2].replace("; Secure", "")
        return f"ag_device={value}"

    def refusal(self, seen: Seen, found: Verdict | LoginAnswer | None) -> Refusal:
        """What a refused request is answered; None: it has no session."""
        reason = NO_SESSION if found is None else found.reason or UNDECIDED
        if found is not None and found.unknown:
            reason = UNDECIDED
        again = reason.code in LOG_IN_AGAIN
        status = 503 if reason.code == "undecided" else 401 if again else 403
        if seen.method in {"GET", "HEAD"} and "text/html" in seen.accept:
            return self._for_browsers(seen, reason, status, again=again)
        return _answer(status, "application/json", _json(reason))

    def _for_browsers(self, seen: Seen, reason: Reason, status: int, *, again: bool) -> Refusal:
        page = reason.page_url
        if page is None and again and self.front.login_url is not None:
            page = _with_next(self.front.login_url, seen)
        if page is not None:
            return _answer(303, "text/html; charset=utf-8", b"", ("Location", page))
        return _answer(status, "text/html; charset=utf-8", _page(reason))


def _own(login_url: str | None) -> tuple[str, ...]:
    """The path of the login page, when it is one of this platform's: another host's says nothing about paths here."""
    parts = urlsplit(login_url or "")
    return (parts.path,) if parts.path and not parts.scheme and not parts.netloc else ()


def session_of(value: str) -> str:
    """The session that a cookie stands for: what is stored says nothing about the cookie."""
    return "web-" + sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def cookie(header: str, name: str) -> str | None:
    """The first cookie of that name; None for none, or an empty one."""
    for part in header.split(";"):
        key, found, value = part.strip().partition("=")
        if found and key == name:
            return value.strip('"') or None
    return None


def reader(headers: Callable[[str], str]) -> dict[str, str]:
    """The client hints among the headers, that tell devices apart."""
    names = ("Sec-CH-UA", "Sec-CH-UA-Model", "Sec-CH-UA-Platform", "Sec-CH-UA-Platform-Version", "Sec-CH-UA-Mobile")
    return {name: value[:256] for name in names if (value := headers(name.lower()))}


def _with_next(url: str, seen: Seen) -> str:
    target = seen.path + (f"?{seen.query}" if seen.query else "")
    if not target.startswith("/") or ELSEWHERE.search(target):
        target = "/"
    return f"{url}{'&' if '?' in url else '?'}next={quote(target, safe='/')}"


def _json(reason: Reason) -> bytes:
    return msgspec.json.encode({"error": reason.code, "message": reason.message, "page_url": reason.page_url})


def _page(reason: Reason) -> bytes:
    mail = reason.support_email
    link = (
        ""
        if mail is None
        else f'<p><a href="mailto:{html.escape(quote(mail, safe="@+.-_"))}">{html.escape(mail)}</a></p>'
    )
    language = html.escape(reason.language or "en")
    message = html.escape(reason.message or reason.code)
    return PAGE.format(language=language, title="Access is restricted", message=message, links=link).encode()


def _answer(status: int, kind: str, body: bytes, *more: tuple[str, str]) -> Refusal:
    retry = (("Retry-After", "1"),) if status == 503 else ()
    length = ("Content-Length", str(len(body)))
    fixed = (("Content-Type", kind), length, ("Cache-Control", "no-store"))
    return Refusal(status=status, headers=(*fixed, *retry, *more), body=body)
