"""The session token: a session's name, signed, for proxies that know only a cookie."""

from collections.abc import Sequence
from typing import Final

import msgspec

from accessguard.signing import Signer, SigningKey

# Of a tenant's or a session's id, both the platform's to choose.
MAX_ID_CHARS: Final = 128

# Tokens read before: of the sessions that a worker is asked about within a minute or so, about 15 MB when full.
MOST_KNOWN: Final = 20_000


class SessionKey(SigningKey, frozen=True, kw_only=True):
    """A key that signs session tokens."""


class SessionClaim(msgspec.Struct, frozen=True, kw_only=True):
    """What a genuine session token says; whether the session is open, the store knows."""

    tenant: str
    session_id: str


class SessionTokens:
    """Issues session tokens with the first key and reads those of every key; `version` grows when the keys change."""

    def __init__(self, keys: Sequence[SessionKey]) -> None:
        self._signer = Signer(keys, purpose="session token")
        self._known: dict[str, SessionClaim] = {}
        self.version = 0

    def take(self, keys: Sequence[SigningKey]) -> None:
        """Use these keys from now on. Raises ValueError without one, or with two of one id, and keeps the old ones."""
        self._signer.take(keys)
        self._known.clear()
        self.version += 1

    def issue(self, tenant: str, session_id: str) -> str:
        """Write the token of a session; the same session and key give the same token.

        Both ids are 1 to 128 characters. Raises ValueError for others.
        """
        if not all(0 < len(name) <= MAX_ID_CHARS for name in (tenant, session_id)):
            raise ValueError(f"the ids of a tenant and a session are 1 to {MAX_ID_CHARS} characters")
        return self._signer.sign(tenant.encode(), session_id.encode())

    def read(self, token: str | None) -> SessionClaim | None:
        """Read a token; None for one that is forged, cut, foreign, overlong or not there."""
        known = self._known.get(token) if token is not None else None
        if known is not None or token is None:
            return known
        parts = self._signer.read(token)
        if parts is None:
            return None
        tenant, session_id = parts
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[token] = found = SessionClaim(tenant=tenant.decode(), session_id=session_id.decode())
        return found
