"""The session token: a session's name, signed, for proxies that know only a cookie."""

from collections.abc import Sequence
from typing import Final

import msgspec

from accessguard.signing import Signer, SigningKey

# Of a tenant's or a session's id, both the platform's to choose.
MAX_ID_CHARS: Final = 128


class SessionKey(SigningKey, frozen=True, kw_only=True):
    """A key that signs session tokens."""


class SessionClaim(msgspec.Struct, frozen=True, kw_only=True):
    """What a genuine session token says; whether the session is open, the store knows."""

    tenant: str
    session_id: str


class SessionTokens:
    """Issues session tokens with the first key and reads those of every key."""

    def __init__(self, keys: Sequence[SessionKey]) -> None:
        self._signer = Signer(keys, purpose="session token")

    def take(self, keys: Sequence[SigningKey]) -> None:
        """Use these keys from now on. Raises ValueError without one, or with two of one id, and keeps the old ones."""
        self._signer.take(keys)

    def issue(self, tenant: str, session_id: str) -> str:
        """Write the token of a session; the same session and key give the same token.

        Both ids are 1 to 128 characters. Raises ValueError for others.
        """
        if not all(0 < len(name) <= MAX_ID_CHARS for name in (tenant, session_id)):
            raise ValueError(f"the ids of a tenant and a session are 1 to {MAX_ID_CHARS} characters")
        return self._signer.sign(tenant.encode(), session_id.encode())

    def read(self, token: str | None) -> SessionClaim | None:
        """Read a token; None for one that is forged, cut, foreign, overlong or not there."""
        parts = self._signer.read(token)
        if parts is None:
            return None
        tenant, session_id = parts
        return SessionClaim(tenant=tenant.decode(), session_id=session_id.decode())
