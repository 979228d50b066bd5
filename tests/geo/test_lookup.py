"""Places of addresses: what is known, what is not, and files that change, lack or are damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from accessguard.geo import FileState, Geo
from accessguard.metrics import REGISTRY
from accessguard.rules.model import Place
from tests.build import host
from tests.mmdb import city, mmdb
from tests.service import Service

MILAN = city("IT", "Milan", 45.46, 9.19, region="Lombardy")
LISBON = city("PT", "Lisbon", 38.72, -9.14)
V4 = "203.0.113.0/24"
DAY_S = 86_400
NOW_S = 1_790_000_000 + DAY_S
"""A day after the files were built, where nothing else is said."""


def written(path: Path, content: bytes) -> Path:
    """A file that takes the place of the one before in one step, as an updater does."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A city file that knows one network of each version."""
    return written(tmp_path / "city.mmdb", mmdb({V4: MILAN, "2001:db8::/32": LISBON}))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(
            "203.0.113.9", Place(country="IT", city="Milan, Lombardy", latitude=45.46, longitude=9.19), id="IPv4"
        ),
        pytest.param("2001:db8:1::9", Place(country="PT", city="Lisbon", latitude=38.72, longitude=-9.14), id="IPv6"),
        pytest.param("::ffff:203.0.113.9", Place(country="IT", city="Milan, Lombardy", latitude=45.46, longitude=9.19), id="mapped"),
        pytest.param("198.51.100.1", Place(), id="not in the file"),
        pytest.param("2001:db9::1", Place(), id="not in the file, IPv6"),
    ],
)  # fmt: skip
def test_an_address_has_the_place_of_its_network(path, text, found):
    """What the file says; where it says nothing, every field is unknown."""
    assert Geo([path]).lookup(host(text)) == found


def test_without_files_every_place_is_unknown():
    """Nothing configured is no fault."""
    geo = Geo([])

    assert (geo.lookup(host("203.0.113.9")), geo.lookup(None), geo.state) == (Place(), Place(), None)


def test_several_files_complete_each_other(tmp_path, path):
    """For each field the first file that knows it."""
    asn = written(tmp_path / "asn.mmdb", mmdb({V4: {"autonomous_system_number": 64500}}, version=4))
    other = written(tmp_path / "other.mmdb", mmdb({V4: LISBON, "198.51.100.0/24": LISBON}))

    geo = Geo([asn, path, other])

    known = geo.lookup(host("203.0.113.9"))
    assert (known.asn, known.country, known.city) == (64500, "IT", "Milan, Lombardy")
    assert geo.lookup(host("198.51.100.1")).country == "PT"
    assert geo.lookup(host("2001:db8::1")).country == "PT"


async def test_a_file_that_changed_is_taken_up(path):
    """Without a restart; what was looked up before is looked up again."""
    geo = Geo([path])
    before = geo.lookup(host("203.0.113.9"))
    written(path, mmdb({V4: LISBON}))

    stale = geo.lookup(host("203.0.113.9"))
    await geo.refresh()

    assert (before, stale, geo.lookup(host("203.0.113.9")).country) == (stale, before, "PT")


async def test_a_file_that_did_not_change_is_left_alone(path):
    """Looking every few seconds costs a stat, and keeps what is remembered."""
    geo = Geo([path])
    readers = [file.reader for file in geo.files]

    await geo.refresh()

    assert [file.reader for file in geo.files] == readers


@pytest.mark.parametrize(
    ("spoil", "state"),
    [
        pytest.param(lambda path: written(path, b""), FileState.DAMAGED, id="empty"),
        pytest.param(lambda path: written(path, b"no such format" * 1000), FileState.DAMAGED, id="something else"),
        pytest.param(lambda path: written(path, path.read_bytes()[:-40]), FileState.DAMAGED, id="cut"),
        pytest.param(lambda path: path.unlink(), FileState.MISSING, id="gone"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), FileState.DAMAGED, id="a folder"),
    ],
)
async def test_a_bad_file_leaves_the_last_good_one_in_use(path, spoil, state):
    """It is said, and no lookup fails; a good one is taken up again."""
    geo = Geo([path], now_s=lambda: NOW_S)
    good = path.read_bytes()
    spoil(path)

    await geo.refresh()
    during = (geo.files[0].state, geo.state, geo.lookup(host("203.0.113.9")).country)
    if path.is_dir():
        path.rmdir()
    written(path, good)
    await geo.refresh()

    assert during == (state, state, "IT")
    assert (geo.files[0].state, geo.state) == (FileState.LOADED, FileState.LOADED)


