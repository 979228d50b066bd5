"""A small writer of MaxMind DB files, by the published format (MaxMind DB File Format Specification, version 2.0)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any

METADATA_MARK = b"\xab\xcd\xefMaxMind.com"
RECORD_BITS = 24


def mmdb(
    networks: Mapping[str, Any], *, built_at_s: int = 1_790_000_000, kind: str = "Test", version: int = 6
) -> bytes:
    """A file that knows these networks (CIDR to record); a later one wins over an earlier one inside which it lies.

    `version` 6 holds both, IPv4 in ::/96; 4 holds IPv4 alone.
    """
    data, places = b"", {}
    for text, record in networks.items():
        places[text] = len(data)
        data += _value(record)
    nodes: list[list[int | None]] = [[None, None]]
    leaves: dict[tuple[int, int], int] = {}
    for text in networks:
        _insert(nodes, leaves, _bits(text, version), places[text])
    tree = b"".join(_node(nodes, leaves, number) for number in range(len(nodes)))
    metadata = {
        "binary_format_major_version": _Sized(2, 2, 5),
        "binary_format_minor_version": _Sized(0, 2, 5),
        "build_epoch": _Sized(built_at_s, 8, 9),
        "database_type": kind,
        "description": {"en": kind},
        "ip_version": _Sized(version, 2, 5),
        "languages": ["en"],
        "node_count": _Sized(len(nodes), 4, 6),
        "record_size": _Sized(RECORD_BITS, 2, 5),
    }
    return tree + bytes(16) + data + METADATA_MARK + _value(metadata)


def city(
    country: str,
    name: str,
    latitude: float,
    longitude: float,
    *,
    region: str | None = None,
    time_zone: str = "Europe/Rome",
) -> dict[str, Any]:
    """A record as a city file has it."""
    found: dict[str, Any] = {
        "country": {"iso_code": country, "names": {"en": country}},
        "city": {"names": {"en": name, "ru": "?"}},
        "location": {"latitude": latitude, "longitude": longitude, "time_zone": time_zone},
    }
    return found | ({"subdivisions": [{"names": {"en": region}}]} if region else {})


class _Sized:
    """An unsigned integer of a type of its own."""

    def __init__(self, number: int, size: int, kind: int) -> None:
        self.encoded = _control(kind, size) + number.to_bytes(size, "big")


def _bits(text: str, version: int) -> list[int]:
    network = ip_network(text)
    packed, length = int(network.network_address), network.prefixlen
    if network.version == 4 and version == 6:
        length += 96
    width = 128 if version == 6 else 32
    return [packed >> (width - 1 - place) & 1 for place in range(length)]


def _insert(nodes: list[list[int | None]], leaves: dict[tuple[int, int], int], bits: Sequence[int], place: int) -> None:
    node = 0
    for bit in bits[:-1]:
        inherited = leaves.pop((node, bit), None)
        if nodes[node][bit] is None:
            nodes.append([None, None])
            nodes[node][bit] = len(nodes) - 1
            if inherited is not None:
                leaves[len(nodes) - 1, 0] = leaves[len(nodes) - 1, 1] = inherited
        node = nodes[node][bit] or 0
    leaves[node, bits[-1]] = place


def _node(nodes: list[list[int | None]], leaves: Mapping[tuple[int, int], int], number: int) -> bytes:
    record = b""
    for bit in (0, 1):
        below = nodes[number][bit]
        value = len(nodes) if below is None else below
        if (number, bit) in leaves:
            value = len(nodes) + 16 + leaves[number, bit]
        record += value.to_bytes(RECORD_BITS // 8, "big")
    return record


def _control(kind: int, size: int) -> bytes:
    """The control byte: type in three bits (0: extended, in a byte of its own), size in five and what follows."""
    if size < 29:
        low, more = size, b""
    elif size < 29 + 256:
        low, more = 29, bytes([size - 29])
    else:
        low, more = 30, (size - 285).to_bytes(2, "big")
    return bytes([kind << 5 | low]) + more if kind <= 7 else bytes([low, kind - 7]) + more


def _value(value: Any) -> bytes:
    match value:
        case _Sized():
            return value.encoded
        case str():
            return _control(2, len(value.encode())) + value.encode()
        case float():
            return _control(3, 8) + struct.pack(">d", value)
        case int():
            return _Sized(value, 4, 6).encoded
        case dict():
            return _control(7, len(value)) + b"".join(_value(key) + _value(each) for key, each in value.items())
        case _:
            return _control(11, len(value)) + b"".join(_value(each) for each in value)
