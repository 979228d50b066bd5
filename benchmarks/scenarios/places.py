"""What it costs to place an address and to find the client's in a forwarded chain, in process, beside a parse of a user agent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import geoip2.database
import user_agents

from accessguard.api.origin import client_address
from accessguard.geo import Geo
from accessguard.rules.networks import address, networks
from benchmarks.bench import Bench
from benchmarks.model import BenchError, Figure, ratios, spread
from tests.mmdb import city, mmdb

NAME = "places"
ROUNDS = 5
TIMES = 1_000
PARSED = 40
UNSEEN_FLOOR = 15
SEEN_FLOOR = 300
LANGUAGES = ("de", "en", "es", "fr", "ja", "pt-BR", "ru", "zh-CN")
TRUSTED = networks(["10.0.0.0/8", "192.168.0.0/16"])
PARSE = "user_agents.parse of an unseen string"

Asked = TypeVar("Asked")


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Time each round anew: unseen addresses come back in no round, so that nothing remembers them."""
    geo, reader = _files(bench.folder)
    hosts, agents = _hosts(), _agents()
    took: dict[str, list[float]] = {}

    def measure(what: str, work: Callable[[Asked], object], asked: Iterable[Asked]) -> None:
        took.setdefault(what, []).append(_us(work, list(asked)))

    for _ in range(ROUNDS):
        unseen = [next(hosts) for _ in range(TIMES)]
        read = [each for host in unseen if (each := address(host)) is not None]
        if geo.lookup(read[0]).city is None:
            raise BenchError("the address is not in the file")
        measure(PARSE, user_agents.parse, (next(agents) for _ in range(PARSED)))
        measure("geoip2's city() of an unseen address", reader.city, unseen)
        measure("geo lookup, unseen", geo.lookup, read[1:])
        measure("geo lookup, remembered", geo.lookup, read)
        chains = [f"198.51.100.7, {next(hosts)}, 10.0.0.2, 192.168.0.3" for _ in range(TIMES)]
        measure("client address behind two trusted proxies, unseen", _client, chains)
        measure("client address behind two trusted proxies, seen", _client, chains)
    return tuple(figure for what, us in took.items() for figure in _figures(what, us, took[PARSE]))


def _client(chain: str) -> object:
    """A chain of three hops after what the client put before: two trusted networks are walked over."""
    return client_address("10.0.0.1", (chain,), (), TRUSTED)


def _figures(what: str, us: list[float], parse: list[float]) -> Iterator[Figure]:
    yield Figure(scenario=NAME, what=what, unit="us", value=spread(us), lower_is_better=True)
    if what == PARSE:
        return
    floor = UNSEEN_FLOOR if "unseen" in what else SEEN_FLOOR
    goal = None if "geoip2" in what else floor
    yield Figure(scenario=NAME, what=f"{PARSE} / {what}", unit="x", value=ratios(parse, us), floor=goal)


def _us(work: Callable[[Asked], object], asked: list[Asked]) -> float:
    began = time.perf_counter()
    for each in asked:
        work(each)
    return (time.perf_counter() - began) / len(asked) * 1e6


def _files(folder: Path) -> tuple[Geo, geoip2.database.Reader]:
    """A city file as large a record as GeoLite2's, and one of operators; geoip2 reads the first alone."""
    cities = {f"{first}.{second}.0.0/16": _record(first, second) for first in range(20, 40) for second in range(100)}
    operators = {
        network: {"autonomous_system_number": 64500 + number % 500, "autonomous_system_organization": "Example Telecom"}
        for number, network in enumerate(cities)
    }
    paths = [folder / "city.mmdb", folder / "asn.mmdb"]
    for path, content, kind in zip(paths, (cities, operators), ("GeoLite2-City", "GeoLite2-ASN"), strict=True):
        path.write_bytes(mmdb(content, kind=kind, built_at_s=int(time.time())))
    return Geo(paths), geoip2.database.Reader(paths[0])


def _record(first: int, second: int) -> dict[str, Any]:
    """Names in eight languages, as the file has them."""
    named = city("IT", f"Town {first}", 45.46, 9.19 + second / 100, region="Lombardy")
    names = {language: f"Name in {language}" for language in LANGUAGES}
    country = {"iso_code": "IT", "geoname_id": 3175395, "names": names}
    return named | {
        "continent": {"code": "EU", "geoname_id": 6255148, "names": names},
        "country": country,
        "registered_country": country,
        "city": {"geoname_id": 3173435, "names": names | {"en": f"Town {first}"}},
        "postal": {"code": "20121"},
    }


def _hosts() -> Iterator[str]:
    """Addresses that the file knows, none twice."""
    number = 0
    while True:
        number += 1
        yield f"{20 + number % 20}.{number // 20 % 100}.{number // 2_000 % 256}.{number // 512_000 + 1}"


def _agents() -> Iterator[str]:
    """User agents of today, none twice."""
    number = 0
    while True:
        number += 1
        yield (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
            f" Chrome/{100 + number % 50}.0.{number}.0 Safari/537.36"
        )
