"""Where a request comes from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.api.origin import client_address
from accessguard.rules.networks import networks
from tests.fuzz import examples

TRUSTED = networks(["10.0.0.0/8", "127.0.0.1", "2001:db8:aaaa::/48"])


def found(peer, *, xff=(), forwarded=(), trusted=TRUSTED, trust_unix=False):
    """Give the client's address as text, or None."""
    client = client_address(peer, xff, forwarded, trusted, trust_unix=trust_unix)
    return None if client is None else client.text


@pytest.mark.parametrize(
    ("peer", "xff", "client"),
    [
        pytest.param("203.0.113.9", [], "203.0.113.9", id="no proxy"),
        pytest.param("203.0.113.9", ["198.51.100.7"], "203.0.113.9", id="a client's own header"),
        pytest.param("203.0.113.9", ["nonsense"], "203.0.113.9", id="a client's own nonsense"),
        pytest.param("10.0.0.1", [], "10.0.0.1", id="proxy without header"),
        pytest.param("10.0.0.1", [""], "10.0.0.1", id="empty header"),
        pytest.param("10.0.0.1", ["203.0.113.9"], "203.0.113.9", id="one proxy"),
        pytest.param("10.0.0.1", ["203.0.113.9, 10.0.0.2"], "203.0.113.9", id="two proxies"),
        pytest.param("10.0.0.1", ["203.0.113.9", "10.0.0.2"], "203.0.113.9", id="two proxies, two lines"),
        pytest.param("10.0.0.1", ["198.51.100.7, 203.0.113.9"], "203.0.113.9", id="what the client put before"),
        pytest.param("10.0.0.1", ["198.51.100.7", "203.0.113.9,10.0.0.2"], "203.0.113.9", id="the same over lines"),
        pytest.param("10.0.0.1", ["10.9.9.9, 203.0.113.9"], "203.0.113.9", id="a trusted address put before"),
        pytest.param("10.0.0.1", ["nonsense, 203.0.113.9"], "203.0.113.9", id="nonsense put before"),
        pytest.param("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3", id="inside the networks"),
        pytest.param("10.0.0.1", ["203.0.113.9, unknown"], None, id="a hop unknown"),
        pytest.param("10.0.0.1", ["203.0.113.9, , 10.0.0.2"], None, id="a hop empty"),
        pytest.param("10.0.0.1", ["203.0.113.9,"], None, id="comma at the end"),
        pytest.param("10.0.0.1", ["203.0.113.999"], None, id="a hop malformed"),
        pytest.param("10.0.0.1", ["203.0.113.9:443"], "203.0.113.9", id="port"),
        pytest.param("10.0.0.1", ["[2001:db8::9]:443"], "2001:db8::9", id="IPv6 and port"),
        pytest.param("10.0.0.1", ["fe80::9%eth0"], "fe80::9", id="zone"),
        pytest.param("10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9", id="mapped hop"),
        pytest.param("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9", id="mapped peer"),
        pytest.param("10.0.0.1", ["203.0.113.9, ::ffff:10.0.0.2"], "203.0.113.9", id="mapped proxy"),
        pytest.param("2001:db8:aaaa::1", ["2001:db8::9"], "2001:db8::9", id="IPv6 proxy"),
        pytest.param("nonsense", ["203.0.113.9"], None, id="peer malformed"),
    ],
)
def test_the_chain_is_read_from_the_right_over_the_trusted_networks(peer, xff, client):
    """A client cannot put an address in front of its own, and no hop is guessed."""
    assert found(peer, xff=xff) == client


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        pytest.param(["for=203.0.113.9"], "203.0.113.9", id="token"),
        pytest.param(["For=203.0.113.9;proto=https;by=10.0.0.1"], "203.0.113.9", id="with other pairs"),
        pytest.param(['proto=https; for="203.0.113.9:443"'], "203.0.113.9", id="in quotes with port"),
        pytest.param(["for=203.0.113.9:443"], "203.0.113.9", id="unquoted port"),
        pytest.param(['for="203.0.113.9:_hidden"'], "203.0.113.9", id="hidden port"),
        pytest.param(['for="[2001:db8::9]"'], "2001:db8::9", id="IPv6"),
        pytest.param(['for="[2001:db8::9]:443"'], "2001:db8::9", id="IPv6 and port"),
        pytest.param(["for=198.51.100.7, for=203.0.113.9, for=10.0.0.2"], "203.0.113.9", id="three hops"),
        pytest.param(["for=198.51.100.7", "for=203.0.113.9"], "203.0.113.9", id="two lines"),
        pytest.param(['for="x, for=203.0.113.9'], "203.0.113.9", id="a quote left open before"),
        pytest.param(["nonsense, for=203.0.113.9"], "203.0.113.9", id="nonsense before"),
        pytest.param(["for=203.0.113.9;"], "203.0.113.9", id="semicolon at the end"),
        pytest.param(["for=2001:db8::9"], None, id="IPv6 without brackets"),
        pytest.param(["for=unknown"], None, id="unknown"),
        pytest.param(["for=_secret"], None, id="hidden"),
        pytest.param(["proto=https"], None, id="no for"),
        pytest.param(["for=203.0.113.9;for=198.51.100.7"], None, id="two in one hop"),
        pytest.param(['for=203.0.113.9;host="'], None, id="a quote left open"),
        pytest.param(["for = 203.0.113.9"], None, id="spaces around the sign"),
        pytest.param(['for=""'], None, id="empty"),
    ],
)
def test_the_standard_header_is_read_the_same_way(forwarded, client):
    """`Forwarded` (RFC 7239) gives the same client as `X-Forwarded-For`."""
    assert found("10.0.0.1", forwarded=forwarded) == client