async def test_a_file_may_come_later(tmp_path):
    """The service starts without it, and says so."""
    geo = Geo([tmp_path / "later.mmdb"], now_s=lambda: NOW_S)
    before = (geo.files[0].state, geo.state, geo.lookup(host("203.0.113.9")))
    written(tmp_path / "later.mmdb", mmdb({V4: MILAN}))

    await geo.refresh()

    assert before == (FileState.MISSING, FileState.MISSING, Place())
    assert (geo.state, geo.lookup(host("203.0.113.9")).country) == (FileState.LOADED, "IT")


@pytest.mark.parametrize("damaged", range(8))
def test_no_damage_inside_a_file_reaches_a_caller(tmp_path, damaged):
    """Bits that changed give another place or none, whatever they hit."""
    content = bytearray(mmdb({V4: MILAN, "198.51.100.0/24": LISBON}))
    for place_of in range(damaged, content.index(b"\xab\xcd\xefMaxMind.com"), 8):
        content[place_of] ^= 0xFF

    geo = Geo([written(tmp_path / "bits.mmdb", bytes(content))])

    assert isinstance(geo.lookup(host("203.0.113.9")), Place)


def test_a_file_that_is_replaced_in_place_with_the_same_time_is_noticed(path):
    """Size and inode count as well."""
    geo = Geo([path])
    stat = path.stat()
    written(path, mmdb({V4: LISBON}))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    again = Geo([path])

    assert geo.files[0].mark != again.files[0].mark


async def said(service: Service, geo: Geo) -> tuple[int, str | None]:
    """What /readyz says of these files."""
    ready = service.context.ready
    before, ready._geo = ready._geo, geo
    try:
        async with service.http.get(f"{service.url}/readyz") as response:
            return response.status, (await response.json())["parts"].get("geo")
    finally:
        ready._geo = before


def built(path: Path, *, days_ago: float) -> Path:
    """A file that was built so many days before NOW."""
    return written(path, mmdb({V4: MILAN}, built_at_s=int(NOW_S - days_ago * DAY_S)))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        pytest.param(lambda path: None, "missing", id="not there"),
        pytest.param(lambda path: written(path, b"no such format" * 100), "damaged", id="something else"),
        pytest.param(lambda path: built(path, days_ago=60.1), "old", id="older than 60 days"),
        pytest.param(lambda path: built(path, days_ago=59.9), "up", id="not quite 60 days old"),
        pytest.param(lambda path: built(path, days_ago=-3), "up", id="built tomorrow, by a clock that is wrong"),
    ],
)
async def test_readiness_says_how_the_worst_file_stands_and_serves(service: Service, tmp_path, content, word):
    """A fault of a geo file makes nobody unready."""
    content(tmp_path / "tried.mmdb")
    good = built(tmp_path / "good.mmdb", days_ago=1)

    status, found = await said(service, Geo([good, tmp_path / "tried.mmdb"], now_s=lambda: NOW_S))

    assert (status, found) == (200, word)


async def test_readiness_says_nothing_of_files_that_nobody_configured(service: Service):
    """Places are a choice."""
    assert await said(service, Geo([])) == (200, None)


def test_metrics_count_the_files_by_state_and_say_the_age_of_the_oldest(tmp_path, path):
    """By its own date of build; every state is there, at zero too."""
    built(tmp_path / "old.mmdb", days_ago=61)
    geo = Geo([built(path, days_ago=1), tmp_path / "old.mmdb", tmp_path / "none.mmdb"])

    geo.measure(NOW_S)

    counted = {state: REGISTRY.get_sample_value("accessguard_geo_files", {"state": state}) for state in FileState}
    assert counted == {FileState.LOADED: 1, FileState.OLD: 1, FileState.DAMAGED: 0, FileState.MISSING: 1}
    assert REGISTRY.get_sample_value("accessguard_geo_age_seconds") == 61 * DAY_S


async def test_a_file_that_comes_to_stand_worse_is_logged_once(path):
    """By its place in the configuration, never by its path; a file that is good again says nothing."""
    now = [NOW_S]
    with capture_logs() as logs:
        geo = Geo([built(path, days_ago=59)], now_s=lambda: now[0])
        for days in (0, 2, 3):
            now[0] = NOW_S + days * DAY_S
            await geo.refresh()
        path.unlink()
        await geo.refresh()
        await geo.refresh()
        built(path, days_ago=-3)
        await geo.refresh()

    assert [(each["event"], each["state"], each["file"]) for each in logs] == [
        ("geo_file_old", "old", 1),
        ("geo_file_unusable", "missing", 1),
    ]


async def test_other_contents_are_told_once_they_are_in_use(path):
    """Whoever holds what came of the old ones can part with it."""
    told: list[str | None] = []
    geo = Geo([path], on_change=lambda: told.append(geo.lookup(host("203.0.113.9")).country))
    first = list(told)
    written(path, mmdb({V4: LISBON}))
    await geo.refresh()
    await geo.refresh()

    assert (first, told) == ([], ["PT"])
