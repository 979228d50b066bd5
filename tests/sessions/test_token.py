"""The session token."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.devices.cookie import DeviceKey, DeviceTokens, new_secret
from accessguard.sessions.token import SessionClaim, SessionKey, SessionTokens

OLD = SessionKey(id="2025", secret="o" * 32)
NEW = SessionKey(id="2026", secret="n" * 32)
TOKENS = SessionTokens([NEW, OLD])

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)


@given(IDS, IDS)
def test_an_issued_token_is_read_back(tenant, session_id):
    """Any ids come back as they went in, and the token is the same each time."""
    token = TOKENS.issue(tenant, session_id)

    assert TOKENS.read(token) == SessionClaim(tenant=tenant, session_id=session_id)
    assert TOKENS.issue(tenant, session_id) == token


def test_the_longest_ids_fit():
    """128 characters of four bytes each, twice, pass and stay far below what a browser keeps."""
    longest = "\U0001f393" * 128

    token = TOKENS.issue(longest, longest)

    assert TOKENS.read(token) == SessionClaim(tenant=longest, session_id=longest)
    assert len(token) < 1536


@given(IDS, IDS, IDS, IDS)
def test_two_sessions_never_share_a_token(tenant, session_id, other_tenant, other_session_id):
    """No choice of ids makes one session's token read as another's."""
    same_ids = (tenant, session_id) == (other_tenant, other_session_id)

    assert (TOKENS.issue(tenant, session_id) == TOKENS.issue(other_tenant, other_session_id)) is same_ids


def test_a_token_of_an_older_key_still_counts():
    """A key may change under open sessions."""
    assert TOKENS.read(SessionTokens([OLD]).issue("t", "s")) == SessionClaim(tenant="t", session_id="s")


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param(TOKENS.issue("t", "s")[:-1], id="cut"),
        pytest.param(SessionTokens([SessionKey(id="2026", secret="f" * 32)]).issue("t", "s"), id="forged"),
        pytest.param(
            DeviceTokens([DeviceKey(id="2026", secret="n" * 32)]).issue(UUID(int=1), new_secret()),
            id="of a device",
        ),
        pytest.param("v1.2026." + "A" * 100_000, id="overlong"),
    ],
)
def test_a_token_that_is_not_ours_is_none(token):
    """It is no session, never an error."""
    assert TOKENS.read(token) is None


@given(st.text(max_size=200))
def test_no_text_breaks_the_reading_of_a_token(text):
    """Whatever a client sends is None."""
    assert TOKENS.read(text) is None


@pytest.mark.parametrize(
    ("tenant", "session_id"),
    [
        pytest.param("", "s", id="no tenant"),
        pytest.param("t", "", id="no session"),
        pytest.param("t" * 129, "s", id="long tenant"),
        pytest.param("t", "s" * 129, id="long session"),
    ],
)
def test_ids_out_of_bounds_are_never_issued(tenant, session_id):
    """A mistake of ours is found at once."""
    with pytest.raises(ValueError, match="1 to 128"):
        TOKENS.issue(tenant, session_id)
