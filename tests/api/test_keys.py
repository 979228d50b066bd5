"""The caller's token."""

import base64
import json
from typing import Any
from unittest.mock import Mock

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from accessguard.api import keys
from accessguard.api.keys import Caller, Keyring, Role
from accessguard.errors import ErrorCode, GuardError
from tests.fuzz import examples

NOW = 1_795_287_300
SECRET = "s" * 32
OLD_SECRET = "o" * 32
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
ALL = ("HS256", "RS256", "ES256", "EdDSA")
MAKERS: dict[str, Any] = {
    type(key.public_key()).__name__: maker
    for key, maker in ((RSA_KEY, RSAAlgorithm), (EC_KEY, ECAlgorithm), (ED_KEY, OKPAlgorithm))
}


def published(key, kid, **fields):
    """Describe the public half of a key as a JWK."""
    maker = MAKERS[type(key.public_key()).__name__]
    return {**maker.to_jwk(key.public_key(), as_dict=True), "kid": kid, **fields}


JWKS = json.dumps({"keys": [published(RSA_KEY, "r"), published(EC_KEY, "e"), published(ED_KEY, "d")]}).encode()


def keyring(**changes):
    """Build a keyring that accepts every kind of key, but for the changes."""
    usual = {"secrets": [SECRET, OLD_SECRET], "jwks": JWKS, "algorithms": ALL, "audience": "accessguard"}
    return Keyring(**{**usual, "issuers": ["platform", "console"], "leeway_s": 10, **changes})


def claims(**changes):
    """Give the claims of a good token, but for the changes; None takes one away."""
    usual = {"iss": "platform", "aud": "accessguard", "sub": "backend-1", "role": "platform", "tenant": "school-1"}
    return {name: value for name, value in {**usual, "exp": NOW + 60, **changes}.items() if value is not None}


def token(key=SECRET, algorithm="HS256", kid=None, **changes):
    """Sign a good token, but for the changes."""
    return jwt.encode(claims(**changes), key, algorithm, headers={"kid": kid} if kid else None)


def raw(header, payload, signature=b""):
    """Write a token from parts that no library would sign."""
    parts = (json.dumps(header).encode(), payload if isinstance(payload, bytes) else json.dumps(payload).encode())
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, signature))


def signed(payload):
    """Sign bytes that may be no claims at all."""
    return jwt.PyJWS().encode(payload, SECRET, "HS256")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(token(), id="shared secret"),
        pytest.param(token(OLD_SECRET), id="shared secret, the one before"),
        pytest.param(token(RSA_KEY, "RS256", "r"), id="RS256"),
        pytest.param(token(EC_KEY, "ES256", "e"), id="ES256"),
        pytest.param(token(ED_KEY, "EdDSA", "d"), id="EdDSA"),
        pytest.param(token(kid="whatever"), id="shared secret with a kid"),
        pytest.param(token(aud=["other", "accessguard"]), id="several audiences"),
        pytest.param(token(iss="console"), id="another issuer"),
        pytest.param(token(nbf=NOW), id="from now on"),
        pytest.param(token(exp=NOW + 60.9), id="a fraction of a second"),
        pytest.param(token(iat=NOW, scope="a b"), id="claims that say nothing to us"),
    ],
)
def test_a_genuine_token_names_its_caller(text):
    """Every accepted kind of key leads to the same caller."""
    caller = msgspec.structs.replace(keyring().verify(text, now=NOW), issued_at=None)

    assert caller == Caller(
        subject="backend-1", role=Role.PLATFORM, tenant="school-1", expires_at=NOW + 60, token_id=None
    )


@pytest.mark.parametrize("role", list(Role))
def test_every_role_is_known(role):
    """A token for all tenants keeps its star, and its id is read."""
    caller = keyring().verify(token(role=role.value, tenant="*", jti="token-1"), now=NOW)

    assert (caller.role, caller.tenant, caller.token_id) == (role, "*", "token-1")


