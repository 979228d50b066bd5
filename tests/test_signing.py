"""Signed text, as the device and the session token share it."""

import hmac
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.signing import Signer, SigningKey

OLD = SigningKey(id="2025", secret="o" * 32)
NEW = SigningKey(id="2026", secret="n" * 32)
SIGNER = Signer([NEW, OLD], purpose="test")


@given(st.lists(st.binary(max_size=64), min_size=1, max_size=5))
def test_what_was_signed_is_read_back(parts):
    """Any parts survive, and signing them again gives the same text."""
    text = SIGNER.sign(*parts)

    assert SIGNER.read(text) == tuple(parts)
    assert SIGNER.sign(*parts) == text


def test_the_mac_is_hmac_sha256_of_everything_before_its_dot():
    """The format is one that another program can make from its description."""
    text = SIGNER.sign(b"part")
    body = "v1.2026.cGFydA"
    key = hmac.digest(b"n" * 32, b"test", "sha256")

    mac = urlsafe_b64encode(hmac.digest(key, body.encode(), "sha256")).rstrip(b"=").decode()

    assert text == f"{body}.{mac}"


def test_the_first_key_signs_and_every_key_reads():
    """A key that was replaced still reads; one that was removed does not."""
    before = Signer([OLD], purpose="test").sign(b"part")

    assert SIGNER.read(before) == (b"part",)
    assert Signer([NEW], purpose="test").read(before) is None
    assert SIGNER.sign(b"part").startswith("v1.2026.")


def test_a_text_of_another_purpose_is_foreign():
    """The same key in two uses makes no bridge between them."""
    assert Signer([NEW], purpose="other").read(SIGNER.sign(b"part")) is None


def test_the_name_of_another_key_does_not_help():
    """A key id swapped for that of another key fails on the MAC."""
    assert SIGNER.read(SIGNER.sign(b"part").replace("2026", "2025")) is None


@given(st.integers(0, 200), st.characters(min_codepoint=32, max_codepoint=126))
def test_a_text_changed_in_one_place_is_none(at, character):
    """No single character can be replaced, the spare bits of the MAC's last one included."""
    text = SIGNER.sign(b"sixteen bytes 16", b"thirty-two bytes of secret. 3232")
    at %= len(text)

    changed = text[:at] + character + text[at + 1 :]

    assert (SIGNER.read(changed) is None) is (changed != text)


@given(st.integers(0, 200))
def test_a_cut_text_is_none(kept):
    """No beginning of a signed text passes for one."""
    text = SIGNER.sign(b"sixteen bytes 16")

    assert SIGNER.read(text[: kept % len(text)]) is None


@given(st.none() | st.text(max_size=200) | st.from_regex(r"v1\.2026\.[A-Za-z0-9_.=-]{0,80}", fullmatch=True))
def test_whatever_else_comes_is_none(text):
    """Nothing that was not signed raises, or is read."""
    assert SIGNER.read(text) is None


def test_an_overlong_text_is_none():
    """Even one with the right MAC: nothing that long was ever issued."""
    assert SIGNER.read(SIGNER.sign(b"x" * 1200)) is None


@pytest.mark.parametrize(
    ("key_id", "secret"),
    [
        pytest.param("", "s" * 32, id="no id"),
        pytest.param("a.b", "s" * 32, id="a dot in the id"),
        pytest.param("k" * 33, "s" * 32, id="a long id"),
        pytest.param("k", "s" * 31, id="a short secret"),
    ],
)
def test_a_key_that_would_not_serve_is_refused(key_id, secret):
    """A bad key is found when it is made, not when it signs."""
    with pytest.raises(ValueError, match="signing key"):
        SigningKey(id=key_id, secret=secret)


@pytest.mark.parametrize("keys", [pytest.param([], id="none"), pytest.param([NEW, NEW], id="one id twice")])
def test_a_signer_needs_keys_with_ids_of_their_own(keys):
    """Without a key, or with two of one id, there is no signer."""
    with pytest.raises(ValueError, match="one key or more"):
        Signer(keys, purpose="test")


def test_a_secret_is_not_shown():
    """A key that ends up in a log names itself and nothing else."""
    assert repr(NEW) == str(NEW) == "SigningKey(id='2026')"
