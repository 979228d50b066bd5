"""Addresses and sets of networks, as rules and the forwarded chain compare them."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

import msgspec

MAX_NETWORKS: Final = 10_000

# 45 characters of IPv6 with a dotted tail, 15 of zone (Linux IFNAMSIZ less its NUL), "[", "%", "]" and ":65535".
MAX_ADDRESS_CHARS: Final = 69

# Addresses come back with the next request of the same member; about 4 MB when full.
REMEMBERED: Final = 8192

# Two addresses and what joins them.
MAX_NETWORK_CHARS: Final = 96

# ::ffff:0:0/96, where IPv6 repeats the whole of IPv4 (RFC 4291, section 2.5.5.2).
MAPPED_FIRST: Final = 0xFFFF << 32
MAPPED_LAST: Final = MAPPED_FIRST | 0xFFFF_FFFF
MAPPED_BITS: Final = 96

# The interface's half of an IPv6 address (RFC 4291, section 2.5.1): who holds a /64 changes it at will.
INTERFACE_BITS: Final = 64

_BITS: Final = {4: 32, 6: 128}
_BRACKETED: Final = re.compile(r"\[([^\[\]]*)\](?::(\d{1,5}))?", re.ASCII)
# The usual form, which is canonical as it stands: read in a tenth of the time that `ipaddress` takes.
_V4: Final = re.compile(r"\.".join([r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"] * 4), re.ASCII)
_V4_WITH_PORT: Final = re.compile(r"([\d.]+):(\d{1,5})", re.ASCII)
_ZONE: Final = re.compile(r"[\w.~-]+", re.ASCII)
_V4_WILDCARD: Final = re.compile(r"((?:\d{1,3}\.){1,3})\*(?:\.\*)*", re.ASCII)
_V6_WILDCARD: Final = re.compile(r"((?:[0-9a-f]{1,4}:){1,7})\*", re.ASCII | re.IGNORECASE)
_MAPPED: Final = re.compile(r"::ffff:(?=\d+\.)", re.ASCII | re.IGNORECASE)
_PREFIX: Final = re.compile(r"\d{1,3}", re.ASCII)


class Address(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One host, in the only form in which two addresses are compared.

    `text` is canonical (RFC 5952 for IPv6), `version` 4 or 6, `packed` the
    address as an integer of 32 or 128 bits. Never an IPv4-mapped IPv6.
    """

    text: str
    version: int
    packed: int

    @property
    def place(self) -> str:
        """The unit in which places are compared: an IPv4 address itself, the /64 of an IPv6 one."""
        if self.version == 4:
            return self.text
        return f"{IPv6Address(self.packed >> INTERFACE_BITS << INTERFACE_BITS)}/{INTERFACE_BITS}"


def address(text: str | None) -> Address | None:
    """Read an address as proxies and sockets write it; None means unknown.

    Port, brackets and zone are dropped (`203.0.113.9:443`,
    `[2001:db8::1%eth0]:443`) and IPv4-mapped IPv6 is unwrapped. Whatever is
    malformed, empty, overlong or holds a NUL is None, never a guess.
    """
    return None if text is None or len(text) > MAX_ADDRESS_CHARS else _address(text)


class NetworkError(ValueError):
    """A text that names no network: the `index`th (from 0) of those given, and in `detail` why."""

    def __init__(self, index: int, detail: str) -> None:
        super().__init__(f"network {index}: {detail}")
        self.index = index
        self.detail = detail


