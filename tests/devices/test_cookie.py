"""The device token and its cookie."""

from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.devices.cookie import (
    Claim,
    CookieSettings,
    DeviceKey,
    DeviceTokens,
    cookie,
    matches,
    new_secret,
    secret_hash,
)
from accessguard.sessions.token import SessionKey, SessionTokens

DEVICE = UUID("019aa7c4-5b1e-7c3a-8f00-0123456789ab")
SECRET = bytes(range(32))
OLD = DeviceKey(id="2025", secret="o" * 32)
NEW = DeviceKey(id="2026", secret="n" * 32)
TOKENS = DeviceTokens([NEW, OLD])


@given(st.uuids(), st.binary(min_size=32, max_size=32))
def test_an_issued_token_is_read_back(device_id, secret):
    """Any device and any secret come back as they went in."""
    token = TOKENS.issue(device_id, secret)

    assert TOKENS.read(token) == Claim(device_id=device_id, secret=secret)


def test_a_token_has_five_parts_that_a_cookie_may_hold():
    """`v1`, key id, device id, secret, MAC, in characters that need no quoting."""
    token = TOKENS.issue(DEVICE, SECRET)

    version, key_id, device_id, secret, mac = token.split(".")
    assert (version, key_id, len(device_id), len(secret), len(mac)) == ("v1", "2026", 22, 43, 43)
    assert token.replace(".", "").replace("-", "").replace("_", "").isalnum()


def test_a_token_of_an_older_key_still_counts():
    """The key may change under devices that are already known."""
    assert TOKENS.read(DeviceTokens([OLD]).issue(DEVICE, SECRET)) == Claim(device_id=DEVICE, secret=SECRET)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("v1.2026...", id="dots"),
        pytest.param(TOKENS.issue(DEVICE, SECRET)[:-1], id="cut"),
        pytest.param(TOKENS.issue(DEVICE, SECRET) + "=", id="padded"),
        pytest.param(TOKENS.issue(DEVICE, SECRET).replace("v1.", "v2."), id="of another version"),
        pytest.param(DeviceTokens([DeviceKey(id="2026", secret="f" * 32)]).issue(DEVICE, SECRET), id="forged"),
        pytest.param(DeviceTokens([DeviceKey(id="x", secret="n" * 32)]).issue(DEVICE, SECRET), id="of an unknown key"),
        pytest.param(SessionTokens([SessionKey(id="2026", secret="n" * 32)]).issue("t", "s"), id="of a session"),
        pytest.param("v1.2026." + "A" * 100_000, id="overlong"),
        pytest.param("v1.2026.\u00e9.\u00e9.\u00e9", id="not ASCII"),
        pytest.param("v1.2026.\0.\0.\0", id="NUL"),
    ],
)
def test_a_token_that_is_not_ours_is_none(token):
    """It makes a new device, never an error."""
    assert TOKENS.read(token) is None


@given(st.text(max_size=200))
def test_no_text_breaks_the_reading_of_a_token(text):
    """Whatever a client sends is None."""
    assert TOKENS.read(text) is None


@pytest.mark.parametrize("secret", [pytest.param(b"", id="empty"), pytest.param(b"x" * 33, id="long")])
def test_a_secret_of_another_length_is_never_issued(secret):
    """A mistake of ours is found at once."""
    with pytest.raises(ValueError, match="32 bytes"):
        TOKENS.issue(DEVICE, secret)


def test_a_secret_matches_its_hash_and_no_other():
    """Only the hash is stored, and it does not hold the secret."""
    secret = new_secret()

    assert len(secret) == 32
    assert secret != new_secret()
    assert secret not in secret_hash(secret)
    assert matches(secret, secret_hash(secret))
    assert not matches(new_secret(), secret_hash(secret))
    assert not matches(secret, b"")


def test_a_claim_does_not_show_its_secret():
    """Nor does a key."""
    assert repr(Claim(device_id=DEVICE, secret=SECRET)) == f"Claim(device_id={DEVICE!r})"
    assert repr(NEW) == "DeviceKey(id='2026')"


def test_the_cookie_is_as_strict_as_browsers_allow():
    """By default it is bound to one host, hidden from scripts, and lasts 400 days."""
    ready = cookie("TOKEN", CookieSettings())

    assert (ready.name, ready.value, ready.max_age_s) == ("__Host-ag_device", "TOKEN", 34560000)
    assert ready.header == "__Host-ag_device=TOKEN; Path=/; Max-Age=34560000; Secure; HttpOnly; SameSite=Lax"


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        pytest.param(
            CookieSettings(prefix="__Secure-", domain="school.example"),
            "__Secure-ag_device=T; Path=/; Max-Age=34560000; Domain=school.example; Secure; HttpOnly; SameSite=Lax",
            id="several subdomains",
        ),
        pytest.param(
            CookieSettings(same_site="None", partitioned=True),
            "__Host-ag_device=T; Path=/; Max-Age=34560000; Secure; HttpOnly; SameSite=None; Partitioned",
            id="embedded player",
        ),
        pytest.param(
            CookieSettings(prefix="", same_site="Strict"),
            "ag_device=T; Path=/; Max-Age=34560000; Secure; HttpOnly; SameSite=Strict",
            id="no prefix",
        ),
    ],
)
def test_the_variants_of_the_cookie_are_settings(settings, header):
    """Subdomains and embedding are the two reasons to leave the default."""
    assert cookie("T", settings).header == header


@pytest.mark.parametrize(
    ("prefix", "domain"),
    [
        pytest.param("__Host-", "school.example", id="a host cookie with a domain"),
        pytest.param("__Secure-", "", id="empty"),
        pytest.param("__Secure-", ".school.example", id="leading dot"),
        pytest.param("__Secure-", "example", id="top-level domain"),
        pytest.param("__Secure-", "School.example", id="capitals"),
        pytest.param("__Secure-", "school.example; Path=/x", id="another attribute"),
        pytest.param("__Secure-", "school.example\r\nSet-Cookie: a=b", id="another header"),
        pytest.param("__Secure-", "a" * 64 + ".example", id="long label"),
        pytest.param("__Secure-", "a." * 130 + "example", id="long name"),
    ],
)
def test_a_domain_that_no_browser_would_keep_is_refused(prefix, domain):
    """The settings are right when they are built."""
    with pytest.raises(ValueError, match="cookie"):
        CookieSettings(prefix=prefix, domain=domain)


@pytest.mark.parametrize("asked", [{"prefix": "Host-"}, {"same_site": "lax"}, {"prefix": "__Host-", "domain": "a.b"}])
def test_settings_from_outside_are_checked_as_they_are_read(asked):
    """What arrives as JSON passes the same checks."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(asked, CookieSettings)


@given(st.uuids(), st.binary(min_size=32, max_size=32), st.data())
def test_no_token_that_was_tampered_with_is_read(device_id, secret, data):
    """One character changed, put in, taken out or moved: none of them reads as any device."""
    token = TOKENS.issue(device_id, secret)
    at = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.characters(codec="ascii"))
    changed = data.draw(
        st.sampled_from(
            [
                token[:at] + character + token[at + 1 :],
                token[:at] + character + token[at:],
                token[:at] + token[at + 1 :],
                token[at:] + token[:at],
            ]
        )
    )

    assert TOKENS.read(changed) == (Claim(device_id=device_id, secret=secret) if changed == token else None)


@given(st.lists(st.sampled_from(["v1", "2026", "2025", "", "A" * 22, "A" * 43, "."]), max_size=8))
def test_no_arrangement_of_parts_is_read(parts):
    """Without the key there is no MAC."""
    assert TOKENS.read(".".join(parts)) is None
