"""Who calls: the caller's token (RFC 7519), verified once and then remembered until it expires."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from jwt import PyJWK, PyJWKSet, PyJWS
from jwt.exceptions import InvalidSignatureError, PyJWTError

from accessguard.errors import ErrorCode, GuardError
from accessguard.events.revoked import KEPT, Revocation, Revoked, Told

SHARED: Final = "HS256"
PUBLISHED: Final = frozenset({"RS256", "ES256", "EdDSA"})

FILE: Final = "file"
"""The source of published keys that is there from the start."""

# A token with ten times the claims asked for is well below; more is not a caller's token.
MAX_TOKEN_CHARS: Final = 4096

# Callers are a platform's few servers and its operators; about 15 MB when full.
MAX_HELD: Final = 10_000

# Who shows a token that no key has signed goes on doing so; 4 MB when full of the longest.
MAX_FORGED: Final = 1_000

# The output of SHA-256 (RFC 7518, section 3.2).
MIN_SECRET_BYTES: Final = 32

# The end of the year 9999, in seconds since 1970: beyond it no calendar of ours goes.
MAX_TIME_S: Final = 253_402_300_799

REFUSAL: Final = "A valid access token is needed: a bearer JWT for this service that has not expired."


class Role(StrEnum):
    """What a caller may do; `api.md` lists it."""

    PLATFORM = "platform"
    ATTENDANT = "attendant"
    SUPERVISOR = "supervisor"
    ADMINISTRATOR = "administrator"
    ROOT = "root"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who a genuine token speaks for.

    `tenant` is "*" for a token bound to all of them, `expires_at` and
    `issued_at` in seconds since 1970 (the token's `exp` and `iat`, rounded
    down, None where it does not say), `token_id` its `jti` or None.
    """

    subject: str
    role: Role
    tenant: str
    expires_at: int
    token_id: str | None
    issued_at: int | None = None


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_Label = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
_Time = Annotated[float, msgspec.Meta(ge=0, le=MAX_TIME_S)]


