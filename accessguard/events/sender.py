"""One message to one receiver: signed (Standard Webhooks 1.0), bounded, and to nobody inside our own walls."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
from standardwebhooks.webhooks import Webhook as Signer

from accessguard.events.webhooks import Outcome, Parcel

TIMEOUT_S: Final = 10.0
MOST_CONNECTIONS: Final = 64

# Ways to an IPv4 address through IPv6, where what is inside is not looked at: NAT64, 6to4, Teredo (RFC 6052, 3056, 4380).
TUNNELS: Final = tuple(
    ipaddress.ip_network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)

Net = ipaddress.IPv4Network | ipaddress.IPv6Network


class PrivateError(OSError):
    """The receiver's name leads to an address that nobody may be sent to."""


class Sender:
    """Sends messages; `allow` are networks of our own that may be receivers all the same."""

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self._allow = tuple(ipaddress.ip_network(each) for each in allow)
        self._http: aiohttp.ClientSession | None = None
        self.timeout_s = TIMEOUT_S

    @property
    def inside(self) -> bool:
        """Whether there are such networks, in which receivers without TLS may be."""
        return bool(self._allow)

    async def send(self, parcel: Parcel, now: datetime) -> Outcome:
        """Send it once and tell what was answered; the body of the answer is not read, a redirect not followed."""
        text = parcel.payload
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "AccessGuard",
            "webhook-id": str(parcel.id),
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Signer(parcel.secret).sign(str(parcel.id), now.astimezone(UTC), text),
        }
        try:
            async with self._client().post(
                parcel.url,
                data=text.encode(),
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self.timeout_s),
            ) as answer:
                return Outcome(status=answer.status, error=None)
        except TimeoutError:
            return Outcome(status=None, error="no answer in time")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(status=None, error=_why(error))

    async def close(self) -> None:
        """Close what is open."""
        if self._http is not None:
            await self._http.close()

    def _client(self) -> aiohttp.ClientSession:
        """Made at the first message, on the loop that sends; nothing is kept from one receiver to the next."""
        if self._http is None:
            connector = aiohttp.TCPConnector(
                limit=MOST_CONNECTIONS, force_close=True, use_dns_cache=False, socket_factory=self._socket
            )
            self._http = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
            )
        return self._http

    def _socket(self, found: Any) -> socket.socket:
        """A socket to this very address, so that a name cannot lead elsewhere between a look and the call. Raises PrivateError."""
        family, kind, protocol, _, place = found
        if not self.may(place[0]):
            raise PrivateError("the address is private")
        return socket.socket(family=family, type=kind, proto=protocol)

    def may(self, host: str) -> bool:
        """Whether a receiver may be at this address."""
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in each for each in self._allow):
            return True
        return address.is_global and not address.is_multicast and not any(address in each for each in TUNNELS)


def _why(error: BaseException) -> str:
    """What went wrong, in words that tell nothing of our own network."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, PrivateError):
            return "the address is private"
        seen = seen.__cause__ or getattr(seen, "os_error", None)
    if isinstance(error, aiohttp.ClientSSLError):
        return "the certificate was refused"
    return "no connection" if isinstance(error, (aiohttp.ClientConnectionError, OSError)) else "no HTTP answer"