class Networks(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A set of addresses, as sorted, disjoint ranges of each version; made by `networks`.

    `v4_first[i]` to `v4_last[i]`, both included, is one range of packed
    addresses; the same for `v6_`. Membership is one binary search.
    """

    v4_first: tuple[int, ...] = ()
    v4_last: tuple[int, ...] = ()
    v6_first: tuple[int, ...] = ()
    v6_last: tuple[int, ...] = ()

    def __contains__(self, host: Address) -> bool:
        if host.version == 4:
            found = bisect_right(self.v4_first, host.packed)
            return found > 0 and host.packed <= self.v4_last[found - 1]
        found = bisect_right(self.v6_first, host.packed)
        return found > 0 and host.packed <= self.v6_last[found - 1]

    def __bool__(self) -> bool:
        """Whether any address at all is in the set."""
        return bool(self.v4_first or self.v6_first)


def networks(texts: Sequence[str]) -> Networks:
    """Read the networks of a rule or of the configuration, 10,000 at most.

    Each text is an address, a CIDR (`10.0.0.0/8`), an address with a netmask
    (`10.0.0.0/255.0.0.0`, `10.0.0.0 255.0.0.0`), a dash range
    (`203.0.113.5-203.0.113.20`, `203.0.113.5-20`) or a trailing wildcard
    (`203.0.113.*`, `2001:db8:*`). IPv4-mapped IPv6 is its IPv4 form; a wider
    IPv6 network, such as `::/0`, holds no IPv4 address. Raises NetworkError
    for the first text that is none of these.
    """
    if len(texts) > MAX_NETWORKS:
        raise NetworkError(MAX_NETWORKS, f"at most {MAX_NETWORKS} networks fit in one list")
    spans = [_span(index, text) for index, text in enumerate(texts)]
    v4 = _merged(span for span in spans if span.version == 4)
    v6 = _merged(span for span in spans if span.version == 6)
    return Networks(
        v4_first=tuple(span.first for span in v4),
        v4_last=tuple(span.last for span in v4),
        v6_first=tuple(span.first for span in v6),
        v6_last=tuple(span.last for span in v6),
    )


class _Span(msgspec.Struct, frozen=True, order=True):
    """The packed addresses from `first` to `last`, both included."""

    version: int
    first: int
    last: int


class _RefusedError(ValueError):
    """Why one text names no network."""


def _span(index: int, text: str) -> _Span:
    try:
        return _read(text)
    except _RefusedError as refused:
        raise NetworkError(index, str(refused)) from None


def _read(text: str) -> _Span:
    if len(text) > MAX_NETWORK_CHARS:
        raise _RefusedError(f"longer than {MAX_NETWORK_CHARS} characters")
    bare = text.strip()
    if "*" in bare:
        return _wildcard(bare)
    if "-" in bare:
        return _dash_range(*(end.strip() for end in bare.split("-", 1)))
    if "/" in bare:
        return _masked(*(part.strip() for part in bare.split("/", 1)))
    base, _, mask = bare.partition(" ")
    return _masked(base, mask.strip()) if mask else _dash_range(base, base)


def _masked(base: str, mask: str) -> _Span:
    version, packed = _literal_or_refuse(base)
    bits = _prefix_bits(version, packed, mask)
    spare = _BITS[version] - bits
    first = packed >> spare << spare
    if first != packed:
        right = _literal_text(version, first)
        raise _RefusedError(f"{base} has bits set behind the prefix; the network is {right}/{bits}")
    return _unmapped_span(version, first, first | ((1 << spare) - 1))


def _prefix_bits(version: int, packed: int, mask: str) -> int:
    """Count the leading bits that a prefix length or a netmask fixes."""
    if not _PREFIX.fullmatch(mask):
        return _netmask_bits(version, packed, mask)
    if int(mask) > _BITS[version]:
        raise _RefusedError(f"a prefix of IPv{version} is 0 to {_BITS[version]} bits long")
    return int(mask)


def _netmask_bits(version: int, packed: int, mask: str) -> int:
    """Do as `_prefix_bits`; an IPv4 netmask beside an IPv4-mapped address counts behind its 96 bits."""
    mask_version, mask_packed = _literal_or_refuse(mask)
    width = _BITS[mask_version]
    if mask_version != _unmapped(version, packed)[0] and mask_version != version:
        raise _RefusedError("the address and its netmask are of two versions of IP")
    host_mask = mask_packed ^ ((1 << width) - 1)
    if host_mask & (host_mask + 1):
        raise _RefusedError("a netmask is ones, then zeros, such as 255.255.0.0")
    return _BITS[version] - host_mask.bit_length()


def _dash_range(first_text: str, last_text: str) -> _Span:
    """Read two ends and what is between; of the last end of an IPv4 range, its last octet is enough."""
    if "." in first_text and _PREFIX.fullmatch(last_text):
        last_text = f"{first_text.rpartition('.')[0]}.{last_text}"
    version, first = _unmapped(*_literal_or_refuse(first_text))
    last_version, last = _unmapped(*_literal_or_refuse(last_text))
    if version != last_version:
        raise _RefusedError("the two ends of a range are of two versions of IP")
    if last < first:
        raise _RefusedError("the range ends before it begins")
    return _Span(version, first, last)


def _wildcard(text: str) -> _Span:
    """Read the octets, or the groups of four digits, before the first `*` as a prefix."""
    plain = _MAPPED.sub("", text, count=1)
    if found := _V4_WILDCARD.fullmatch(plain):
        fixed = found[1].count(".")
        if text.count(".") < 4:
            return _masked(found[1] + ".".join("0" * (4 - fixed)), str(8 * fixed))
    if found := _V6_WILDCARD.fullmatch(text):
        return _masked(f"{found[1]}:", str(16 * found[1].count(":")))
    raise _RefusedError("a wildcard stands for the last parts of an address, such as 203.0.113.* or 2001:db8:*")


def _unmapped_span(version: int, first: int, last: int) -> _Span:
    if version == 6 and first >= MAPPED_FIRST and last <= MAPPED_LAST:
        return _Span(4, first - MAPPED_FIRST, last - MAPPED_FIRST)
    return _Span(version, first, last)


def _merged(spans: Iterable[_Span]) -> list[_Span]:
    """Sort, and join what overlaps or touches."""
    merged: list[_Span] = []
    for span in sorted(spans):
        if merged and span.first <= merged[-1].last + 1:
            merged[-1] = _Span(span.version, merged[-1].first, max(merged[-1].last, span.last))
        else:
            merged.append(span)
    return merged


def _bare(text: str) -> str | None:
    """Leave the address alone, without brackets, port and zone; None when they are malformed."""
    if found := _BRACKETED.fullmatch(text):
        text = found[1]
        if ":" not in text or not _is_port(found[2]):
            return None
    elif found := _V4_WITH_PORT.fullmatch(text):
        return found[1] if _is_port(found[2]) else None
    host, percent, zone = text.partition("%")
    if percent and (":" not in host or not _ZONE.fullmatch(zone)):
        return None
    return host


def _is_port(text: str | None) -> bool:
    return text is None or int(text) <= 0xFFFF


def _literal(text: str) -> tuple[int, int] | None:
    """Give version and packed value of a bare address, IPv4-mapped IPv6 left as it is."""
    try:
        return (6, int(IPv6Address(text))) if ":" in text else (4, int(IPv4Address(text)))
    except AddressValueError:
        return None


def _literal_or_refuse(text: str) -> tuple[int, int]:
    found = None if "%" in text else _literal(text)
    if found is None:
        raise _RefusedError("not an address, CIDR, address with netmask, dash range or trailing wildcard")
    return found


def _literal_text(version: int, packed: int) -> str:
    return str(IPv4Address(packed) if version == 4 else IPv6Address(packed))


def _unmapped(version: int, packed: int) -> tuple[int, int]:
    if version == 6 and MAPPED_FIRST <= packed <= MAPPED_LAST:
        return 4, packed - MAPPED_FIRST
    return version, packed


@lru_cache(maxsize=REMEMBERED)
def _address(text: str) -> Address | None:
    if found := _V4.fullmatch(text):
        first, second, third, last = map(int, found.groups())
        return Address(text=text, version=4, packed=first << 24 | second << 16 | third << 8 | last)
    bare = _bare(text.strip(" \t"))
    literal = None if bare is None else _literal(bare)
    if literal is None:
        return None
    version, packed = _unmapped(*literal)
    return Address(text=_literal_text(version, packed), version=version, packed=packed)