PEM = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def confused():
    """Sign with the published RSA key as if it were a shared secret."""
    header = {"alg": "HS256", "typ": "JWT", "kid": "r"}
    unsigned = raw(header, claims()).rpartition(".")[0]
    mac = jwt.get_algorithm_by_name("HS256").sign(unsigned.encode(), PEM)
    return f"{unsigned}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


REFUSED = [
    pytest.param("", id="empty"),
    pytest.param("token", id="no dots"),
    pytest.param("a.b.c", id="dots"),
    pytest.param(token()[:-2], id="cut"),
    pytest.param(token() + ".x", id="a part too many"),
    pytest.param(token("f" * 32), id="forged"),
    pytest.param(token(rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256", "r"), id="foreign RSA"),
    pytest.param(token(RSA_KEY, "RS256"), id="RS256 without kid"),
    pytest.param(token(RSA_KEY, "RS256", "e"), id="RS256 with the kid of another key"),
    pytest.param(token(RSA_KEY, "RS256", "x"), id="RS256 with an unknown kid"),
    pytest.param(token(RSA_KEY, "PS256", "r"), id="the right key with another algorithm"),
    pytest.param(token("s" * 64, "HS512"), id="HS512"),
    pytest.param(confused(), id="public key as secret"),
    pytest.param(raw({"alg": "none", "typ": "JWT"}, claims()), id="alg none"),
    pytest.param(raw({"alg": "None"}, claims()), id="alg None"),
    pytest.param(raw({"alg": ""}, claims()), id="alg empty"),
    pytest.param(raw({"alg": ["HS256"]}, claims()), id="alg a list"),
    pytest.param(raw({}, claims()), id="no alg"),
    pytest.param(raw({"alg": "RS256", "kid": ["r"]}, claims()), id="kid a list"),
    pytest.param(raw({"alg": "HS256", "crit": ["x"]}, claims()), id="critical header"),
    pytest.param(raw({"alg": "HS256", "b64": False, "crit": ["b64"]}, b""), id="detached"),
    pytest.param(raw([], claims()), id="header a list"),
    pytest.param("é" + token(), id="not ASCII"),
    pytest.param("\ud800" + token(), id="half a surrogate"),
    pytest.param("A" * 100_000, id="overlong"),
    pytest.param(token(sub="x" * 200, jti="y" * 200, extra="z" * 4000), id="overlong, genuine"),
    pytest.param(token(exp=NOW - 10), id="expired, leeway over"),
    pytest.param(token(nbf=NOW + 11), id="not yet valid"),
    pytest.param(token(exp=None), id="no exp"),
    pytest.param(token(aud=None), id="no aud"),
    pytest.param(token(iss=None), id="no iss"),
    pytest.param(token(sub=None), id="no sub"),
    pytest.param(token(role=None), id="no role"),
    pytest.param(token(tenant=None), id="no tenant"),
    pytest.param(token(aud="other"), id="another service's"),
    pytest.param(token(aud=["other"]), id="other services'"),
    pytest.param(token(aud="accessguard-2"), id="a longer audience"),
    pytest.param(token(iss="stranger"), id="a stranger's"),
    pytest.param(token(role="superuser"), id="unknown role"),
    pytest.param(token(role="PLATFORM"), id="role in capitals"),
    pytest.param(token(role=["platform"]), id="a list of roles"),
    pytest.param(token(tenant=""), id="empty tenant"),
    pytest.param(token(tenant="t" * 129), id="long tenant"),
    pytest.param(token(tenant="a\0b"), id="NUL in the tenant"),
    pytest.param(token(tenant="a\nb"), id="line end in the tenant"),
    pytest.param(token(tenant=1), id="a number for a tenant"),
    pytest.param(token(sub=""), id="empty subject"),
    pytest.param(token(sub="a\0"), id="NUL in the subject"),
    pytest.param(signed(json.dumps(claims(exp="soon")).encode()), id="exp a word"),
    pytest.param(signed(json.dumps(claims(exp=True)).encode()), id="exp a boolean"),
    pytest.param(signed(json.dumps(claims(exp=float("inf"))).encode()), id="exp infinite"),
    pytest.param(signed(json.dumps(claims(exp=float("nan"))).encode()), id="exp not a number"),
    pytest.param(signed(json.dumps(claims()).replace(str(NOW + 60), "1e999").encode()), id="exp out of range"),
    pytest.param(signed(json.dumps(claims(exp=10**30)).encode()), id="exp in a far future"),
    pytest.param(signed(json.dumps(claims(nbf="now")).encode()), id="nbf a word"),
    pytest.param(signed(b"[]"), id="claims a list"),
    pytest.param(signed(b"\xff"), id="claims no UTF-8"),
    pytest.param(signed(b'{"iss": "\xff"}'), id="a claim no UTF-8"),
    pytest.param(signed(b'{"x":' + b"[" * 2000), id="claims nested deeply"),
]


@pytest.mark.parametrize("text", REFUSED)
def test_any_other_token_is_unauthenticated_and_the_answer_says_no_more(text):
    """Signature, key, claim or form: the refusal is the same, and nothing else is raised."""
    with pytest.raises(GuardError) as refused:
        keyring().verify(text, now=NOW)

    assert (refused.value.code, refused.value.message) == (ErrorCode.UNAUTHENTICATED, keys.REFUSAL)
    assert refused.value.__cause__ is None


@examples(300)
@given(st.text(max_size=200) | st.from_regex(r"eyJ[\w=-]{0,40}\.[\w=-]{0,40}\.[\w=-]{0,40}", fullmatch=True))
def test_no_text_breaks_the_reading_of_a_token(text):
    """Whatever a caller sends is unauthenticated."""
    with pytest.raises(GuardError, match="access token"):
        keyring().verify(text, now=NOW)


@given(st.binary(max_size=80) | st.recursive(st.none() | st.booleans() | st.text(), st.lists).map(json.dumps))
def test_no_signed_payload_breaks_the_reading_of_claims(payload):
    """Not even the holder of a key can make anything but a refusal of nonsense."""
    payload = payload if isinstance(payload, bytes) else payload.encode()

    with pytest.raises(GuardError, match="access token"):
        keyring().verify(signed(payload), now=NOW)


@pytest.mark.parametrize(
    ("algorithms", "text"),
    [
        pytest.param(["RS256"], token(), id="a shared secret"),
        pytest.param(["HS256"], token(RSA_KEY, "RS256", "r"), id="RS256"),
        pytest.param(["HS256", "RS256"], token(EC_KEY, "ES256", "e"), id="ES256"),
    ],
)
def test_an_algorithm_that_is_not_configured_is_refused(algorithms, text):
    """Having the key is not enough."""
    with pytest.raises(GuardError):
        keyring(algorithms=algorithms).verify(text, now=NOW)


def test_a_token_lives_until_its_end_and_the_leeway():
    """`exp` itself is too late (RFC 7519, section 4.1.4), but for the leeway between two clocks."""
    ring = keyring()

    assert ring.verify(token(), now=NOW + 60 + 9.9).expires_at == NOW + 60
    with pytest.raises(GuardError):
        ring.verify(token(), now=NOW + 60 + 10)
    with pytest.raises(GuardError):
        keyring(leeway_s=0).verify(token(), now=NOW + 60)


def test_a_verified_token_is_held_until_it_expires(monkeypatch):
    """The second call looks at no signature; the first one after `exp` does again."""
    ring = keyring(leeway_s=0)
    look = Mock(side_effect=ring._payload)
    monkeypatch.setattr(ring, "_payload", look)

    callers = [ring.verify(token(), now=NOW + after) for after in (0, 1, 59.9)]
    with pytest.raises(GuardError):
        ring.verify(token(), now=NOW + 60)

    assert callers[0] is callers[1] is callers[2]
    assert look.call_count == 2
    assert not ring._held


def test_what_is_held_is_bounded(monkeypatch):
    """The oldest makes room, and a refused token takes none."""
    monkeypatch.setattr(keys, "MAX_HELD", 3)
    ring = keyring()

    for number in range(5):
        ring.verify(token(jti=str(number)), now=NOW)
    with pytest.raises(GuardError):
        ring.verify(token("f" * 32), now=NOW)

    assert [caller.token_id for caller in ring._held.values()] == ["2", "3", "4"]


def test_a_token_that_no_key_has_signed_is_looked_at_once(monkeypatch):
    """With other keys it is looked at again, as one of them may have signed it; of many of them the latest are known."""
    monkeypatch.setattr(keys, "MAX_FORGED", 3)
    ring = keyring()
    look = Mock(side_effect=ring._jws.decode)
    monkeypatch.setattr(ring._jws, "decode", look)
    forged = [token("f" * 32, jti=str(number)) for number in range(5)]

    for each in (*forged, forged[4], forged[2], forged[4]):
        with pytest.raises(GuardError):
            ring.verify(each, now=NOW)
    asked = look.call_count
    ring.take_secrets(["f" * 32])

    assert asked == 5 * 2  # two secrets
    assert len(ring._forged) == 0
    assert [ring.verify(each, now=NOW).token_id for each in forged] == ["0", "1", "2", "3", "4"]


def test_a_token_whose_key_may_come_is_looked_at_again():
    """An unknown key is asked for each time, and is there one day."""
    ring = keyring(jwks=None)
    ring.on_unknown = Mock()
    text = token(EC_KEY, "ES256", "e")

    for _ in range(2):
        with pytest.raises(GuardError):
            ring.verify(text, now=NOW)
    ring.take_jwks("url", JWKS)

    assert ring.on_unknown.call_count == 2
    assert ring.verify(text, now=NOW).subject == "backend-1"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"secrets": [], "jwks": None}, "no key", id="no keys"),
        pytest.param({"secrets": [SECRET], "jwks": None, "algorithms": ["RS256"]}, "no key", id="no key that fits"),
        pytest.param({"secrets": ["short"]}, "32 bytes", id="short secret"),
        pytest.param({"algorithms": ["HS256", "none"]}, "none", id="alg none"),
        pytest.param({"jwks": b"{"}, "JWK set", id="no JSON"),
        pytest.param({"jwks": b"[]"}, "JWK set", id="no object"),
        pytest.param({"jwks": b'{"keys": 1}'}, "JWK set", id="no list"),
        pytest.param({"jwks": b'{"keys": [1, {"kty": "RSA"}]}'}, "JWK set", id="no usable key"),
        pytest.param(
            {"jwks": json.dumps({"keys": [published(RSA_KEY, "r"), published(EC_KEY, "r")]}).encode()},
            "same kid",
            id="one kid twice",
        ),
        pytest.param(
            {
                "jwks": json.dumps(
                    {"keys": [published(rsa.generate_private_key(public_exponent=65537, key_size=1024), "r")]}
                ).encode()
            },
            "too short",
            id="short RSA key",
        ),
    ],
)
def test_a_keyring_that_would_not_serve_is_refused(changes, reason):
    """A mistake in the configuration is found at the start."""
    with pytest.raises(ValueError, match=reason):
        keyring(**changes)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(published(RSA_KEY, "r", use="enc"), id="for encryption"),
        pytest.param(published(RSA_KEY, "r", alg="RS512"), id="for another algorithm"),
        pytest.param({k: v for k, v in published(RSA_KEY, "r").items() if k != "kid"}, id="without kid"),
        pytest.param({"kty": "oct", "kid": "r", "k": "cw" * 32}, id="symmetric"),
    ],
)
def test_a_published_key_that_signs_no_callers_is_left_out(key):
    """The rest of the set still serves."""
    ring = keyring(jwks=json.dumps({"keys": [key, published(EC_KEY, "e")]}).encode())

    assert ring.verify(token(EC_KEY, "ES256", "e"), now=NOW)
    with pytest.raises(GuardError):
        ring.verify(token(RSA_KEY, "RS256", "r"), now=NOW)


def test_without_issuers_any_is_accepted():
    """The key vouches for a token; issuers only narrow it further."""
    said = token(iss="somebody-new")

    caller = keyring(issuers=[]).verify(said, now=NOW)

    assert caller.subject == "backend-1"