class _Claims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of a token, by their registered names (RFC 7519, section 4.1)."""

    iss: str
    aud: str | list[str]
    sub: _Label
    role: Role
    tenant: _Name
    exp: _Time
    nbf: _Time | None = None
    iat: _Time | None = None
    jti: _Label | None = None


class _Key(msgspec.Struct, frozen=True, kw_only=True):
    """What verifies a signature, and the one algorithm it does so with."""

    algorithm: str
    material: bytes | PyJWK


class Keyring:
    """Verifies callers' tokens with the keys and algorithms of the configuration.

    A key serves one algorithm and a token cannot choose another: the `secrets`
    (32 bytes or more each, all tried, so that one can be replaced) serve
    HS256, the keys of the `jwks` (RFC 7517, JSON, chosen by `kid`) theirs of
    RS256, ES256 and EdDSA, as far as `algorithms` names them. Without
    `issuers`, any is accepted: the key vouches for the token. Raises ValueError
    when that leaves no key, and for a weak key; with `later`, keys may come
    when it runs already.

    `on_unknown` hears of a `kid` that there is not; each of `on_forget` when
    something that was remembered of a token no longer holds.
    """

    def __init__(
        self,
        *,
        secrets: Sequence[str],
        jwks: bytes | None,
        algorithms: Sequence[str],
        audience: str,
        issuers: Sequence[str],
        leeway_s: float,
        later: bool = False,
    ) -> None:
        self._algorithms = frozenset(algorithms)
        self._shared = _shared_keys(secrets) if SHARED in algorithms else ()
        self._sources: dict[str, Mapping[str, _Key]] = {FILE: self.usable(jwks)}
        self._said: dict[str, bytes | None] = {FILE: jwks}
        self._published = dict(self._sources[FILE])
        self._jws = PyJWS(algorithms=[SHARED, *PUBLISHED])
        self._claims = msgspec.json.Decoder(_Claims)
        self._audience = audience
        self._issuers = frozenset(issuers)
        self._leeway_s = leeway_s
        self._held: dict[str, Caller] = {}
        self._forged: dict[str, None] = {}  # what none of these keys has signed
        self._revoked: dict[tuple[str, Revoked, str], Revocation] = {}
        self.on_unknown: Callable[[], None] = _nothing
        self.on_forget: list[Callable[[], None]] = []
        if unknown := set(algorithms) - PUBLISHED - {SHARED}:
            raise ValueError(f"no tokens are accepted with the algorithms {', '.join(sorted(unknown))}")
        if not self._shared and not self._published and not later:
            raise ValueError("there is no key for any of the accepted algorithms")

    def verify(self, token: str, *, now: float) -> Caller:
        """Tell who calls; `now` in seconds since 1970.

        A token once verified is one dictionary lookup until its `exp`, and one that
        no key has signed until there are other keys. Raises
        GuardError(UNAUTHENTICATED), the same for every fault, so that the
        answer teaches nothing about keys or claims.
        """
        held = self._held.get(token)
        if held is not None and now < held.expires_at:
            return held
        self._held.pop(token, None)
        try:
            caller = self._caller(token, now)
        except (_RefusedError, PyJWTError):
            raise GuardError(ErrorCode.UNAUTHENTICATED, REFUSAL) from None
        self._hold(token, caller)
        return caller

    def take_secrets(self, secrets: Sequence[str]) -> None:
        """Verify with these shared secrets from now on. Raises ValueError for a weak one, and for none."""
        if not secrets:
            raise ValueError("there is no shared secret")
        shared = _shared_keys(secrets) if SHARED in self._algorithms else ()
        if shared != self._shared:
            self._shared = shared
            self._forget_all()

    def take_jwks(self, source: str, jwks: bytes | None) -> None:
        """Verify with these published keys from now on, beside those of other sources; None for none.

        Raises ValueError for a set that cannot be used; then what there was stays.
        """
        if jwks == self._said.get(source):
            return
        self._sources[source], self._said[source] = self.usable(jwks), jwks
        self._published = {kid: key for each in self._sources.values() for kid, key in each.items()}
        self._forget_all()

    def hear(self, told: Sequence[Told]) -> None:
        """Refuse what was revoked, and no longer what was restored."""
        new = [each.revocation for each in told if self._learnt(each)]
        if not new:
            return
        self._drop_over(max(each.at for each in new) - KEPT)
        for token in [token for token, caller in self._held.items() if not self.stands(caller)]:
            del self._held[token]
        self._say_forgotten()  # also of callers that are held here no longer, but elsewhere still

    def _learnt(self, told: Told) -> bool:
        """Note it; whether something is refused that was not before."""
        r = told.revocation
        key = (r.tenant, r.kind, r.name)
        if told.stands and self._revoked.get(key) != r:
            self._revoked[key] = r
            return True
        if not told.stands:
            self._revoked.pop(key, None)
        return False

    def _drop_over(self, before: datetime) -> None:
        """Forget what was stored of tokens that have ended by themselves, as the store does."""
        over = [key for key, r in self._revoked.items() if r.expires_at is not None and r.expires_at < before]
        for key in over:
            del self._revoked[key]

    def stands(self, caller: Caller) -> bool:
        """Whether a caller, once verified, is not revoked by now."""
        if not self._revoked:
            return True
        tenant, token_id = caller.tenant, caller.token_id
        if token_id is not None and (tenant, Revoked.TOKEN, token_id) in self._revoked:
            return False
        found = self._revoked.get((tenant, Revoked.CALLER, caller.subject))
        return found is None or (caller.issued_at is not None and caller.issued_at > found.issued_until.timestamp())

    def _forget_all(self) -> None:
        self._held.clear()
        self._forged.clear()
        self._say_forgotten()

    def _say_forgotten(self) -> None:
        for each in self.on_forget:
            each()

    def usable(self, jwks: bytes | None) -> Mapping[str, _Key]:
        """The keys of a set that are of an accepted algorithm. Raises ValueError for a set that cannot be used."""
        return {kid: key for kid, key in _published_keys(jwks).items() if key.algorithm in self._algorithms}

    def _hold(self, token: str, caller: Caller) -> None:
        if len(self._held) >= MAX_HELD:
            del self._held[next(iter(self._held))]
        self._held[token] = caller

    def _note_forged(self, token: str) -> None:
        if len(self._forged) >= MAX_FORGED:
            del self._forged[next(iter(self._forged))]
        self._forged[token] = None

    def _caller(self, token: str, now: float) -> Caller:
        try:
            claims = self._claims.decode(self._payload(token))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _RefusedError from None
        if not self._stands(claims, now):
            raise _RefusedError
        caller = Caller(
            subject=claims.sub,
            role=claims.role,
            tenant=claims.tenant,
            expires_at=int(claims.exp),
            token_id=claims.jti,
            issued_at=None if claims.iat is None else int(claims.iat),
        )
        if not self.stands(caller):
            raise _RefusedError
        return caller

    def _stands(self, claims: _Claims, now: float) -> bool:
        """Tell whether the claims are for this service, at this moment, in printable names."""
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        return (
            self._audience in audiences
            and (not self._issuers or claims.iss in self._issuers)
            and now < claims.exp + self._leeway_s
            and (claims.nbf is None or now >= claims.nbf - self._leeway_s)
            and all(name.isprintable() for name in (claims.sub, claims.tenant, claims.jti or ""))
        )

    def _payload(self, token: str) -> bytes:
        """Give the signed bytes of a token, not looked at before a key has verified them."""
        if len(token) > MAX_TOKEN_CHARS or not token.isascii() or token in self._forged:
            raise _RefusedError
        header = self._jws.get_unverified_header(token)
        keys = self._keys(header.get("alg"), header.get("kid"))
        for key in keys:
            try:
                payload: bytes = self._jws.decode(token, key.material, algorithms=[key.algorithm])
            except InvalidSignatureError:
                continue
            return payload
        if keys:
            self._note_forged(token)
        raise _RefusedError

    def _keys(self, algorithm: object, kid: object) -> Sequence[_Key]:
        """Choose the keys to try; what the header says only narrows them."""
        if algorithm == SHARED:
            return self._shared
        key = self._published.get(kid) if isinstance(kid, str) else None
        if key is None and isinstance(algorithm, str) and algorithm in PUBLISHED & self._algorithms:
            self.on_unknown()
        return () if key is None or key.algorithm != algorithm else (key,)


def _nothing() -> None:
    """Nobody asks anybody."""


class _RefusedError(Exception):
    """A token that names no caller."""


def _shared_keys(secrets: Sequence[str]) -> tuple[_Key, ...]:
    keys = tuple(_Key(algorithm=SHARED, material=secret.encode()) for secret in secrets)
    if any(len(secret.encode()) < MIN_SECRET_BYTES for secret in secrets):
        raise ValueError(f"a shared secret for tokens is {MIN_SECRET_BYTES} bytes or more")
    return keys


def _published_keys(jwks: bytes | None) -> dict[str, _Key]:
    """Read the usable keys of a JWK set by their `kid`; a key without one cannot be chosen."""
    if jwks is None:
        return {}
    try:
        found = PyJWKSet.from_dict(msgspec.json.decode(jwks, type=dict[str, object])).keys
    except (PyJWTError, msgspec.DecodeError, UnicodeDecodeError):
        raise ValueError("the JWK set holds no usable key, or is no JSON") from None
    named = [(key.key_id, _Key(algorithm=key.algorithm_name, material=_strong(key))) for key in found if _signs(key)]
    if len(dict(named)) != len(named):
        raise ValueError("two keys of the JWK set have the same kid")
    return {kid: key for kid, key in named if kid}


def _signs(key: PyJWK) -> bool:
    """Tell whether a key is one that callers' tokens are signed with; a symmetric key in a JWK set never is."""
    return key.algorithm_name in PUBLISHED and key.public_key_use in {None, "sig"} and isinstance(key.key_id, str)


def _strong(key: PyJWK) -> PyJWK:
    if key.Algorithm.check_key_length(key.key):
        raise ValueError(f"the key {key.key_id} of the JWK set is too short")
    return key
