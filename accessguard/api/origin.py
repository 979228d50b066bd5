"""Where a request comes from, when proxies stand between."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, TypeAlias

from accessguard.rules.networks import Address, Networks, address

# The `for` of one hop (RFC 7239, section 4): a token, which proxies also write with an unquoted port, or in quotes.
_FOR: Final = re.compile(r'\s*for=(?:"([^"\\]*)"|([^\s"]+))\s*', re.ASCII | re.IGNORECASE)
_OTHER: Final = re.compile(
    r'\s*(?!for=)[\w!#$%&\'*+.^`|~-]+=(?:"(?:[^"\\]|\\.)*"|[^\s"]+)\s*', re.ASCII | re.IGNORECASE
)

# Chains come back with the next request of the same client: those of a usual length, about 3 MB when full.
REMEMBERED: Final = 4096
SHORT: Final = 256

Lines: TypeAlias = tuple[str, ...]
"""A header's lines, in the order in which they came."""

# A port that its proxy keeps to itself (RFC 7239, section 6.3).
_HIDDEN_PORT: Final = re.compile(r":_[\w.-]+\Z", re.ASCII)


def client_address(
    peer: str | None,
    forwarded_for: Sequence[str],
    forwarded: Sequence[str],
    trusted: Networks,
    *,
    trust_unix: bool = False,
) -> Address | None:
    """Tell which host a request comes from; None means unknown.

    `peer` is the socket's other end, None or empty for a Unix socket, which is
    a proxy to be trusted only when `trust_unix` says so. What a trusted peer
    forwards (`X-Forwarded-For` and `Forwarded`, each as its lines in order) is
    read from right to left over the trusted networks, up to the first address
    outside them; if there is none, the leftmost. A hop that is no address on
    the way there makes the client unknown, and so do two headers that
    disagree: one of them is the client's own. Headers of other peers are not
    looked at.
    """
    listed, standard = tuple(forwarded_for), tuple(forwarded)
    short = sum(map(len, listed)) + sum(map(len, standard)) <= SHORT
    resolve = _remembered if short else _resolved
    return resolve(peer, listed, standard, trusted, trust_unix=trust_unix)


def _resolved(
    peer: str | None, forwarded_for: Lines, forwarded: Lines, trusted: Networks, *, trust_unix: bool
) -> Address | None:
    nearest = address(peer)
    behind_proxy = nearest in trusted if nearest is not None else trust_unix and not peer
    if not behind_proxy:
        return nearest
    found = [
        _furthest(lines, read, trusted)
        for lines, read in ((forwarded_for, address), (forwarded, _node))
        if any(map(str.strip, lines))
    ]
    if not found:
        return nearest
    return found[0] if found[0] == found[-1] else None


_remembered: Final = lru_cache(maxsize=REMEMBERED)(_resolved)


def _furthest(lines: Lines, read: Callable[[str], Address | None], trusted: Networks) -> Address | None:
    """Walk away from the service until a hop is not trusted, or not an address.

    A comma always ends a hop, even in the quotes of RFC 7239: no address holds
    one, and a client that opens a quote must not swallow what the proxy adds.
    """
    furthest = None
    for line in reversed(lines):
        rest, more = line, line.strip()
        while more:
            rest, more, hop = rest.rpartition(",")
            furthest = read(hop)
            if furthest is None or furthest not in trusted:
                return furthest
    return furthest


def _node(hop: str) -> Address | None:
    """Read the `for` of one hop; None unless there is exactly one and it is an address, IPv6 in brackets."""
    pairs = hop.split(";")
    found = [match for pair in pairs if (match := _FOR.fullmatch(pair))]
    well_formed = all(_FOR.fullmatch(pair) or _OTHER.fullmatch(pair) for pair in pairs if pair.strip())
    if len(found) != 1 or not well_formed:
        return None
    node = _HIDDEN_PORT.sub("", found[0][1] or found[0][2] or "")
    return None if node.count(":") > 1 and not node.startswith("[") else address(node)
