"""Keys of webhooks: what their secrets are encrypted with at rest, and what security event tokens are signed with.

Both are derived from the same list, the first of which encrypts and signs;
all decrypt, and all have their public half published.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from accessguard.signing import Sealer, SigningKey

PURPOSE: Final = "webhook secret"
OWN: Final = "accessguard webhook keys"
"""What the key that there always is is derived for (RFC 5869, `info`)."""
TOKENS: Final = "accessguard security event tokens, ES256"
DERIVED: Final = "derived"
"""Its id, which no key of the configuration has."""
ALGORITHM: Final = "ES256"
TYPE: Final = "secevent+jwt"
"""Of a token, in its header (RFC 8417, section 2.3)."""
ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the curve P-256 (NIST SP 800-186, 3.2.1.3)."""
SEED_BYTES: Final = 48
"""64 bits more than the order has, so that none of its numbers is likelier than another (FIPS 186-5, A.2.1)."""


class Jwk(msgspec.Struct, frozen=True, kw_only=True):
    """The public half of a key (RFC 7517; RFC 7518, section 6.2)."""

    kty: str
    crv: str
    x: str
    y: str
    use: str
    alg: str
    kid: str


class _Pair(msgspec.Struct, frozen=True):
    private: ec.EllipticCurvePrivateKey
    public: Jwk


class HookKeys:
    """Seals, opens and signs for every webhook; `take` raises ValueError without a key, or with two of one id."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self._sealer = Sealer(keys, purpose=PURPOSE)
        self.take(keys)

    def take(self, keys: Sequence[SigningKey]) -> None:
        """Use these from now on; when they cannot be used nothing changes."""
        pairs = tuple(map(_pair, keys))
        self._sealer.take(keys)
        self._pairs, self.first = pairs, keys[0].id

    @property
    def published(self) -> tuple[Jwk, ...]:
        """The public halves, the one that signs first."""
        return tuple(pair.public for pair in self._pairs)

    def seal(self, tenant: str, webhook_id: UUID, secret: str) -> str:
        """Encrypt the secret of one webhook; what comes of it is no use to another one."""
        return self._sealer.seal(msgspec.json.encode((tenant, webhook_id, secret)))

    def open(self, tenant: str, webhook_id: UUID, sealed: str) -> str | None:
        """The secret again; None for what no key of these has sealed, or for another webhook."""
        found = self._sealer.open(sealed)
        if found is None:
            return None
        whose, which, secret = msgspec.json.decode(found, type=tuple[str, UUID, str])
        return secret if (whose, which) == (tenant, webhook_id) else None

    def sign(self, claims: dict[str, Any]) -> str:
        """A security event token (RFC 8417) of these claims."""
        pair = self._pairs[0]
        return jwt.encode(claims, pair.private, algorithm=ALGORITHM, headers={"typ": TYPE, "kid": pair.public.kid})


def derived(identifier: str) -> SigningKey:
    """The key that there always is, for installations that have set none: derived from ACCESSGUARD_IDENTIFIER_KEY."""
    return SigningKey(id=DERIVED, secret=_hkdf(identifier, OWN, 32).hex())


def _pair(key: SigningKey) -> _Pair:
    """The pair that follows from a key, named by its thumbprint (RFC 7638), so that another secret has another name."""
    number = int.from_bytes(_hkdf(key.secret, TOKENS, SEED_BYTES), "big") % (ORDER - 1) + 1
    private = ec.derive_private_key(number, ec.SECP256R1())
    place = private.public_key().public_numbers()
    known = {"crv": "P-256", "kty": "EC", "x": _coordinate(place.x), "y": _coordinate(place.y)}
    kid = _encoded(hashlib.sha256(msgspec.json.encode(known)).digest())
    return _Pair(private, Jwk(**known, use="sig", alg=ALGORITHM, kid=kid))


def _hkdf(secret: str, info: str, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info.encode()).derive(secret.encode())


def _coordinate(number: int) -> str:
    return _encoded(number.to_bytes(32, "big"))


def _encoded(part: bytes) -> str:
    return urlsafe_b64encode(part).rstrip(b"=").decode()
