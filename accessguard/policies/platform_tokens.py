"""The platform's own tokens (RFC 7519) as identity: verified with the keys and algorithms of the settings, and remembered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from jwt import PyJWK, PyJWS
from jwt.exceptions import InvalidSignatureError, PyJWTError

from accessguard.policies.proxying import JwtIdentity, ProxySettings

MOST_CHARS: Final = 8_192
MOST_HELD: Final = 10_000
LEEWAY_S: Final = 5
"""How far the platform's clock may be from ours."""


class Named(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whom a genuine token names: `until_s` is its `exp` with the leeway, in seconds since 1970."""

    session_id: str
    member_id: str | None
    until_s: float


class PlatformTokens:
    """Reads tokens of every tenant; one that is known again costs a lookup until it ends."""

    def __init__(self) -> None:
        self._jws = PyJWS(algorithms=["RS256", "ES256", "EdDSA"])
        self._held: dict[str, tuple[JwtIdentity, Named]] = {}

    def read(self, settings: JwtIdentity, token: str, now_s: float) -> Named | None:
        """Whom the token names; None for one that is forged, foreign, too early, over or without the claims."""
        held = self._held.get(token)
        if held is not None and held[0] is settings and now_s < held[1].until_s:
            return held[1]
        found = self._named(settings, token, now_s)
        if found is not None:
            if len(self._held) >= MOST_HELD:
                self._held.clear()
            self._held[token] = (settings, found)
        return found

    def _named(self, settings: JwtIdentity, token: str, now_s: float) -> Named | None:
        claims = self._claims(settings, token) if len(token) <= MOST_CHARS and token.isascii() else None
        if claims is None or not _stands(settings, claims, now_s):
            return None
        session = _name(claims.get(settings.session_claim))
        member = None if settings.member_claim is None else _name(claims.get(settings.member_claim))
        if session is None or (settings.member_claim is not None and member is None):
            return None
        return Named(session_id=session, member_id=member, until_s=claims["exp"] + LEEWAY_S)

    def _claims(self, settings: JwtIdentity, token: str) -> dict[str, Any] | None:
        try:
            header = self._jws.get_unverified_header(token)
            for key in _usable(settings, header.get("alg"), header.get("kid")):
                try:
                    return msgspec.json.decode(
                        self._jws.decode(token, key, algorithms=[key.algorithm_name]), type=dict[str, Any]
                    )
                except InvalidSignatureError:
                    continue
        except (PyJWTError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return None


def _usable(settings: JwtIdentity, algorithm: object, kid: object) -> Iterator[PyJWK]:
    """The keys to try: those of the token's `kid` when it has one, and of its algorithm, which is one of the pinned."""
    if algorithm not in settings.algorithms:
        return
    for said in settings.keys:
        key = PyJWK.from_dict(said)
        if key.algorithm_name == algorithm and (kid is None or key.key_id == kid):
            yield key


def _stands(settings: JwtIdentity, claims: dict[str, Any], now_s: float) -> bool:
    """Whether the token is for this platform, and at this moment."""
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    end, start = claims.get("exp"), claims.get("nbf")
    return (
        _is_time(end)
        and now_s < claims["exp"] + LEEWAY_S
        and (start is None or (_is_time(start) and now_s >= claims["nbf"] - LEEWAY_S))
        and (settings.issuer is None or claims.get("iss") == settings.issuer)
        and (settings.audience is None or settings.audience in audiences)
    )


def _is_time(said: object) -> bool:
    return isinstance(said, (int, float)) and not isinstance(said, bool) and 0 <= said < 1 << 40


def _name(said: object) -> str | None:
    """A claim as an id of the platform's: 1 to 128 characters; some platforms count their ids."""
    if isinstance(said, int) and not isinstance(said, bool):
        said = str(said)
    return said if isinstance(said, str) and 0 < len(said) <= 128 and "\0" not in said else None


def key_problems(settings: ProxySettings) -> Iterator[tuple[str, str]]:
    """What is wrong with the keys: a pointer into the settings, and why."""
    spoken = [
        ("/proxy", settings.jwt),
        *((f"/proxy/hosts/{place}", one.jwt) for place, one in enumerate(settings.hosts)),
    ]
    for pointer, jwt in spoken:
        for place, said in enumerate(() if jwt is None else jwt.keys):
            detail = None if jwt is None else _fault(jwt, said)
            if detail is not None:
                yield f"{pointer}/jwt/keys/{place}", detail


def _fault(settings: JwtIdentity, said: dict[str, Any]) -> str | None:
    if said.get("kty") == "oct" or "d" in said:
        return "a public key (RFC 7517); settings are read by many, so that no secret belongs here"
    if not all(_plain(each) for each in said.values()):
        return "no usable key (RFC 7517)"
    try:
        key = PyJWK.from_dict(said)
    except (PyJWTError, ValueError, TypeError, KeyError):
        return "no usable key (RFC 7517)"
    if key.algorithm_name not in settings.algorithms:
        return f"its algorithm is {key.algorithm_name}, which is none of `algorithms`"
    return "the key is too short" if key.Algorithm.check_key_length(key.key) else None


def _plain(value: object) -> bool:
    """Whether a public key may say it: a text, a number, yes or no, or a list of texts; nothing that is nested without end."""
    return not isinstance(value, dict) and (not isinstance(value, list) or all(isinstance(each, str) for each in value))
