"""Addresses and sets of networks, with the standard library as the oracle."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network, summarize_address_range

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.rules.networks import MAX_NETWORKS, Address, NetworkError, Networks, address, networks
from tests.fuzz import examples


def host(text: str) -> Address:
    """Read an address that is one."""
    found = address(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "canonical", "version"),
    [
        pytest.param("203.0.113.9", "203.0.113.9", 4, id="IPv4"),
        pytest.param(" 203.0.113.9\t", "203.0.113.9", 4, id="white space around"),
        pytest.param("203.0.113.9:443", "203.0.113.9", 4, id="IPv4 and port"),
        pytest.param("2001:DB8:0:0::1", "2001:db8::1", 6, id="IPv6 in capitals"),
        pytest.param("[2001:db8::1]", "2001:db8::1", 6, id="brackets"),
        pytest.param("[2001:db8::1]:65535", "2001:db8::1", 6, id="brackets and port"),
        pytest.param("fe80::1%eth0", "fe80::1", 6, id="zone"),
        pytest.param("[fe80::1%25en0]:80", "fe80::1", 6, id="zone as a URL writes it"),
        pytest.param("::ffff:203.0.113.9", "203.0.113.9", 4, id="mapped, dotted"),
        pytest.param("::ffff:cb00:7109", "203.0.113.9", 4, id="mapped, in hexadecimal"),
        pytest.param("[::ffff:203.0.113.9%eth0]:443", "203.0.113.9", 4, id="mapped, with everything"),
        pytest.param("::1", "::1", 6, id="loopback"),
    ],
)
def test_an_address_has_one_form_however_it_is_written(text, canonical, version):
    """Port, brackets, zone and the IPv4-mapped form leave no trace."""
    found = address(text)

    assert found == Address(text=canonical, version=version, packed=int(ip_address(canonical)))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("   ", id="blank"),
        pytest.param("unknown", id="a word"),
        pytest.param("203.0.113", id="three octets"),
        pytest.param("203.0.113.256", id="octet too large"),
        pytest.param("010.0.0.1", id="leading zero, octal to some"),
        pytest.param("3405803785", id="an integer"),
        pytest.param("203.0.113.9:", id="colon and no port"),
        pytest.param("203.0.113.9:65536", id="port too large"),
        pytest.param("203.0.113.9:http", id="port by name"),
        pytest.param("203.0.113.9%eth0", id="zone behind IPv4"),
        pytest.param("[203.0.113.9]", id="IPv4 in brackets"),
        pytest.param("[2001:db8::1", id="bracket left open"),
        pytest.param("[2001:db8::1]x", id="text behind the bracket"),
        pytest.param("fe80::1%", id="empty zone"),
        pytest.param("fe80::1%a%b", id="two zones"),
        pytest.param("203.0.113.9, 203.0.113.10", id="two addresses"),
        pytest.param("203.0.113.0/24", id="a network"),
        pytest.param("203.0.113.9\0", id="NUL"),
        pytest.param("fe80::1%" + "e" * 80, id="overlong"),
        pytest.param("\u0662\u0660\u0663.0.113.9", id="digits of another script"),
        pytest.param("2001:db8::1\n", id="line end"),
    ],
)
def test_what_is_no_address_is_unknown(text):
    """A malformed address is None; nothing is guessed and nothing raised."""
    assert address(text) is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("203.0.113.9", "203.0.113.9", id="IPv4: the address"),
        pytest.param("::ffff:203.0.113.9", "203.0.113.9", id="mapped: the IPv4 address"),
        pytest.param("2001:db8:1:2:aaaa:bbbb:cccc:dddd", "2001:db8:1:2::/64", id="IPv6: the /64"),
        pytest.param("::1", "::/64", id="IPv6: zeros"),
    ],
)
def test_places_are_compared_by_address_or_by_64_bits(text, place):
    """Privacy addresses of one home are one place; two IPv4 addresses are two."""
    assert host(text).place == place


@given(st.ip_addresses())
def test_every_address_is_read_as_the_standard_library_reads_it(oracle):
    """The packed value and the canonical text agree with `ipaddress`."""
    unwrapped = getattr(oracle, "ipv4_mapped", None) or oracle

    found = host(str(oracle))

    assert (found.text, found.version, found.packed) == (str(unwrapped), unwrapped.version, int(unwrapped))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_the_same_in_its_mapped_form(oracle):
    """A dual-stack socket and a plain one give the same address."""
    assert host(f"::ffff:{oracle}") == host(str(oracle)) == host(f"[::ffff:{oracle}]:80")


@examples(500)
@given(st.text(max_size=100) | st.text(alphabet="0123456789abcf.:[]%/ -*", max_size=60))
def test_no_text_breaks_the_reading_of_an_address(text):
    """Anything at all is an address or None."""
    found = address(text)

    assert found is None or address(found.text) == found


LISTED = [
    pytest.param("203.0.113.9", ["203.0.113.9", "::ffff:203.0.113.9"], ["203.0.113.8", "203.0.113.10"], id="address"),
    pytest.param("10.0.0.0/16", ["10.0.0.0", "10.0.255.255"], ["9.255.255.255", "10.1.0.0"], id="CIDR"),
    pytest.param("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::", "2001:db8::1"], id="all of IPv4"),
    pytest.param("10.0.0.0/255.255.0.0", ["10.0.255.255"], ["10.1.0.0"], id="netmask behind a slash"),
    pytest.param("10.0.0.0 255.255.0.0", ["10.0.255.255"], ["10.1.0.0"], id="netmask behind a space"),
    pytest.param("2001:db8::/ffff:ffff::", ["2001:db8:ffff::"], ["2001:db9::"], id="IPv6 netmask"),
    pytest.param(
        "203.0.113.5-203.0.113.20", ["203.0.113.5", "203.0.113.20"], ["203.0.113.4", "203.0.113.21"], id="range"
    ),
    pytest.param("203.0.113.5-20", ["203.0.113.5", "203.0.113.20"], ["203.0.113.4", "203.0.113.21"], id="short range"),
    pytest.param("203.0.113.5 - 203.0.113.20", ["203.0.113.9"], ["203.0.113.21"], id="range with spaces"),
    pytest.param("203.0.113.5-203.0.114.1", ["203.0.113.255", "203.0.114.0"], ["203.0.114.2"], id="uneven range"),
    pytest.param("2001:db8::1-2001:db8::ff", ["2001:db8::80"], ["2001:db8::100"], id="IPv6 range"),
    pytest.param("::ffff:203.0.113.5-203.0.113.20", ["203.0.113.7"], ["203.0.113.21"], id="mapped range"),
    pytest.param("203.0.113.*", ["203.0.113.0", "203.0.113.255"], ["203.0.114.0"], id="wildcard of one octet"),
    pytest.param("10.*", ["10.0.0.0", "10.255.255.255"], ["11.0.0.0"], id="wildcard of three octets"),
    pytest.param("10.20.*.*", ["10.20.255.255"], ["10.21.0.0"], id="a wildcard an octet"),
    pytest.param("2001:db8:*", ["2001:db8::", "2001:db8:ffff::1"], ["2001:db9::"], id="IPv6 wildcard"),
    pytest.param("1:2:3:4:5:6:7:*", ["1:2:3:4:5:6:7:ffff"], ["1:2:3:4:5:6:8:0"], id="IPv6 wildcard of one group"),
    pytest.param("::ffff:203.0.113.*", ["203.0.113.1"], ["203.0.114.1"], id="mapped wildcard"),
    pytest.param("2001:db8::1", ["2001:db8::1", "[2001:db8::1]:443"], ["2001:db8::2"], id="IPv6 address"),
    pytest.param("2001:db8::/32", ["2001:db8:ffff:ffff::"], ["2001:db9::"], id="IPv6 CIDR"),
    pytest.param("::/0", ["::", "2001:db8::1"], ["203.0.113.9", "::ffff:203.0.113.9"], id="all of IPv6"),
    pytest.param("::ffff:203.0.113.9", ["203.0.113.9"], ["203.0.113.8"], id="mapped address"),
    pytest.param("::ffff:203.0.113.0/120", ["203.0.113.9"], ["203.0.114.0"], id="mapped CIDR"),
    pytest.param("::ffff:10.0.0.0/255.255.0.0", ["10.0.9.9"], ["10.1.0.0"], id="mapped with an IPv4 netmask"),
    pytest.param("::ffff:0:0/96", ["203.0.113.9"], ["::1"], id="all of IPv4, mapped"),
    pytest.param("  203.0.113.9  ", ["203.0.113.9"], ["203.0.113.8"], id="white space around"),
]


@pytest.mark.parametrize(("text", "inside", "outside"), LISTED)
def test_a_network_holds_its_addresses_and_no_other(text, inside, outside):
    """Every way of writing a network means what its author sees in it."""
    listed = networks([text])

    assert all(host(one) in listed for one in inside)
    assert not any(host(one) in listed for one in outside)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("", "not an address", id="empty"),
        pytest.param("learn.example.com", "not an address", id="a name"),
        pytest.param("203.0.113.9:443", "not an address", id="address and port"),
        pytest.param("fe80::1%eth0", "not an address", id="zone"),
        pytest.param("10.0.0.5/16", "the network is 10.0.0.0/16", id="host bits"),
        pytest.param("10.0.0.5 255.255.0.0", "the network is 10.0.0.0/16", id="host bits beside a netmask"),
        pytest.param("2001:db8::1/32", "the network is 2001:db8::/32", id="IPv6 host bits"),
        pytest.param("10.0.0.0/33", "0 to 32 bits", id="prefix too long"),
        pytest.param("2001:db8::/129", "0 to 128 bits", id="IPv6 prefix too long"),
        pytest.param("10.0.0.0/", "not an address", id="empty prefix"),
        pytest.param("10.0.0.0/-1", "not an address", id="negative prefix"),
        pytest.param("10.0.0.0/255.0.255.0", "ones, then zeros", id="netmask with a hole"),
        pytest.param("10.0.0.0/0.0.255.255", "ones, then zeros", id="mask of hosts"),
        pytest.param("10.0.0.0/ffff::", "two versions", id="netmask of the other version"),
        pytest.param("2001:db8::/255.0.0.0", "two versions", id="IPv4 netmask of IPv6"),
        pytest.param("203.0.113.20-203.0.113.5", "ends before", id="range backwards"),
        pytest.param("203.0.113.20-5", "ends before", id="short range backwards"),
        pytest.param("203.0.113.5-300", "not an address", id="short range too far"),
        pytest.param("203.0.113.5-2001:db8::1", "two versions", id="range over two versions"),
        pytest.param("203.0.113.5-", "not an address", id="range without an end"),
        pytest.param("1.1.1.1-1.1.1.2-1.1.1.3", "not an address", id="range of three"),
        pytest.param("*", "a wildcard stands", id="wildcard alone"),
        pytest.param("203.*.113.1", "a wildcard stands", id="wildcard in the middle"),
        pytest.param("203.0.11*", "a wildcard stands", id="half an octet"),
        pytest.param("300.*", "not an address", id="wildcard behind no octet"),
        pytest.param("10.*.*.*.*", "a wildcard stands", id="five octets"),
        pytest.param("2001:db8::*", "a wildcard stands", id="wildcard behind a gap"),
        pytest.param("1:2:3:4:5:6:7:8:*", "a wildcard stands", id="nine groups"),
        pytest.param("203.0.113.9\0", "not an address", id="NUL"),
        pytest.param("1" * 100, "longer than 96", id="overlong"),
    ],
)
def test_a_text_that_names_no_network_is_refused_with_its_place_and_reason(text, reason):
    """The error points at the entry and says what is wrong with it."""
    with pytest.raises(NetworkError) as refused:
        networks(["203.0.113.9", text, "nonsense"])

    assert refused.value.index == 1
    assert reason in refused.value.detail


def test_a_list_has_room_for_ten_thousand_networks_and_no_more():
    """The bound is exact, and the error points behind the last that fits."""
    most = [f"10.{number // 256}.{number % 256}.1" for number in range(MAX_NETWORKS)]

    assert host(most[-1]) in networks(most)
    with pytest.raises(NetworkError) as refused:
        networks([*most, "203.0.113.9"])
    assert refused.value.index == MAX_NETWORKS


def test_no_networks_hold_no_address():
    """The empty set is false and contains nothing."""
    assert not networks([])
    assert host("203.0.113.9") not in networks([])
    assert networks([]) == Networks()


def test_networks_of_the_same_addresses_are_equal():
    """Order, overlap and halves that touch make no difference."""
    halves = networks(["10.0.0.128/25", "10.0.0.0/25", "10.0.0.7"])

    assert halves == networks(["10.0.0.0/24"])
    assert hash(halves) == hash(networks(["10.0.0.*"]))


def v4_networks() -> st.SearchStrategy[IPv4Network]:
    """IPv4 networks of every length."""
    packed, bits = st.integers(0, 2**32 - 1), st.integers(0, 32)
    return st.builds(lambda value, length: IPv4Network((value >> 32 - length << 32 - length, length)), packed, bits)


def v6_networks() -> st.SearchStrategy[IPv6Network]:
    """IPv6 networks of every length, away from the IPv4-mapped block."""
    packed, bits = st.integers(2**127, 2**128 - 1), st.integers(0, 128)
    return st.builds(lambda value, length: IPv6Network((value >> 128 - length << 128 - length, length)), packed, bits)


@given(st.lists(v4_networks() | v6_networks(), max_size=30), st.lists(st.ip_addresses(), max_size=30))
def test_membership_agrees_with_the_standard_library(oracles, others):
    """Every edge of every network, just outside each, and addresses at random."""
    listed = networks([str(oracle) for oracle in oracles])
    edges = [ip for oracle in oracles for ip in (oracle.network_address, oracle.broadcast_address)]
    beside = [type(ip)(int(ip) + 1) for ip in edges if int(ip) + 1 < 2**ip.max_prefixlen]

    for ip in [*edges, *beside, *others]:
        plain = getattr(ip, "ipv4_mapped", None) or ip
        assert (host(str(ip)) in listed) is any(plain in oracle for oracle in oracles)


@given(v4_networks())
def test_a_netmask_means_its_prefix(oracle):
    """`address/netmask`, `address netmask` and CIDR are one network."""
    cidr = networks([str(oracle)])

    assert networks([f"{oracle.network_address}/{oracle.netmask}"]) == cidr
    assert networks([f"{oracle.network_address} {oracle.netmask}"]) == cidr
    assert networks([f"::ffff:{oracle.network_address}/{96 + oracle.prefixlen}"]) == cidr


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_a_range_is_the_networks_it_is_made_of(one, other):
    """A dash range equals its summary in CIDR."""
    first, last = sorted([one, other])

    summary = [str(network) for network in summarize_address_range(first, last)]

    assert networks([f"{first}-{last}"]) == networks(summary)


@given(st.integers(1, 3), st.ip_addresses(v=4))
def test_a_wildcard_is_its_prefix(octets, oracle):
    """`a.b.*` is `a.b.0.0/16`."""
    kept = str(oracle).split(".")[:octets]

    listed = networks([".".join([*kept, "*"])])

    assert listed == networks([str(ip_network(f"{oracle}/{8 * octets}", strict=False))])


@given(st.text(max_size=120) | st.text(alphabet="0123456789abf.:/-* ", max_size=60))
def test_no_text_breaks_the_reading_of_networks(text):
    """Anything at all is a network or a NetworkError."""
    try:
        listed = networks([text])
    except NetworkError:
        listed = None

    assert listed is None or listed
