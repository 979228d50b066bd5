"""Signed text: what a browser keeps for us and cannot change.

`v1.<key id>.<part>...<part>.<mac>`, the parts and the MAC in base64url without
padding (RFC 4648, section 5), the MAC HMAC-SHA256 (RFC 2104) of everything
before its dot. Signed, not encrypted: a part may be read by whoever holds it.
`Sealer` encrypts its one part besides.
"""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

VERSION: Final = "v1"

# Room for two parts of 128 characters of four UTF-8 bytes; far below the 4096 bytes a browser keeps (RFC 6265, 6.1).
MAX_SIGNED_CHARS: Final = 1536

# The output of SHA-256; a shorter key would weaken it (RFC 2104, section 3).
MIN_SECRET_BYTES: Final = 32

# Room for three ids of 128 characters of four UTF-8 bytes; an address that is longer is cut by some proxies.
MAX_SEALED_CHARS: Final = 4096
NONCE_BYTES: Final = 16

_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)


class SigningKey(msgspec.Struct, frozen=True, kw_only=True):
    """A secret of 32 bytes of UTF-8 or more, and the name it goes by in what it signed.

    `id` is 1 to 32 letters, digits, `-` and `_`. Raises ValueError for others.
    """

    id: str
    secret: str

    def __post_init__(self) -> None:
        if not _KEY_ID.fullmatch(self.id):
            raise ValueError("the id of a signing key is 1 to 32 letters, digits, - and _")
        if len(self.secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"the secret of signing key {self.id} is shorter than {MIN_SECRET_BYTES} bytes")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r})"


class Signer:
    """Signs with the first of its keys and reads what any of them signed.

    `purpose` goes into every key, so that a text signed for one use never
    passes in another, were the configuration to give both the same secret.
    `most_chars` is how long a text may be that is read. Raises ValueError without a key, or with two of one id.
    """

    def __init__(self, keys: Sequence[SigningKey], *, purpose: str, most_chars: int = MAX_SIGNED_CHARS) -> None:
        self._purpose = purpose
        self._most_chars = most_chars
        self.take(keys)

    def take(self, keys: Sequence[SigningKey]) -> None:
        """Sign and read with these keys from now on; raises ValueError as above, and then nothing changes."""
        # a MAC that is begun and copied costs less than half of one that takes its key anew
        begun_keys = {key.id: begun(self._derived(key)) for key in keys}
        if not keys or len(begun_keys) != len(keys):
            raise ValueError("signing takes one key or more, each with an id of its own")
        self._keys, self._first = begun_keys, keys[0].id

    def sign(self, *parts: bytes) -> str:
        """Write the parts with their MAC; the same parts and key give the same text."""
        body = ".".join([VERSION, self._first, *map(_encoded, parts)])
        return f"{body}.{self._mac(self._first, body)}"

    def read(self, text: str | None) -> tuple[bytes, ...] | None:
        """Give the parts back; None for what is forged, cut, overlong, foreign or not there."""
        if text is None or len(text) > self._most_chars or not text.isascii():
            return None
        body, _, mac = text.rpartition(".")
        version, _, rest = body.partition(".")
        key_id, *parts = rest.split(".")
        if version != VERSION or key_id not in self._keys:
            return None
        if not hmac.compare_digest(self._mac(key_id, body), mac):
            return None
        return tuple(_decoded(part) for part in parts)

    def _derived(self, key: SigningKey) -> bytes:
        return hmac.digest(key.secret.encode(), self._purpose.encode(), "sha256")

    def _mac(self, key_id: str, body: str) -> str:
        return _encoded(mac(self._keys[key_id], body.encode()))


class Sealer:
    """Encrypts (AES-256 in counter mode, NIST SP 800-38A) and then signs: who holds the text can neither read nor change it.

    Where the counter begins is the content's own MAC, as in RFC 5297: the same
    content and key give the same text, and nothing depends on chance.
    """

    def __init__(self, keys: Sequence[SigningKey], *, purpose: str) -> None:
        self._purpose = purpose
        self._signer = Signer(keys, purpose=purpose, most_chars=MAX_SEALED_CHARS)
        self._ciphers = self._derived(keys)

    def take(self, keys: Sequence[SigningKey]) -> None:
        """Seal and open with these keys from now on; raises ValueError as `Signer` does, and then nothing changes."""
        self._signer.take(keys)
        self._ciphers = self._derived(keys)

    def seal(self, content: bytes) -> str:
        """Write the content, whose length shows."""
        key_id, key = next(iter(self._ciphers.items()))
        nonce = hmac.digest(key, content, "sha256")[:NONCE_BYTES]
        return self._signer.sign(key_id.encode(), nonce, _crypted(key, nonce, content))

    def open(self, text: str | None) -> bytes | None:
        """Give the content back; None for what is forged, cut, overlong, foreign or not there."""
        parts = self._signer.read(text)
        if parts is None or len(parts) != 3:
            return None
        key_id, nonce, content = parts
        key = self._ciphers.get(key_id.decode("ascii", "replace"))
        return None if key is None or len(nonce) != NONCE_BYTES else _crypted(key, nonce, content)

    def _derived(self, keys: Sequence[SigningKey]) -> dict[str, bytes]:
        purpose = f"{self._purpose}, sealed".encode()
        return {key.id: hmac.digest(key.secret.encode(), purpose, "sha256") for key in keys}


def begun(key: bytes) -> hmac.HMAC:
    """An HMAC-SHA256 that has taken its key, to be finished by `mac` any number of times."""
    return hmac.new(key, digestmod="sha256")


def mac(key: hmac.HMAC, message: bytes) -> bytes:
    """The HMAC-SHA256 of a message, 32 bytes."""
    one = key.copy()
    one.update(message)
    return one.digest()


def _encoded(part: bytes) -> str:
    return urlsafe_b64encode(part).rstrip(b"=").decode()


def _decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _crypted(key: bytes, nonce: bytes, content: bytes) -> bytes:
    """Counter mode: the same step encrypts and decrypts."""
    step = Cipher(AES256(key), CTR(nonce)).encryptor()
    return step.update(content) + step.finalize()