def test_two_headers_that_disagree_make_the_client_unknown():
    """One of them was not written by the proxy, and which one cannot be told."""
    assert found("10.0.0.1", xff=["203.0.113.9"], forwarded=["for=203.0.113.9"]) == "203.0.113.9"
    assert found("10.0.0.1", xff=["203.0.113.9"], forwarded=["for=198.51.100.7"]) is None
    assert found("10.0.0.1", xff=["203.0.113.9"], forwarded=["nonsense"]) is None


def test_without_trusted_networks_no_header_counts():
    """Not even from loopback."""
    assert found("127.0.0.1", xff=["203.0.113.9"], forwarded=["for=203.0.113.9"], trusted=networks([])) == "127.0.0.1"


@pytest.mark.parametrize("peer", [None, ""])
def test_a_unix_socket_is_a_proxy_only_when_configured(peer):
    """Its peer has no address: trusted, the chain tells; else nobody knows."""
    assert found(peer, xff=["203.0.113.9, 10.0.0.2"], trust_unix=True) == "203.0.113.9"
    assert found(peer, xff=["203.0.113.9"]) is None
    assert found(peer, trust_unix=True) is None


def test_a_peer_without_an_address_is_not_a_unix_socket():
    """A malformed peer is not made trusted by the switch."""
    assert found("nonsense", xff=["203.0.113.9"], trust_unix=True) is None


HOPS = st.ip_addresses().map(str) | st.sampled_from(
    ["unknown", "_hidden", "", '"', "[", "for=", "10.0.0.2:", "::ffff:10.0.0.3"]
)
CHAINS = st.lists(HOPS | st.builds("{}:{}".format, HOPS, st.integers(0, 99_999)) | st.text(max_size=8), max_size=8)
ANYTHING = st.lists(
    CHAINS.map(", ".join) | CHAINS.map(lambda hops: ",".join(f'for="{hop}"' for hop in hops)), max_size=3
) | st.lists(st.text(max_size=60) | st.text(alphabet='for=203.0.113.9:[]";, _', max_size=60), max_size=3)


@examples(200)
@given(ANYTHING, ANYTHING)
def test_no_header_breaks_the_reading(xff, forwarded):
    """Whatever a header holds, the answer is an address or None."""
    client = client_address("10.0.0.1", xff, forwarded, TRUSTED)

    assert client is None or client.version in {4, 6}


@examples(200)
@given(ANYTHING, ANYTHING)
def test_no_header_moves_a_client_that_is_not_trusted(xff, forwarded):
    """A stranger's headers change nothing at all."""
    assert found("203.0.113.9", xff=xff, forwarded=forwarded) == "203.0.113.9"


@examples(200)
@given(st.lists(st.ip_addresses(v=4).map(str) | st.text(alphabet='0123456789.",:; fornk=', max_size=20), max_size=5))
def test_nothing_put_before_the_proxys_own_hop_counts(before):
    """A trusted proxy appends what it saw, and that is the answer in either header."""
    xff = ", ".join([*before, "203.0.113.9"])
    forwarded = ", ".join([*(f"for={hop}" for hop in before), "for=203.0.113.9"])

    assert found("10.0.0.1", xff=[xff]) == found("10.0.0.1", forwarded=[forwarded]) == "203.0.113.9"


@examples(200)
@given(CHAINS, st.integers(0, 6))
def test_the_client_is_the_nearest_hop_that_no_trusted_network_holds(before, proxies):
    """Whatever stands before it, and however many proxies of ours behind it."""
    ours = [f"10.0.{number}.1" for number in range(proxies)]
    chain = ", ".join([*before, "203.0.113.9", *ours])

    assert found("10.0.0.1", xff=[chain]) == "203.0.113.9"
    assert found("10.0.0.1", xff=chain.split(", ")) == "203.0.113.9"
