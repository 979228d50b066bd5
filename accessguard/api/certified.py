"""Callers that show a certificate to the proxy in front (mutual TLS), which says in a header whose it was."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from aiohttp import web

from accessguard.api.keys import Caller
from accessguard.errors import ErrorCode, GuardError
from accessguard.rules.networks import Networks, address


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """Who is who, by the very text of `header`, from peers in `networks` alone.

    Whoever can send from there is every caller: the proxy takes the header
    out of what it was sent, and writes it only for a certificate that it has
    verified.
    """

    header: str
    networks: Networks
    callers: Mapping[str, Caller]

    def caller(self, request: web.BaseRequest) -> Caller | None:
        """Whose certificate the proxy names; None where it names none.

        Raises GuardError(UNAUTHENTICATED) for a name that is nobody's, and
        for a header that comes from elsewhere or more than once.
        """
        said = request.headers.getall(self.header, [])
        if not said:
            return None
        peer = None if request.remote is None else address(request.remote)
        found = self.callers.get(said[0]) if len(said) == 1 else None
        if found is None or peer is None or peer not in self.networks:
            raise GuardError(ErrorCode.UNAUTHENTICATED, "The certificate is none of a caller's.")
        return found
