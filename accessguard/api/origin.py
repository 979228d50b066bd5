"""Where a request comes from, when proxies stand between."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from accessguard.rules.networks import Address, Networks, address

# The `for` of one hop (RFC 7239, section 4): a token, which proxies also write with an unquoted port, or in quotes.
_FOR: Final = re.compile(r'\s*for=(?:"([^"\\]*)"|([^\s"]+))\s*', re.ASCII | re.IGNORECASE)
_OTHER: Final = re.compile(
    r'\s*(?!for=)[\w!#$%&\'*+.^`|~-]+=(?:"(?:[^"\\]|\\.)*"|[^\s"]+)\s*', re.ASCII | re.IGNORECASE
)

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
    nearest = address(peer)
    behind_proxy = nearest in trusted if nearest is not None else trust_unix and not peer
    if not behind_proxy:
        return nearest
    chains = [_forwarded_for_hops(forwarded_for), _forwarded_hops(forwarded)]
    lines = [forwarded_for, forwarded]
    found = [_furthest(hops, trusted) for hops, given in zip(chains, lines, strict=True) if any(map(str.strip, given))]
    if not found:
        return nearest
    return found[0] if found[0] == found[-1] else None


def _furthest(hops: Iterable[Address | None], trusted: Networks) -> Address | None:
    """Walk away from the service until a hop is not trusted, or not an address."""
    furthest = None
    for furthest in hops:
        if furthest is None or furthest not in trusted:
            break
    return furthest


def _from_the_right(lines: Sequence[str]) -> Iterator[str]:
    for line in reversed(lines):
        if line.strip():
            yield from reversed(line.split(","))


def _forwarded_for_hops(lines: Sequence[str]) -> Iterator[Address | None]:
    return (address(hop) for hop in _from_the_right(lines))


def _forwarded_hops(lines: Sequence[str]) -> Iterator[Address | None]:
    """Read hops as RFC 7239 writes them.

    A comma always ends a hop, even in quotes: no address holds one, and a
    client that opens a quote must not swallow what the proxy adds.
    """
    return (_node(hop) for hop in _from_the_right(lines))


def _node(hop: str) -> Address | None:
    """Read the `for` of one hop; None unless there is exactly one and it is an address, IPv6 in brackets."""
    pairs = hop.split(";")
    found = [match for pair in pairs if (match := _FOR.fullmatch(pair))]
    well_formed = all(_FOR.fullmatch(pair) or _OTHER.fullmatch(pair) for pair in pairs if pair.strip())
    if len(found) != 1 or not well_formed:
        return None
    node = _HIDDEN_PORT.sub("", found[0][1] or found[0][2] or "")
    return None if node.count(":") > 1 and not node.startswith("[") else address(node)
