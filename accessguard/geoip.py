"""`accessguard geoip check`: which geo files are in use, how old they are, and what they know of an address."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import structlog
from rich.console import Console
from rich.table import Table

from accessguard.config import ConfigError
from accessguard.geo import FileState, Geo, Where
from accessguard.rules.networks import Address, address

DAY_S: Final = 86_400
ERROR: Final = 40
NOTHING: Final = (
    "No geo files are configured: rules on places refuse nobody, and answers say that they are degraded.\n"
    "Name files under [geo] in the configuration; docs/places.md tells where to get them."
)


def run(paths: Sequence[str], hosts: Sequence[str], *, now_s: float) -> bool:
    """Print what is loaded, and the places of `hosts`; whether every configured file is there, sound and young.

    `now_s` is the time in seconds since the epoch. Raises ConfigError for a host that is no address.
    """
    asked = [_asked(host) for host in hosts]
    console = Console(highlight=False)
    if not paths:
        console.print(NOTHING, markup=False)
        return True
    # The table says what the log would.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(ERROR))
    geo = Geo(paths, now_s=lambda: now_s)
    console.print(_files(geo, now_s))
    if asked:
        console.print(_places(geo, asked))
    return geo.state is FileState.LOADED


def _asked(text: str) -> Address:
    found = address(text)
    if found is None:
        raise ConfigError(f"`{text}` is no address.")
    return found


def _files(geo: Geo, now_s: float) -> Table:
    table = Table("File", "State", "Type", "Built (UTC)", "Age", "IP", "Nodes", "Languages", title="Geo files")
    for file in geo.files:
        about, state = file.about, file.standing(now_s)
        if about is None:
            table.add_row(str(file.path), state)
            continue
        built = datetime.fromtimestamp(about.built_at_s, UTC)
        table.add_row(
            str(file.path),
            state,
            about.kind,
            f"{built:%Y-%m-%d %H:%M}",
            f"{file.age_s(now_s) / DAY_S:.0f} days",
            "4 and 6" if about.ip_version == 6 else "4",
            f"{about.nodes:,}",
            ", ".join(about.languages) or "-",
        )
    return table


def _places(geo: Geo, asked: Sequence[Address]) -> Table:
    table = Table("Address", "Country", "City", "Position", "Time zone", "ASN", "Operator", title="Places")
    for host in asked:
        table.add_row(host.text, *(cell or "-" for cell in _cells(geo.where(host))))
    return table


def _cells(where: Where) -> Sequence[str | None]:
    place = where.place
    position = None if place.latitude is None else f"{place.latitude:.2f}, {place.longitude:.2f}"
    asn = None if place.asn is None else f"AS{place.asn}"
    return (place.country, place.city, position, where.time_zone, asn, where.operator)
