"""The device token and the first-party cookie that carries it."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from typing import Final, Literal
from uuid import UUID

import msgspec

from accessguard.signing import Signer, SigningKey

BASE_NAME: Final = "ag_device"

# 400 days, the most a browser grants (RFC 6265bis, section 5.5).
MAX_AGE_S: Final = 400 * 24 * 60 * 60

SECRET_BYTES: Final = 32

# Lower-case labels of a host name (RFC 1123, section 2.1), two or more: a cookie for a whole top-level domain is refused.
_DOMAIN: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+")


class DeviceKey(SigningKey, frozen=True, kw_only=True):
    """A key that signs device tokens."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a genuine device token says: which device, and the 32 bytes whose hash is stored with it."""

    device_id: UUID
    secret: bytes

    def __repr__(self) -> str:
        return f"Claim(device_id={self.device_id!r})"


class DeviceTokens:
    """Issues device tokens with the first key and reads those of every key."""

    def __init__(self, keys: Sequence[DeviceKey]) -> None:
        self._signer = Signer(keys, purpose="device token")

    def take(self, keys: Sequence[SigningKey]) -> None:
        """Use these keys from now on. Raises ValueError without one, or with two of one id, and keeps the old ones."""
        self._signer.take(keys)

    def issue(self, device_id: UUID, secret: bytes) -> str:
        """Write the token of a device; `secret` is what `new_secret` gave.

        The same device, secret and key give the same token. Raises ValueError
        for a secret of another length than 32 bytes.
        """
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"the secret of a device is {SECRET_BYTES} bytes")
        return self._signer.sign(device_id.bytes, secret)

    def read(self, token: str | None) -> Claim | None:
        """Read a token; None for one that is forged, cut, foreign, overlong or not there, which is a new device."""
        parts = self._signer.read(token)
        if parts is None:
            return None
        device_id, secret = parts
        return Claim(device_id=UUID(bytes=device_id), secret=secret)


def new_secret() -> bytes:
    """Draw the 256 random bits that make a device token hard to guess."""
    return secrets.token_bytes(SECRET_BYTES)


def secret_hash(secret: bytes) -> bytes:
    """Hash a device's secret for the store: SHA-256, 32 bytes.

    No salt and no slow hash: they protect what people choose, and nobody finds
    256 random bits by trying.
    """
    return hashlib.sha256(secret).digest()


def matches(secret: bytes, stored_hash: bytes) -> bool:
    """Tell whether a secret is the one whose hash is stored, in constant time."""
    return hmac.compare_digest(secret_hash(secret), stored_hash)


class CookieSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a tenant's device cookie is set (RFC 6265bis).

    `__Host-` binds it to one host. A school on several subdomains takes
    `__Secure-` and a `domain` (lower case, no leading dot); a player embedded
    on another site takes `same_site` "None", `partitioned` where the embedding
    page shall decide which device it is. Raises ValueError for what no
    browser would keep.
    """

    prefix: Literal["__Host-", "__Secure-", ""] = "__Host-"
    domain: str | None = None
    same_site: Literal["Lax", "Strict", "None"] = "Lax"
    partitioned: bool = False

    def __post_init__(self) -> None:
        if self.domain is None:
            return
        if self.prefix == "__Host-":
            raise ValueError("a cookie with the prefix __Host- has no domain; take __Secure-")
        if not _DOMAIN.fullmatch(self.domain):
            raise ValueError("the domain of a cookie is a host name in lower case, such as school.example")

    @property
    def name(self) -> str:
        """The cookie's name, prefix included."""
        return self.prefix + BASE_NAME


class Cookie(msgspec.Struct, frozen=True, kw_only=True):
    """A cookie in parts, and as the value of a ready `Set-Cookie` header."""

    name: str
    value: str
    max_age_s: int
    header: str


def cookie(token: str, settings: CookieSettings) -> Cookie:
    """Dress a device token as the cookie that the platform sets on its own host."""
    scope = [] if settings.domain is None else [f"Domain={settings.domain}"]
    guards = ["Secure", "HttpOnly", f"SameSite={settings.same_site}"]
    partition = ["Partitioned"] if settings.partitioned else []
    pairs = [f"{settings.name}={token}", "Path=/", f"Max-Age={MAX_AGE_S}", *scope, *guards, *partition]
    return Cookie(name=settings.name, value=token, max_age_s=MAX_AGE_S, header="; ".join(pairs))
