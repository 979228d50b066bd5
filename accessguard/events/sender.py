"""One message to one receiver: signed, bounded, and to nobody inside our own walls.

As Standard Webhooks 1.0, or as a security event token that is pushed (RFC 8935).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import aiohttp
import msgspec
from standardwebhooks.webhooks import Webhook as Signer

from accessguard.events.caep import COUNTERPARTS, Address, claims
from accessguard.events.keys import HookKeys
from accessguard.events.webhooks import Outcome, Parcel, WebhookFormat

TIMEOUT_S: Final = 10.0
MOST_CONNECTIONS: Final = 64
AGENT: Final = "AccessGuard"

# Ways to an IPv4 address through IPv6, where what is inside is not looked at: NAT64, 6to4, Teredo, compatible and translated
# ones (RFC 6052, 3056, 4380, 4291, 7915); and the site's own, which are given up and may still be in use (RFC 3879).
TUNNELS: Final = tuple(
    ipaddress.ip_network(each)
    for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96", "::ffff:0:0:0/96", "fec0::/10")
)

BAD_REQUEST: Final = 400
MOST_ERROR_BYTES: Final = 4096
MOST_ERROR_CHARS: Final = 200
RECOVERABLE: Final = frozenset({"invalid_key", "authentication_failed"})
"""What a receiver of tokens may answer and take the same token later, once it knows the key; no other is sent again (RFC 8935, 2.1 and 2.4)."""

Net = ipaddress.IPv4Network | ipaddress.IPv6Network
Letter: TypeAlias = tuple[bytes, Mapping[str, str]]


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a receiver does not take a token (RFC 8935, section 2.3)."""

    err: str
    description: str = ""


class PrivateError(OSError):
    """The receiver's name leads to an address that nobody may be sent to."""


class Sender:
    """Sends messages; `allow` are networks of our own that may be receivers all the same.

    Tokens are signed by `keys` and say `issuer`; without these there are none.
    """

    def __init__(self, allow: Sequence[str] = (), *, keys: HookKeys | None = None, issuer: str | None = None) -> None:
        self._keys, self._issuer = keys, issuer
        self._allow = tuple(ipaddress.ip_network(each) for each in allow)
        self._http: aiohttp.ClientSession | None = None
        self.timeout_s = TIMEOUT_S

    @property
    def inside(self) -> bool:
        """Whether there are such networks, in which receivers without TLS may be."""
        return bool(self._allow)

    async def send(self, parcel: Parcel, now: datetime) -> Outcome:
        """Send it once and tell what was answered; a redirect is not followed.

        Of the answer's body no more is read than why a token was refused.
        """
        if parcel.format is WebhookFormat.CAEP and parcel.kind not in COUNTERPARTS:
            return Outcome(status=None, error="there is no token for it", final=True)
        try:
            body, headers = self._letter(parcel, now)
        except ValueError as error:
            return Outcome(status=None, error=f"it cannot be signed: {error}")
        try:
            async with self._client().post(
                parcel.url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self.timeout_s),
            ) as answer:
                if parcel.format is WebhookFormat.CAEP and answer.status == BAD_REQUEST:
                    return _refused(await _beginning(answer), parcel.secret)
                return Outcome(status=answer.status, error=None)
        except TimeoutError:
            return Outcome(status=None, error="no answer in time")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(status=None, error=_why(error))

    def _letter(self, parcel: Parcel, now: datetime) -> Letter:
        """What is sent, and under which headers. Raises ValueError where it cannot be signed."""
        if parcel.format is WebhookFormat.STANDARD:
            return _standard(parcel, now)
        if self._keys is None or self._issuer is None:
            raise ValueError("server.public_url is not set")
        audience = parcel.audience or parcel.url
        address = Address(issuer=self._issuer, audience=audience, id=str(parcel.id), at=parcel.created_at)
        headers = {"Content-Type": "application/secevent+jwt", "Accept": "application/json", "User-Agent": AGENT}
        token = self._keys.sign(claims(parcel.payload, address))
        return token.encode(), headers | {"Authorization": f"Bearer {parcel.secret}"}

    async def close(self) -> None:
        """Close what is open; what is sent after that opens it anew."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

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


def _standard(parcel: Parcel, now: datetime) -> Letter:
    sent = str(parcel.id)
    return parcel.payload.encode(), {
        "Content-Type": "application/json",
        "User-Agent": AGENT,
        "webhook-id": sent,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Signer(parcel.secret).sign(sent, now.astimezone(UTC), parcel.payload),
    }


async def _beginning(answer: aiohttp.ClientResponse) -> bytes:
    """The first bytes of a body."""
    read = b""
    async for part in answer.content.iter_chunked(MOST_ERROR_BYTES):
        read += part
        if len(read) >= MOST_ERROR_BYTES:
            break
    return read


def _refused(body: bytes, secret: str) -> Outcome:
    """What a receiver says of a token, but for the secret that came with it.

    The same as any other failure where it does not say it as the standard wants, in JSON that is nested too deep included.
    """
    try:
        said = msgspec.json.decode(body, type=Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Outcome(status=BAD_REQUEST, error=None)
    text = ": ".join(filter(None, (said.err, said.description))).replace(secret, "[secret]")
    shown = "".join(each for each in text if each.isprintable())[:MOST_ERROR_CHARS]
    return Outcome(status=BAD_REQUEST, error=shown, final=said.err not in RECOVERABLE)


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
